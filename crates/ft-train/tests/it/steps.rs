//! What a step may change, what it refuses, and what callbacks get.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use burn::module::Module;
use burn::optim::SgdConfig;
use ft_core::LossSum;
use ft_train::{
    Callback, Error, Evaluation, ModelView, OptimizerStates, StepContext, StepRecord, TrainConfig,
    Trainer, Verdict,
};

use crate::model::{
    Data, Net, Rows, alone, device, distance, parameters, quiet, squared_error_sum, trainer,
};

fn config() -> TrainConfig {
    TrainConfig {
        learning_rate: 0.01,
        epochs: 2.0,
        ..TrainConfig::default()
    }
}

/// Keeps the model of every step.
struct Keep(Rc<RefCell<Vec<Net>>>);

impl Callback<Net> for Keep {
    fn on_step(&mut self, model: &ModelView<'_, Net>, _: &StepRecord) -> Verdict {
        self.0.borrow_mut().push(Net::clone(model));
        Ok(ControlFlow::Continue(()))
    }
}

#[test]
fn frozen_parameters_stay_and_all_others_move() {
    let _turn = alone();
    let before = Net::new(0.0);
    let (after, _) = trainer(config(), Data::of(&[4, 4]))
        .fit(before.clone())
        .expect("trains");
    let after = parameters(&after);
    for (path, values) in parameters(&before) {
        let same = after[&path] == values;
        assert_eq!(same, path.starts_with("frozen."), "{path}");
    }
}

#[test]
fn a_loss_that_is_not_a_number_names_step_and_batch_and_changes_nothing() {
    let _turn = alone();
    let kept = Rc::new(RefCell::new(Vec::new()));
    let data = Data {
        poisoned: Some(5),
        ..Data::of(&[2, 2, 2, 2])
    };
    let settings = TrainConfig {
        gradient_accumulation_steps: 2,
        ..config()
    };
    let error = trainer(settings, data)
        .with_callback(Keep(kept.clone()))
        .fit(Net::new(0.0))
        .map(|_| ())
        .expect_err("trained on a NaN");
    assert!(
        matches!(&error, Error::NonFiniteLoss { step: 2, epoch: 0, batch: 2, loss, .. } if loss.is_nan()),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("step 2: the loss of batch 2 of epoch 0 is NaN")
    );
    let kept = kept.borrow();
    assert_eq!(kept.len(), 1, "only the first step was taken");
    assert!(
        parameters(&kept[0])
            .values()
            .flatten()
            .all(|value| value.is_finite())
    );
}

/// The root of 0 has an infinite slope, and 0 times infinity is no number.
#[test]
fn a_gradient_that_is_not_a_number_is_an_error_although_the_loss_is_fine() {
    let _turn = alone();
    let step = |model: &Net, rows: &Rows, context: &StepContext| {
        let LossSum { sum, count } = squared_error_sum(model, rows, &context.device);
        let sum = sum.clone() + (sum * 0.0).sqrt();
        Ok(LossSum { sum, count }.into())
    };
    let error = Trainer::new(quiet(config()), Data::of(&[4]), step)
        .fit(Net::new(0.0))
        .map(|_| ())
        .expect_err("stepped along a NaN");
    assert!(
        matches!(error, Error::NonFiniteGradient { step: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_model_with_nothing_to_train_is_an_error() {
    let _turn = alone();
    let error = trainer(config(), Data::of(&[4]))
        .fit(Net::new(0.0).no_grad())
        .map(|_| ())
        .expect_err("trained nothing");
    assert!(matches!(error, Error::NothingToTrain), "{error}");
}

#[test]
fn a_loss_without_a_way_back_to_the_parameters_is_an_error() {
    let _turn = alone();
    let step = |model: &Net, rows: &Rows, context: &StepContext| {
        let LossSum { sum, count } = squared_error_sum(model, rows, &context.device);
        let sum = sum.detach();
        Ok(LossSum { sum, count }.into())
    };
    let error = Trainer::new(quiet(config()), Data::of(&[4]), step)
        .fit(Net::new(0.0))
        .map(|_| ())
        .expect_err("trained without a gradient");
    assert!(matches!(error, Error::NoGradient), "{error}");
}

#[test]
fn an_empty_dataset_and_wrong_settings_are_said_before_work_starts() {
    let _turn = alone();
    let empty = trainer(config(), Data::of(&[]))
        .fit(Net::new(0.0))
        .map(|_| ());
    assert!(matches!(empty, Err(Error::EmptyEpoch { epoch: 0 })));
    let wrong = TrainConfig {
        learning_rate: -1.0,
        eval_every: Some(2),
        ..config()
    };
    let wrong = trainer(wrong, Data::of(&[4]))
        .fit(Net::new(0.0))
        .map(|_| ());
    match wrong {
        Err(Error::Config(mistakes)) => assert_eq!(mistakes.len(), 2, "{mistakes:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_from_a_plain_device_trains_like_one_with_autodiff() {
    let _turn = alone();
    let run = |model: Net| {
        let (model, _) = trainer(config(), Data::of(&[4, 4]))
            .fit(model)
            .expect("trains");
        model
    };
    assert_eq!(
        distance(&run(Net::new(0.0)), &run(Net::new(0.0).valid())),
        0.0
    );
}

#[test]
fn a_model_on_a_device_that_recomputes_keeps_doing_so() {
    let _turn = alone();
    let run = |device| {
        let model = Net::new(0.0).fork(&device);
        let (model, _) = trainer(config(), Data::of(&[4, 4]))
            .fit(model)
            .expect("trains");
        model
    };
    let plain = run(device());
    let recomputed = run(device().gradient_checkpointing());
    assert!(distance(&plain, &recomputed) < 1e-6);
    assert!(
        recomputed.devices()[0]
            .gradient_checkpointing_strategy()
            .is_some()
    );
}

#[test]
fn max_steps_overrides_epochs_and_goes_on_through_them() {
    let _turn = alone();
    let settings = TrainConfig {
        max_steps: Some(7),
        ..config()
    };
    let (_, report) = trainer(settings, Data::of(&[3, 3]))
        .fit(Net::new(0.0))
        .expect("trains");
    assert_eq!(
        (report.steps, report.train_losses.len(), report.tokens),
        (7, 7, 21)
    );
}

#[test]
fn another_optimizer_of_burn_does_as_well() {
    let _turn = alone();
    let sgd = || SgdConfig::new().build();
    let (_, report) = trainer(config(), Data::of(&[8]))
        .with_optimizer(OptimizerStates::new(sgd(), sgd()))
        .fit(Net::new(0.0))
        .expect("trains");
    assert!(report.train_losses[1] < report.train_losses[0]);
}

/// Stops at the second evaluation.
struct StopAtSecond(usize);

impl Callback<Net> for StopAtSecond {
    fn on_eval(&mut self, _: &ModelView<'_, Net>, _: &Evaluation) -> Verdict {
        self.0 += 1;
        Ok(match self.0 {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    }
}

#[test]
fn evaluations_come_before_between_and_after_and_a_callback_may_stop_the_run() {
    let _turn = alone();
    let settings = TrainConfig {
        max_steps: Some(5),
        eval_every: Some(2),
        ..config()
    };
    let run = || trainer(settings.clone(), Data::of(&[4, 4])).with_evaluation(Data::of(&[3, 2]));
    let (_, report) = run().fit(Net::new(0.1)).expect("trains");
    let steps: Vec<_> = report.evaluations.iter().map(|one| one.step).collect();
    assert_eq!(steps, [0, 2, 4, 5]);
    assert!(!report.stopped_early);
    let (before, after) = (report.eval_before(), report.eval_after());
    assert!(after.expect("evaluated").loss < before.expect("evaluated").loss);

    let (_, stopped) = run()
        .with_callback(StopAtSecond(0))
        .fit(Net::new(0.1))
        .expect("trains");
    assert_eq!((stopped.steps, stopped.stopped_early), (2, true));
    assert_eq!(stopped.evaluations, report.evaluations[..2]);
}
