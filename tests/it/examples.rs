//! The examples, run as a user does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ft::core::AutoSequenceClassifier;
use serde_json::{Value, json as object};
use tempfile::TempDir;

use crate::shipped_model::folder;

pub(crate) const DATA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/data/instructions.jsonl"
);

/// Runs an example.
pub(crate) fn run(example: &str, arguments: &[&str]) -> Output {
    run_with(example, arguments, &[])
}

/// An example that cargo built together with this test.
pub(crate) fn command(example: &str, arguments: &[&str]) -> Command {
    let test = std::env::current_exe().expect("this program");
    let profile = test.ancestors().nth(2).expect("target/PROFILE");
    let program = profile.join("examples").join(example);
    assert!(
        program.is_file(),
        "{} is not there: run `cargo test` without --test, which builds the examples too",
        program.display()
    );
    let mut command = Command::new(program);
    command.args(arguments).env_remove("HF_ENDPOINT");
    command
}

/// Runs an example with additional environment variables.
fn run_with(example: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = command(example, arguments);
    let variables = variables.iter().copied();
    command.envs(variables).output().expect("runs")
}

/// The JSON object that ends the output of a run with `--json`.
pub(crate) fn json(example: &str, arguments: &[&str]) -> Value {
    json_with(example, arguments, &[])
}

fn json_with(example: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Value {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let output = run_with(example, &arguments, variables);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example} {arguments:?}: {stderr}");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let last = stdout.lines().last().expect("a last line");
    serde_json::from_str(last).expect("JSON")
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

pub(crate) fn number(json: &Value, key: &str) -> f64 {
    json[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} in {json}"))
}

#[test]
fn tune_generate_measure_and_merge() {
    let work = TempDir::new().expect("folder");
    let model = folder();
    let at = |name: &str| -> PathBuf { work.path().join(name) };
    let (adapter, merged) = (at("adapter"), at("merged"));
    let tuned = json(
        "sft",
        &[
            "--model",
            path(&model),
            "--data",
            DATA,
            "--format",
            "messages",
            "--output",
            path(&adapter),
            "--max-steps",
            "12",
            "--batch-size",
            "8",
            "--seq-len",
            "128",
            "--lr",
            "3e-3",
            "--packing",
        ],
    );
    assert_eq!(number(&tuned, "steps"), 12.0);
    assert_eq!(tuned["train_losses"].as_array().map(Vec::len), Some(12));
    assert!(number(&tuned, "eval_loss_after") < 0.9 * number(&tuned, "eval_loss_before"));

    let ask = |extra: &[&str]| {
        let mut arguments = vec![
            "--chat",
            "--prompt",
            "What does a cow eat?",
            "--max-new-tokens",
            "20",
        ];
        arguments.extend(extra);
        json("generate", &arguments)
    };
    let with_adapter = ask(&["--model", path(&model), "--adapter", path(&adapter)]);
    let options = [
        "--model",
        path(&model),
        "--adapter",
        path(&adapter),
        "--output",
        path(&merged),
    ];
    json("merge", &options);
    let of_merged = ask(&["--model", path(&merged)]);
    assert_eq!(of_merged["token_ids"], with_adapter["token_ids"]);
    assert!(number(&of_merged, "decode_tokens_per_s") > 0.0);

    let text = at("text.txt");
    std::fs::write(&text, "Once upon a time there was a cow. ".repeat(60)).expect("writes");
    let measure = |extra: &[&str]| {
        let mut arguments = vec!["--text", path(&text), "--context", "64"];
        arguments.extend(extra);
        json("perplexity", &arguments)
    };
    let one = measure(&["--model", path(&model), "--adapter", path(&adapter)]);
    let other = measure(&["--model", path(&merged)]);
    assert!((number(&one, "nll") - number(&other, "nll")).abs() < 1e-4);
    assert_eq!(number(&one, "tokens") % 63.0, 0.0);
}

#[test]
fn the_manual_loop_reduces_the_loss() {
    let out = json("manual_loop", &["--steps", "12"]);
    assert!(number(&out, "eval_loss_after") < 0.9 * number(&out, "eval_loss_before"));
    let difference = number(&out, "eval_loss_after") - number(&out, "eval_loss_merged");
    assert!(difference.abs() < 1e-4);
}

#[test]
fn a_model_is_pretrained() {
    let work = TempDir::new().expect("folder");
    let corpus = work.path().join("corpus.txt");
    json("corpus", &["--output", path(&corpus), "--megabytes", "0.2"]);
    let output = work.path().join("model");
    let out = json(
        "pretrain",
        &[
            "--text",
            path(&corpus),
            "--output",
            path(&output),
            "--vocab",
            "400",
            "--hidden",
            "32",
            "--intermediate",
            "64",
            "--layers",
            "2",
            "--heads",
            "2",
            "--kv-heads",
            "1",
            "--seq-len",
            "64",
            "--max-steps",
            "30",
            "--warmup-steps",
            "5",
            "--lr",
            "1e-2",
            "--batch-size",
            "8",
        ],
    );
    let losses = (number(&out, "train_loss"), number(&out, "eval_loss"));
    // ln(400) = 6.0 at first
    assert!(losses.0 < 5.0 && losses.1 < 5.0, "{losses:?}");
    let said = json(
        "generate",
        &[
            "--model",
            path(&output),
            "--prompt",
            "Once",
            "--max-new-tokens",
            "5",
        ],
    );
    assert!(number(&said, "prompt_tokens") >= 1.0);
}

/// Questions with their answers, which are preferred to an answer without content.
fn preferences() -> String {
    let text = std::fs::read_to_string(DATA).expect("reads");
    let lines = text.lines().take(96).map(|line| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let turn = |turn: usize| &row["messages"][turn]["content"];
        let pair = object!({"prompt": turn(0), "chosen": turn(1), "rejected": "I do not know."});
        format!("{pair}\n")
    });
    lines.collect()
}

#[test]
fn a_reward_model_learns_which_answer_is_preferred() {
    let work = TempDir::new().expect("folder");
    let at = |name: &str| -> PathBuf { work.path().join(name) };
    let (data, adapter, merged) = (at("pairs.jsonl"), at("adapter"), at("merged"));
    std::fs::write(&data, preferences()).expect("writes");
    let model = folder();
    let train = |output: &Path, more: &[&str]| {
        let mut arguments = vec!["--model", path(&model), "--data", path(&data)];
        arguments.extend(["--output", path(output), "--seq-len", "128"]);
        arguments.extend(["--lr", "2e-3", "--eval-fraction", "0.2"]);
        arguments.extend(more);
        json("reward_model", &arguments)
    };
    let trained = train(&adapter, &["--max-steps", "6"]);
    assert_eq!(trained["losses"].as_array().map(Vec::len), Some(6));
    assert!(number(&trained, "accuracy_after") > 0.9, "{trained}");
    let margin = |name| number(&trained, name);
    assert!(
        margin("margin_after") > margin("margin_before") + 2.0,
        "{trained}"
    );
    assert!(adapter.join("adapter_model.safetensors").is_file());
    // A whole model begins from the same numbers, and is one that scores.
    let whole = train(&merged, &["--max-steps", "1", "--merged"]);
    let first = |run: &Value| run["losses"][0].as_f64().expect("a loss");
    assert!((first(&whole) - first(&trained)).abs() < 1e-4, "{whole}");
    let device = ft::device("cpu").expect("cpu");
    let model = AutoSequenceClassifier::from_pretrained(&merged, &device).expect("loads");
    assert_eq!(model.num_labels(), 1);
}

#[test]
fn a_reward_model_learns_which_steps_are_right() {
    let work = TempDir::new().expect("folder");
    let at = |name: &str| -> PathBuf { work.path().join(name) };
    let (data, output, model) = (at("steps.jsonl"), at("scorer"), folder());
    let rows = (0..60).map(|i| {
        let (a, right) = (i % 9, i % 2 == 0);
        let sum = if right { "It is right." } else { "It is wrong." };
        object!({"prompt": format!("{a} and 1?"), "completions": ["We count.", sum], "labels": [true, right]}).to_string()
    });
    let rows: Vec<String> = rows.collect();
    std::fs::write(&data, rows.join("\n")).expect("writes");
    let arguments = [
        "--process",
        "--model",
        path(&model),
        "--data",
        path(&data),
        "--output",
        path(&output),
        "--max-steps",
        "20",
        "--lr",
        "2e-3",
        "--merged",
        "--eval-fraction",
        "0.2",
    ];
    let trained = json("reward_model", &arguments);
    assert!(number(&trained, "accuracy_after") > 0.9, "{trained}");
    let config = std::fs::read_to_string(output.join("config.json")).expect("reads");
    assert!(config.contains("LlamaForTokenClassification") && config.contains("right"));
}

#[test]
fn every_example_has_help() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(folder).expect("the examples") {
        let file = entry.expect("an example").path();
        if file.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let example = file
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("UTF-8");
        let output = run(example, &["--help"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("--json"),
            "{example}: {text}"
        );
    }
}

/// Twenty steps with the kernels and with Burn's operations alone, on one thread and on three.
#[test]
fn kernels_and_threads_do_not_change_the_losses() {
    let losses = |variables: &[(&str, &str)]| -> Vec<f64> {
        let run = json_with("manual_loop", &["--steps", "20"], variables);
        let losses = run["train_losses"].as_array().expect("losses").iter();
        losses.filter_map(Value::as_f64).collect()
    };
    let fused = losses(&[("RAYON_NUM_THREADS", "1")]);
    assert_eq!(fused.len(), 20);
    assert!(fused[19] < 0.9 * fused[0], "{fused:?}");
    let others = [
        ("FT_KERNELS", "portable", 1e-3),
        ("RAYON_NUM_THREADS", "3", 1e-3),
    ];
    for (name, value, tolerance) in others {
        let other = losses(&[(name, value)]);
        assert!(
            name != "FT_KERNELS" || other != fused,
            "the same to the bit: nothing was switched"
        );
        for (step, (a, b)) in other.iter().zip(&fused).enumerate() {
            assert!(
                (a - b).abs() < tolerance,
                "{name}={value}, step {step}: {a}, expected {b}"
            );
        }
    }
}

#[test]
fn a_student_is_distilled_with_and_without_files_of_its_teacher() {
    let at = tempfile::tempdir().expect("temporary folder");
    let teacher = crate::shipped_model::folder();
    let run = |name: &str, more: &[&str]| {
        let output = at.path().join(name);
        let base = [
            "--teacher",
            path(&teacher),
            "--student",
            "layers:0,2,4",
            "--data",
            DATA,
        ];
        let run = [
            "--output",
            path(&output),
            "--max-steps",
            "12",
            "--alpha",
            "1",
            "--temperature",
            "1",
            "--lr",
            "1e-3",
        ];
        let found = json("distill_lm", &[&base[..], &run, more].concat());
        assert!(
            output.join("model.safetensors").is_file() && output.join("tokenizer.json").is_file()
        );
        found
    };
    let found = run("online", &[]);
    let [with, without] =
        ["divergence", "divergence_without_teacher"].map(|key| number(&found, key));
    assert!(with < 0.8 * without, "{found}");
    assert!(number(&found, "eval_loss_teacher") > 0.0);
    let logits = at.path().join("logits");
    let offline = [
        "--offline-logits",
        path(&logits),
        "--top-k",
        "200",
        "--no-twin",
    ];
    let found = run("offline", &offline);
    // The likeliest tokens say a little less.
    assert!(number(&found, "divergence") < 1.2 * with, "{found}");
    assert!(
        logits.join("manifest.json").is_file() && found["divergence_without_teacher"].is_null()
    );
}

#[test]
fn a_narrow_perceptron_learns_from_a_wide_one() {
    let small = [
        "--seeds",
        "3",
        "--steps",
        "400",
        "--teacher-pictures",
        "3000",
    ];
    let found = json("distill_digits", &small);
    for gain in found["gains"].as_array().expect("gains") {
        assert!(number(gain, "gain") > 0.02, "{found}");
    }
}
