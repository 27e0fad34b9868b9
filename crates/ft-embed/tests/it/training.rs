//! Training steps: mini-batches have the gradients of whole batches, losses fall, runs resume.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use ft_core::module_path::{PathVisitor, visit_params};
use ft_embed::loss::{LayerWeights, Matryoshka};
use ft_embed::{
    EmbeddingLoss, EmbeddingModel, EmbeddingTraining, EmbeddingTrainingConfig, TextDataset, TextRow,
};
use ft_train::{Method, ModelView, StepContext, TrainConfig, Trainer};

use crate::models::{folder, load};

fn rows(texts: usize, label: Option<f32>) -> TextDataset {
    let words = [
        "the cat",
        "a dog ran",
        "mat",
        "the mat on the cat",
        "ran over",
        "dog on mat !",
        "cat",
        "on",
    ];
    let rows = (0..8).map(|i| TextRow {
        texts: (0..texts)
            .map(|column| words[(i + 3 * column) % 8].to_string() + &" a".repeat(i % 3))
            .collect(),
        labels: label
            .map(|label| label * (i % 2) as f32)
            .into_iter()
            .collect(),
    });
    TextDataset::new(rows.collect()).expect("rows")
}

fn model() -> EmbeddingModel {
    EmbeddingModel::from_pretrained(&folder("tiny"), &Device::default().autodiff()).expect("loads")
}

/// The summed loss of the first batch and all gradients of its mean.
fn gradients(
    config: EmbeddingTrainingConfig,
    dataset: &TextDataset,
) -> (f32, BTreeMap<String, Vec<f32>>) {
    let model = model().train();
    let datasets = std::slice::from_ref(dataset);
    let mut method = EmbeddingTraining::new(config, &model, datasets, 8, Some(1)).expect("fits");
    let device = Device::default().autodiff();
    let context = StepContext::training(&device, 7, 1, 0);
    let view = ModelView::new(&model);
    let batch = method.batch(&view, 0, 0, &context).expect("a batch");
    let output = method.step(&model, &batch, &context).expect("a step");
    let value = output.loss.sum.to_data().try_to_vec::<f32>().expect("f32")[0];
    struct All<'a> {
        gradients: burn::tensor::Gradients,
        count: f32,
        all: &'a mut BTreeMap<String, Vec<f32>>,
    }
    impl PathVisitor for All<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(&self.gradients) {
                let gradient = gradient.into_data().try_to_vec::<f32>().expect("f32");
                let gradient = gradient.iter().map(|x| x / self.count).collect();
                self.all.insert(path.to_string(), gradient);
            }
        }
    }
    let mut all = BTreeMap::new();
    let gradients = output.loss.sum.backward();
    let count = output.loss.count as f32;
    visit_params(
        &model,
        &mut All {
            gradients,
            count,
            all: &mut all,
        },
    );
    (value, all)
}

#[test]
fn mini_batches_have_the_gradients_of_the_whole_batch() {
    for (loss, texts, label) in [
        ("mnrl", 2, None),
        ("mnrl-all", 3, None),
        ("cosent", 2, Some(1.0)),
    ] {
        let dataset = rows(texts, label);
        let config = |mini_batch| EmbeddingTrainingConfig {
            loss: loss.parse().expect("a loss"),
            mini_batch,
            matryoshka: Some(Matryoshka::new(&[10, 4], 10).expect("fits")),
            ..EmbeddingTrainingConfig::default()
        };
        let (value, whole) = gradients(config(None), &dataset);
        assert!(whole.len() > 30, "{}", whole.len());
        for size in [1, 3, 5, 100] {
            let (cached_value, cached) = gradients(config(Some(size)), &dataset);
            assert!(
                (value - cached_value).abs() < 1e-4,
                "{loss}: {value} {cached_value}"
            );
            assert_eq!(
                whole.keys().collect::<Vec<_>>(),
                cached.keys().collect::<Vec<_>>()
            );
            for (path, whole) in &whole {
                let most = whole.iter().fold(1.0f32, |most, x| most.max(x.abs()));
                for (a, b) in whole.iter().zip(&cached[path]) {
                    assert!(
                        (a - b).abs() < 1e-5 * most,
                        "{loss}, {size}: {path} {a} {b}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_loss_falls_and_runs_are_reproducible() {
    for name in EmbeddingLoss::names() {
        let loss: EmbeddingLoss = name.parse().expect("a loss");
        let (texts, label) = match name {
            "triplet" => (3, None),
            "margin-mse" => (3, Some(2.0)),
            "gist" | "mnrl" | "mnrl-all" | "mnrl-symmetric" => (2, None),
            "mse" | "batch-all" | "batch-hard" | "batch-hard-soft" | "batch-semi-hard" => {
                (1, Some(1.0))
            }
            _ => (2, Some(1.0)),
        };
        let mut dataset = rows(texts, label);
        if name == "mse" {
            dataset
                .rows
                .iter_mut()
                .for_each(|row| row.labels = vec![0.3; 10]);
        }
        let run = || {
            let model = model();
            let config = EmbeddingTrainingConfig {
                loss,
                guide: (name == "gist").then(|| load("tiny")),
                ..EmbeddingTrainingConfig::default()
            };
            let datasets = std::slice::from_ref(&dataset);
            let method = EmbeddingTraining::new(config, &model, datasets, 8, None).expect("fits");
            let settings = TrainConfig {
                learning_rate: 3e-3,
                epochs: 12.0,
                progress: false,
                eval_at_start: false,
                eval_at_end: false,
                ..TrainConfig::default()
            };
            let (_, report) = Trainer::with_method(settings, method)
                .fit(model)
                .expect("trains");
            report.train_losses
        };
        let losses = run();
        assert!(losses[losses.len() - 1] < losses[0], "{name}: {losses:?}");
        assert_eq!(losses, run(), "{name}");
    }
}

#[test]
fn earlier_layers_train_too() {
    let dataset = rows(2, None);
    let config = EmbeddingTrainingConfig {
        layers: Some(LayerWeights::default()),
        matryoshka: Some(Matryoshka::new(&[10, 4], 10).expect("fits")),
        dims_per_step: Some(1),
        ..EmbeddingTrainingConfig::default()
    };
    let (value, all) = gradients(config.clone(), &dataset);
    assert!(value.is_finite() && all.len() > 30);
    let model = model();
    let both = EmbeddingTrainingConfig {
        mini_batch: Some(2),
        ..config
    };
    let error = EmbeddingTraining::new(both, &model, &[dataset], 8, None);
    assert!(
        error
            .expect_err("contradiction")
            .to_string()
            .contains("mini_batch")
    );
}

#[test]
fn rows_that_do_not_fit_the_loss_are_refused_before_the_training() {
    let model = load("tiny");
    let refused = |loss: &str, rows: TextDataset| {
        let config = EmbeddingTrainingConfig {
            loss: loss.parse().expect("a loss"),
            ..EmbeddingTrainingConfig::default()
        };
        let error = EmbeddingTraining::new(config, &model, &[rows], 8, None);
        error.expect_err(loss).to_string()
    };
    let with_labels = |texts, labels: &[f32]| {
        let mut rows = rows(texts, None);
        rows.rows[5].labels = labels.to_vec();
        (rows.rows.iter_mut()).for_each(|row| row.labels.resize(labels.len(), 0.0));
        rows
    };
    for (loss, rows, part) in [
        ("triplet", rows(2, None), "three texts"),
        ("mnrl", rows(2, Some(1.0)), "positives"),
        ("gist", rows(2, None), "guide"),
        ("cosine", with_labels(2, &[4.0]), "row 6: the label 4"),
        // The model's embeddings have 10 numbers.
        ("mse", with_labels(1, &[0.1; 6]), "has 6 numbers"),
        ("mse", with_labels(1, &[0.1; 20]), "has 20 numbers"),
    ] {
        let error = refused(loss, rows);
        assert!(error.contains(part), "{loss}: {error}");
    }
}

/// `tiny` has prompts of queries and documents.
#[test]
fn texts_are_trained_with_the_prompts_that_they_are_encoded_with() {
    let tokens = |loss: &str, without_prompts, dataset: &TextDataset| -> f64 {
        let model = model();
        let config = EmbeddingTrainingConfig {
            loss: loss.parse().expect("a loss"),
            without_prompts,
            keep_duplicates: true,
            ..EmbeddingTrainingConfig::default()
        };
        let datasets = std::slice::from_ref(dataset);
        let mut method = EmbeddingTraining::new(config, &model, datasets, 8, None).expect("fits");
        let context = StepContext::training(&Device::default().autodiff(), 7, 1, 0);
        let batch = method.batch(&ModelView::new(&model), 0, 0, &context);
        let output = method.step(&model, &batch.expect("a batch"), &context);
        output.expect("a step").tokens.expect("counted") as f64
    };
    let (pairs, labelled) = (rows(2, None), rows(2, Some(1.0)));
    // `query : ` has 2 tokens, `title : none ` has 3, and no text is cut.
    assert_eq!(
        tokens("mnrl", false, &pairs),
        tokens("mnrl", true, &pairs) + 8.0 * 5.0
    );
    assert_eq!(
        tokens("cosent", false, &labelled),
        tokens("cosent", true, &labelled)
    );
}
