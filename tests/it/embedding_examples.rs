//! The examples of embedding models, on a tiny random model.

use std::path::{Path, PathBuf};

use serde_json::{Value, json as object};
use tempfile::TempDir;

use crate::examples::{json, number, path, run};

/// A tiny folder of sentence-transformers.
fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/ft-embed/tests/golden/tiny")
}

/// Pairs with the label 1 for every second row.
fn pairs(folder: &TempDir, labels: bool) -> PathBuf {
    let words = ["cat", "dog", "mat", "ran", "sat", "over"];
    let rows = (0..24).map(|i| {
        let (a, b) = (words[i % 6], words[(i / 6 + i) % 6]);
        let mut row =
            object!({"sentence1": format!("the {a} {i}"), "sentence2": format!("a {b} on {i}")});
        if labels {
            row["label"] = (i % 2).into();
        }
        row
    });
    let data = folder.path().join("pairs.json");
    std::fs::write(&data, Value::from_iter(rows).to_string()).expect("writes");
    data
}

#[test]
fn an_embedding_model_is_trained_and_measured_by_what_its_labels_mean() {
    let work = TempDir::new().expect("folder");
    let (model, data) = (tiny(), pairs(&work, true));
    let output = work.path().join("model");
    let arguments = |more: &[&'static str]| {
        let own = [
            "--model",
            path(&model),
            "--data",
            path(&data),
            "--output",
            path(&output),
        ];
        let mut all: Vec<String> = own.map(str::to_string).to_vec();
        let rest = [
            "--max-steps",
            "2",
            "--batch-size",
            "4",
            "--eval-fraction",
            "0.4",
            "--overwrite",
        ];
        all.extend(rest.iter().chain(more).map(|own| (*own).to_string()));
        all
    };
    let refused = arguments(&[]);
    let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
    let found = run("embed_train", &refused);
    let error = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(
        !found.status.success() && error.contains("positives"),
        "{error}"
    );
    let cases: [(&[&str], &str); 3] = [
        (&["--min-label", "1"], "ndcg"),
        (&["--loss", "contrastive"], "ndcg"),
        (&["--loss", "cosent", "--matryoshka", "10,4"], "spearman"),
    ];
    for (more, measure) in cases {
        let all = arguments(more);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let line = json("embed_train", &all);
        for when in ["before", "after"] {
            let value = number(&line, &format!("{measure}_{when}"));
            assert!((-1.0..=1.0).contains(&value), "{line}");
        }
        let by_dims = line[format!("{measure}_after_by_dims")].as_object();
        let dims = 1 + usize::from(measure == "spearman");
        assert_eq!(by_dims.map(serde_json::Map::len), Some(dims), "{line}");
    }
}

#[test]
fn stored_embeddings_are_those_of_the_folder_as_it_is() {
    let work = TempDir::new().expect("folder");
    let model = work.path().join("model");
    copy(&tiny(), &model);
    let (data, output) = (pairs(&work, false), work.path().join("report"));
    let cached = || {
        let arguments = [
            "--models",
            path(&model),
            "--pairs",
            path(&data),
            "--output",
            path(&output),
        ];
        let line = json("retrieval_benchmark", &arguments);
        line["models"][0]["details"]["cached"].clone()
    };
    assert_eq!(cached(), false);
    assert_eq!(cached(), true);
    let pooling = model.join("1_Pooling/config.json");
    let other = r#"{"embedding_dimension": 16, "pooling_mode": "cls", "include_prompt": true}"#;
    std::fs::write(pooling, other).expect("writes");
    assert_eq!(cached(), false);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("reads") {
        let path = entry.expect("entry").path();
        let own = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &own),
            false => drop(std::fs::copy(&path, own).expect("copies")),
        }
    }
}
