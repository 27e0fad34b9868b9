//! The memory of a step in mini-batches: the peak of a process that takes one, which is another run of this test.

use std::process::Command;

use burn::module::Module;
use burn::tensor::Device;
use ft_core::{AutoBackbone, BackboneConfig};
use ft_embed::{
    EmbeddingModel, EmbeddingTraining, EmbeddingTrainingConfig, PoolingMode, TextDataset, TextRow,
};
use ft_train::{Method, ModelView, StepContext, resident_memory};
use serde_json::json;

use crate::models::load;

const CASE: &str = "FT_EMBED_MINI_BATCH";
const PAIRS: usize = 256;

/// Takes a step on all pairs, and prints by how many bytes the process grew at most.
fn step(mini_batch: usize) {
    let device = Device::default().autodiff();
    // 1.6 million numbers: gradients of all parts at once would be 800 MB.
    let config = BackboneConfig::from_json(json!({
        "model_type": "bert", "vocab_size": 23, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 20, "pad_token_id": 0,
    }));
    let body = AutoBackbone::from_config(&config.expect("a configuration"), &device);
    let tokenizer = load("tiny").tokenizer().clone();
    let model = EmbeddingModel::new(body.expect("a model"), tokenizer, PoolingMode::Mean, true);
    let model = model.expect("fits").train();
    let words = ["cat", "dog", "mat", "ran", "the", "on", "over", "a"];
    let text = |n: usize| [n, n / 8, n / 64].map(|n| words[n % 8]).join(" ");
    let rows = (0..PAIRS).map(|n| TextRow {
        texts: vec![text(n), text(PAIRS - n)],
        labels: Vec::new(),
    });
    let dataset = TextDataset::new(rows.collect()).expect("rows");
    let config = EmbeddingTrainingConfig {
        loss: "mnrl".parse().expect("a loss"),
        mini_batch: Some(mini_batch),
        ..EmbeddingTrainingConfig::default()
    };
    let datasets = std::slice::from_ref(&dataset);
    let mut method =
        EmbeddingTraining::new(config, &model, datasets, PAIRS, Some(1)).expect("fits");
    let context = StepContext::training(&device, 7, 1, 0);
    let batch = (method.batch(&ModelView::new(&model), 0, 0, &context)).expect("a batch");
    let before = resident_memory().expect("is reported");
    let output = method.step(&model, &batch, &context).expect("a step");
    let gradients = output.loss.sum.backward();
    let status = std::fs::read_to_string("/proc/self/status").expect("reads");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    drop(gradients);
    println!("grew {}", (peak.expect("is reported") << 10) - before);
}

/// Two gradients of all numbers and one mini-batch are there at a time: not the gradients of all mini-batches.
#[test]
fn the_gradients_of_one_mini_batch_are_held_at_a_time() {
    if let Ok(case) = std::env::var(CASE) {
        step(case.parse().expect("a number"));
        return;
    }
    let grew = |mini_batch: usize| {
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args([
            "memory::the_gradients_of_one_mini_batch_are_held_at_a_time",
            "--exact",
            "--nocapture",
        ]);
        // With its own settings glibc keeps a varying part of what was freed.
        child.env("MALLOC_MMAP_THRESHOLD_", "65536");
        let output = child
            .env(CASE, mini_batch.to_string())
            .output()
            .expect("runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text.lines().find_map(|line| line.split_once("grew "));
        let found = found.and_then(|(_, bytes)| bytes.trim().parse::<u64>().ok());
        found.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))) >> 20
    };
    let (few, many) = (grew(64), grew(4));
    println!("8 parts: {few} MB, 128 parts: {many} MB");
    assert!(
        many < 60,
        "{many} MB in parts of 4 texts, {few} MB in parts of 64"
    );
}
