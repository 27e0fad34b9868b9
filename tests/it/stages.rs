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
        !refused.status.success() && stderr.contains("another chat template"),
        "{stderr}"
    );
}
