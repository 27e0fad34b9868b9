//! What callbacks are handed, and what checkpoints keep of them.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use burn::module::Module;
use ft_train::{
    BoxError, Callback, Error, Evaluation, ModelView, StepRecord, TrainConfig, Verdict,
};
use serde_json::Value;

use crate::model::{Data, KillAfter, Net, alone, trainer};

/// Computes with the model, as a callback that generates does.
struct Ask;

impl Callback<Net> for Ask {
    fn on_step(&mut self, model: &ModelView<'_, Net>, _: &StepRecord) -> Verdict {
        let device = &model.devices()[0];
        let x = burn::tensor::Tensor::<2>::from_data([[0.1, 0.2, 0.3]; 16], device);
        let (once, twice) = (model.forward(x.clone()), model.forward(x));
        assert!(!once.is_tracked() && !device.is_autodiff());
        assert_eq!(once.into_data(), twice.into_data(), "dropout is on");
        Ok(ControlFlow::Continue(()))
    }
}

#[test]
fn the_model_that_a_callback_gets_has_no_dropout_and_no_graph() {
    let _turn = alone();
    let config = TrainConfig {
        max_steps: Some(2),
        ..TrainConfig::default()
    };
    let fitted = trainer(config, Data::of(&[4]))
        .with_callback(Ask)
        .fit(Net::new(0.5));
    assert_eq!(fitted.expect("trains").1.steps, 2);
}

/// Counts steps and evaluations.
#[derive(Default)]
struct Count(Rc<RefCell<Vec<usize>>>);

impl Callback<Net> for Count {
    fn on_step(&mut self, _: &ModelView<'_, Net>, _: &StepRecord) -> Verdict {
        self.0.borrow_mut()[0] += 1;
        Ok(ControlFlow::Continue(()))
    }
    fn on_eval(&mut self, _: &ModelView<'_, Net>, _: &Evaluation) -> Verdict {
        self.0.borrow_mut()[1] += 1;
        Ok(ControlFlow::Continue(()))
    }
    fn state(&self) -> Option<Value> {
        Some(self.0.borrow().clone().into())
    }
    fn restore(&mut self, state: Value) -> Result<(), BoxError> {
        *self.0.borrow_mut() = serde_json::from_value(state)?;
        Ok(())
    }
    fn name(&self) -> String {
        "count".into()
    }
}

fn counts() -> Rc<RefCell<Vec<usize>>> {
    Rc::new(RefCell::new(vec![0, 0]))
}

fn config(folder: &Path, resume: bool) -> TrainConfig {
    TrainConfig {
        max_steps: Some(7),
        eval_every: Some(2),
        save_every: Some(3),
        output_dir: Some(folder.to_path_buf()),
        resume,
        ..TrainConfig::default()
    }
}

#[test]
fn what_callbacks_remember_is_restored() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let run = |resume, kill: Option<usize>, counted: &[Rc<RefCell<Vec<usize>>>]| {
        let mut trainer =
            trainer(config(folder.path(), resume), Data::of(&[4])).with_evaluation(Data::of(&[2]));
        for counted in counted {
            trainer = trainer.with_callback(Count(counted.clone()));
        }
        if let Some(step) = kill {
            trainer = trainer.with_callback(KillAfter(step));
        }
        trainer.fit(Net::new(0.1))
    };
    assert!(run(false, Some(5), &[counts(), counts()]).is_err());
    // A callback without a state may come and go, and one that is new begins anew.
    let counted = [counts(), counts(), counts()];
    run(true, None, &counted).expect("resumes");
    // Evaluated at 0, 2, 4, 6 and 7.
    assert_eq!(*counted[0].borrow(), [7, 5]);
    assert_eq!(*counted[1].borrow(), [7, 5]);
    // Resumed after step 3.
    assert_eq!(*counted[2].borrow(), [4, 3]);
}

#[test]
fn a_run_without_a_callback_that_the_checkpoint_has_is_refused() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let without_evaluation = |resume| TrainConfig {
        eval_every: None,
        ..config(folder.path(), resume)
    };
    let killed = trainer(without_evaluation(false), Data::of(&[4]))
        .with_callback(Count(counts()))
        .with_callback(KillAfter(5))
        .fit(Net::new(0.1));
    assert!(killed.is_err());
    let refused = trainer(without_evaluation(true), Data::of(&[4])).fit(Net::new(0.1));
    let error = refused.map(|_| ()).expect_err("resumed without it");
    assert!(
        matches!(&error, Error::OtherCallbacks { missing, .. } if *missing == ["count"]),
        "{error}"
    );
}
