//! Timed optimizer steps of a method: what the benchmarks of methods have in common.

#![allow(dead_code, reason = "a benchmark prints a part of it")]

use std::time::Instant;

use anyhow::{Context, Result};
use ft::burn::module::Module;
use ft::burn::optim::GradientsParams;
use ft::burn::tensor::Device;
use ft::train::{AdamW, Method, Metric, ModelView, OptimizerStates, StepContext, TrainConfig};

/// Takes steps without weight decay.
pub(crate) struct Stepper {
    optimizer: OptimizerStates<AdamW>,
    device: Device,
    lr: f64,
    taken: usize,
}

/// What a step took and gave.
pub(crate) struct Step {
    /// Seconds of making the batch, such as sampling or the passes of a reference.
    pub(crate) batch_s: f64,
    /// Seconds of all.
    pub(crate) all_s: f64,
    /// The mean loss.
    pub(crate) loss: f64,
    metrics: Vec<Metric>,
}

impl Stepper {
    pub(crate) fn new(device: &Device, lr: f64) -> Self {
        let config = TrainConfig {
            weight_decay: 0.0,
            ..TrainConfig::default()
        };
        Self {
            optimizer: OptimizerStates::adamw(&config),
            device: device.clone(),
            lr,
            taken: 0,
        }
    }

    /// The next step.
    pub(crate) fn step<M: Module, T: Method<M>>(
        &mut self,
        method: &mut T,
        model: M,
    ) -> Result<(M, Step)> {
        let start = Instant::now();
        let context = StepContext::training(&self.device, 0, self.taken + 1, 0);
        let batch = method
            .batch(&ModelView::new(&model), 0, self.taken, &context)
            .map_err(anyhow::Error::from_boxed)?;
        let batch_s = start.elapsed().as_secs_f64();
        let output = method
            .step(&model, &batch, &context)
            .map_err(anyhow::Error::from_boxed)?;
        let scale = 1.0 / output.loss.count as f64;
        let value = output.loss.sum.clone();
        let gradients = GradientsParams::from_grads(output.loss.sum.backward(), &model);
        let model = self.optimizer.step(model, gradients, self.lr, scale);
        self.device.sync()?;
        let all_s = start.elapsed().as_secs_f64();
        self.taken += 1;
        let step = Step {
            batch_s,
            all_s,
            loss: value.into_scalar::<f64>() * scale,
            metrics: output.metrics,
        };
        Ok((model, step))
    }
}

/// What some steps on the batches of a method took and gave.
pub(crate) struct Steps {
    /// Seconds of the steps after the first two.
    pub(crate) seconds: f64,
    /// The mean loss of every step, rounded.
    pub(crate) losses: Vec<f64>,
}

impl Stepper {
    /// The next steps, so many.
    pub(crate) fn steps<M: Module, T: Method<M>>(
        &mut self,
        method: &mut T,
        mut model: M,
        count: usize,
    ) -> Result<Steps> {
        let (mut seconds, mut losses) = (0.0, Vec::new());
        for number in 0..count {
            let step;
            (model, step) = self.step(method, model)?;
            if number >= 2 {
                seconds += step.all_s;
            }
            losses.push(round(step.loss, 5));
        }
        Ok(Steps { seconds, losses })
    }
}

impl Step {
    /// The mean of a metric.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let metric = self.metrics.iter().find(|metric| metric.name == name);
        let metric = metric.with_context(|| format!("the step has no metric {name}"))?;
        Ok(metric.sum.value() / metric.weight)
    }
}

/// The median of the steps after the first two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values[2..].to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2] + sorted[(sorted.len() - 1) / 2]) / 2.0
}

pub(crate) fn round(x: f64, digits: i32) -> f64 {
    (x * 10f64.powi(digits)).round() / 10f64.powi(digits)
}
