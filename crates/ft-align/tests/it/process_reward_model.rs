//! Process reward models: the loss and the accuracy of a step, and learning.

use std::path::PathBuf;

use burn::tensor::Device;
use ft_align::{Error, process_reward_step, score_solutions, score_steps};
use ft_core::{AutoTokenClassifier, IGNORE_INDEX, ModelConfig, SequenceClassifierConfig, Weights};
use ft_data::{Collation, SftDataset, StepwiseSample, Tokenized, collate_padded};
use ft_train::{MetricSum, Schedule, StepContext, TrainConfig, Trainer};

fn model(labels: usize, device: &Device) -> AutoTokenClassifier {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ft-peft/tests/golden/peft_llama");
    let body = ModelConfig::from_pretrained(&folder).unwrap();
    let config = SequenceClassifierConfig::new(body, labels);
    AutoTokenClassifier::from_causal_lm(&folder, &config, 5, device, Weights::F32).unwrap()
}

/// Steps that end with token 7; a step is right if its first token is even.
fn rows(count: usize) -> Vec<Tokenized> {
    let rows = (0..count).map(|row| {
        let (mut input_ids, mut labels) = (vec![1, 3], vec![IGNORE_INDEX; 2]);
        for step in 0..1 + row % 3 {
            let first = (20 + row * 5 + step * 3) as u32 % 60 + 10;
            input_ids.extend([first, 9, 7]);
            labels.extend([
                IGNORE_INDEX,
                IGNORE_INDEX,
                i64::from(first.is_multiple_of(2)),
            ]);
        }
        Tokenized { input_ids, labels }
    });
    rows.collect()
}

/// `−ln p(class)` of every step, from the probabilities that `score_steps` gives.
#[test]
fn the_loss_is_the_cross_entropy_at_the_ends_of_steps() {
    let device = Device::default();
    let (model, rows) = (model(2, &device), rows(5));
    let batch = collate_padded(&rows.iter().collect::<Vec<_>>(), 1, 0);
    let context = StepContext::training(&device, 0, 1, 0);
    let output = process_reward_step(&model, &batch, &context).unwrap();
    let found = score_steps(&model, &rows, 2).unwrap();
    let (mut sum, mut right, mut count) = (0.0, 0, 0);
    for (row, scores) in rows.iter().zip(&found) {
        let labels: Vec<i64> = row
            .labels
            .iter()
            .copied()
            .filter(|&label| label >= 0)
            .collect();
        assert_eq!(labels.len(), scores.len());
        for (&label, &score) in labels.iter().zip(scores) {
            let of_label = if label == 1 { score } else { 1.0 - score };
            sum -= of_label.ln();
            right += usize::from(of_label > 0.5);
            count += 1;
        }
    }
    assert_eq!(output.loss.count, count);
    assert!((output.loss.sum.into_scalar::<f32>() - sum).abs() < 1e-4 * sum);
    let accuracy = &output.metrics[0];
    assert_eq!(
        (accuracy.name.as_str(), accuracy.weight),
        ("accuracy", count as f64)
    );
    let MetricSum::Number(found) = accuracy.sum else {
        panic!("{accuracy:?}");
    };
    assert_eq!(found, right as f64);
}

#[test]
fn steps_are_learned() {
    let device = Device::default().autodiff();
    let batches = SftDataset::from_examples(rows(24))
        .into_batches(8, Collation::Padded { multiple: 1 }, Some(1), 0)
        .unwrap();
    let config = TrainConfig {
        learning_rate: 5e-3,
        schedule: Schedule::Constant,
        max_steps: Some(40),
        progress: false,
        ..TrainConfig::default()
    };
    let trainer = Trainer::new(config, batches, process_reward_step);
    let (model, report) = trainer.fit(model(2, &device)).unwrap();
    assert!(
        report.train_metrics[39]["accuracy"] > 0.95,
        "{:?}",
        report.train_metrics
    );
    for (row, scores) in rows(24)
        .iter()
        .zip(score_steps(&model, &rows(24), 8).unwrap())
    {
        let labels = row.labels.iter().filter(|&&label| label >= 0);
        for (&label, score) in labels.zip(scores) {
            assert_eq!(label == 1, score > 0.5);
        }
    }
}

#[test]
fn a_model_of_other_labels_is_refused() {
    let error = score_steps(&model(3, &Device::default()), &rows(1), 1);
    assert!(
        matches!(&error, Err(Error::RewardModel(text)) if text.contains("3 labels")),
        "{error:?}"
    );
}

/// Rows of other lengths, in any batches and in their order.
#[test]
fn rows_are_scored_in_their_order_whatever_their_batches() {
    let (model, rows) = (model(2, &Device::default()), rows(7));
    let alone: Vec<Vec<f32>> = (rows.iter())
        .map(|row| {
            let mut found = score_steps(&model, std::slice::from_ref(row), 1).unwrap();
            found.remove(0)
        })
        .collect();
    for size in [2, 7] {
        let found = score_steps(&model, &rows, size).unwrap();
        for (found, alone) in found.iter().zip(&alone) {
            assert_eq!(found.len(), alone.len());
            let apart = found.iter().zip(alone).map(|(a, b)| (a - b).abs());
            assert!(apart.fold(0.0, f32::max) < 1e-5, "{found:?} {alone:?}");
        }
    }
    let empty = Tokenized::default();
    let error = score_steps(&model, &[rows[0].clone(), empty], 2).unwrap_err();
    assert!(error.to_string().contains("row 2 has no tokens"), "{error}");
    let long = Tokenized {
        input_ids: vec![5; 70],
        labels: vec![0; 70],
    };
    let error = score_steps(&model, &[long], 2).unwrap_err();
    assert!(error.to_string().contains("70 tokens"), "{error}");
}

#[test]
fn solutions_are_scored_with_the_separator_of_the_model() {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ft-peft/tests/golden/peft_llama");
    let body = std::fs::read(folder.join("config.json")).unwrap();
    let mut body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let tokenizer = crate::grpo::tokenizer();
    body["vocab_size"] = tokenizer.vocab_size().into();
    let mut config = SequenceClassifierConfig::new(ModelConfig::from_json(body).unwrap(), 2);
    let unknown = AutoTokenClassifier::from_config(&config, &Device::default()).unwrap();
    config.step_separator = Some(";".into());
    let device = Device::default();
    device.seed(3);
    let model = AutoTokenClassifier::from_config(&config, &device).unwrap();

    let solutions = [("a b", vec!["c", "a"]), ("b", vec![]), ("c", vec!["b a c"])];
    let found = score_solutions(&model, &tokenizer, None, &solutions, 2).unwrap();
    for ((prompt, steps), found) in solutions.iter().zip(&found) {
        let sample = StepwiseSample {
            prompt: prompt.to_string(),
            steps: steps.iter().map(|step| (step.to_string(), true)).collect(),
        };
        let row = sample.tokenize(&tokenizer, ";").unwrap();
        let expected = score_steps(&model, &[row], 1).unwrap().remove(0);
        assert_eq!(found.len(), steps.len());
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-5);
    }
    let error = score_solutions(&unknown, &tokenizer, None, &solutions, 2).unwrap_err();
    assert!(error.to_string().contains("step_separator"), "{error}");
    score_solutions(&unknown, &tokenizer, Some(";"), &solutions, 2).unwrap();
    assert!(score_solutions(&model, &tokenizer, Some(""), &solutions, 2).is_err());
}
