//! all-MiniLM-L6-v2, if `FT_TEST_MODELS` names a folder with it.

use std::path::PathBuf;

use burn::tensor::Device;
use ft_embed::{
    EmbeddingModel, EmbeddingTraining, EmbeddingTrainingConfig, Int8Index, TextDataset, TextRow,
    VectorIndex,
};
use ft_train::{Schedule, TrainConfig, Trainer};

use crate::models::{assert_rows, json, rows};

/// The folder of the model; none if it is not there.
fn folder() -> Option<PathBuf> {
    let models = std::env::var_os("FT_TEST_MODELS").filter(|folder| !folder.is_empty());
    let folder = models.map(|models| PathBuf::from(models).join("all-minilm-l6-v2"));
    let folder = folder.filter(|folder| folder.is_dir());
    if folder.is_none() {
        eprintln!("skipped: FT_TEST_MODELS names no folder with all-minilm-l6-v2");
    }
    folder
}

/// The losses of ten steps; see `golden/trajectory.py`.
#[test]
fn training_takes_the_steps_of_sentence_transformers() {
    let Some(folder) = folder() else { return };
    let golden = json("trajectory.json");
    let pairs: Vec<Vec<String>> = serde_json::from_value(golden["pairs"].clone()).expect("pairs");
    let expected: Vec<f64> = serde_json::from_value(golden["losses"].clone()).expect("losses");
    let rows = pairs.into_iter().map(|texts| TextRow {
        texts,
        labels: Vec::new(),
    });
    let dataset = TextDataset::new(rows.collect()).expect("pairs");
    let device = Device::default().autodiff();
    let model = EmbeddingModel::from_pretrained(&folder, &device).expect("loads");
    let config = EmbeddingTrainingConfig {
        keep_duplicates: true,
        ..EmbeddingTrainingConfig::default()
    };
    let method = EmbeddingTraining::new(config, &model, &[dataset], 8, None).expect("fits");
    let settings = TrainConfig {
        learning_rate: 2e-5,
        schedule: Schedule::Constant,
        max_grad_norm: None,
        progress: false,
        eval_at_start: false,
        eval_at_end: false,
        ..TrainConfig::default()
    };
    let (_, report) = Trainer::with_method(settings, method)
        .fit(model)
        .expect("trains");
    assert_eq!(report.train_losses.len(), expected.len());
    for (step, (loss, expected)) in report.train_losses.iter().zip(&expected).enumerate() {
        assert!(
            (loss - expected).abs() < 1e-3,
            "step {}: {loss} {expected}",
            step + 1
        );
    }
}

#[test]
fn embeddings_of_minilm_are_those_of_sentence_transformers() {
    let Some(folder) = folder() else { return };
    let model = EmbeddingModel::from_pretrained(&folder, &Device::default()).expect("loads");
    assert_eq!((model.dims(), model.max_seq_length()), (384, 256));
    let golden = json("minilm.json");
    let texts: Vec<String> = serde_json::from_value(golden["texts"].clone()).expect("texts");
    let found = model.encode(&texts).expect("encodes");
    assert_rows("MiniLM", &found, &rows(&golden["embeddings"]), 1e-5);
    let index = Int8Index::try_from(&found).expect("several rows");
    let hits = index.search(&found.select(&[0]), 2).expect("searches");
    let found: Vec<usize> = hits[0].iter().map(|hit| hit.document).collect();
    assert_eq!(found, [0, 1]);
}
