//! Which batches make up which step.
//!
//! An epoch is cut into windows of `gradient_accumulation_steps` batches; the last one takes what is
//! left. A run of `e` epochs has the steps of its whole epochs and, for the fraction, that part of
//! the next one's: `e` times its steps, rounded up, as transformers computes it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, TrainConfig};

/// Where a run stands in its data: the next batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) epoch: usize,
    pub(crate) batch: usize,
}

/// The batches of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WindowPlan {
    pub(crate) epoch: usize,
    pub(crate) batches: Range<usize>,
    pub(crate) batches_in_epoch: usize,
}

impl WindowPlan {
    /// The step that begins at `position`, or with the next epoch if this one is over.
    pub(crate) fn at(
        position: Position,
        len_of: impl Fn(usize) -> usize,
        per_step: usize,
    ) -> Result<Self> {
        let Position {
            mut epoch,
            mut batch,
        } = position;
        if batch > 0 && batch >= len_of(epoch) {
            epoch += 1;
            batch = 0;
        }
        let len = len_of(epoch);
        if len == 0 {
            return Err(Error::EmptyEpoch { epoch });
        }
        Ok(Self {
            epoch,
            batches: batch..len.min(batch + per_step),
            batches_in_epoch: len,
        })
    }

    /// Where the run stands after this step.
    pub(crate) fn end(&self) -> Position {
        Position {
            epoch: self.epoch,
            batch: self.batches.end,
        }
    }

    /// Passes over the data after this step.
    pub(crate) fn epochs(&self) -> f64 {
        self.epoch as f64 + self.batches.end as f64 / self.batches_in_epoch as f64
    }
}

/// How many optimizer steps a run with these settings has, on epochs of `len_of` batches.
///
/// # Errors
///
/// If an epoch has no batches.
pub fn total_steps(config: &TrainConfig, len_of: impl Fn(usize) -> usize) -> Result<usize> {
    let steps_of = |epoch: usize| match len_of(epoch) {
        0 => Err(Error::EmptyEpoch { epoch }),
        len => Ok(len.div_ceil(config.gradient_accumulation_steps)),
    };
    if let Some(steps) = config.max_steps {
        return steps_of(0).map(|_| steps);
    }
    let whole = config.epochs.floor();
    let fraction = config.epochs - whole;
    let mut steps = 0;
    for epoch in 0..whole as usize {
        steps += steps_of(epoch)?;
    }
    if fraction > 0.0 {
        // The whole product is rounded up, as transformers does: 2.1 epochs of 10 steps are 21.
        let last = steps_of(whole as usize)?;
        steps += (config.epochs * last as f64).ceil() as usize - whole as usize * last;
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(epochs: f64, per_step: usize) -> TrainConfig {
        TrainConfig {
            epochs,
            gradient_accumulation_steps: per_step,
            ..TrainConfig::default()
        }
    }

    #[test]
    fn the_last_step_of_an_epoch_takes_what_is_left() {
        let data = |_| 5;
        let mut position = Position::default();
        let mut steps = Vec::new();
        for _ in 0..4 {
            let window = WindowPlan::at(position, data, 3).expect("not empty");
            steps.push((window.epoch, window.batches.clone(), window.epochs()));
            position = window.end();
        }
        assert_eq!(
            steps,
            [
                (0, 0..3, 0.6),
                (0, 3..5, 1.0),
                (1, 0..3, 1.6),
                (1, 3..5, 2.0)
            ]
        );
    }

    #[test]
    fn steps_are_counted_as_transformers_counts_them() {
        let data = |_| 5;
        for (epochs, per_step, steps) in [
            (1.0, 1, 5),
            (2.0, 2, 6),
            (1.5, 1, 8),
            (0.1, 4, 1),
            (2.2, 1, 11),
        ] {
            let counted = total_steps(&config(epochs, per_step), data).expect("not empty");
            assert_eq!(counted, steps, "{epochs} epochs, {per_step} a step");
        }
    }

    #[test]
    fn an_empty_epoch_is_an_error_and_not_an_endless_loop() {
        let data = |epoch| 1 - epoch;
        let end = Position { epoch: 0, batch: 1 };
        let next = WindowPlan::at(end, data, 1);
        assert!(matches!(next, Err(Error::EmptyEpoch { epoch: 1 })));
        let total = total_steps(&config(1.0, 1), |_| 0);
        assert!(matches!(total, Err(Error::EmptyEpoch { epoch: 0 })));
    }
}
