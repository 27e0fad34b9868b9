//! Examples of data and of watching a run, as a user runs them.

use std::fs;

use serde_json::Value;

use crate::examples::{DATA, json, number, path};
use crate::shipped_model::folder;

#[test]
fn a_dataset_is_cleaned_and_the_report_says_why() {
    let out = tempfile::tempdir().expect("temporary folder");
    let (clean, report) = (out.path().join("clean.jsonl"), out.path().join("report.md"));
    let found = json(
        "clean_dataset",
        &["--output", path(&clean), "--report", path(&report)],
    );
    assert_eq!(found["removed"]["duplicates"], 5);
    let near = found["removed"]["near-duplicates"].as_u64().expect("some");
    assert!((3..=8).contains(&near), "{found}");
    let kept = fs::read_to_string(&clean).expect("reads").lines().count() as u64;
    assert_eq!(kept, 50 - 5 - near);
    let report = fs::read_to_string(&report).expect("reads");
    assert!(report.contains("the same words as row 1"), "{report}");
}

#[test]
fn documents_teach_their_domain_and_general_text_is_not_forgotten() {
    let out = tempfile::tempdir().expect("temporary folder");
    let found = json("domain_adaptation", &["--output", path(out.path())]);
    let (before, after) = (
        number(&found, "domain_before"),
        number(&found, "domain_after"),
    );
    assert!(after < 0.5 * before, "{found}");
    assert!(
        number(&found, "general_after") < 1.15 * number(&found, "general_before"),
        "{found}"
    );
    for file in ["chunks.jsonl", "loss.svg", "adapter_model.safetensors"] {
        assert!(out.path().join(file).is_file(), "{file}");
    }

    // Another run does not take the place of this one.
    let log = fs::read(out.path().join("train_log.jsonl")).expect("reads");
    let refused = crate::examples::run("domain_adaptation", &["--output", path(out.path())]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && error.contains("--overwrite"),
        "{error}"
    );
    let kept = fs::read(out.path().join("train_log.jsonl")).expect("reads");
    assert_eq!(kept, log);
}

#[test]
fn a_run_is_repeated_from_its_manifest_without_a_difference() {
    let out = tempfile::tempdir().expect("temporary folder");
    let (first, second) = (out.path().join("first"), out.path().join("second"));
    let (csv, events) = (out.path().join("first.csv"), out.path().join("events"));
    let csv_option = format!("--csv={}", csv.display());
    let model = folder();
    let arguments = [
        "--model",
        path(&model),
        "--data",
        DATA,
        "--max-steps",
        "4",
        "--batch-size",
        "2",
        "--seq-len",
        "128",
        "--schedule",
        "cosine_with_min_lr:0.1",
        "--optim",
        "lion",
        "--lr",
        "1e-4",
        "--neftune-alpha",
        "5",
        "--label-smoothing",
        "0.1",
        "--eval-every",
        "2",
        "--load-best",
        &csv_option,
        "--tensorboard",
        path(&events),
        "--output",
        path(&first),
    ];
    let run = json("sft", &arguments);
    let numbers = fs::read(&csv).expect("reads");
    let manifest = first.join("manifest.json");
    let again = [
        "--from-manifest",
        path(&manifest),
        "--output",
        path(&second),
    ];
    let repeated = json("sft", &again);
    assert_eq!(repeated["differences"], Value::Array(Vec::new()));
    assert_eq!(repeated["train_losses"], run["train_losses"]);
    assert_eq!(run["differences"], Value::Null);
    // The numbers of the first run are still its own.
    assert_eq!(fs::read(&csv).expect("reads"), numbers);
    assert_eq!(fs::read_dir(&events).expect("reads").count(), 1);

    // A run that is refused leaves the manifest of the run that is there.
    let before = fs::read(&manifest).expect("reads");
    let refused = crate::examples::run("sft", &[&arguments[..], &["--seed", "8"]].concat());
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && error.contains("is a checkpoint of an earlier run"),
        "{error}"
    );
    assert_eq!(fs::read(&manifest).expect("reads"), before);

    // A manifest of a run with another seed shows where it parts.
    let text = fs::read_to_string(&manifest).expect("reads");
    let mut changed: Value = serde_json::from_str(&text).expect("is JSON");
    changed["arguments"]
        .as_array_mut()
        .expect("a list")
        .extend(["--seed".into(), "7".into()]);
    fs::write(&manifest, changed.to_string()).expect("writes");
    let third = out.path().join("third");
    let other = json(
        "sft",
        &["--from-manifest", path(&manifest), "--output", path(&third)],
    );
    let lines: Vec<&str> = other["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("seed: 42 before, 7 now")),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("training loss of step 1:")),
        "{lines:?}"
    );
}

#[test]
fn a_stream_trains_with_trackers_and_bad_rows_are_left_out() {
    let out = tempfile::tempdir().expect("temporary folder");
    let rows = fs::read_to_string(DATA).expect("reads");
    let mut lines: Vec<&str> = rows.lines().take(60).collect();
    lines.insert(0, "{\"messages\": [");
    let data = out.path().join("data");
    fs::create_dir(&data).expect("makes a folder");
    fs::write(data.join("a.jsonl"), lines.join("\n")).expect("writes");
    let held_out = out.path().join("held_out.jsonl");
    let rest: Vec<&str> = rows.lines().skip(60).take(40).collect();
    fs::write(&held_out, rest.join("\n")).expect("writes");
    let general = out.path().join("general.jsonl");
    let rest: Vec<&str> = rows.lines().skip(100).take(20).collect();
    fs::write(&general, rest.join("\n")).expect("writes");
    let (output, events) = (out.path().join("run"), out.path().join("events"));
    let model = folder();
    let arguments = |share, resume| {
        vec![
            "--model",
            path(&model),
            "--data",
            path(&data),
            "--stream",
            "--mix",
            path(&general),
            "--mix-share",
            "0.3",
            "--general-data",
            path(&general),
            "--eval-data",
            path(&held_out),
            "--max-steps",
            "3",
            "--batch-size",
            "2",
            "--seq-len",
            "128",
            "--packing",
            "--max-bad-rows",
            share,
            "--tensorboard",
            path(&events),
            resume,
            "--output",
            path(&output),
        ]
    };
    let found = json("sft", &arguments("0.1", "--overwrite"));
    assert_eq!(number(&found, "steps"), 3.0);
    assert!(
        number(&found, "eval_loss_after") < number(&found, "eval_loss_before"),
        "{found}"
    );
    assert_eq!(fs::read_dir(&events).expect("reads").count(), 1);

    let log = fs::read_to_string(output.join("train_log.jsonl")).expect("reads");
    assert!(log.contains("\"general\""), "{log}");
    let manifest = fs::read_to_string(output.join("manifest.json")).expect("reads");
    let manifest: Value = serde_json::from_str(&manifest).expect("is JSON");
    assert_eq!(
        manifest["files"]["data/a.jsonl"]["bytes"],
        lines.join("\n").len()
    );

    let refusal = |arguments: &[&str]| {
        let refused = crate::examples::run("sft", arguments);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{error}");
        error
    };
    let error = refusal(&arguments("0", "--overwrite"));
    assert!(error.contains("a.jsonl: line 1:"), "{error}");
    // Other rows in the file: the position in it means nothing.
    json("sft", &arguments("0.1", "--overwrite"));
    fs::write(data.join("a.jsonl"), lines[..50].join("\n")).expect("writes");
    let error = refusal(&arguments("0.1", "--resume"));
    assert!(error.contains("build the stream as it was"), "{error}");
}

#[test]
fn tokenizers_are_trained_and_models_gain_tokens() {
    let out = tempfile::tempdir().expect("temporary folder");
    let model = folder();
    for (kind, size) in [("bpe", "600"), ("wordpiece", "500"), ("unigram", "400")] {
        let output = out.path().join(kind);
        let arguments = [
            "--kind",
            kind,
            "--vocab-size",
            size,
            "--model",
            path(&model),
            "--output",
            path(&output),
        ];
        let found = json("train_tokenizer", &arguments);
        assert!(
            number(&found, "vocab_size") <= size.parse::<f64>().expect("a number"),
            "{kind}: {found}"
        );
        let fertility = number(&found, "fertility");
        assert!((1.0..3.0).contains(&fertility), "{kind}: {found}");
        // The model's vocabulary of 3072 tokens is larger, and made for such text.
        assert!(
            number(&found, "fertility_of_model") < fertility,
            "{kind}: {found}"
        );
        let tokenizer = ft::core::Tokenizer::from_pretrained(&output).expect("loads");
        let ids = tokenizer
            .encode("the girl went home", false)
            .expect("encodes");
        assert_eq!(
            tokenizer.decode(&ids, true).expect("decodes"),
            "the girl went home",
            "{kind}"
        );
    }
    let output = out.path().join("larger");
    let arguments = [
        "--model",
        path(&model),
        "--add-token",
        "<think>",
        "--add-token",
        "</think>",
        "--output",
        path(&output),
    ];
    let found = json("train_tokenizer", &arguments);
    assert_eq!(
        number(&found, "rows_after"),
        number(&found, "rows_before") + 2.0
    );
    let answer = json(
        "generate",
        &[
            "--model",
            path(&output),
            "--prompt",
            "<think>Once upon",
            "--max-new-tokens",
            "3",
        ],
    );
    assert_eq!(answer["token_ids"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_run_is_tracked_in_many_forms() {
    let out = tempfile::tempdir().expect("temporary folder");
    let output = out.path().join("run");
    let found = json("track_run", &["--output", path(&output), "--steps", "8"]);
    assert!(
        number(&found, "eval_loss_after") < number(&found, "eval_loss_before"),
        "{found}"
    );
    for file in ["train_log.jsonl", "numbers.csv", "loss.svg"] {
        assert!(output.join(file).is_file(), "{file}");
    }
    for folder in ["events", "wandb"] {
        let entries = fs::read_dir(output.join(folder)).expect("reads");
        assert_eq!(entries.count(), 1, "{folder}");
    }
}

#[test]
fn a_repetition_says_what_differs() {
    let out = tempfile::tempdir().expect("temporary folder");
    let (output, again) = (out.path().join("runs"), out.path().join("again"));
    let found = json("repeat_run", &["--output", path(&output), "--steps", "3"]);
    assert_eq!(found["same"], Value::Array(Vec::new()));
    let others = found["others"].to_string();
    assert!(
        others.contains("settings: ") && others.contains("training loss of step 1"),
        "{others}"
    );

    let manifest = output.join("first/manifest.json");
    let arguments = ["--from-manifest", path(&manifest), "--output", path(&again)];
    let repeated = json("repeat_run", &arguments);
    assert_eq!(repeated["differences"], Value::Array(Vec::new()));
}
