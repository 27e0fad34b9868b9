//! The examples of alignment on the shipped model, run as a user does.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::examples::{DATA, json, number, path, run};
use crate::shipped_model::folder;

/// Questions of the shipped data with their answers.
fn questions(count: usize) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(DATA).expect("the data");
    let rows = text.lines().take(count).map(|line| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let message = |i: usize| {
            row["messages"][i]["content"]
                .as_str()
                .expect("a text")
                .to_string()
        };
        (message(0), message(1))
    });
    rows.collect()
}

fn write(folder: &Path, name: &str, rows: impl Iterator<Item = Value>) -> PathBuf {
    let path = folder.join(name);
    let lines: Vec<String> = rows.map(|row| row.to_string()).collect();
    std::fs::write(&path, lines.join("\n")).expect("writes");
    path
}

/// Each question with its answer and a refusal, which is easily told from it.
fn pairs(to: &Path) -> PathBuf {
    let message = |role: &str, text: &str| json!([{"role": role, "content": text}]);
    let questions = questions(60);
    let rows = questions.iter().map(|(question, answer)| {
        json!({
            "prompt": message("user", question),
            "chosen": message("assistant", answer),
            "rejected": message("assistant", REFUSAL),
        })
    });
    write(to, "pairs.jsonl", rows)
}

const REFUSAL: &str = "No. I do not like this question.";

fn common<'a>(model: &'a str, data: &'a str, output: &'a str) -> Vec<&'a str> {
    let common = ["--model", model, "--data", data, "--output", output];
    [&common[..], &["--lr", "2e-3", "--eval-fraction", "0.2"]].concat()
}

#[test]
fn preferences_are_learned_resumed_and_merged() {
    let at = tempfile::tempdir().expect("temporary folder");
    let data = pairs(at.path());
    let model = folder();
    let output = at.path().join("dpo");
    let base = common(path(&model), path(&data), path(&output));
    let arguments = [
        &base[..],
        &[
            "--max-steps",
            "8",
            "--save-every",
            "4",
            "--reference",
            "cached",
        ],
    ]
    .concat();
    let found = json("dpo", &arguments);
    assert_eq!(number(&found, "steps"), 8.0);
    let [before, after] = [&found["eval_before"], &found["eval_after"]];
    assert!((number(before, "loss") - 2f64.ln()).abs() < 1e-5);
    assert!(number(after, "accuracy") > 0.7, "{found}");
    assert!(number(after, "margin") > number(before, "margin"));
    assert!(output.join("adapter_model.safetensors").is_file());
    assert!(output.join("reference_logps.json").is_file());

    // What was trained is the start of the next stage: refused as it is, taken with its own start as reference.
    let next = at.path().join("next");
    let base = common(path(&model), path(&data), path(&next));
    let adapter = ["--adapter", path(&output), "--max-steps", "2"];
    let refused = run(
        "dpo",
        &[&base[..], &adapter, &["--reference", "adapter-off"]].concat(),
    );
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && message.contains("earlier stage"),
        "{message}"
    );
    let arguments = [&base[..], &adapter, &["--overwrite"]].concat();
    let found = json("dpo", &arguments);
    assert!(
        (number(&found["eval_before"], "loss") - 2f64.ln()).abs() < 1e-5,
        "{found}"
    );
}

#[test]
fn four_stages_are_reported() {
    let at = tempfile::tempdir().expect("temporary folder");
    let output = [
        "--output",
        path(at.path()),
        "--limit",
        "60",
        "--epochs",
        "1",
    ];
    let found = json("four_stages", &output);
    let stages = found["stages"].as_array().expect("stages");
    assert_eq!(stages.len(), 3, "{found}");
    for (i, stage) in stages.iter().enumerate() {
        // A few pairs are not enough for preferences.
        assert!(
            i == 2 || number(stage, "held_out_after") < number(stage, "held_out_before"),
            "{stage}"
        );
        let model = at.path().join(stage["stage"].as_str().expect("a name"));
        assert!(
            model.join("model.safetensors").is_file() && model.join("tokenizer.json").is_file()
        );
    }
    let report = std::fs::read_to_string(at.path().join("report.md")).expect("a report");
    assert!(report.contains("losses.svg") && report.contains("refusals of harmful prompts"));
    assert!(at.path().join("losses.svg").is_file());
}

#[test]
fn one_stage_without_a_reference() {
    let at = tempfile::tempdir().expect("temporary folder");
    let data = pairs(at.path());
    let model = folder();
    for loss in ["orpo", "simpo"] {
        let output = at.path().join(loss);
        let base = common(path(&model), path(&data), path(&output));
        let found = json(
            "orpo",
            &[&base[..], &["--max-steps", "8", "--loss", loss]].concat(),
        );
        let [before, after] = [&found["eval_before"], &found["eval_after"]];
        assert!(
            number(after, "loss") < number(before, "loss"),
            "{loss}: {found}"
        );
    }
    let output = at.path().join("dpo");
    let base = common(path(&model), path(&data), path(&output));
    let found = run("dpo", &[&base[..], &["--reference", "none"]].concat());
    let message = String::from_utf8_lossy(&found.stderr);
    assert!(message.contains("needs a reference"), "{message}");
}

#[test]
fn single_answers_are_learned() {
    let at = tempfile::tempdir().expect("temporary folder");
    let questions = questions(60);
    let rows = questions.iter().enumerate().map(|(i, (question, answer))| {
        let text = if i % 3 == 0 { answer } else { REFUSAL };
        json!({
            "prompt": [{"role": "user", "content": question}],
            "completion": [{"role": "assistant", "content": text}],
            "label": i % 3 == 0,
        })
    });
    let data = write(at.path(), "answers.jsonl", rows);
    let (model, output) = (folder(), at.path().join("kto"));
    let base = common(path(&model), path(&data), path(&output));
    let found = json("kto", &[&base[..], &["--max-steps", "12"]].concat());
    let after = &found["eval_after"];
    assert!(number(after, "margin") > 0.05, "{found}");
}

#[test]
fn a_verifier_is_learned_from() {
    let at = tempfile::tempdir().expect("temporary folder");
    let rows = questions(40);
    let rows = rows
        .iter()
        .map(|(question, answer)| json!({"question": question, "answer": answer}));
    let data = write(at.path(), "questions.jsonl", rows);
    let (model, output) = (folder(), at.path().join("grpo"));
    let base = common(path(&model), path(&data), path(&output));
    let options = [
        "--reward",
        "exact,length:8",
        "--max-steps",
        "3",
        "--group-size",
        "4",
        "--max-new-tokens",
        "12",
    ];
    let found = json("grpo", &[&base[..], &options, &["--beta", "0.01"]].concat());
    assert_eq!(found["rewards"].as_array().map(Vec::len), Some(3));
    for key in [
        "eval_reward_before",
        "eval_reward_after",
        "kl",
        "mean_length",
    ] {
        assert!(found[key].is_number(), "{key}: {found}");
    }
    for key in [
        "generation_tokens_per_s",
        "seconds_generation",
        "seconds_update",
        "peak_rss_mb",
    ] {
        assert!(number(&found, key) > 0.0, "{key}: {found}");
    }
    assert!(output.join("adapter_config.json").is_file());
    let unknown = run("grpo", &[&base[..], &["--reward", "gsm9k"]].concat());
    let message = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        message.contains("gsm9k") && message.contains("gsm8k"),
        "{message}"
    );

    let output = at.path().join("tiny");
    let few = ["--shown", "60", "--steps", "2", "--output", path(&output)];
    // Two updates need not help.
    let found = run("grpo_tiny", &few);
    assert!(
        output.join("adapter/adapter_model.safetensors").is_file(),
        "{found:?}"
    );
}

#[test]
fn a_policy_learns_with_a_value_model_and_a_reward_model() {
    let at = tempfile::tempdir().expect("temporary folder");
    let (model, pairs) = (folder(), pairs(at.path()));
    let reward = at.path().join("reward");
    let base = common(path(&model), path(&pairs), path(&reward));
    json(
        "reward_model",
        &[&base[..], &["--max-steps", "4", "--merged"]].concat(),
    );

    let rows = questions(24);
    let rows = rows
        .iter()
        .map(|(question, answer)| json!({"question": question, "answer": answer}));
    let data = write(at.path(), "questions.jsonl", rows);
    let output = at.path().join("ppo");
    let base = common(path(&model), path(&data), path(&output));
    let options = [
        "--max-steps",
        "4",
        "--max-new-tokens",
        "8",
        "--iterations",
        "2",
    ];
    let with = |reward: &str| {
        json(
            "ppo",
            &[&base[..], &options, &["--reward", reward]].concat(),
        )
    };
    let found = with(path(&reward));
    assert_eq!(found["rewards"].as_array().map(Vec::len), Some(4));
    for key in [
        "eval_reward_before",
        "eval_reward_after",
        "kl",
        "mean_length",
    ] {
        assert!(found[key].is_number(), "{key}: {found}");
    }
    for folder in [output.clone(), output.join("value")] {
        assert!(folder.join("adapter_config.json").is_file(), "{folder:?}");
    }
    let missing = run("ppo", &base);
    let message = String::from_utf8_lossy(&missing.stderr);
    assert!(message.contains("give --reward"), "{message}");
}

#[test]
fn pairs_are_made_from_rewards_or_by_a_judge() {
    let at = tempfile::tempdir().expect("temporary folder");
    let rows = questions(40);
    let rows = rows
        .iter()
        .map(|(question, answer)| json!({"question": question, "answer": answer}));
    let data = write(at.path(), "questions.jsonl", rows);
    let (model, output) = (folder(), at.path().join("rlaif"));
    let best = at.path().join("best.jsonl");
    let base = common(path(&model), path(&data), path(&output));
    let sampling = [
        "--max-new-tokens",
        "100",
        "--samples",
        "3",
        "--temperature",
        "0.7",
    ];
    let options = [
        "--reward",
        "regex:[kv]",
        "--max-steps",
        "3",
        "--best",
        path(&best),
    ];
    let found = json("rlaif", &[&base[..], &sampling, &options].concat());
    assert_eq!(found["steps"], 3, "{found}");
    let lines = |file: &Path| {
        std::fs::read_to_string(file)
            .expect("lines")
            .lines()
            .count()
    };
    assert!(lines(&output.join("pairs.jsonl")) > 5);
    assert!(lines(&best) >= lines(&output.join("pairs.jsonl")));
    assert!(output.join("adapter_config.json").is_file());

    // From the pairs on.
    let output = at.path().join("resumed");
    let base = common(path(&model), path(&data), path(&output));
    let reward = ["--reward", "regex:[kv]"];
    let only = run(
        "rlaif",
        &[&base[..], &sampling, &reward, &["--pairs-only"]].concat(),
    );
    assert!(only.status.success());
    let made = std::fs::read(output.join("pairs.jsonl")).expect("pairs");
    let more = ["--resume", "--max-steps", "1"];
    let found = json("rlaif", &[&base[..], &sampling, &reward, &more].concat());
    assert_eq!(found["steps"], 1, "{found}");
    assert_eq!(
        std::fs::read(output.join("pairs.jsonl")).expect("pairs"),
        made
    );
    let again = run("rlaif", &[&base[..], &sampling, &reward].concat());
    let message = String::from_utf8_lossy(&again.stderr);
    assert!(message.contains("--overwrite"), "{message}");

    // A judge of random weights decides nothing, or something, but never silently.
    let few = std::fs::read_to_string(&data).expect("lines");
    let few: Vec<&str> = few.lines().take(1).collect();
    std::fs::write(&data, few.join("\n")).expect("writes");
    let output = at.path().join("judged");
    let base = common(path(&model), path(&data), path(&output));
    let judge = ["--judge-local", path(&model), "--pairs-only"];
    let found = run("rlaif", &[&base[..], &sampling, &judge].concat());
    let message = String::from_utf8_lossy(&found.stderr);
    assert!(message.contains("without a verdict"), "{message}");
    let nothing = run("rlaif", &base);
    let message = String::from_utf8_lossy(&nothing.stderr);
    assert!(message.contains("--judge-endpoint"), "{message}");
}

/// The reference and the policy are computed with the same precision, so that a new adapter changes nothing.
#[test]
fn preferences_are_learned_on_a_base_of_few_bits() {
    let at = tempfile::tempdir().expect("temporary folder");
    let (data, file) = (pairs(at.path()), at.path().join("base.gguf"));
    let model = folder();
    let quantize = [
        "--model",
        path(&model),
        "--format",
        "Q4_0",
        "--output",
        path(&file),
    ];
    json("quantize", &quantize);
    for (program, more) in [
        ("dpo", &["--batch-size", "4"][..]),
        ("kto", &["--batch-size", "4"]),
    ] {
        let output = at.path().join(program);
        let data = match program {
            "kto" => {
                let rows = questions(24).into_iter().enumerate().map(|(i, (question, answer))| {
                    json!({"prompt": question, "completion": answer, "label": i % 2 == 0})
                });
                write(at.path(), "answers.jsonl", rows)
            }
            _ => data.clone(),
        };
        let base = common(path(&file), path(&data), path(&output));
        let found = json(program, &[&base[..], &["--max-steps", "8"], more].concat());
        assert_eq!(found["steps"], 8, "{found}");
        let margin = |when: &str| number(&found[when], "margin");
        if program == "dpo" {
            // The base is the reference, before the training also in an evaluation.
            assert!(margin("eval_before").abs() < 1e-3, "{found}");
            assert!(margin("eval_after") > 0.05, "{found}");
        }
    }
}
