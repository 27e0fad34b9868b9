//! Invalid input gives an error message and an exit code, and no panic.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::examples::{DATA, run};
use crate::shipped_model::folder;

/// A copy of the included model, to be damaged.
fn copy() -> TempDir {
    let work = TempDir::new().expect("folder");
    for entry in std::fs::read_dir(folder()).expect("folder") {
        let path = entry.expect("entry").path();
        let target = work.path().join(path.file_name().expect("name"));
        std::fs::copy(&path, target).expect("copies");
    }
    work
}

fn change(work: &TempDir, file: &str, change: impl FnOnce(&mut Value)) {
    let path = work.path().join(file);
    let mut json = serde_json::from_slice(&std::fs::read(&path).expect("reads")).expect("JSON");
    change(&mut json);
    std::fs::write(&path, json.to_string()).expect("writes");
}

#[track_caller]
fn fails(example: &str, arguments: &[&str], expected: &[&str]) {
    let output = run(example, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{example} {arguments:?} succeeds");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for part in expected {
        assert!(stderr.contains(part), "{part:?} is not in: {stderr}");
    }
}

#[track_caller]
fn generate_fails(model: &Path, expected: &[&str]) {
    let model = model.to_str().expect("UTF-8");
    fails(
        "generate",
        &[
            "--model",
            model,
            "--chat",
            "--prompt",
            "Hi",
            "--max-new-tokens",
            "4",
        ],
        expected,
    );
}

#[track_caller]
fn tuning_fails(model: &Path, rows: &str, format: &str, more: &[&str], expected: &[&str]) {
    let work = TempDir::new().expect("folder");
    let data = work.path().join("rows.json");
    std::fs::write(&data, rows).expect("writes");
    let output = work.path().join("out");
    let mut arguments = vec![
        "--model",
        model.to_str().expect("UTF-8"),
        "--data",
        data.to_str().expect("UTF-8"),
        "--format",
        format,
        "--output",
        output.to_str().expect("UTF-8"),
        "--max-steps",
        "1",
    ];
    arguments.extend(more);
    fails("sft", &arguments, expected);
}

const ROW: &str = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}"#;

#[test]
fn broken_model_folders() {
    generate_fails(Path::new("no/such/folder"), &["no/such/folder"]);
    let work = copy();
    let weights = work.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).expect("reads");
    std::fs::write(&weights, &bytes[..bytes.len() - 10]).expect("writes");
    generate_fails(work.path(), &["model.safetensors", "truncated"]);
    std::fs::remove_file(&weights).expect("removes");
    generate_fails(work.path(), &["model.safetensors"]);
    let work = copy();
    let mut missing = String::new();
    change(&work, "config.json", |json| {
        let layers = json["num_hidden_layers"].as_u64().expect("a number");
        missing = format!("model.layers.{layers}.self_attn.q_proj.weight");
        json["num_hidden_layers"] = (layers + 1).into();
    });
    generate_fails(work.path(), &["missing (9)", &missing]);
    change(&work, "config.json", |json| {
        json["model_type"] = "rwkv".into()
    });
    generate_fails(work.path(), &["rwkv", "llama, mistral"]);
}

#[test]
fn tokenizer_of_another_vocabulary() {
    let work = copy();
    change(&work, "tokenizer.json", |json| {
        json["added_tokens"]
            .as_array_mut()
            .expect("tokens")
            .push(serde_json::json!({
            "id": 9000, "content": "<|far|>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}));
        json["model"]["vocab"]["<|far|>"] = 9000.into();
    });
    generate_fails(work.path(), &["9000", "3072"]);
}

#[test]
fn chat_without_a_template() {
    let work = copy();
    let _ = std::fs::remove_file(work.path().join("chat_template.jinja"));
    change(&work, "tokenizer_config.json", |json| {
        json.as_object_mut()
            .expect("object")
            .remove("chat_template");
    });
    generate_fails(work.path(), &["chat template"]);
    tuning_fails(work.path(), ROW, "messages", &[], &["chat template"]);
}

#[test]
fn broken_data() {
    let model = folder();
    let lines = format!("{ROW}\n{ROW}\n{{\"messages\": [\n{ROW}\n");
    tuning_fails(&model, &lines, "messages", &[], &["rows.json", "line 3"]);
    tuning_fails(&model, "[]", "messages", &[], &["rows.json", "empty"]);
    tuning_fails(&model, "", "messages", &[], &["rows.json"]);
    let columns = r#"[{"instruction": "a", "output": "b"}, {"instruction": "a", "answer": "b"}]"#;
    tuning_fails(
        &model,
        columns,
        "alpaca",
        &[],
        &["row 2", "output", "answer"],
    );
    let user_only = r#"{"messages": [{"role": "user", "content": "Hi"}]}"#;
    tuning_fails(&model, user_only, "messages", &[], &["masked"]);
    let more = ["--seq-len", "4"];
    tuning_fails(&model, ROW, "messages", &more, &["masked", "truncated"]);
    tuning_fails(&model, ROW, "parquet", &[], &["parquet", "alpaca"]);
}

#[test]
fn invalid_settings() {
    let model = folder();
    let rows = format!("{ROW}\n{ROW}\n{ROW}\n{ROW}\n");
    let fails = |more: &[&str], expected: &[&str]| {
        tuning_fails(&model, &rows, "messages", more, expected);
    };
    fails(&["--target-modules", "query,value"], &["query", "q_proj"]);
    fails(
        &["--seq-len", "100000"],
        &["100000", "max_position_embeddings"],
    );
    fails(&["--lr=-1"], &["learning_rate"]);
    fails(&["--r", "0"], &["r must be"]);
    fails(&["--dropout", "1.5"], &["lora_dropout"]);
    fails(&["--eval-fraction", "1.5"], &["fraction"]);
    fails(&["--batch-size", "0"], &["batch"]);
    fails(&["--device", "abacus"], &["abacus", "cpu"]);
}

#[test]
fn an_output_folder_that_cannot_be_written() {
    let work = TempDir::new().expect("folder");
    let occupied = work.path().join("occupied");
    std::fs::write(&occupied, "a file").expect("writes");
    let (model, output) = (folder(), occupied.join("below"));
    let (model, output) = (
        model.to_str().expect("UTF-8"),
        output.to_str().expect("UTF-8"),
    );
    let arguments = [
        "--model", model, "--data", DATA, "--format", "messages", "--output", output,
    ];
    fails("sft", &arguments, &["occupied"]);
}

/// The same path and number of rows, with one different answer.
#[test]
fn a_run_resumed_on_other_data() {
    let work = TempDir::new().expect("folder");
    let at = |name: &str| work.path().join(name).to_str().expect("UTF-8").to_string();
    let (rows, output) = (at("rows.jsonl"), at("adapter"));
    let write = |answer: &str| {
        let row = |answer: &str| {
            json!({"messages": [
                {"role": "user", "content": "Who is it?"},
                {"role": "assistant", "content": answer},
            ]})
        };
        let lines = [row("It is Tom."), row("It is Mia."), row(answer)];
        let text: Vec<String> = lines.iter().map(Value::to_string).collect();
        std::fs::write(&rows, text.join("\n")).expect("writes");
    };
    let model = folder();
    let common = [
        "--model",
        model.to_str().expect("UTF-8"),
        "--data",
        &rows,
        "--format",
        "messages",
        "--output",
        &output,
        "--batch-size",
        "1",
        "--max-steps",
        "3",
        "--save-every",
        "1",
    ];
    write("It is Ben.");
    assert!(run("sft", &common).status.success());
    write("It is Max.");
    let resumed: Vec<&str> = common.into_iter().chain(["--resume"]).collect();
    fails("sft", &resumed, &["rows"]);
}

#[test]
fn pretraining_does_not_overwrite_an_earlier_run() {
    let work = TempDir::new().expect("folder");
    let at = |name: &str| work.path().join(name).to_str().expect("UTF-8").to_string();
    let (text, output) = (at("text.txt"), at("model"));
    std::fs::write(&text, "The cat sat on the mat.\n\n".repeat(200)).expect("writes");
    let arguments = "--vocab 300 --hidden 16 --intermediate 16 --layers 1 --heads 2 --kv-heads 1 \
        --seq-len 16 --max-steps 2 --save-every 1 --warmup-steps 1";
    let mut arguments: Vec<&str> = arguments.split_whitespace().collect();
    arguments.extend(["--text", &text, "--output", &output]);
    let first = run("pretrain", &arguments);
    let stderr = String::from_utf8_lossy(&first.stderr);
    assert!(first.status.success(), "{stderr}");
    fails("pretrain", &arguments, &["--resume", "--overwrite"]);
}
