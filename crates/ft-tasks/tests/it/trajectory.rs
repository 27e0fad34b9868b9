//! Ten steps of a classifier on all-MiniLM-L6-v2, if `FT_TEST_MODELS` names a folder with it.

use std::path::PathBuf;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use ft_core::module_path::{PathMapper, map_params};
use ft_core::{EncoderSequenceClassifier, ProblemType, Tokenizer};
use ft_data::{Label, LabelledText, LabelledTexts, TextInput, TextLayout};
use ft_tasks::{classification_batches, classification_step};
use ft_train::{Schedule, TrainConfig, Trainer};
use serde_json::Value;

use crate::pipelines::golden;

/// The head of `golden/trajectory.py`: `0.05·sin(1 + i)`.
struct Head;

impl PathMapper for Head {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !path.starts_with("classifier.") {
            return param;
        }
        let old = param.val();
        let shape: Vec<usize> = old.dims().to_vec();
        let count = shape.iter().product();
        let number = |i: usize| match D {
            2 => (0.05 * (1.0 + i as f64).sin()) as f32,
            _ => 0.0,
        };
        let data = TensorData::new((0..count).map(number).collect::<Vec<_>>(), shape);
        Param::from_tensor(Tensor::from_data(data, &old.device()))
    }
}

#[test]
fn ten_steps_are_those_of_transformers() {
    let models = std::env::var_os("FT_TEST_MODELS").filter(|folder| !folder.is_empty());
    let folder = models.map(|models| PathBuf::from(models).join("all-minilm-l6-v2"));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        eprintln!("skipped: FT_TEST_MODELS names no folder with all-minilm-l6-v2");
        return;
    };
    let bytes = std::fs::read(golden("trajectory.json")).expect("reads");
    let golden: Value = serde_json::from_slice(&bytes).expect("JSON");
    let rows = golden["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| LabelledText {
            text: row["text"].as_str().expect("text").into(),
            pair: row["pair"].as_str().map(str::to_string),
            label: Label::Class(row["label"].as_str().expect("label").into()),
        });
    let rows = LabelledTexts::new(rows.collect()).expect("rows");
    let classes: Vec<String> = serde_json::from_value(golden["labels"].clone()).expect("labels");
    let device = Device::default().autodiff();
    let model = EncoderSequenceClassifier::from_encoder(&folder, classes.clone(), 0, &device);
    let model = map_params(model.expect("starts"), &mut Head);
    let input = TextInput::new(
        &Tokenizer::from_pretrained(&folder).expect("loads"),
        512,
        Some(48),
    );
    let examples = rows.tokenize(&input, &classes).expect("tokenizes");
    let batches = classification_batches(examples, 8, None, TextLayout::Packed).expect("batches");
    let config = TrainConfig {
        learning_rate: 5e-5,
        schedule: Schedule::Constant,
        max_grad_norm: None,
        progress: false,
        eval_at_start: false,
        eval_at_end: false,
        ..TrainConfig::default()
    };
    let step = classification_step(ProblemType::SingleLabelClassification);
    let (_, report) = Trainer::new(config, batches, step)
        .fit(model)
        .expect("trains");
    let expected: Vec<f64> = serde_json::from_value(golden["losses"].clone()).expect("losses");
    assert_eq!(report.train_losses.len(), expected.len());
    for (step, (found, expected)) in report.train_losses.iter().zip(&expected).enumerate() {
        assert!(
            (found - expected).abs() < 1e-3,
            "step {}: {found} {expected}",
            step + 1
        );
    }
}
