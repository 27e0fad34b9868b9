//! A method that makes its batches from the model it trains, takes several updates on each, and keeps them.

use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use ft_core::LossSum;
use ft_train::{
    BoxError, Error, Method, ModelView, Schedule, StepContext, StepOutput, StepResult, TrainConfig,
    TrainReport, Trainer,
};
use serde::{Deserialize, Serialize};

use crate::model::{Data, KillAfter, Net, Rows, alone, parameters, quiet, squared_error_sum};

/// Updates on one set of rollouts, and batches an update.
const UPDATES: usize = 3;
const PER_STEP: usize = 2;
const ROWS: usize = 4;

/// Answers of the model to random questions, and how good they were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Rollouts {
    x: Vec<[f32; 3]>,
    answers: Vec<f32>,
    rewards: Vec<f32>,
    /// The mean reward of all rollouts so far.
    baseline: f32,
    made: usize,
}

/// Pulls the model towards its answers that were better than the mean so far.
#[derive(Debug, Default)]
struct Policy {
    rollouts: Rollouts,
    /// The steps at which this process made rollouts.
    made_at: Vec<usize>,
}

impl Policy {
    fn make(&mut self, model: &Net, context: &StepContext) {
        let number = |i: u64| ((context.seed >> (i * 5 % 48)) as f32 * 1e-3).sin();
        let x: Vec<[f32; 3]> = (0..PER_STEP * ROWS)
            .map(|row| [0, 1, 2].map(|i| number(3 * row as u64 + i)))
            .collect();
        let flat: Vec<f32> = x.iter().flatten().copied().collect();
        let device = &model.devices()[0];
        let input = Tensor::<2>::from_data(TensorData::new(flat, [x.len(), 3]), device);
        let answer = || model.forward(input.clone()).into_data();
        let said = answer();
        assert_eq!(said, answer(), "the model that answers has dropout");
        let answers: Vec<f32> = said.iter::<f32>().collect();
        let rewards: Vec<f32> = answers.iter().map(|answer| -(answer - 1.0).abs()).collect();
        let mean = rewards.iter().sum::<f32>() / rewards.len() as f32;
        let made = self.rollouts.made + 1;
        self.rollouts = Rollouts {
            x,
            // What to learn is a little above what was said.
            answers: answers.iter().map(|answer| answer + 0.1).collect(),
            rewards,
            baseline: self.rollouts.baseline + (mean - self.rollouts.baseline) / made as f32,
            made,
        };
        self.made_at.push(context.step);
    }
}

impl Method<Net> for Policy {
    type Batch = (Rows, Vec<f32>);

    fn len(&self, _: usize) -> usize {
        UPDATES * PER_STEP * 2
    }

    fn evaluation_len(&self) -> Option<usize> {
        Some(1)
    }

    fn batch(
        &mut self,
        model: &ModelView<'_, Net>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<Self::Batch, BoxError> {
        if !context.is_training() {
            let rows = ft_data::Batches::batch(&Data::of(&[ROWS]), epoch, index);
            return Ok((rows, vec![0.0; ROWS]));
        }
        if index.is_multiple_of(UPDATES * PER_STEP) {
            self.make(model, context);
        }
        let part = index % PER_STEP * ROWS..(index % PER_STEP + 1) * ROWS;
        let rows = Rows {
            x: self.rollouts.x[part.clone()].to_vec(),
            y: self.rollouts.answers[part.clone()].to_vec(),
            counts: vec![true; ROWS],
        };
        Ok((rows, self.rollouts.rewards[part].to_vec()))
    }

    fn step(
        &mut self,
        model: &Net,
        (rows, rewards): &Self::Batch,
        context: &StepContext,
    ) -> StepResult {
        let LossSum { sum, count } = squared_error_sum(model, rows, &context.device);
        let advantage = rewards.iter().sum::<f32>() - self.rollouts.baseline * ROWS as f32;
        let sum = sum * (1.0 + advantage);
        let total = Tensor::from_data([rewards.iter().sum::<f32>()], &context.device);
        let output = StepOutput::from(LossSum { sum, count });
        Ok(output
            .with_metric("reward", total, ROWS as f64)
            .with_metric("rollouts", self.rollouts.made as f64, 1.0))
    }

    fn save(&self, folder: &Path) -> Result<(), BoxError> {
        let text = serde_json::to_vec(&self.rollouts)?;
        Ok(fs::write(folder.join("rollouts.json"), text)?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), BoxError> {
        let text = fs::read(folder.join("rollouts.json"))?;
        self.rollouts = serde_json::from_slice(&text)?;
        Ok(())
    }
}

fn config(folder: &Path, resume: bool) -> TrainConfig {
    quiet(TrainConfig {
        learning_rate: 0.02,
        schedule: Schedule::Constant,
        max_steps: Some(10),
        gradient_accumulation_steps: PER_STEP,
        eval_every: Some(4),
        save_every: Some(1),
        output_dir: Some(folder.to_path_buf()),
        resume,
        ..TrainConfig::default()
    })
}

fn run(
    config: TrainConfig,
    policy: &mut Policy,
    kill: Option<usize>,
) -> Result<(Net, TrainReport), Error> {
    let trainer = Trainer::with_method(config, policy);
    match kill {
        Some(step) => trainer.with_callback(KillAfter(step)).fit(Net::new(0.3)),
        None => trainer.fit(Net::new(0.3)),
    }
}

#[test]
fn rollouts_are_made_from_the_current_model_and_serve_several_updates() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut policy = Policy::default();
    let (_, report) = run(config(folder.path(), false), &mut policy, None).expect("trains");
    assert_eq!(policy.made_at, [1, 4, 7, 10]);
    let rewards: Vec<f64> = report.train_metrics.iter().map(|m| m["reward"]).collect();
    // The answers, and with them the rewards, change when rollouts are made and only then.
    for step in 1..10 {
        let same = rewards[step] == rewards[step - 1];
        assert_eq!(same, !step.is_multiple_of(UPDATES), "{rewards:?}");
    }
    assert_eq!(report.train_metrics[9]["rollouts"], 4.0);
    assert_eq!(report.evaluations[0].metrics.metrics["reward"], 0.0);
    assert!(!folder.path().join("checkpoints/.step-10.part").exists());
}

#[test]
fn a_method_killed_between_its_updates_and_resumed_ends_with_the_same_bits() {
    let _turn = alone();
    let whole = tempfile::tempdir().expect("temporary folder");
    let mut policy = Policy::default();
    let (expected, report) = run(config(whole.path(), false), &mut policy, None).expect("trains");
    // Killed after a step, before it is saved: one update on rollouts is repeated, or they are made again.
    for kill in 2..=10 {
        let folder = tempfile::tempdir().expect("temporary folder");
        let killed = run(
            config(folder.path(), false),
            &mut Policy::default(),
            Some(kill),
        );
        assert!(matches!(killed, Err(Error::Callback(_))));
        let mut resumed = Policy::default();
        let (model, again) = run(config(folder.path(), true), &mut resumed, None).expect("resumes");
        assert_eq!(again.resumed_from, Some(kill - 1));
        assert_eq!(parameters(&model), parameters(&expected), "after {kill}");
        assert_eq!(again.train_losses, report.train_losses);
        assert_eq!(again.train_metrics, report.train_metrics);
        assert_eq!(again.evaluations, report.evaluations);
        assert_eq!(resumed.rollouts, policy.rollouts);
    }
}

#[test]
fn a_method_whose_state_is_damaged_is_reported() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let killed = run(
        config(folder.path(), false),
        &mut Policy::default(),
        Some(3),
    );
    assert!(killed.is_err());
    let state = (folder.path()).join("checkpoints/step-2/method/rollouts.json");
    fs::write(&state, "{").expect("writes");
    let damaged = run(config(folder.path(), true), &mut Policy::default(), None);
    let text = damaged
        .map(|_| ())
        .expect_err("resumed from it")
        .to_string();
    assert!(text.contains("step-2 is damaged: method: "), "{text}");
}
