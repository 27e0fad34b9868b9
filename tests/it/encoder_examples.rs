//! The examples of encoders, on a tiny random model: training, and the pipeline on what was trained.

use std::path::PathBuf;

use serde_json::{Value, json as object};
use tempfile::TempDir;

use crate::examples::{json, number, path, run};

/// A tiny encoder with its tokenizer.
fn tiny() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/crates/ft-tasks/tests/golden/text"
    ))
}

fn train(example: &str, output: &TempDir, more: &[&str]) -> Value {
    let model = tiny();
    let mut arguments = vec!["--model", path(&model), "--output", path(output.path())];
    arguments.extend(["--max-steps", "3", "--batch-size", "8", "--seq-len", "32"]);
    arguments.extend(more);
    let line = json(example, &arguments);
    assert_eq!(number(&line, "steps"), 3.0, "{line}");
    assert!(number(&line, "loss_last").is_finite());
    line
}

/// The results of the pipeline, one for each text.
fn answer(task: &str, model: &TempDir, more: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["--task", task, "--model", path(model.path())];
    arguments.extend(more);
    let line = json("pipeline", &arguments);
    line["results"].as_array().expect("results").clone()
}

#[test]
fn a_classifier_is_trained_and_asked() {
    for train_what in ["all", "lora", "top:1", "head"] {
        let output = TempDir::new().expect("folder");
        let line = train("classify_text", &output, &["--train", train_what]);
        assert_eq!(
            line["labels"].as_array().map(Vec::len),
            Some(3),
            "{train_what}"
        );
        let accuracy = number(&line["after"], "accuracy");
        assert!((0.0..=1.0).contains(&accuracy), "{line}");
        let texts = ["--text", "It works.", "--text", "It broke."];
        let found = answer("text-classification", &output, &texts);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].as_array().map(Vec::len), Some(3));
    }
}

/// Rows of two classes in a file of the folder; a class `rare` only in the last row if asked for.
fn labelled(output: &TempDir, name: &str, classes: [&str; 2], rare: bool) -> PathBuf {
    let rows = (0..24).map(|i| {
        let label = if rare && i == 23 { "rare" } else { classes[i % 2] };
        object!({"text": format!("the kettle {} in week {i}", ["works", "broke"][i % 2]), "document": "shop-17/0042",
            "label": label})
    });
    let data = output.path().join(name);
    std::fs::write(&data, Value::from_iter(rows).to_string()).expect("writes");
    data
}

fn stderr(example: &str, arguments: &[&str]) -> (bool, String) {
    let output = run(example, arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

#[test]
fn a_class_that_only_held_out_rows_have_does_not_stop_the_run() {
    let output = TempDir::new().expect("folder");
    let data = labelled(&output, "train.json", ["bad", "good"], false);
    let held_out = labelled(&output, "held_out.json", ["bad", "good"], true);
    let more = ["--data", path(&data), "--held-out", path(&held_out)];
    let line = train("classify_text", &output, &more);
    assert_eq!(line["labels"], object!(["bad", "good", "rare"]));
}

#[test]
fn a_run_is_not_resumed_with_other_rows_or_labels() {
    let output = TempDir::new().expect("folder");
    let data = labelled(&output, "a.json", ["bad", "good"], false);
    train("classify_text", &output, &["--data", path(&data)]);
    let other = labelled(&output, "b.json", ["no", "yes"], false);
    let model = tiny();
    let resume = |data: &std::path::Path, seq_len: &str| {
        let arguments = [
            "--model",
            path(&model),
            "--output",
            path(output.path()),
            "--max-steps",
            "3",
            "--batch-size",
            "8",
            "--seq-len",
            seq_len,
            "--data",
            path(data),
            "--resume",
        ];
        stderr("classify_text", &arguments)
    };
    let (resumed, error) = resume(&other, "32");
    assert!(!resumed && error.contains("labels"), "{error}");
    let (resumed, error) = resume(&data, "9");
    assert!(!resumed && error.contains("seq_len"), "{error}");
    let (resumed, error) = resume(&data, "32");
    assert!(resumed, "{error}");
    // A column that happens to be there is no second text.
    assert!(error.contains("reads text and the label label"), "{error}");
}

#[test]
fn a_trained_head_goes_on_to_train() {
    let (first, second) = (
        TempDir::new().expect("folder"),
        TempDir::new().expect("folder"),
    );
    train("classify_text", &first, &[]);
    let arguments = [
        "--model",
        path(first.path()),
        "--output",
        path(second.path()),
        "--max-steps",
        "1",
        "--seq-len",
        "32",
    ];
    let (done, error) = stderr("classify_text", &arguments);
    assert!(done && error.contains("goes on to train"), "{error}");
}

#[test]
fn a_tagger_is_trained_and_asked() {
    for scheme in ["bio", "bilou"] {
        let output = TempDir::new().expect("folder");
        let line = train("tag_entities", &output, &["--scheme", scheme]);
        assert!(number(&line, "f1_after") >= 0.0);
        let text = ["--text", "A kettle by Calvera.", "--aggregation", "first"];
        assert_eq!(answer("token-classification", &output, &text).len(), 1);
        // The length of the training is not that of the model.
        let saved = std::fs::read(output.path().join("tokenizer_config.json")).expect("reads");
        let saved: Value = serde_json::from_slice(&saved).expect("JSON");
        assert_eq!(saved["model_max_length"], 32);
        let long = "A kettle by Calvera. ".repeat(20);
        assert_eq!(
            answer("token-classification", &output, &["--text", &long]).len(),
            1
        );
    }
}

#[test]
fn a_model_of_answers_is_trained_and_asked() {
    let output = TempDir::new().expect("folder");
    // The tiny tokenizer has few words, so that other questions would leave no room.
    let data = output.path().join("rows.json");
    let rows = (0..20).map(|i| {
        let context = format!(
            "Anna bought the kettle in week {i}. {}",
            "The river flows. ".repeat(4)
        );
        object!({"question": "what was bought?", "context": context,
            "answers": {"text": ["kettle"], "answer_start": [16]}})
    });
    let rows: Vec<Value> = rows.collect();
    std::fs::write(&data, Value::from(rows).to_string()).expect("writes");
    let more = ["--doc-stride", "4", "--data", path(&data)];
    let line = train("answer_questions", &output, &more);
    assert!(number(&line, "windows") > number(&line, "rows"));
    let asked = ["--question", "Who is it?", "--text", "It is Anna."];
    let found = answer("question-answering", &output, &asked);
    assert!(found[0]["answer"].is_string(), "{found:?}");
}

#[test]
fn a_reranker_is_trained() {
    for loss in ["mnrl", "lambda", "binary", "margin-mse"] {
        let output = TempDir::new().expect("folder");
        let line = train("train_reranker", &output, &["--loss", loss]);
        assert_eq!(line["mrr_after"].is_number(), loss != "binary", "{line}");
    }
}

#[test]
fn mistakes_are_named() {
    let model = tiny();
    let ask = |arguments: &[&str]| {
        let output = run("pipeline", arguments);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let unknown = ask(&[
        "--task",
        "translation",
        "--model",
        path(&model),
        "--text",
        "a",
    ]);
    assert!(unknown.contains("fill-mask"), "{unknown}");
    let silent = ask(&[
        "--task",
        "question-answering",
        "--model",
        path(&model),
        "--text",
        "a",
    ]);
    assert!(silent.contains("question"), "{silent}");
}
