//! The examples of quantization, run as a user does.

use std::path::Path;

use ft::burn::tensor::{Device, Int, Tensor, TensorData};
use ft::core::{AutoCausalLm, CausalLm, TokenBatch, Tokenizer, Weights, causal_lm_loss};
use ft::quant::{Algorithm, QuantizeConfig, Scheme, calibration_windows, quantize_model};
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
    // The adapter's folder has what it was trained on.
    let stage = std::fs::read_to_string(output.join("adapter_stage.json")).expect("a record");
    assert!(stage.contains("\"base_format\": \"NF4\""), "{stage}");
    // A model that is in blocks already is not rounded a second time.
    let file = at.path().join("model.gguf");
    let mix = [
        "--model",
        path(&model),
        "--format",
        "q8_0",
        "--output",
        path(&file),
    ];
    json("quantize", &mix);
    let mut twice = options;
    (twice[1], twice[7]) = (path(&file), path(at.path()));
    let message = String::from_utf8_lossy(&run("sft", &twice).stderr).to_string();
    assert!(message.contains("is held in Q8_0 already"), "{message}");
}

fn stored(folder: &Path) -> AutoCausalLm {
    AutoCausalLm::from_pretrained_with(folder, &Device::default(), Weights::Stored).expect("loads")
}

/// The perplexity of windows of the text.
fn perplexity(model: &AutoCausalLm, windows: &[Vec<u32>]) -> f64 {
    let ids: Vec<i64> = windows.iter().flatten().map(|id| i64::from(*id)).collect();
    let shape = [windows.len(), windows[0].len()];
    let input_ids = TensorData::new(ids.clone(), shape);
    let input_ids = Tensor::<2, Int>::from_data(input_ids, &Device::default());
    let hidden = model.hidden_states(&TokenBatch::new(input_ids), None);
    let loss = causal_lm_loss(hidden, model.head(), &ids);
    (loss.sum.into_scalar::<f64>() / loss.count as f64).exp()
}

#[test]
fn a_folder_has_the_perplexity_of_the_model_that_was_quantized() {
    let (model, at) = (folder(), tempfile::tempdir().expect("temporary folder"));
    let tokenizer = Tokenizer::from_pretrained(&model).expect("tokenizer");
    let windows = calibration_windows(Path::new(TEXT), &tokenizer, 64, 16).expect("windows");
    let whole = perplexity(&stored(&model), &windows);
    for (method, bits, layout) in [
        ("rtn", 3, "compressed-tensors"),
        ("gptq", 3, "gptq"),
        ("awq", 4, "awq"),
        ("awq", 3, "compressed-tensors"),
        ("hqq", 3, "hqq"),
    ] {
        let name = format!("{method} in {bits} bits");
        let output = at.path().join(&name);
        let bits_text = bits.to_string();
        let options = [
            "--model",
            path(&model),
            "--method",
            method,
            "--bits",
            &bits_text,
            "--group-size",
            "32",
            "--calibration",
            TEXT,
            "--context",
            "64",
            "--samples",
            "16",
            "--output",
            path(&output),
        ];
        let line = json("quantize", &options);
        assert_eq!(line["layout"], layout, "{name}");
        assert!(number(&line, "seconds") > 0.0 && number(&line, "peak_rss_mb") > 0.0);

        let mut quantized = stored(&model);
        let config = QuantizeConfig {
            algorithm: Algorithm::by_name(method).expect("a method"),
            scheme: Scheme::grouped(bits, 32),
        };
        let report = quantize_model(&mut quantized, &config, Some(&windows), &mut |_, _| {});
        let error = report.expect("rounds").mean_error();
        assert!(
            (number(&line, "mean_error") / error - 1.0).abs() < 1e-4,
            "{name}"
        );

        let again = stored(&output);
        let (expected, found) = (
            perplexity(&quantized, &windows),
            perplexity(&again, &windows),
        );
        assert!(expected != whole, "{name}");
        // Scales are rounded to 16 bits.
        assert!(
            (found / expected - 1.0).abs() < 1e-3,
            "{name}: {found}, {expected}"
        );
        let size = |folder: &Path| {
            let file = folder.join("model.safetensors");
            std::fs::metadata(file).expect("is there").len() as f64
        };
        assert_eq!(number(&line, "bytes"), size(&output), "{name}");
        assert!(size(&output) < 0.5 * size(&model), "{name}");
        assert!(Tokenizer::from_pretrained(&output).is_ok(), "{name}");
    }
    let refused = |options: &[&str]| {
        let output = at.path().join("refused");
        let all = ["--model", path(&model), "--output", path(&output)];
        let message = run("quantize", &[&all[..], options].concat()).stderr;
        assert!(!output.exists(), "{options:?}");
        String::from_utf8_lossy(&message).to_string()
    };
    let message = refused(&["--method", "gptq"]);
    assert!(message.contains("need a calibration text"), "{message}");
    let message = refused(&["--method", "rtn", "--group-size", "48"]);
    assert!(message.contains("multiple of 32"), "{message}");
    let message = refused(&["--bits-per-weight", "4.5"]);
    assert!(message.contains("--calibration"), "{message}");
    let message = refused(&["--method", "rtn", "--alpha", "0.5"]);
    assert!(message.contains("--method smoothquant"), "{message}");
    let message = refused(&[
        "--method",
        "smoothquant",
        "--bits",
        "4",
        "--calibration",
        TEXT,
    ]);
    assert!(message.contains("SmoothQuant has 8 bits"), "{message}");
    let message = refused(&["--method", "smoothquant", "--group-size", "64"]);
    assert!(message.contains("leave out --group-size"), "{message}");
    let message = refused(&["--method", "abc"]);
    assert!(message.contains("the methods are rtn"), "{message}");
    let message = refused(&["--format", "q4_0", "--bits", "3"]);
    assert!(message.contains("--bits"), "{message}");
    let message = refused(&[]);
    assert!(message.contains("--format"), "{message}");
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
        let error = number(&json("quantize", &options), "mean_error");
        let modelfile = std::fs::read_to_string(at.path().join("Modelfile")).expect("a Modelfile");
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        assert!(
            modelfile.starts_with(&format!("FROM ./{name}\n")),
            "{modelfile}"
        );
        assert!(modelfile.contains("PARAMETER stop"), "{modelfile}");
        error
    });
    // Other blocks with errors of the same order: columns that matter less lose more.
    let ratio = errors[1] / errors[0];
    assert!(ratio != 1.0 && ratio > 0.5 && ratio < 1.5, "{errors:?}");
}

#[test]
fn smoothquant_writes_a_folder_and_a_budget_a_file() {
    let (model, at) = (folder(), tempfile::tempdir().expect("temporary folder"));
    let tokenizer = Tokenizer::from_pretrained(&model).expect("tokenizer");
    let windows = calibration_windows(Path::new(TEXT), &tokenizer, 64, 16).expect("windows");
    let whole = perplexity(&stored(&model), &windows);
    let smooth: [&str; 4] = ["--method", "smoothquant", "--alpha", "0.6"];
    for (name, options, most) in [
        ("smooth", &smooth[..], 1.02),
        ("4.5 bits", &["--bits-per-weight", "4.5"], 1.05),
        ("2.2 megabytes", &["--megabytes", "2.2"], 1.05),
    ] {
        let output =
            at.path()
                .join(name)
                .with_extension(if name == "smooth" { "" } else { "gguf" });
        let all = [
            "--model",
            path(&model),
            "--calibration",
            TEXT,
            "--context",
            "64",
            "--samples",
            "16",
            "--output",
            path(&output),
        ];
        let line = json("quantize", &[&all[..], options].concat());
        let found = perplexity(&stored(&output), &windows);
        assert!(
            found != whole && found < most * whole,
            "{name}: {found}, {whole}"
        );
        match name {
            "smooth" => assert_eq!(line["layout"], "compressed-tensors"),
            "4.5 bits" => assert!(number(&line, "bits_per_weight") <= 4.5, "{line}"),
            _ => assert!(number(&line, "bytes") <= 2.2e6, "{line}"),
        }
        assert_eq!(line["types"].is_object(), name != "smooth", "{line}");
    }
}
