//! The examples of quantization, run as a user does.

use serde_json::Value;

use crate::examples::{DATA, json, number, path, run};
use crate::shipped_model::folder;

const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/general.txt");

#[test]
fn formats_are_compared_in_a_table_and_a_picture() {
    let (model, at) = (folder(), tempfile::tempdir().expect("temporary folder"));
    let svg = at.path().join("formats.svg");
    let formats = "f16,q4_0,q4_0-imatrix,nf4,rtn-w3g64,gptq-w3g64,awq-w3g64,hqq-w3g64";
    let options = [
        "--model",
        path(&model),
        "--text",
        TEXT,
        "--calibration",
        TEXT,
        "--formats",
        formats,
        "--context",
        "128",
        "--samples",
        "24",
        "--windows",
        "12",
        "--decode",
        "4",
        "--svg",
        path(&svg),
    ];
    let found = json("compare_formats", &options);
    let rows = found["formats"].as_array().expect("formats");
    assert_eq!(rows.len(), 8, "{found}");
    let of = |name: &str, key: &str| {
        let row = rows.iter().find(|row| row["format"] == name);
        number(row.unwrap_or(&Value::Null), key)
    };
    let whole = of("f16", "perplexity");
    for row in rows {
        let (perplexity, speed) = (number(row, "perplexity"), number(row, "tokens_per_s"));
        assert!(
            perplexity >= 0.97 * whole && perplexity < 1.5 * whole,
            "{row}"
        );
        assert!(
            speed > 0.0 && number(row, "megabytes") <= of("f16", "megabytes"),
            "{row}"
        );
    }
    // On a model as small as this one the perplexities of 3 bits lie in each other's noise.
    assert!(of("gptq-w3g64", "perplexity") < 1.05 * whole, "{found}");
    assert!(
        of("q4_0-imatrix", "perplexity") < of("q4_0", "perplexity"),
        "{found}"
    );
    let picture = std::fs::read_to_string(&svg).expect("a picture");
    assert!(picture.contains("gptq-w3g64") && picture.ends_with("</svg>\n"));
    let unknown = [
        "--model",
        path(&model),
        "--text",
        TEXT,
        "--formats",
        "q4_k_m,abc",
    ];
    let message = String::from_utf8_lossy(&run("compare_formats", &unknown).stderr).to_string();
    assert!(message.contains("\"abc\" is no format"), "{message}");
}

#[test]
fn a_short_quantization_aware_training_recovers_perplexity() {
    let options = [
        "--bits",
        "3",
        "--samples",
        "64",
        "--steps",
        "24",
        "--batch-size",
        "8",
    ];
    let found = json("qat", &options);
    let result = &found["results"][0];
    assert!(number(result, "recovered") > 0.2, "{found}");
    let (simulated, trained) = (number(result, "simulated"), number(result, "trained"));
    assert!((simulated / trained - 1.0).abs() < 2e-3, "{found}");
}

#[test]
fn an_adapter_trains_on_a_base_of_few_bits() {
    let (model, at) = (folder(), tempfile::tempdir().expect("temporary folder"));
    let output = at.path().join("adapter");
    let options = [
        "--model",
        path(&model),
        "--data",
        DATA,
        "--format",
        "messages",
        "--output",
        path(&output),
        "--max-steps",
        "8",
        "--seq-len",
        "96",
        "--lr",
        "3e-3",
        "--packing",
        "--base-format",
        "nf4",
    ];
    let found = json("sft", &options);
    let (before, after) = (
        number(&found, "eval_loss_before"),
        number(&found, "eval_loss_after"),
    );
    assert!(after < 0.95 * before, "{found}");
    let whole = [&options[..], &["--method", "full", "--overwrite"]].concat();
    let message = String::from_utf8_lossy(&run("sft", &whole).stderr).to_string();
    assert!(message.contains("below an adapter"), "{message}");
}

#[test]
fn a_mix_is_rounded_by_what_matters_on_a_text() {
    let (model, at) = (folder(), tempfile::tempdir().expect("temporary folder"));
    let errors = [None, Some(TEXT)].map(|text| {
        let file = at.path().join(if text.is_some() {
            "weighted.gguf"
        } else {
            "plain.gguf"
        });
        let mut options = vec![
            "--model",
            path(&model),
            "--format",
            "q4_k_m",
            "--output",
            path(&file),
        ];
        options.extend(
            text.iter()
                .flat_map(|text| ["--calibration", text, "--context", "64"]),
        );
        number(&json("quantize", &options), "mean_error")
    });
    // Other blocks with errors of the same order: columns that matter less lose more.
    let ratio = errors[1] / errors[0];
    assert!(ratio != 1.0 && ratio > 0.5 && ratio < 1.5, "{errors:?}");
}
