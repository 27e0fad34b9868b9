//! What a step gets besides the model and the batch.

use burn::tensor::Device;

use crate::step_seed::{evaluation_seed, step_seed};

/// Whether a step trains or measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The loss is backpropagated; dropout is on.
    Training,
    /// The loss is only read; dropout is off and there is no graph.
    Evaluation,
}

/// What a step gets besides the model and the batch.
#[derive(Clone, Debug)]
pub struct StepContext {
    /// Training or evaluation.
    pub phase: Phase,
    /// Which optimizer step, counted from 1. In an evaluation: how many were taken.
    pub step: usize,
    /// Which batch of the optimizer step, counted from 0. In an evaluation: which of its batches.
    pub micro_batch: usize,
    /// A seed for whatever the step draws. In training every step and batch has another, and no other than the
    /// device is seeded with. In evaluation every batch has another, the same in all evaluations, so that two
    /// evaluations differ by the model alone.
    pub seed: u64,
    /// Where the model is, and where what the step makes belongs.
    pub device: Device,
}

impl StepContext {
    /// The context of a training step in a run of seed `seed`; `step` counts from 1, `micro_batch` from 0.
    pub fn training(device: &Device, seed: u64, step: usize, micro_batch: usize) -> Self {
        Self {
            phase: Phase::Training,
            step,
            micro_batch,
            seed: step_seed(seed, step.saturating_sub(1), micro_batch),
            device: device.clone(),
        }
    }

    /// The context of batch `micro_batch` of an evaluation after `step` steps, in a run of seed `seed`.
    pub fn evaluation(device: &Device, seed: u64, step: usize, micro_batch: usize) -> Self {
        Self {
            phase: Phase::Evaluation,
            step,
            micro_batch,
            seed: evaluation_seed(seed, micro_batch),
            device: device.clone(),
        }
    }

    /// Whether this is a training step.
    pub fn is_training(&self) -> bool {
        self.phase == Phase::Training
    }
}
