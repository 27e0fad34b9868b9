//! Decoders that score tokens against transformers, and their folders. The golden folder is made by `golden/token_classifiers.py`.

use std::collections::BTreeMap;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use ft_core::safetensors_folder::{module_tensors, read_tensors};
use ft_core::{
    AutoTokenClassifier, IGNORE_INDEX, ModelConfig, SaveOptions, SequenceClassifierConfig,
    TokenBatch, Weights,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::models::{assert_close, assert_gradients, golden, host, ints};

const NAME: &str = "llama_tokens";

fn load(device: &Device) -> AutoTokenClassifier {
    AutoTokenClassifier::from_pretrained_with(&golden(NAME), device, Weights::F32).expect("loads")
}

#[test]
fn scores_loss_and_gradients_are_those_of_transformers() {
    let expected: BTreeMap<String, TensorData> =
        read_tensors(&golden(NAME).join("golden.safetensors")).expect("golden");
    let device = Device::default().autodiff();
    let model = load(&device);
    let tokens = TokenBatch::new(ints(&expected["input_ids"], &device));
    let scores = model.scores(&tokens);
    assert_close(NAME, scores.clone().into_data(), &expected["scores"], 2e-5);
    let labels: Vec<i64> = host(&expected["labels"]);
    let counted = labels
        .iter()
        .filter(|&&label| label != IGNORE_INDEX)
        .count();
    // The class of each label; rows that do not count weigh 0.
    let weights: Vec<f32> = labels
        .iter()
        .flat_map(|&label| [0, 1].map(|class| f32::from(u8::from(label == class))))
        .collect();
    let weights = Tensor::<3>::from_data(TensorData::new(weights, scores.dims()), &device);
    let loss = -(log_softmax(scores, 2) * weights).sum() / counted as f64;
    assert_close(NAME, loss.clone().into_data(), &expected["loss"], 1e-5);
    assert_gradients(&model, loss.backward(), &expected);
}

#[test]
fn folders_are_those_of_transformers() {
    let model = load(&Device::default());
    let folder = TempDir::new().expect("folder");
    model
        .save_pretrained(folder.path(), &SaveOptions::default())
        .expect("saves");
    let text = std::fs::read(folder.path().join("config.json")).expect("reads");
    let config: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(
        config["architectures"],
        json!(["LlamaForTokenClassification"])
    );
    let device = Device::default();
    let again = AutoTokenClassifier::from_pretrained_with(folder.path(), &device, Weights::F32);
    let again = again.expect("loads");
    assert_eq!(module_tensors(&again), module_tensors(&model));
    let tensors = module_tensors(&again);
    assert!(tensors.iter().any(|(path, _)| path == "score.bias"));
}

#[test]
fn a_language_model_begins_with_a_new_head() {
    let folder = golden("llama");
    let body = ModelConfig::from_pretrained(&folder).expect("config.json");
    let config = SequenceClassifierConfig::new(body, 2);
    let device = Device::default();
    let start = |seed| {
        AutoTokenClassifier::from_causal_lm(&folder, &config, seed, &device, Weights::Stored)
            .expect("loads")
    };
    let tokens = TokenBatch::from_ids(&[3, 14, 15, 9], &device);
    let scores = |seed| start(seed).scores(&tokens).into_data();
    assert_eq!(scores(7).shape()[..], [1, 4, 2]);
    assert_eq!(scores(7), scores(7));
    assert_ne!(scores(7), scores(8));
    // A folder without a head is no classifier.
    let error = AutoTokenClassifier::from_pretrained_with(&folder, &device, Weights::F32);
    assert!(
        error
            .expect_err("no head")
            .to_string()
            .contains("from_causal_lm")
    );
    let body = ModelConfig::from_pretrained(&golden("gpt2")).expect("config.json");
    let config = SequenceClassifierConfig::new(body, 2);
    let error = AutoTokenClassifier::from_config(&config, &device).expect_err("another name");
    assert!(error.to_string().contains("gpt2"), "{error}");
}
