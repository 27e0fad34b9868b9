//! Models that score sequences against transformers, and their folders. The golden folders are made by
//! `golden/sequence_classifiers.py`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::safetensors_folder::{WeightFiles, module_tensors, read_tensors, write_tensors};
use ft_core::{
    AutoCausalLm, AutoSequenceClassifier, ModelConfig, Parts, SaveOptions,
    SequenceClassifierConfig, TokenBatch, Weights,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::models::{assert_close, assert_gradients, golden, host, ints};

const FOLDERS: [&str; 4] = [
    "llama_1_label",
    "llama_3_labels",
    "gpt2_1_label",
    "gpt2_3_labels",
];

/// Folders of causal language models of every family, tied and untied.
const CAUSAL: [&str; 14] = [
    "llama",
    "llama_untied_bias",
    "mistral",
    "qwen3",
    "gpt2",
    "gpt_neox",
    "gemma2",
    "gemma3",
    "smollm3",
    "olmo2",
    "granite",
    "phi",
    "phi3",
    "falcon_11b",
];

fn load(name: &str, device: &Device) -> AutoSequenceClassifier {
    AutoSequenceClassifier::from_pretrained(&golden(name), device).expect("loads")
}

/// A classifier with three labels on the body of a language model.
fn started(name: &str, weights: Weights) -> AutoSequenceClassifier {
    let folder = golden(name);
    let body = ModelConfig::from_pretrained(&folder).expect("config.json");
    let config = SequenceClassifierConfig::new(body, 3);
    AutoSequenceClassifier::from_causal_lm(&folder, &config, 7, &Device::default(), weights)
        .expect("loads")
}

fn scores(model: &AutoSequenceClassifier) -> TensorData {
    let tokens = TokenBatch::from_ids(&[3, 14, 15, 9], &Device::default());
    model.scores(&tokens, &[4]).into_data()
}

fn saved(model: &AutoSequenceClassifier) -> TempDir {
    let folder = TempDir::new().expect("temporary folder");
    let options = SaveOptions::default();
    model
        .save_pretrained(folder.path(), &options)
        .expect("saves");
    folder
}

/// The loss that transformers takes: mean squared error for one label, else cross-entropy.
fn loss(scores: Tensor<2>, labels: &TensorData) -> Tensor<1> {
    let device = scores.device();
    match scores.dims()[1] {
        1 => {
            let labels = Tensor::<1>::from_data(labels.clone(), &device);
            (scores.squeeze_dim::<1>(1) - labels).square().mean()
        }
        _ => {
            let labels = Tensor::<1, Int>::from_data(labels.clone(), &device);
            -log_softmax(scores, 1)
                .gather(1, labels.unsqueeze_dim(1))
                .mean()
        }
    }
}

fn agrees_with_transformers(name: &str) {
    let expected: BTreeMap<String, TensorData> =
        read_tensors(&golden(name).join("golden.safetensors")).expect("golden");
    let lengths = host(&expected["lengths"]);
    let lengths: Vec<usize> = lengths.into_iter().map(|n| n as usize).collect();
    let device = Device::default().autodiff();
    for device in [device.clone(), device.gradient_checkpointing()] {
        let model = load(name, &device);
        let tokens = TokenBatch::new(ints(&expected["input_ids"], &device));
        let scores = model.scores(&tokens, &lengths);
        assert_close(name, scores.clone().into_data(), &expected["scores"], 2e-5);
        let loss = loss(scores, &expected["labels"]);
        assert_close(name, loss.clone().into_data(), &expected["loss"], 1e-5);
        assert_gradients(&model, loss.backward(), &expected);
    }
}

#[test]
fn llama_with_one_label_and_with_three_agrees() {
    agrees_with_transformers("llama_1_label");
    agrees_with_transformers("llama_3_labels");
}

#[test]
fn gpt2_with_one_label_and_with_three_agrees() {
    agrees_with_transformers("gpt2_1_label");
    agrees_with_transformers("gpt2_3_labels");
}

/// transformers would take the token before padding's id for the last one.
#[test]
fn the_last_token_counts_even_if_it_is_the_paddings() {
    let device = Device::default();
    let model = load("llama_1_label", &device);
    let pad = model.config().pad_token_id.expect("has padding") as u32;
    let alone = TokenBatch::from_ids(&[5, 6, pad], &device);
    let padded = [5, 6, pad, pad, pad, 8, 9, 10, 11, pad].map(i64::from);
    let padded = Tensor::<1, Int>::from_data(TensorData::from(padded), &device).reshape([2, 5]);
    let together = model.scores(&TokenBatch::new(padded), &[3, 5]).into_data();
    let alone = model.scores(&alone, &[3]).into_data();
    let first = together.as_slice::<f32>().expect("f32")[0];
    let alone = alone.as_slice::<f32>().expect("f32")[0];
    assert!((first - alone).abs() < 1e-5, "{first} {alone}");
}

#[test]
fn a_saved_classifier_loads_with_the_same_numbers_and_settings() {
    for name in FOLDERS {
        let device = Device::default();
        let model = load(name, &device);
        let folder = saved(&model);
        let again = AutoSequenceClassifier::from_pretrained(folder.path(), &device);
        let again = again.expect("loads");
        assert_eq!(scores(&again), scores(&model), "{name}");
        assert_eq!(module_tensors(&again), module_tensors(&model), "{name}");
        let read = |path: &Path| -> Value {
            let bytes = std::fs::read(path.join("config.json")).expect("reads");
            serde_json::from_slice(&bytes).expect("JSON")
        };
        let (before, after) = (read(&golden(name)), read(folder.path()));
        for key in [
            "architectures",
            "id2label",
            "label2id",
            "problem_type",
            "pad_token_id",
            "tie_word_embeddings",
        ] {
            let absent = json!(null);
            let before = before.get(key).unwrap_or(&absent);
            assert_eq!(after.get(key).unwrap_or(&absent), before, "{name}: {key}");
        }
    }
}

#[test]
fn every_family_starts_from_a_language_model_and_keeps_no_output_layer() {
    for name in CAUSAL {
        let model = started(name, Weights::F32);
        assert_eq!(model.num_labels(), 3);
        let whole = AutoCausalLm::from_pretrained(&golden(name), &Device::default());
        let whole = whole.expect("loads");
        let output = whole.output_layer();
        let body: Vec<_> = module_tensors(&whole)
            .into_iter()
            .filter(|(path, _)| !path.starts_with(output))
            .collect();
        let (head, kept): (Vec<_>, Vec<_>) = module_tensors(&model)
            .into_iter()
            .partition(|(path, _)| path == "score.weight");
        assert_eq!(kept, body, "{name}");
        assert_eq!(head.len(), 1, "{name}");

        let folder = saved(&model);
        let files = WeightFiles::open(folder.path()).expect("opens");
        assert_eq!(files.names().count(), kept.len() + 1, "{name}");
        let again = AutoSequenceClassifier::from_pretrained(folder.path(), &Device::default());
        let again = again.expect("loads");
        let settings = |model: &AutoSequenceClassifier| {
            let body = model.config().body.clone();
            (body.dims(), body.model_type(), body.tie_word_embeddings())
        };
        assert_eq!(settings(&again), settings(&model), "{name}");
        let causal = whole.config();
        assert_eq!(settings(&model).2, causal.tie_word_embeddings(), "{name}");
        assert_eq!(scores(&again), scores(&model), "{name}");
    }
}

/// Writes classifiers of every family for `golden/into_transformers.py`, which compares the scores of transformers.
#[test]
fn classifiers_are_written_for_transformers() {
    let Some(output) = std::env::var_os("FT_TEST_INTO_TRANSFORMERS").map(PathBuf::from) else {
        eprintln!("skipped: FT_TEST_INTO_TRANSFORMERS names no folder");
        return;
    };
    for name in CAUSAL {
        let (model, folder) = (started(name, Weights::F32), output.join(name));
        let options = SaveOptions::default();
        model.save_pretrained(&folder, &options).expect("saves");
        let tensors = [("scores".to_string(), scores(&model))];
        let path = folder.join("scores.safetensors");
        write_tensors(&path, &tensors, &HashMap::new()).expect("writes");
    }
}

#[test]
fn a_new_head_follows_from_its_seed_and_stored_weights_stay_stored() {
    let wide = started("llama_bf16", Weights::F32);
    let stored = started("llama_bf16", Weights::Stored);
    let heads = [&wide, &stored].map(|model| {
        let mut head = None;
        model.for_each_linear(&mut |path, linear| {
            if path == "score" {
                head = Some(linear.weight.val().into_data());
            }
        });
        head.expect("a head")
    });
    assert_eq!(heads[0], heads[1]);
    assert_eq!(wide.output_layer(), "score");
    assert_close("scores", scores(&stored), &scores(&wide), 2e-6);
    assert!(wide.num_params() > 3 * 32);
}

#[test]
fn folders_of_the_other_kind_say_what_to_do() {
    let device = Device::default();
    let error = AutoSequenceClassifier::from_pretrained(&golden("llama"), &device);
    let error = error.expect_err("a language model").to_string();
    assert!(
        error.contains("score.weight") && error.contains("from_causal_lm"),
        "{error}"
    );
    let folder = golden("llama_1_label");
    let config = SequenceClassifierConfig::from_pretrained(&folder).expect("config.json");
    let error = AutoSequenceClassifier::from_causal_lm(&folder, &config, 1, &device, Weights::F32);
    let error = error.expect_err("a classifier").to_string();
    assert!(error.contains("score.weight"), "{error}");
    let config = SequenceClassifierConfig {
        labels: Vec::new(),
        ..config
    };
    let error = AutoSequenceClassifier::from_config(&config, &device);
    let error = error.expect_err("no labels").to_string();
    assert!(error.contains("at least one"), "{error}");
}
