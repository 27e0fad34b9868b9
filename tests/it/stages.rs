//! Stages of training one after the other, run as a user does: what each leaves must be what the next begins with.

use std::path::{Path, PathBuf};

use ft::core::StageManifest;
use serde_json::json as object;
use tempfile::TempDir;

use crate::examples::{DATA, json, path, run};
use crate::shipped_model::folder;

#[test]
fn instructions_and_preferences_make_a_chain() {
    let at = TempDir::new().expect("folder");
    let in_folder = |name: &str| -> PathBuf { at.path().join(name) };
    let pairs = in_folder("pairs.jsonl");
    let row = |i: usize| {
        object!({"prompt": format!("Say {i}."), "chosen": format!("{i}."), "rejected": "No."})
            .to_string()
    };
    let rows: Vec<String> = (0..12).map(row).collect();
    std::fs::write(&pairs, rows.join("\n")).expect("writes");
    let base = folder();
    let merge = |model: &Path, adapter: &Path, output: &Path| {
        let arguments = [
            "--model",
            path(model),
            "--adapter",
            path(adapter),
            "--output",
            path(output),
        ];
        run("merge", &arguments)
    };
    let prefer = |model: &Path, output: &Path| {
        let arguments = [
            "--model",
            path(model),
            "--data",
            path(&pairs),
            "--output",
            path(output),
            "--max-steps",
            "1",
        ];
        run("dpo", &arguments)
    };

    let (tuned, instructed) = (in_folder("tuned"), in_folder("instructed"));
    let arguments = [
        "--model",
        path(&base),
        "--data",
        DATA,
        "--output",
        path(&tuned),
        "--max-steps",
        "2",
        "--batch-size",
        "2",
        "--seq-len",
        "128",
    ];
    json("sft", &arguments);
    assert!(merge(&base, &tuned, &instructed).status.success());
    let preferred = in_folder("preferred");
    assert!(prefer(&instructed, &preferred).status.success());
    let (chosen, wrong) = (in_folder("chosen"), in_folder("wrong"));
    assert!(merge(&instructed, &preferred, &chosen).status.success());

    let stage = StageManifest::of_model(&chosen)
        .expect("fits")
        .expect("known");
    assert_eq!(stage.names(), ["sft", "dpo"]);
    assert_eq!(stage.settings["max_steps"], 1);
    assert!(!stage.data.is_empty() && stage.template.is_some());
    let first = stage.previous.expect("a stage before");
    assert_eq!(first.settings["batch_size"], 2);
    assert_eq!(first.weights.as_ref(), Some(&stage.base_weights));

    // The adapter of the second stage does not belong on the base.
    let refused = merge(&base, &preferred, &wrong);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && stderr.contains("has other weights"),
        "{stderr}"
    );
    // Nor does a model whose template was changed continue.
    std::fs::write(instructed.join("chat_template.jinja"), "{{ messages }}").expect("writes");
    let refused = prefer(&instructed, &in_folder("again"));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && stderr.contains("has another one now"),
        "{stderr}"
    );
}

/// `sft --template` on a base without one: the adapter brings the tokenizer, and so does the merged model.
#[test]
fn a_template_that_the_base_lacks_stays_with_the_chain() {
    let at = TempDir::new().expect("folder");
    let in_folder = |name: &str| -> PathBuf { at.path().join(name) };
    let base = in_folder("base");
    std::fs::create_dir(&base).expect("folder");
    for entry in std::fs::read_dir(folder()).expect("folder") {
        let path = entry.expect("entry").path();
        std::fs::copy(&path, base.join(path.file_name().expect("name"))).expect("copies");
    }
    let settings = base.join("tokenizer_config.json");
    let text = std::fs::read_to_string(&settings).expect("settings");
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let template = tokenizer
        .as_object_mut()
        .expect("settings")
        .remove("chat_template");
    assert!(template.is_some());
    std::fs::write(&settings, tokenizer.to_string()).expect("writes");

    let (tuned, merged) = (in_folder("tuned"), in_folder("merged"));
    let arguments = [
        "--model",
        path(&base),
        "--data",
        DATA,
        "--template",
        "alpaca",
        "--output",
        path(&tuned),
        "--max-steps",
        "1",
        "--save-every",
        "1",
        "--batch-size",
        "2",
        "--seq-len",
        "128",
    ];
    json("sft", &arguments);
    assert!(tuned.join("tokenizer.json").is_file());
    assert!(
        tuned
            .join("checkpoints/step-1/adapter/tokenizer.json")
            .is_file()
    );
    let arguments = [
        "--model",
        path(&base),
        "--adapter",
        path(&tuned),
        "--output",
        path(&merged),
    ];
    assert!(run("merge", &arguments).status.success());

    let rows = (0..6).map(|i| {
        let message = |role: &str, text: String| object!([{"role": role, "content": text}]);
        object!({
            "prompt": message("user", format!("Say {i}.")),
            "chosen": message("assistant", format!("{i}.")),
            "rejected": message("assistant", "No.".into()),
        })
        .to_string()
    });
    let pairs = in_folder("pairs.jsonl");
    std::fs::write(&pairs, rows.collect::<Vec<_>>().join("\n")).expect("writes");
    for (model, adapter) in [(&merged, None), (&base, Some(&tuned))] {
        let output = in_folder(if adapter.is_some() {
            "continued"
        } else {
            "preferred"
        });
        let mut arguments = vec!["--model", path(model), "--data", path(&pairs)];
        arguments.extend(["--output", path(&output), "--max-steps", "1"]);
        if let Some(adapter) = adapter {
            arguments.extend(["--adapter", path(adapter)]);
        }
        json("dpo", &arguments);
        // The continued adapter brings its tokenizer on.
        assert_eq!(output.join("tokenizer.json").is_file(), adapter.is_some());
        let stage = std::fs::read_to_string(output.join("adapter_stage.json")).expect("a stage");
        let stage: StageManifest = serde_json::from_str(&stage).expect("JSON");
        assert_eq!(stage.names(), ["sft", "dpo"]);
    }
    // Without the template the chain is refused, with what to do.
    std::fs::remove_file(tuned.join("tokenizer.json")).expect("removes");
    let output = in_folder("refused");
    let arguments = [
        "--model",
        path(&base),
        "--adapter",
        path(&tuned),
        "--data",
        path(&pairs),
        "--output",
        path(&output),
    ];
    let refused = run("dpo", &arguments);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && stderr.contains("has none now"),
        "{stderr}"
    );
}
