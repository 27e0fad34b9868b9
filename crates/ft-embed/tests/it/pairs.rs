//! Cross-encoders against sentence-transformers; made by `golden/models.py`.

use burn::tensor::Device;
use ft_core::SaveOptions;
use ft_embed::{CrossEncoder, CrossEncoderLoss, CrossEncoderTraining, TextDataset, TextRow};
use ft_train::{TrainConfig, Trainer};

use crate::models::{folder, json};

fn load() -> CrossEncoder {
    CrossEncoder::from_pretrained(&folder("tiny_pairs"), &Device::default()).expect("loads")
}

#[test]
fn scores_of_pairs_are_those_of_sentence_transformers() {
    let golden = json("pairs.json");
    let pairs: Vec<(String, String)> =
        serde_json::from_value(golden["pairs"].clone()).expect("pairs");
    let pairs: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    let expected: Vec<f32> = serde_json::from_value(golden["scores"].clone()).expect("scores");
    let model = load();
    let copy = tempfile::TempDir::new().expect("temporary folder");
    model
        .save_pretrained(copy.path(), &SaveOptions::default())
        .expect("saves");
    let again = CrossEncoder::from_pretrained(copy.path(), &Device::default()).expect("loads");
    for model in [model, again] {
        let found = model.predict(&pairs).expect("predicts");
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found[0] - expected).abs() < 1e-5, "{found:?} {expected}");
        }
    }
    let logits: Vec<f32> = serde_json::from_value(golden["logits"].clone()).expect("logits");
    for (logit, score) in logits.iter().zip(&expected) {
        assert!((1.0 / (1.0 + (-logit).exp()) - score).abs() < 1e-5);
    }
}

#[test]
fn documents_are_ranked_by_score() {
    let model = load();
    let documents = ["the cat sat on the mat", "A dog ran!", "the mat", "the mat"];
    let ranked = model.rank("the cat", &documents).expect("ranks");
    assert_eq!(ranked.len(), 4);
    assert!(ranked.windows(2).all(|two| two[0].1 >= two[1].1));
    let place = |document| ranked.iter().position(|(own, _)| *own == document);
    assert!(place(2) < place(3));
}

/// Rows of a query and so many documents, whose labels are higher where the document has the query's word.
fn rows(documents: usize, labels: impl Fn(usize, usize) -> Option<f32>) -> TextDataset {
    let words = ["cat", "dog", "mat", "ran"];
    let rows = (0..12).map(|i| TextRow {
        texts: [format!("the {}", words[i % 4])]
            .into_iter()
            .chain((0..documents).map(|d| {
                format!(
                    "a {} on the {}",
                    words[(i + d) % 4],
                    "mat ".repeat(1 + i / 4)
                )
            }))
            .collect(),
        labels: (0..documents).filter_map(|d| labels(i, d)).collect(),
    });
    TextDataset::new(rows.collect()).expect("rows")
}

#[test]
fn every_loss_is_learnt() {
    for name in CrossEncoderLoss::names() {
        let loss: CrossEncoderLoss = name.parse().expect("a loss");
        let dataset = match loss {
            CrossEncoderLoss::MultipleNegatives(_) => rows(2, |_, _| None),
            CrossEncoderLoss::MarginMse => rows(3, |_, d| (d > 0).then_some(2.0)),
            CrossEncoderLoss::Binary(_) | CrossEncoderLoss::Mse => {
                let mut all = rows(2, |_, _| None);
                for (number, row) in all.rows.iter_mut().enumerate() {
                    row.texts.remove(1 + number % 2);
                    row.labels = vec![(number % 2) as f32];
                }
                all
            }
            CrossEncoderLoss::CrossEntropy => continue,
            _ => rows(4, |_, d| Some([2.0, 1.0, 0.0, 0.0][d])),
        };
        let device = Device::default().autodiff();
        let model = CrossEncoder::from_pretrained(&folder("tiny_pairs"), &device).expect("loads");
        let method = CrossEncoderTraining::new(loss, &model, &dataset, 6, Some(1));
        let method = method.expect("fits").with_evaluation(&model, &dataset);
        let config = TrainConfig {
            learning_rate: 5e-3,
            epochs: 30.0,
            progress: false,
            ..TrainConfig::default()
        };
        let trainer = Trainer::with_method(config, method.expect("fits"));
        let (_, report) = trainer.fit(model).expect("trains");
        let losses = [report.eval_before(), report.eval_after()];
        let [before, after] = losses.map(|found| found.expect("evaluated").loss);
        assert!(after < 0.9 * before, "{name}: {before} {after}");
    }
}

#[test]
fn rows_that_a_loss_cannot_take_are_errors() {
    let model = load();
    let refused = |loss, rows: &TextDataset| {
        let error = CrossEncoderTraining::new(loss, &model, rows, 4, None);
        error.expect_err("does not fit").to_string()
    };
    let error = refused(CrossEncoderLoss::Lambda, &rows(1, |_, _| Some(1.0)));
    assert!(error.contains("two documents or more"), "{error}");
    let error = refused(CrossEncoderLoss::CrossEntropy, &rows(1, |_, _| Some(1.0)));
    assert!(error.contains("a score for each class"), "{error}");
    let graded = rows(1, |i, _| Some(if i == 7 { 4.0 } else { 1.0 }));
    let error = refused(CrossEncoderLoss::Binary(1.0), &graded);
    assert!(
        error.contains("row 8") && error.contains("from 0 to 1"),
        "{error}"
    );
}

/// The folder has no `tokenizer_class`, so transformers takes BERT's, which gives the second text the type 1.
#[test]
fn token_types_of_pairs_are_those_of_transformers_and_stay_so_in_a_saved_folder() {
    let golden = json("pair_types.json");
    let pairs: Vec<(String, String)> =
        serde_json::from_value(golden["pairs"].clone()).expect("pairs");
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (&**a, &**b)).collect();
    let expected: Vec<f32> = serde_json::from_value(golden["scores"].clone()).expect("scores");
    let untyped: Vec<f32> = serde_json::from_value(golden["untyped"].clone()).expect("scores");
    let load = |folder: &std::path::Path| CrossEncoder::from_pretrained(folder, &Device::default());
    let model = load(&folder("tiny_types")).expect("loads");
    let copy = tempfile::TempDir::new().expect("temporary folder");
    model
        .save_pretrained(copy.path(), &SaveOptions::default())
        .expect("saves");
    for model in [model, load(copy.path()).expect("loads")] {
        let found = model.predict(&pairs).expect("predicts");
        for ((found, expected), untyped) in found.iter().zip(&expected).zip(&untyped) {
            assert!((found[0] - expected).abs() < 1e-5, "{found:?} {expected}");
            assert!((found[0] - untyped).abs() > 1e-3, "{found:?} {untyped}");
        }
    }
    let saved = std::fs::read(copy.path().join("tokenizer_config.json")).expect("reads");
    let saved: serde_json::Value = serde_json::from_slice(&saved).expect("JSON");
    assert_eq!(
        saved["model_input_names"],
        serde_json::json!(["input_ids", "token_type_ids", "attention_mask"])
    );
    assert_eq!(saved.get("tokenizer_class"), None);
}
