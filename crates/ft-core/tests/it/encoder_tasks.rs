//! Encoders with heads against transformers, and their folders; made by `golden/encoder_tasks.py`.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::safetensors_folder::{module_tensors, read_tensors};
use ft_core::{
    EncoderMaskedLm, EncoderQuestionAnswering, EncoderSequenceClassifier, EncoderTask,
    EncoderTaskConfig, EncoderTokenClassifier, ProblemType, SaveOptions, TokenBatch,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::encoders::gradients_agree;
use crate::models::{assert_close, golden, host, ints};

type Golden = BTreeMap<String, TensorData>;

fn read(name: &str) -> Golden {
    read_tensors(&golden(name).join("golden.safetensors")).expect("golden")
}

fn tokens(expected: &Golden, device: &Device) -> TokenBatch {
    TokenBatch {
        segment_ids: Some(ints(&expected["attention_mask"], device)),
        token_type_ids: Some(ints(&expected["token_type_ids"], device)),
        ..TokenBatch::new(ints(&expected["input_ids"], device))
    }
}

/// Rows of 9, 4 and 2 tokens.
fn places() -> [Range<usize>; 3] {
    [0..9, 9..13, 18..20]
}

/// The mean of `−ln softmax` at the labels, of rows whose label is not −100.
fn entropy(logits: Tensor<2>, labels: &TensorData) -> Tensor<1> {
    let device = logits.device();
    let labels: Vec<i64> = host(labels);
    let kept: Vec<i64> = (0..labels.len() as i64)
        .filter(|&row| labels[row as usize] != -100)
        .collect();
    let chosen: Vec<i64> = kept.iter().map(|&row| labels[row as usize]).collect();
    let count = kept.len();
    let kept = Tensor::<1, Int>::from_data(TensorData::new(kept, [count]), &device);
    let chosen = Tensor::<2, Int>::from_data(TensorData::new(chosen, [count, 1]), &device);
    -log_softmax(logits.select(0, kept), 1)
        .gather(1, chosen)
        .mean()
}

fn devices() -> [Device; 2] {
    let device = Device::default().autodiff();
    [device.clone(), device.gradient_checkpointing()]
}

#[test]
fn scores_of_texts_agree() {
    for family in [
        "bert",
        "roberta",
        "distilbert",
        "deberta",
        "mpnet",
        "modernbert",
    ] {
        let name = format!("task_{family}_sequence");
        let expected = read(&name);
        for device in devices() {
            let model = EncoderSequenceClassifier::from_pretrained(&golden(&name), &device);
            let model = model.expect("loads");
            let scores = model.scores(&tokens(&expected, &device), &places());
            assert_close(&name, scores.to_data(), &expected["logits"], 2e-5);
            let loss = entropy(scores, &expected["labels"]);
            assert_close(&name, loss.to_data(), &expected["loss"], 2e-5);
            gradients_agree(&model, loss.backward(), &expected);
        }
    }
}

#[test]
fn scores_of_tokens_agree() {
    for family in [
        "bert",
        "roberta",
        "distilbert",
        "deberta",
        "mpnet",
        "modernbert",
    ] {
        let name = format!("task_{family}_token");
        let expected = read(&name);
        for device in devices() {
            let model = EncoderTokenClassifier::from_pretrained(&golden(&name), &device);
            let model = model.expect("loads");
            let scores = model.scores(&tokens(&expected, &device));
            let mask = ints(&expected["attention_mask"], &device).float();
            let real = scores.clone() * mask.unsqueeze_dim(2);
            assert_close(&name, real.into_data(), &expected["logits"], 2e-5);
            let loss = entropy(scores.reshape([27, 3]), &expected["labels"]);
            assert_close(&name, loss.to_data(), &expected["loss"], 2e-5);
            gradients_agree(&model, loss.backward(), &expected);
        }
    }
}

#[test]
fn scores_of_answers_agree() {
    for family in ["bert", "distilbert", "deberta"] {
        let name = format!("task_{family}_answer");
        let expected = read(&name);
        for device in devices() {
            let model = EncoderQuestionAnswering::from_pretrained(&golden(&name), &device);
            let model = model.expect("loads");
            let mask = ints(&expected["attention_mask"], &device);
            let scores = model.scores(&tokens(&expected, &device));
            let parts = scores
                .into_iter()
                .zip(["start", "end"])
                .map(|(scores, which)| {
                    let real = scores.clone() * mask.clone().float();
                    assert_close(which, real.into_data(), &expected[which], 2e-5);
                    let cut = scores.mask_fill(mask.clone().equal_elem(0), f32::NEG_INFINITY);
                    entropy(cut, &expected[&format!("{which}_labels")])
                });
            let loss = parts.reduce(|a, b| a + b).expect("two") / 2.0;
            assert_close(&name, loss.to_data(), &expected["loss"], 2e-5);
            gradients_agree(&model, loss.backward(), &expected);
        }
    }
}

#[test]
fn scores_of_masked_tokens_agree() {
    for family in ["bert", "roberta", "distilbert", "mpnet", "modernbert"] {
        let name = format!("task_{family}_mask");
        let expected = read(&name);
        for device in devices() {
            let model = EncoderMaskedLm::from_pretrained(&golden(&name), &device);
            let model = model.expect("loads");
            let tokens = tokens(&expected, &device);
            let scores = model.logits(&tokens, &(0..27).collect::<Vec<_>>());
            let mask = ints(&expected["attention_mask"], &device).float();
            let real = scores.reshape([3, 9, 41]) * mask.unsqueeze_dim(2);
            assert_close(&name, real.into_data(), &expected["logits"], 5e-5);
            let loss = model.loss(&tokens, &host(&expected["labels"]));
            let mean = loss.sum / loss.count as f64;
            assert_close(&name, mean.to_data(), &expected["loss"], 2e-5);
            gradients_agree(&model, mean.backward(), &expected);
        }
    }
}

#[test]
fn a_masked_language_model_is_saved_whole_and_begins_on_any_encoder() {
    let device = Device::default();
    for family in ["bert", "roberta", "distilbert", "mpnet", "modernbert"] {
        let name = format!("task_{family}_mask");
        let model = EncoderMaskedLm::from_pretrained(&golden(&name), &device).expect("loads");
        let folder = TempDir::new().expect("temporary folder");
        let options = SaveOptions::default();
        model
            .save_pretrained(folder.path(), &options)
            .expect("saves");
        let again = EncoderMaskedLm::from_pretrained(folder.path(), &device).expect("loads");
        assert_eq!(module_tensors(&again), module_tensors(&model), "{name}");
        let kept = EncoderMaskedLm::from_encoder(folder.path(), 1, &device).expect("starts");
        assert_eq!(module_tensors(&kept), module_tensors(&model), "{name}");
        let bare = golden(&format!("task_{family}_token"));
        let new = EncoderMaskedLm::from_encoder(&bare, 1, &device).expect("starts");
        let names = |model: &EncoderMaskedLm| {
            let tensors = module_tensors(model);
            tensors
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&new), names(&model), "{name}");
    }
}

#[test]
fn a_saved_model_is_the_same_model() {
    for family in [
        "bert",
        "roberta",
        "distilbert",
        "deberta",
        "mpnet",
        "modernbert",
    ] {
        let name = format!("task_{family}_sequence");
        let device = Device::default();
        let model = EncoderSequenceClassifier::from_pretrained(&golden(&name), &device);
        let model = model.expect("loads");
        let folder = TempDir::new().expect("temporary folder");
        let options = SaveOptions::default();
        model
            .save_pretrained(folder.path(), &options)
            .expect("saves");
        let again = EncoderSequenceClassifier::from_pretrained(folder.path(), &device);
        let again = again.expect("loads");
        assert_eq!(module_tensors(&again), module_tensors(&model), "{name}");
        let json = |folder: &std::path::Path| -> Value {
            let bytes = std::fs::read(folder.join("config.json")).expect("reads");
            serde_json::from_slice(&bytes).expect("JSON")
        };
        let (before, after) = (json(&golden(&name)), json(folder.path()));
        for key in ["architectures", "id2label", "label2id", "model_type"] {
            assert_eq!(before[key], after[key], "{name}: {key}");
        }
    }
}

/// The settings of the body have those of the head that the folder had.
#[test]
fn a_new_head_does_not_inherit_what_scores_mean() {
    let device = Device::default();
    let model = EncoderSequenceClassifier::from_pretrained(&golden("task_bert_sequence"), &device);
    let model = model
        .expect("loads")
        .with_problem_type(ProblemType::Regression);
    let (first, second) = (
        TempDir::new().expect("folder"),
        TempDir::new().expect("folder"),
    );
    let options = SaveOptions::default();
    model
        .save_pretrained(first.path(), &options)
        .expect("saves");
    let labels = ["a", "b", "c"].map(str::to_string).to_vec();
    let new = EncoderSequenceClassifier::from_encoder(first.path(), labels, 1, &device);
    let new = new.expect("starts");
    new.save_pretrained(second.path(), &options).expect("saves");
    let saved = |folder: &TempDir| {
        let model = EncoderSequenceClassifier::from_pretrained(folder.path(), &device);
        model.expect("loads").config().problem_type
    };
    assert_eq!(saved(&first), Some(ProblemType::Regression));
    assert_eq!(saved(&second), None);
}

#[test]
fn the_task_of_a_trained_head_is_found() {
    let trained =
        |name: &str, task| EncoderTaskConfig::of_trained(&golden(name), task).expect("reads");
    let found = trained("task_bert_token", EncoderTask::TokenClassification).expect("a head");
    assert_eq!(found.labels, ["bad", "fair", "good"]);
    assert!(trained("task_bert_token", EncoderTask::SequenceClassification).is_none());
    assert!(trained("task_bert_mask", EncoderTask::MaskedLm).is_some());
}

#[test]
fn a_new_head_is_drawn_by_its_seed_on_the_encoder_of_any_checkpoint() {
    let labels = || vec!["no".to_string(), "yes".to_string()];
    let start = |seed| {
        let folder = golden("task_bert_token");
        EncoderSequenceClassifier::from_encoder(&folder, labels(), seed, &Device::default())
    };
    let model = start(1).expect("starts");
    assert_eq!(model.config().labels, labels());
    let tensors = |model: &EncoderSequenceClassifier| module_tensors(model);
    assert_eq!(tensors(&model), tensors(&start(1).expect("starts")));
    assert_ne!(tensors(&model), tensors(&start(2).expect("starts")));
    let error =
        EncoderTokenClassifier::from_encoder(&golden("llama"), labels(), 1, &Device::default());
    assert!(
        error
            .expect_err("a decoder")
            .to_string()
            .contains("encoder")
    );
}
