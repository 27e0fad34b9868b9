//! Killed and resumed equals uninterrupted, bit for bit, with dropout active.

use std::path::Path;

use ft_train::{Error, Schedule, TrainConfig, TrainReport};
use serde_json::Value;

use crate::model::{Data, KillAfter, Net, alone, parameters, trainer};

fn config(folder: &Path) -> TrainConfig {
    TrainConfig {
        learning_rate: 0.02,
        schedule: Schedule::Cosine,
        warmup_steps: 2,
        epochs: 3.0,
        gradient_accumulation_steps: 2,
        weight_decay: 0.01,
        eval_every: Some(3),
        save_every: Some(2),
        output_dir: Some(folder.to_path_buf()),
        ..TrainConfig::default()
    }
}

fn data() -> Data {
    Data {
        masked: vec![2, 7],
        ..Data::of(&[3, 1, 2, 4, 2])
    }
}

fn run(config: TrainConfig, kill_after: Option<usize>) -> Result<(Net, TrainReport), Error> {
    let trainer = trainer(config, data()).with_evaluation(Data::of(&[3, 3]));
    match kill_after {
        Some(step) => trainer.with_callback(KillAfter(step)).fit(Net::new(0.3)),
        None => trainer.fit(Net::new(0.3)),
    }
}

/// The log without times.
fn log(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("train_log.jsonl")).expect("has a log");
    text.lines()
        .map(|line| {
            let mut row: Value = serde_json::from_str(line).expect("is JSON");
            let fields = row.as_object_mut().expect("is an object");
            fields.remove("tokens_per_s");
            fields.remove("elapsed_s");
            row
        })
        .collect()
}

#[test]
fn a_run_killed_anywhere_and_resumed_ends_with_the_same_bits() {
    let _turn = alone();
    let whole = tempfile::tempdir().expect("temporary folder");
    let (expected, report) = run(config(whole.path()), None).expect("trains");
    assert_eq!(report.steps, 9);

    for kill_after in 1..=9 {
        let folder = tempfile::tempdir().expect("temporary folder");
        let killed = run(config(folder.path()), Some(kill_after));
        assert!(matches!(killed, Err(Error::Callback(_))));
        let resumed = TrainConfig {
            resume: true,
            ..config(folder.path())
        };
        let (model, continued) = run(resumed, None).expect("resumes");
        assert_eq!(
            parameters(&model),
            parameters(&expected),
            "killed after {kill_after}"
        );
        assert_eq!(continued.train_losses, report.train_losses);
        assert_eq!(continued.evaluations, report.evaluations);
        assert_eq!(continued.tokens, report.tokens);
        let saved = (kill_after - 1) / 2 * 2;
        assert_eq!(continued.resumed_from, (saved > 0).then_some(saved));
        assert_eq!(log(folder.path()), log(whole.path()));
    }
}

#[test]
fn a_run_killed_twice_ends_with_the_same_bits() {
    let _turn = alone();
    let whole = tempfile::tempdir().expect("temporary folder");
    let (expected, _) = run(config(whole.path()), None).expect("trains");
    let folder = tempfile::tempdir().expect("temporary folder");
    let resumed = TrainConfig {
        resume: true,
        ..config(folder.path())
    };
    assert!(run(config(folder.path()), Some(3)).is_err());
    assert!(run(resumed.clone(), Some(7)).is_err());
    let (model, report) = run(resumed, None).expect("resumes");
    assert_eq!(report.resumed_from, Some(6));
    assert_eq!(parameters(&model), parameters(&expected));
}

#[test]
fn resuming_a_finished_run_takes_no_step() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let (expected, report) = run(config(folder.path()), None).expect("trains");
    let rows = log(folder.path());
    let resumed = TrainConfig {
        resume: true,
        ..config(folder.path())
    };
    let (model, again) = run(resumed, None).expect("resumes");
    assert_eq!(parameters(&model), parameters(&expected));
    assert_eq!(again.train_losses, report.train_losses);
    assert_eq!(again.evaluations, report.evaluations);
    assert_eq!(log(folder.path()), rows);
}

#[test]
fn dropout_draws_another_mask_in_each_step_and_the_same_in_each_run() {
    let _turn = alone();
    let settings = |seed| TrainConfig {
        learning_rate: 1e-12,
        schedule: Schedule::Constant,
        max_steps: Some(4),
        seed,
        ..TrainConfig::default()
    };
    let losses = |seed| {
        let (_, report) = trainer(settings(seed), Data::of(&[8]))
            .fit(Net::new(0.5))
            .expect("trains");
        report.train_losses
    };
    let first = losses(1);
    assert_eq!(first, losses(1));
    assert_ne!(first, losses(2));
    assert_ne!(first[0], first[3]);
}

#[test]
fn a_run_with_a_constant_rate_may_go_on_beyond_its_end() {
    let _turn = alone();
    let constant = |folder: &Path, steps| TrainConfig {
        schedule: Schedule::Constant,
        max_steps: Some(steps),
        eval_at_end: false,
        eval_every: None,
        ..config(folder)
    };
    let whole = tempfile::tempdir().expect("temporary folder");
    let (expected, _) = run(constant(whole.path(), 8), None).expect("trains");
    let folder = tempfile::tempdir().expect("temporary folder");
    run(constant(folder.path(), 5), None).expect("trains");
    let longer = TrainConfig {
        resume: true,
        ..constant(folder.path(), 8)
    };
    let (model, report) = run(longer, None).expect("resumes");
    assert_eq!(report.resumed_from, Some(5));
    assert_eq!(parameters(&model), parameters(&expected));
}
