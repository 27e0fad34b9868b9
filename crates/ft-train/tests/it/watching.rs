//! Evaluation sets, the best model, trackers, and diagnosis.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use burn::tensor::{Tensor, TensorData};
use ft_data::{RowStream, StreamLoader, StreamOptions};
use ft_train::{
    BoxError, CsvTracker, EarlyStopping, Error, ForgettingMonitor, OnStream, Schedule, StepContext,
    Symptom, TensorBoard, Tracker, TrainConfig, Trainer, draw_loss_curves,
};
use serde_json::json;

use crate::model::{Data, KillAfter, Net, Rows, alone, parameters, squared_error};

pub(crate) fn config(epochs: f64) -> TrainConfig {
    TrainConfig {
        learning_rate: 0.05,
        epochs,
        eval_every: Some(2),
        progress: false,
        ..TrainConfig::default()
    }
}

/// Data whose rows are not those of `Data::of(&[2, 3, 1])`.
pub(crate) fn others() -> Data {
    Data::of(&[3, 4, 5])
}

#[test]
fn named_sets_are_evaluated_besides_and_change_nothing() {
    let _turn = alone();
    let trainer = || {
        Trainer::new(config(4.0), Data::of(&[2, 3, 1]), squared_error)
            .with_evaluation(Data::of(&[2, 2]))
    };
    let (plain, plain_report) = trainer().fit(Net::new(0.3)).expect("trains");
    let (model, report) = trainer()
        .with_named_evaluation("general", others())
        .with_named_evaluation("domain", Data::of(&[2, 2]))
        .fit(Net::new(0.3))
        .expect("trains");
    assert_eq!(parameters(&model), parameters(&plain));
    for (with, without) in report.evaluations.iter().zip(&plain_report.evaluations) {
        assert_eq!(with.metrics, without.metrics);
        assert_eq!(with.sets["domain"], with.metrics);
        assert_eq!(with.sets["general"].tokens, 12);
    }
    let general = ft_train::evaluate(&model, &others(), squared_error).expect("evaluates");
    assert_eq!(
        report.evaluations.last().expect("one").sets["general"].loss,
        general.loss
    );

    let error = Trainer::new(
        TrainConfig {
            eval_every: None,
            ..config(1.0)
        },
        Data::of(&[2]),
        squared_error,
    )
    .with_named_evaluation("general", others())
    .fit(Net::new(0.0))
    .expect_err("has no main set");
    assert!(error.to_string().contains("with_evaluation"), "{error}");
}

#[test]
fn the_best_model_is_kept_and_returned() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let run = |output: &str, kill_after: usize, resume: bool| {
        let config = TrainConfig {
            learning_rate: 0.2,
            load_best_model_at_end: true,
            output_dir: Some(folder.path().join(output)),
            save_every: Some(2),
            resume,
            ..config(8.0)
        };
        let trainer =
            Trainer::new(config, Data::of(&[2, 3, 1]), squared_error).with_evaluation(others());
        match kill_after {
            0 => trainer.fit(Net::new(0.0)),
            step => trainer.with_callback(KillAfter(step)).fit(Net::new(0.0)),
        }
    };
    let (model, report) = run("whole", 0, false).expect("trains");
    let best = report.eval_best().expect("was evaluated");
    assert!(
        best.step < report.steps,
        "the last step is the best, so the test shows nothing"
    );
    assert_eq!(report.best_step, Some(best.step));
    let found = ft_train::evaluate(&model, &others(), squared_error).expect("evaluates");
    assert_eq!(found.loss, best.metrics.loss);

    run("killed", 10, false).expect_err("is killed");
    let (resumed, again) = run("killed", 0, true).expect("resumes");
    assert_eq!(again.best_step, report.best_step);
    assert_eq!(parameters(&resumed), parameters(&model));
}

/// The run is killed after an evaluation that is better than the one that the newest checkpoint has as its best.
#[test]
fn the_best_model_of_a_checkpoint_outlives_better_ones_after_it() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = |name: &str| folder.path().join(name);
    let run = |output: &str, kill_after: Option<usize>, resume: bool, load_best: bool| {
        let config = TrainConfig {
            learning_rate: 0.01,
            load_best_model_at_end: load_best,
            output_dir: Some(path(output)),
            save_every: Some(4),
            resume,
            ..config(4.0)
        };
        let trainer =
            Trainer::new(config, Data::of(&[2, 3, 1]), squared_error).with_evaluation(others());
        match kill_after {
            None => trainer.fit(Net::new(0.0)),
            Some(step) => trainer.with_callback(KillAfter(step)).fit(Net::new(0.0)),
        }
    };
    let (model, report) = run("whole", None, false, true).expect("trains");
    run("killed", Some(7), false, true).expect_err("is killed");
    let steps = || -> BTreeSet<String> {
        let entries = fs::read_dir(path("killed/best")).expect("reads");
        let names = entries.map(|entry| entry.expect("reads").file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    };
    let kept: BTreeSet<String> = ["step-4".into(), "step-6".into()].into();
    assert_eq!(
        steps(),
        kept,
        "the evaluation of step 6 is not the best so far"
    );
    let other = run("killed", None, true, false).expect_err("has another setting");
    assert!(
        other.to_string().contains("load_best_model_at_end"),
        "{other}"
    );
    fs::rename(path("killed/best/step-4"), path("best")).expect("moves");
    let missing = run("killed", None, true, true).expect_err("has no parameters");
    let text = missing.to_string();
    assert!(
        matches!(missing, Error::DamagedCheckpoint { .. })
            && text.contains("best evaluation is that of step 4"),
        "{text}"
    );
    fs::rename(path("best"), path("killed/best/step-4")).expect("moves");
    let (resumed, again) = run("killed", None, true, true).expect("resumes");
    assert_eq!(again.best_step, report.best_step);
    assert_eq!(parameters(&resumed), parameters(&model));
    assert!(steps().len() <= 2, "{:?}", steps());

    // Without an evaluation there is no best model.
    let config = TrainConfig {
        load_best_model_at_end: true,
        output_dir: Some(path("none")),
        eval_at_start: false,
        eval_at_end: false,
        eval_every: Some(100),
        ..config(1.0)
    };
    let trainer = Trainer::new(config, Data::of(&[2]), squared_error).with_evaluation(others());
    let error = trainer
        .fit(Net::new(0.0))
        .expect_err("is not evaluated")
        .to_string();
    assert!(error.contains("no evaluation is due in 1 steps"), "{error}");
    assert!(!path("none").exists());
}

#[test]
fn a_run_ends_when_the_evaluation_loss_no_longer_improves() {
    let _turn = alone();
    let config = TrainConfig {
        learning_rate: 0.2,
        ..config(30.0)
    };
    let (_, report) = Trainer::new(config, Data::of(&[2, 3, 1]), squared_error)
        .with_evaluation(others())
        .with_callback(EarlyStopping::new(3))
        .fit(Net::new(0.0))
        .expect("trains");
    assert!(report.stopped_early);
    let losses: Vec<f64> = report
        .evaluations
        .iter()
        .map(|one| one.metrics.loss)
        .collect();
    let (before, last) = losses.split_at(losses.len() - 3);
    let best = before.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(last.iter().all(|loss| *loss >= best), "{losses:?}");
    assert_eq!(before.last(), Some(&best), "{losses:?}");
}

#[test]
fn forgetting_ends_a_run_at_its_limit() {
    let _turn = alone();
    let run = |monitor: ForgettingMonitor| {
        Trainer::new(config(20.0), Data::of(&[2, 3, 1]), squared_error)
            .with_evaluation(Data::of(&[2, 2]))
            .with_named_evaluation("general", others())
            .with_callback(monitor)
            .fit(Net::new(0.0))
    };
    // A base below what any model has makes the rise certain.
    let (_, report) = run(ForgettingMonitor::new("general").with_base(0.5)).expect("trains");
    assert_eq!((report.steps, report.stopped_early), (0, true));
    let limits = ForgettingMonitor::new("general").with_limits(f64::INFINITY, f64::INFINITY);
    assert_eq!(run(limits).expect("trains").1.steps, 60);
    let error = run(ForgettingMonitor::new("generel")).expect_err("has no such set");
    assert!(error.to_string().contains("`generel`"), "{error}");
}

#[test]
fn a_plateau_lowers_the_rate_and_needs_evaluations() {
    let _turn = alone();
    let schedule: Schedule = "reduce_lr_on_plateau:0.5,0".parse().expect("is known");
    let config = TrainConfig {
        schedule,
        learning_rate: 0.3,
        ..config(10.0)
    };
    let rates = Rc::new(RefCell::new(Vec::new()));
    let (_, report) = Trainer::new(config.clone(), Data::of(&[2, 3, 1]), squared_error)
        .with_evaluation(others())
        .with_tracker(Collect(rates.clone()))
        .fit(Net::new(0.0))
        .expect("trains");
    for (step, name, rate) in rates
        .borrow()
        .iter()
        .filter(|(_, name, _)| name == "train/learning_rate")
    {
        let losses = report.evaluations.iter().filter(|one| one.step < *step);
        let factor = ft_train::plateau_factor(losses.map(|one| one.metrics.loss), 0.5, 0);
        assert!((rate - 0.3 * factor).abs() < 1e-12, "{name} of step {step}");
    }
    assert!(
        rates
            .borrow()
            .iter()
            .any(|(_, name, rate)| name == "train/learning_rate" && *rate < 0.3)
    );
    let config = TrainConfig {
        eval_every: None,
        ..config
    };
    assert!(
        config
            .validate()
            .expect_err("has no evaluations")
            .to_string()
            .contains("set eval_every")
    );
}

/// The evaluation after the last step is one more than an uninterrupted run has.
#[test]
fn a_run_with_a_plateau_may_go_on_beyond_its_end() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let run = |output: &str, steps: usize, resume: bool| {
        let config = TrainConfig {
            schedule: "reduce_lr_on_plateau:0.5,0".parse().expect("is known"),
            learning_rate: 0.3,
            max_steps: Some(steps),
            save_every: Some(100),
            output_dir: Some(folder.path().join(output)),
            resume,
            ..config(1.0)
        };
        let trainer =
            Trainer::new(config, Data::of(&[2, 3, 1]), squared_error).with_evaluation(others());
        trainer.fit(Net::new(0.0)).expect("trains")
    };
    let (whole, _) = run("whole", 20, false);
    for first in [5, 7, 9] {
        let output = format!("longer-{first}");
        run(&output, first, false);
        let (longer, _) = run(&output, 20, true);
        assert_eq!(parameters(&longer), parameters(&whole), "{first}");
    }
}

/// Everything that was logged: step, name, value.
type Logged = Rc<RefCell<Vec<(usize, String, f64)>>>;

struct Collect(Logged);

impl Tracker for Collect {
    fn log(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<(), BoxError> {
        let scalars = scalars.iter();
        (self.0.borrow_mut()).extend(scalars.map(|(name, value)| (step, name.clone(), *value)));
        Ok(())
    }
}

#[test]
fn trackers_and_curves_have_the_numbers_of_the_log() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = |name: &str| folder.path().join(name);
    let run = |kill_after: usize, resume: bool| {
        let config = TrainConfig {
            output_dir: Some(path("run")),
            save_every: Some(2),
            resume,
            ..config(3.0)
        };
        let trainer = Trainer::new(config, Data::of(&[2, 3, 1]), squared_error)
            .with_evaluation(others())
            .with_tracker(CsvTracker::new(path("run/metrics.csv")))
            .with_tracker(TensorBoard::new(path("run/tensorboard")));
        match kill_after {
            0 => trainer.fit(Net::new(0.0)),
            step => trainer.with_callback(KillAfter(step)).fit(Net::new(0.0)),
        }
    };
    run(5, false).expect_err("is killed");
    let (_, report) = run(0, true).expect("resumes");
    let csv = fs::read_to_string(path("run/metrics.csv")).expect("reads");
    let losses: Vec<f64> = csv
        .lines()
        .filter_map(|line| line.split(",train/loss,").nth(1)?.parse().ok())
        .collect();
    assert_eq!(losses, report.train_losses);
    assert_eq!(
        fs::read_dir(path("run/tensorboard"))
            .expect("reads")
            .count(),
        2
    );
    let picture = draw_loss_curves(path("run")).expect("draws");
    let picture = fs::read_to_string(picture).expect("reads");
    assert!(picture.contains(">training, mean</text>") && picture.contains(">evaluation</text>"));
}

#[test]
fn a_tracker_that_refuses_a_run_leaves_the_earlier_one_as_it_was() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let table = folder.path().join("table.csv");
    fs::write(&table, "my,own\nnumbers,1\n").expect("writes");
    let run = |csv: Option<&Path>, overwrite: bool| {
        let config = TrainConfig {
            output_dir: Some(folder.path().join("run")),
            eval_every: None,
            overwrite,
            ..config(1.0)
        };
        let trainer = Trainer::new(config, Data::of(&[2, 3, 1]), squared_error);
        match csv {
            Some(path) => trainer
                .with_tracker(CsvTracker::new(path))
                .fit(Net::new(0.0)),
            None => trainer.fit(Net::new(0.0)),
        }
    };
    run(None, false).expect("trains");
    let log = fs::read(folder.path().join("run/train_log.jsonl")).expect("reads");
    let error = run(Some(&table), true).expect_err("is refused").to_string();
    assert!(error.contains("table.csv"), "{error}");
    let kept = fs::read_to_string(&table).expect("reads");
    assert_eq!(kept, "my,own\nnumbers,1\n");
    let log_after = fs::read(folder.path().join("run/train_log.jsonl")).expect("reads");
    assert_eq!(log_after, log);
    let checkpoint = ft_train::latest_checkpoint(&folder.path().join("run"));
    assert!(checkpoint.expect("reads").is_some());
}

/// A step on the numbers 0 to 11, two a batch, again and again.
fn stream(poisoned: bool) -> OnStream<'static, Net, u64, Rows> {
    let rows = (0..12).map(|n| json!({ "n": n })).collect();
    let options = StreamOptions {
        batch_size: 2,
        window: 4,
        ..StreamOptions::default()
    };
    let collate = move |numbers: &[&u64]| Rows {
        x: numbers
            .iter()
            .map(|n| [**n as f32 * 0.1, 0.5, -0.5])
            .collect(),
        y: numbers
            .iter()
            .map(|n| if poisoned && **n == 7 { f32::NAN } else { 0.3 })
            .collect(),
        counts: vec![true; numbers.len()],
    };
    let loader = StreamLoader::new(
        RowStream::from_rows(rows).repeat(),
        |row| Ok(row["n"].as_u64()),
        collate,
        options,
    );
    OnStream::new(loader.expect("loads"), 6, squared_error)
}

#[test]
fn a_stream_is_evaluated_on_named_sets_and_keeps_its_bad_batch() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let config = TrainConfig {
        gradient_accumulation_steps: 3,
        output_dir: Some(folder.path().to_path_buf()),
        overwrite: true,
        ..config(2.0)
    };
    let method = stream(false)
        .with_evaluation(Data::of(&[2, 2]))
        .with_named_evaluation("general", others());
    let (model, report) = Trainer::with_method(config.clone(), method)
        .fit(Net::new(0.0))
        .expect("trains");
    let general = ft_train::evaluate(&model, &others(), squared_error).expect("evaluates");
    let last = report.evaluations.last().expect("was evaluated");
    assert_eq!(last.sets["general"].loss, general.loss);
    assert_eq!(last.metrics.tokens, 4);

    // Rows 6 and 7 are batch 3: the first of the second step's, after the window was read anew.
    let method = stream(true).with_batch_to_json(|rows: &Rows| json!({"x": rows.x}));
    let config = TrainConfig {
        eval_every: None,
        ..config
    };
    let error = Trainer::with_method(config, method)
        .fit(Net::new(0.0))
        .expect_err("is poisoned");
    let Error::NonFiniteLoss {
        step: 2,
        batch: 3,
        kept: Some(kept),
        ..
    } = &error
    else {
        panic!("{error}");
    };
    let kept: serde_json::Value =
        serde_json::from_slice(&fs::read(kept).expect("reads")).expect("is JSON");
    assert_eq!(
        kept["x"][1][0].as_f64().map(|x| (10.0 * x).round()),
        Some(7.0)
    );
}

#[test]
fn the_batch_of_a_loss_that_is_not_finite_is_kept() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let data = Data {
        poisoned: Some(4),
        ..Data::of(&[2, 3, 1])
    };
    let config = TrainConfig {
        output_dir: Some(folder.path().to_path_buf()),
        eval_every: None,
        ..config(1.0)
    };
    let method = ft_train::OnBatches::new(data, squared_error)
        .with_batch_to_json(|rows: &Rows| json!({"x": rows.x}));
    let error = Trainer::with_method(config, method)
        .fit(Net::new(0.0))
        .expect_err("is poisoned");
    let Error::NonFiniteLoss {
        step: 2,
        batch: 1,
        kept: Some(kept),
        ..
    } = &error
    else {
        panic!("{error}");
    };
    let kept: serde_json::Value =
        serde_json::from_slice(&fs::read(kept).expect("reads")).expect("is JSON");
    assert_eq!(kept["x"].as_array().map(Vec::len), Some(3));
    assert!(
        error.to_string().contains("batch-of-step-2.json"),
        "{error}"
    );
}

#[test]
fn parameters_that_never_change_are_named() {
    let _turn = alone();
    let run = |dead: bool| {
        let step = move |model: &Net, rows: &Rows, context: &StepContext| {
            let mut output = squared_error(model, rows, context)?;
            if dead {
                // The output layer's bias takes no part.
                let x: Vec<f32> = rows.x.iter().flatten().copied().collect();
                let x = TensorData::new(x, [rows.x.len(), 3]);
                let x = Tensor::<2>::from_data(x, &context.device);
                let hidden = model
                    .hidden
                    .forward(model.norm.forward(model.frozen.forward(x)));
                output.loss.sum = hidden.tanh().matmul(model.out.weight.val()).square().sum();
            }
            Ok(output)
        };
        let config = TrainConfig {
            eval_every: None,
            ..config(5.0)
        };
        let (_, report) = Trainer::new(config, Data::of(&[2, 3, 1]), step)
            .fit(Net::new(0.0))
            .expect("trains");
        report.findings
    };
    assert_eq!(run(false), []);
    let found = run(true);
    assert_eq!(found[0].symptom, Symptom::DeadParameters);
    assert!(
        found[0].evidence.contains("1 of 6") && found[0].evidence.contains("out.bias"),
        "{}",
        found[0]
    );
}

/// A policy whose answers were all equally good has no gradient at first.
#[test]
fn steps_without_any_gradient_say_nothing_of_parameters() {
    let _turn = alone();
    let step = |model: &Net, rows: &Rows, context: &StepContext| {
        let mut output = squared_error(model, rows, context)?;
        if context.step <= 12 {
            output.loss.sum = output.loss.sum * 0.0;
        }
        Ok(output)
    };
    let config = TrainConfig {
        eval_every: None,
        ..config(8.0)
    };
    let (_, report) = Trainer::new(config, Data::of(&[2, 3, 1]), step)
        .fit(Net::new(0.0))
        .expect("trains");
    assert_eq!(report.steps, 24);
    let mut symptoms = report.findings.iter().map(|finding| finding.symptom);
    assert!(symptoms.all(|symptom| symptom != Symptom::DeadParameters));
}
