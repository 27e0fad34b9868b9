//! What a step reports besides its loss, and its context.

use std::cell::RefCell;
use std::rc::Rc;

use burn::tensor::Tensor;
use ft_core::LossSum;
use ft_train::{Error, Phase, StepContext, StepOutput, StepResult, TrainConfig, Trainer, evaluate};
use serde_json::Value;

use crate::model::{Data, Net, Rows, alone, quiet, squared_error_sum};

fn config(accumulation: usize) -> TrainConfig {
    quiet(TrainConfig {
        learning_rate: 0.02,
        gradient_accumulation_steps: accumulation,
        ..TrainConfig::default()
    })
}

/// The first input of the rows that count, by two ways, and something that few batches have.
fn step(model: &Net, rows: &Rows, context: &StepContext) -> StepResult {
    let LossSum { sum, count } = squared_error_sum(model, rows, &context.device);
    let counted = rows
        .x
        .iter()
        .zip(&rows.counts)
        .filter(|(_, counts)| **counts);
    let first: f32 = counted.map(|(x, _)| x[0]).sum();
    let on_device = Tensor::<1>::from_data([first], &context.device);
    let output = StepOutput::from(LossSum { sum, count })
        .with_tokens(10 * rows.x.len())
        .with_metric("number", f64::from(first), count as f64)
        .with_metric("tensor", on_device, count as f64);
    Ok(match rows.x[0][0] == 0.0 {
        true => output.with_metric("once", 7.0, 2.0),
        false => output,
    })
}

#[test]
fn metrics_are_reduced_as_the_loss_however_rows_are_cut_into_batches() {
    let _turn = alone();
    let masked = vec![1, 2, 3, 6, 9, 10, 12];
    let runs = [
        (vec![8, 8], 1),
        (vec![5, 3, 1, 7], 2),
        (vec![4, 2, 1, 1, 2, 2, 2, 2], 4),
    ];
    let runs = runs.map(|(sizes, accumulation)| {
        let data = Data {
            masked: masked.clone(),
            ..Data::of(&sizes)
        };
        let folder = tempfile::tempdir().expect("temporary folder");
        let config = TrainConfig {
            output_dir: Some(folder.path().to_path_buf()),
            ..config(accumulation)
        };
        let (_, report) = Trainer::new(config, data.clone(), step)
            .with_evaluation(data)
            .fit(Net::new(0.0))
            .expect("trains");
        let log = std::fs::read_to_string(folder.path().join("train_log.jsonl")).expect("a log");
        let rows = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        (report, rows.collect::<Vec<_>>())
    });
    // Of rows 0 to 7 count 0, 4, 5, 7, whose first inputs are 0, 0.4, 0.5, 0.7.
    for (report, log) in &runs {
        assert_eq!(report.tokens, 160);
        let near = |found: f64, expected: f64| {
            assert!(
                (found - expected).abs() < 1e-6,
                "{found}, expected {expected}"
            );
        };
        let [first, second] = [0, 1].map(|step| &report.train_metrics[step]);
        near(first["number"], 0.4);
        near(first["tensor"], 0.4);
        near(first["once"], 3.5);
        // Rows 8, 11, 13, 14, 15.
        near(second["tensor"], (0.8 + 1.1 + 1.3 + 1.4 + 1.5) / 5.0);
        assert!(!second.contains_key("once"));
        let evaluation = &report.evaluations[0].metrics;
        near(evaluation.metrics["tensor"], (1.6 + 6.1) / 9.0);
        near(evaluation.metrics["number"], (1.6 + 6.1) / 9.0);
        // The evaluation, two steps, the evaluation.
        assert_eq!(log.len(), 4);
        near(
            log[0]["eval_metrics"]["tensor"].as_f64().expect("a number"),
            7.7 / 9.0,
        );
        near(log[1]["metrics"]["once"].as_f64().expect("a number"), 3.5);
        assert!(log[2]["metrics"].get("once").is_none());
    }
}

#[test]
fn the_context_of_a_step_is_its_own() {
    let _turn = alone();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let step = {
        let seen = seen.clone();
        move |model: &Net, rows: &Rows, context: &StepContext| {
            seen.borrow_mut().push(context.clone());
            step(model, rows, context)
        }
    };
    let (_, report) = Trainer::new(config(2), Data::of(&[2, 2, 2]), step)
        .with_evaluation(Data::of(&[2, 2]))
        .fit(Net::new(0.0))
        .expect("trains");
    assert_eq!(report.steps, 2);
    let seen = seen.borrow();
    let places: Vec<_> = (seen.iter())
        .map(|context| (context.phase, context.step, context.micro_batch))
        .collect();
    let (training, evaluation) = (Phase::Training, Phase::Evaluation);
    assert_eq!(
        places,
        [
            (evaluation, 0, 0),
            (evaluation, 0, 1),
            (training, 1, 0),
            (training, 1, 1),
            (training, 2, 0),
            (evaluation, 2, 0),
            (evaluation, 2, 1),
        ]
    );
    for context in seen.iter() {
        assert_eq!(context.device.is_autodiff(), context.is_training());
    }
    let mut seeds: Vec<u64> = seen[..5].iter().map(|context| context.seed).collect();
    assert_eq!([seen[5].seed, seen[6].seed], seeds[..2]);
    seeds.sort();
    seeds.dedup();
    assert_eq!(seeds.len(), 5);
}

#[test]
fn an_error_of_a_step_says_where_and_keeps_its_cause() {
    let _turn = alone();
    let failing = |model: &Net, rows: &Rows, context: &StepContext| {
        if rows.y.len() == 3 {
            "seven".parse::<usize>()?;
        }
        step(model, rows, context)
    };
    let failed = Trainer::new(config(1), Data::of(&[2, 3]), failing).fit(Net::new(0.0));
    let error = failed.map(|_| ()).expect_err("went on");
    assert!(
        matches!(
            error,
            Error::Step {
                step: 2,
                epoch: 0,
                batch: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("step 2: batch 1 of epoch 0: invalid digit")
    );
    let failed = evaluate(&Net::new(0.0), &Data::of(&[2, 3]), failing);
    let error = failed.map(|_| ()).expect_err("went on");
    assert!(
        matches!(error, Error::Evaluation { batch: 1, .. }),
        "{error}"
    );
}
