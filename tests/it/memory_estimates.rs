//! The memory that `sft` estimates, beside the peak that it then has.

use std::fs;
use std::path::Path;

use ft::burn::tensor::Device;
use ft::core::{AutoCausalLm, ModelConfig, SaveOptions, mix_seed};
use serde_json::json;
use tempfile::TempDir;

use crate::examples::{json, number, path};
use crate::shipped_model::folder;

/// Estimate and peak of two steps on rows of so many tokens, in MB.
fn both(model: &Path, rows: usize, seq_len: usize, more: &[&str]) -> (f64, f64) {
    let work = TempDir::new().expect("temporary folder");
    let data = work.path().join("rows.jsonl");
    let words = ["cow", "red", "house", "one", "of", "the", "garden", "so"];
    let row = |row: usize| {
        let word = |n: usize| words[mix_seed(row as u64, n as u64) as usize % words.len()];
        let text = (0..seq_len).map(word).collect::<Vec<_>>().join(" ");
        json!({ "text": text }).to_string()
    };
    let lines: Vec<String> = (0..2 * rows).map(row).collect();
    fs::write(&data, lines.join("\n")).expect("writes");
    let (rows, seq_len, output) = (
        rows.to_string(),
        seq_len.to_string(),
        work.path().join("run"),
    );
    let mut arguments = vec![
        "--model",
        path(model),
        "--data",
        path(&data),
        "--output",
        path(&output),
    ];
    arguments.extend([
        "--format",
        "text",
        "--batch-size",
        &rows,
        "--seq-len",
        &seq_len,
    ]);
    arguments.extend(["--max-steps", "2", "--eval-fraction", "0"]);
    arguments.extend(more);
    let run = json("sft", &arguments);
    arguments.push("--estimate");
    let estimate = json("sft", &arguments);
    (number(&estimate, "peak_mb"), number(&run, "peak_rss_mb"))
}

const SETTINGS: [(&str, &[&str]); 5] = [
    ("LoRA", &[]),
    ("recomputation", &["--gradient-checkpointing"]),
    ("all weights", &["--method", "full"]),
    (
        "all weights, 8-bit states",
        &["--method", "full", "--optim", "adamw-8bit"],
    ),
    (
        "all weights, accumulated, recomputation",
        &[
            "--method",
            "full",
            "--grad-accum",
            "2",
            "--gradient-checkpointing",
        ],
    ),
];

fn check(model: &Path, rows: usize, seq_len: usize, settings: &[(&str, &[&str])]) {
    let found: Vec<(&str, f64, f64)> = settings
        .iter()
        .map(|(name, more)| {
            let (estimate, peak) = both(model, rows, seq_len, more);
            (*name, estimate, peak)
        })
        .collect();
    let near = |(_, estimate, peak): &(&str, f64, f64)| (estimate / peak - 1.0).abs() < 0.1;
    assert!(found.iter().all(near), "{found:?}");
}

#[test]
fn estimates_are_within_a_tenth_of_the_peak() {
    check(&folder(), 8, 512, &SETTINGS[..4]);
}

/// Blocks of other families keep other tensors: fused projections, layer norms, norms after sublayers and of heads.
#[test]
fn estimates_hold_for_other_families() {
    let base = json!({
        "vocab_size": 3072, "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 512,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    });
    let gpt2 = json!({
        "model_type": "gpt2", "vocab_size": 3072, "n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 512,
        "bos_token_id": 1, "eos_token_id": 2,
    });
    let mut found = Vec::new();
    for family in [
        "gpt2", "gpt_neox", "gemma2", "olmo2", "phi", "phi3", "qwen3", "falcon",
    ] {
        let mut config = base.clone();
        config["model_type"] = family.into();
        if family == "gpt2" {
            config = gpt2.clone();
        }
        let config = ModelConfig::from_json(config).expect("a configuration");
        let model = AutoCausalLm::from_config(&config, &Device::default()).expect("a model");
        let work = TempDir::new().expect("temporary folder");
        model
            .save_pretrained(work.path(), &SaveOptions::default())
            .expect("writes");
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(folder().join(name), work.path().join(name)).expect("copies");
        }
        let (estimate, peak) = both(work.path(), 8, 512, &[]);
        found.push((family, estimate, peak));
    }
    let near = |(_, estimate, peak): &(&str, f64, f64)| (estimate / peak - 1.0).abs() < 0.1;
    assert!(found.iter().all(near), "{found:?}");
}

#[test]
fn estimates_for_a_real_model_are_within_a_tenth_of_the_peak() {
    let Some(models) = std::env::var_os("FT_TEST_MODELS") else {
        eprintln!("skipped: FT_TEST_MODELS is not set");
        return;
    };
    let model = Path::new(&models).join("smollm2-135m-instruct");
    check(&model, 2, 256, &SETTINGS);
}

#[test]
fn the_largest_batch_that_fits_is_found_and_is_part_of_the_manifest() {
    let work = TempDir::new().expect("temporary folder");
    let output = work.path().join("run");
    let model = folder();
    let mut arguments = vec!["--model", path(&model), "--data", crate::examples::DATA];
    arguments.extend([
        "--batch-size",
        "auto",
        "--seq-len",
        "64",
        "--max-steps",
        "1",
    ]);
    arguments.extend(["--eval-fraction", "0.02", "--output", path(&output)]);
    let estimate = json("sft", &[&arguments[..], &["--estimate"]].concat());
    let rows = number(&estimate, "batch_size");
    assert!(!output.exists());
    json("sft", &arguments);
    let manifest = fs::read_to_string(output.join("manifest.json")).expect("reads");
    assert!(
        manifest.contains(&format!("\"--batch-size={rows}\"")),
        "{manifest}"
    );
}
