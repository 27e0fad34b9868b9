//! The estimate of a step's memory beside the peak of a process that trains, which is another run of this test.

use crate::model::alone;
use std::process::Command;

use burn::tensor::Device;
use ft_core::{AutoCausalLm, ModelConfig};
use ft_data::{Batch, Batches};
use ft_peft::{LoraConfig, attach};
use ft_train::{
    MemoryEstimate, Optim, TrainConfig, Trainer, Workload, next_token_loss, resident_memory,
};
use serde_json::{Value, json};

const CASE: &str = "FT_MEMORY_CASE";
const ROWS: usize = 4;
const TOKENS: usize = 512;

/// Equal batches of tokens that all are learnt.
struct Same;

impl Batches for Same {
    type Batch = Batch;

    fn len(&self, _: usize) -> usize {
        4
    }

    fn batch(&self, _: usize, _: usize) -> Batch {
        let ids: Vec<i64> = (0..ROWS * TOKENS).map(|n| (n * 37 % 3000) as i64).collect();
        Batch {
            labels: ids.clone(),
            input_ids: ids,
            batch: ROWS,
            seq: TOKENS,
            lengths: vec![TOKENS; ROWS],
            ..Batch::default()
        }
    }
}

/// Trains as the case says, and prints estimate and peak.
fn train(case: &Value) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let has = |name: &str| case[name] == true;
    let mut device = Device::default().autodiff();
    if has("again") {
        device = device.gradient_checkpointing();
    }
    let mut config = json!({
        "vocab_size": 3072, "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 5,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": true,
        "head_dim": 64, "pad_token_id": 0,
    });
    config["model_type"] = case["family"].clone();
    if case["family"] == "gpt2" {
        config = json!({"model_type": "gpt2", "vocab_size": 3072, "n_embd": 256, "n_layer": 5, "n_head": 4, "n_positions": 512});
    }
    let config = ModelConfig::from_json(config).expect("a configuration");
    let program = resident_memory().expect("is reported");
    let mut model = AutoCausalLm::from_config(&config, &device).expect("a model");
    if has("lora") {
        let lora = LoraConfig {
            r: 16,
            ..LoraConfig::default()
        };
        model = attach(model, &lora, "default", 0).expect("attaches");
    }
    let optim: Optim = case["optim"]
        .as_str()
        .unwrap_or("adamw")
        .parse()
        .expect("a name");
    let accumulated = case["accumulated"].as_u64().unwrap_or(1) as usize;
    let work = Workload {
        batch_size: ROWS,
        seq_len: TOKENS,
        gradient_accumulation_steps: accumulated,
        optim,
        gradient_checkpointing: has("again"),
        saves: true,
    };
    let estimate = MemoryEstimate::of(&model, &work);
    let settings = TrainConfig {
        max_steps: Some(2),
        gradient_accumulation_steps: accumulated,
        optim,
        output_dir: Some(folder.path().to_path_buf()),
        progress: false,
        ..TrainConfig::default()
    };
    Trainer::new(settings, Same, next_token_loss)
        .fit(model)
        .expect("trains");
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .expect("is reported");
    let found = json!({
        "estimate": estimate.of_process(program) >> 10, "peak": peak, "moment": estimate.moment.to_string(),
        "program": program >> 10,
    });
    println!("found {found}");
}

/// The peaks of SmolLM2-135M that docs/performance.md has, in MB.
#[test]
fn estimates_are_within_a_tenth_of_measured_peaks() {
    let _turn = alone();
    let config = json!({
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "tie_word_embeddings": true,
    });
    let config = ModelConfig::from_json(config).expect("a configuration");
    for (lora, again, rows, tokens, peak) in [
        (true, false, 4, 256, 1346.0),
        (true, false, 1, 2048, 2038.0),
        (true, true, 1, 2048, 854.0),
        (false, false, 4, 256, 2584.0),
    ] {
        let device = Device::default().autodiff();
        let mut model = AutoCausalLm::from_config(&config, &device).expect("a model");
        if lora {
            let lora = LoraConfig {
                r: 16,
                ..LoraConfig::default()
            };
            model = attach(model, &lora, "default", 0).expect("attaches");
        }
        let work = Workload {
            batch_size: rows,
            seq_len: tokens,
            gradient_accumulation_steps: 1,
            optim: Optim::AdamW,
            gradient_checkpointing: again,
            saves: false,
        };
        let estimate = MemoryEstimate::of(&model, &work);
        let found = (estimate.of_process(12 << 20) >> 20) as f64;
        assert!(
            (found / peak - 1.0).abs() < 0.1,
            "{found} for {peak}: {estimate:?}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn estimates_are_near_the_peak_of_a_process() {
    if let Ok(case) = std::env::var(CASE) {
        train(&serde_json::from_str(&case).expect("is JSON"));
        return;
    }
    let cases = [
        json!({"family": "llama", "lora": true}),
        json!({"family": "llama", "lora": true, "again": true}),
        json!({"family": "llama"}),
        json!({"family": "llama", "again": true}),
        json!({"family": "llama", "optim": "adamw_8bit"}),
        json!({"family": "llama", "accumulated": 2}),
        json!({"family": "gpt2", "lora": true}),
        json!({"family": "qwen3", "lora": true}),
        json!({"family": "gemma2", "lora": true}),
        json!({"family": "phi3", "lora": true}),
    ];
    let test = std::env::current_exe().expect("this program");
    let found: Vec<(String, Value)> = cases
        .iter()
        .map(|case| {
            let mut child = Command::new(&test);
            child.args([
                "memory::estimates_are_near_the_peak_of_a_process",
                "--exact",
                "--nocapture",
            ]);
            // With its own settings glibc keeps a varying part of what was freed, up to a third of a process this small.
            child.env("MALLOC_MMAP_THRESHOLD_", "65536");
            let output = child.env(CASE, case.to_string()).output().expect("runs");
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().find_map(|line| line.split_once("found "));
            let errors = String::from_utf8_lossy(&output.stderr);
            let (_, line) = line.unwrap_or_else(|| panic!("{case}: {text}{errors}"));
            (
                case.to_string(),
                serde_json::from_str(line).expect("is JSON"),
            )
        })
        .collect();
    let lines: Vec<String> = found
        .iter()
        .map(|(case, found)| format!("{case}: {found}"))
        .collect();
    // Measured: within 3%; 8 and 14% high with recomputation.
    let near = |(case, found): &(String, Value)| {
        let number = |key: &str| found[key].as_f64().expect("a number");
        let bound = if case.contains("again") { 0.2 } else { 0.08 };
        (number("estimate") / number("peak") - 1.0).abs() < bound
    };
    assert!(found.iter().all(near), "{}", lines.join("\n"));
    println!("{}", lines.join("\n"));
}
