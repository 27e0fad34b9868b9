//! The examples of distillation, run as a user does.

use std::path::PathBuf;

use serde_json::{Value, json as object};
use tempfile::TempDir;

use crate::examples::{DATA, json, number, path, run};
use crate::shipped_model::folder;

#[test]
fn a_student_learns_along_its_own_answers_from_a_teacher_in_few_bits() {
    let at = TempDir::new().expect("folder");
    let (teacher, output) = (folder(), at.path().join("student"));
    let arguments = [
        "--teacher",
        path(&teacher),
        "--student",
        "layers:0,2,4",
        "--data",
        DATA,
        "--output",
        path(&output),
        "--max-steps",
        "8",
        "--batch-size",
        "4",
        "--own-answers",
        "1",
        "--max-new-tokens",
        "12",
        "--lr",
        "1e-3",
        "--no-twin",
        "--teacher-format",
        "q8_0",
    ];
    let found = json("distill_lm", &arguments);
    assert_eq!(number(&found, "steps"), 8.0);
    assert!(number(&found, "eval_loss_teacher") < number(&found, "eval_loss_before"));
    let log = std::fs::read_to_string(output.join("train_log.jsonl")).expect("a log");
    assert!(log.contains("own_answers/mean_length"), "{log}");
}

/// A student of half of the size, and the same student without the teacher.
#[test]
fn a_student_is_nearer_to_its_teacher_than_its_twin() {
    let at = TempDir::new().expect("folder");
    let (teacher, output) = (folder(), at.path().join("student"));
    let sizes = "hidden_size=192,num_attention_heads=3,num_key_value_heads=1";
    let arguments = |more: &[&'static str]| {
        let base = [
            "--teacher",
            path(&teacher),
            "--student",
            "layers:0,2,4",
            "--data",
            DATA,
            "--output",
            path(&output),
            "--batch-size",
            "4",
            "--lr",
            "1e-3",
            "--overwrite",
        ];
        let all = base.iter().chain(more).map(|text| (*text).to_string());
        all.collect::<Vec<_>>()
    };
    let call = |more: &[&'static str]| {
        let all = arguments(more);
        json(
            "distill_lm",
            &all.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    };
    let found = call(&["--max-steps", "40", "--alpha", "1"]);
    let nearer = number(&found, "divergence");
    assert!(
        nearer < 0.9 * number(&found, "divergence_without_teacher"),
        "{found}"
    );
    // Heads that share a key head are cut together: 4 of 2 cannot become 3 of 1.
    let all = arguments(&["--max-steps", "1", "--sizes", sizes]);
    let refused = run(
        "distill_lm",
        &all.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains("share a key head"), "{message}");
    let half = "hidden_size=128,num_attention_heads=2,num_key_value_heads=1,intermediate_size=256";
    let found = call(&["--max-steps", "4", "--no-twin", "--sizes", half]);
    let after = number(&found, "eval_loss_after");
    assert!(after < number(&found, "eval_loss_before"), "{found}");
}

#[test]
fn the_seed_decides_the_weights_of_a_random_student() {
    let at = TempDir::new().expect("folder");
    let teacher = folder();
    let config = std::fs::read_to_string(teacher.join("config.json")).expect("a configuration");
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    config["num_hidden_layers"] = object!(1);
    let student = at.path().join("config.json");
    std::fs::write(&student, config.to_string()).expect("writes");
    let start = |seed: &str, held_out: &str| {
        let output = at.path().join(format!("{seed} {held_out}"));
        let arguments = [
            "--teacher",
            path(&teacher),
            "--student",
            path(&student),
            "--data",
            DATA,
            "--output",
            path(&output),
            "--no-twin",
            "--max-steps",
            "1",
            "--batch-size",
            "1",
            "--seed",
            seed,
            "--eval-fraction",
            held_out,
            "--lr",
            "1e-30",
        ];
        json("distill_lm", &arguments);
        std::fs::read(output.join("model.safetensors")).expect("weights")
    };
    let first = start("1", "0.1");
    assert!(
        first == start("1", "0.3"),
        "the rows that are held out change the weights"
    );
    assert!(
        first != start("2", "0.1"),
        "the seed does not change the weights"
    );
}

/// Joining outcomes never raises a divergence.
#[test]
fn more_of_the_likeliest_tokens_leave_out_less() {
    let teacher = folder();
    let arguments = [
        "--teacher",
        path(&teacher),
        "--student",
        "layers:0,4",
        "--data",
        DATA,
        "--k",
        "1,8,64",
        "--rows",
        "12",
    ];
    let found = json("distill_top_k", &arguments);
    let rows = found["rows"].as_array().expect("rows");
    let all = number(&found, "divergence");
    let mut last = 0.0;
    for (row, k) in rows.iter().zip([1.0, 8.0, 64.0]) {
        let divergence = number(row, "divergence");
        assert_eq!(number(row, "k"), k);
        assert!(divergence > last && divergence < all, "{found}");
        assert!(
            number(row, "bytes") >= 8.0 * k && number(row, "bytes") < 8.0 * k + 60.0,
            "{found}"
        );
        last = divergence;
    }
    assert!(last > 0.8 * all, "{found}");
}

#[test]
fn a_classifier_of_messages_and_an_lstm_are_trained() {
    let small = [
        "--seeds",
        "2",
        "--steps",
        "6",
        "--teacher-messages",
        "40",
        "--student-messages",
        "20",
    ];
    let found = json("distill_classifier", &small);
    assert_eq!(found["gains"].as_array().map(Vec::len), Some(2));
    assert!(found["parameters"][1].as_u64() < found["parameters"][0].as_u64());
    let small = [
        "--seeds",
        "1",
        "--first-reviews",
        "64",
        "--second-reviews",
        "64",
        "--first-epochs",
        "1",
        "--second-epochs",
        "1",
    ];
    let found = json("lstm_transfer", &small);
    assert_eq!(found["right"].as_object().map(|right| right.len()), Some(6));
}

/// The shipped model answers its questions again and again until a verifier is satisfied.
#[test]
fn right_answers_of_a_teacher_become_rows() {
    let at = TempDir::new().expect("folder");
    let in_folder = |name: &str| -> PathBuf { at.path().join(name) };
    let (data, output, teacher) = (
        in_folder("questions.jsonl"),
        in_folder("traces.jsonl"),
        folder(),
    );
    let rows = ["What does a cow eat?", "What does a cow drink?"];
    let rows = rows
        .map(|question| object!({"question": question}).to_string())
        .join("\n");
    std::fs::write(&data, rows).expect("writes");
    let traces = |verifier: &str| {
        let arguments = [
            "--teacher-local",
            path(&teacher),
            "--data",
            path(&data),
            "--output",
            path(&output),
            "--samples",
            "3",
            "--max-new-tokens",
            "400",
            "--verifier",
            verifier,
            "--json",
        ];
        run("reasoning_traces", &arguments)
    };
    // Any letter will do.
    let found = traces("regex:[a-z]{1,2}");
    let stderr = String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success(), "{stderr}");
    let line: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    assert_eq!(
        (number(&line, "questions"), number(&line, "replies")),
        (2.0, 6.0)
    );
    let text = std::fs::read_to_string(&output).expect("traces");
    assert_eq!(text.lines().count() as f64, number(&line, "traces"));
    let first: Value = serde_json::from_str(text.lines().next().expect("a row")).expect("JSON");
    assert_eq!(first["messages"][0]["role"], "user");
    assert_eq!(first["messages"][1]["role"], "assistant");
    // Nothing is right: the file that is there stays.
    let nothing = traces("regex:^nothing is like this$");
    assert!(!nothing.status.success());
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("no reply is right"));
    assert_eq!(std::fs::read_to_string(&output).expect("traces"), text);
    let length = traces("length:5");
    assert!(String::from_utf8_lossy(&length.stderr).contains("no sign of a right answer"));
}
