//! Timed optimizer steps: what all benchmarks of training have in common.

use std::time::Instant;

use anyhow::Result;
use ft::burn::optim::GradientsParams;
use ft::burn::tensor::{Device, Int, Tensor, TensorData};
use ft::core::{AutoCausalLm, CausalLm, TokenBatch, causal_lm_loss};
use ft::peft::{RankAllocator, orthogonality};
use ft::train::{Optim, OptimizerStates, TrainConfig};

/// What a run of steps took.
pub(crate) struct Steps {
    /// Median of the steps after the first two.
    pub(crate) tokens_per_s: f64,
    /// The mean loss of every step, rounded.
    pub(crate) losses: Vec<f64>,
}

/// One optimizer step on each batch of ids, `[batch, seq]`; labels are the ids. With an allocator the steps are those of
/// AdaLoRA: the orthogonality is part of what is minimised, and ranks are distributed. The losses are without it.
pub(crate) fn run(
    mut model: AutoCausalLm,
    batches: &[Vec<i64>],
    [batch, seq]: [usize; 2],
    (optim, lr): (Optim, f64),
    mut ranks: Option<RankAllocator>,
    device: &Device,
) -> Result<Steps> {
    let mut optimizer = OptimizerStates::adamw(&TrainConfig {
        optim,
        ..TrainConfig::default()
    });
    let (mut times, mut losses) = (Vec::new(), Vec::new());
    for (step, ids) in batches.iter().enumerate() {
        let start = Instant::now();
        let data = TensorData::new(ids.clone(), [batch, seq]);
        let input_ids = Tensor::<2, Int>::from_data(data, device);
        let hidden = model.hidden_states(&TokenBatch::new(input_ids), None);
        let loss = causal_lm_loss(hidden, model.head(), ids);
        let scale = 1.0 / loss.count as f64;
        let minimised = match &ranks {
            Some(ranks) => {
                let weight = ranks.config().orth_reg_weight * loss.count as f64;
                loss.sum.clone() + orthogonality(&model, "default")? * weight
            }
            None => loss.sum.clone(),
        };
        let grads = GradientsParams::from_grads(minimised.backward(), &model);
        if let Some(ranks) = &mut ranks {
            ranks.observe(&model, |param| {
                grads.get(param.id).map(|gradient| gradient * scale)
            });
        }
        model = optimizer.step(model, grads, lr, scale);
        if let Some(ranks) = &mut ranks {
            ranks.allocate(&mut model, step + 1)?;
        }
        device.sync()?;
        times.push(start.elapsed().as_secs_f64());
        losses.push(loss.sum.into_scalar::<f64>() * scale);
    }
    let timed = &mut times[2..];
    timed.sort_by(f64::total_cmp);
    let median = (timed[timed.len() / 2] + timed[(timed.len() - 1) / 2]) / 2.0;
    Ok(Steps {
        tokens_per_s: round((batch * seq) as f64 / median, 1),
        losses: losses.iter().map(|loss| round(*loss, 5)).collect(),
    })
}

fn round(x: f64, digits: i32) -> f64 {
    (x * 10f64.powi(digits)).round() / 10f64.powi(digits)
}
