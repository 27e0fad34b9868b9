//! Batches that go through a block at the same time, each in a thread which waits where a [`Watch`] does.

use std::thread::{Builder, scope};
use std::time::Duration;

use super::watch::{GaveUp, Watch};
use crate::{Error, Result};

/// `compute` of all inputs, in the order of turns. `stack_of` is the size of the stack of each thread.
///
/// # Errors
///
/// If a thread cannot be started. Those that have been started end then.
///
/// # Panics
///
/// If `compute` does.
pub(super) fn in_turns<X: Send, Y: Send>(
    watch: &Watch,
    inputs: Vec<X>,
    stack_of: impl Fn(usize) -> usize,
    compute: impl Fn(X) -> Y + Sync,
) -> Result<Vec<Y>> {
    let compute = &compute;
    scope(|scope| {
        let mut passes = Vec::with_capacity(inputs.len());
        let mut failure = None;
        for (batch, x) in inputs.into_iter().enumerate() {
            let pass = move || watch.in_turn(batch, || compute(x));
            let thread = Builder::new().stack_size(stack_of(batch));
            match thread.spawn_scoped(scope, pass) {
                Ok(pass) => passes.push(pass),
                Err(error) => {
                    failure = Some(Error::Settings(format!(
                        "cannot start a thread for each batch of windows: {error}; calibrate on fewer windows"
                    )));
                    // The others would wait for the turn of this one.
                    watch.give_up();
                    break;
                }
            }
        }
        // This thread may be one of those that compute.
        while !passes.iter().all(|pass| pass.is_finished()) {
            if rayon::yield_now() != Some(rayon::Yield::Executed) {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        let mut outputs = Vec::with_capacity(passes.len());
        let mut panic = None;
        for pass in passes {
            match pass.join() {
                Ok(output) => outputs.push(output),
                // Another one panicked, or could not be started.
                Err(payload) if payload.is::<GaveUp>() => {}
                Err(payload) => panic = Some(payload),
            }
        }
        match (panic, failure) {
            (Some(panic), _) => std::panic::resume_unwind(panic),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(outputs),
        }
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::calibrate::watch::{Stage, Work, sums};
    use crate::moments::Order;

    const STACK: usize = 1 << 20;

    /// Batches that meet at one stage.
    fn watch(batches: usize) -> Watch {
        let stage = Stage {
            paths: vec!["a".into()],
            cols: 2,
        };
        let stages = sums(&[stage], Order::Second).into_iter();
        let watch = Watch::default();
        let work = Work::Round {
            stages: stages.map(|(stage, sums)| (stage, Some(sums))).collect(),
            round: Box::new(|_, _| Ok(Vec::new())),
            weights: Default::default(),
            failure: None,
        };
        watch.begin(work, batches);
        watch
    }

    fn see(watch: &Watch, batch: usize) -> usize {
        watch.see("a", &Tensor::<2>::ones([1, 2], &Device::default()));
        batch
    }

    #[test]
    fn all_batches_meet_and_come_back_in_order() {
        let watch = watch(5);
        let found = in_turns(&watch, (0..5).collect(), |_| STACK, |i| see(&watch, i));
        assert_eq!(found.expect("starts"), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_an_error() {
        for last in [0, 1, 4] {
            let watch = watch(5);
            let stack = |batch| if batch == last { usize::MAX / 4 } else { STACK };
            let found = in_turns(&watch, (0..5).collect(), stack, |i| see(&watch, i));
            let error = found.expect_err("no memory for its stack").to_string();
            assert!(error.contains("cannot start a thread"), "{error}");
        }
    }

    #[test]
    #[should_panic(expected = "batch 3")]
    fn a_panic_of_one_batch_is_that_of_all() {
        let watch = watch(5);
        let compute = |batch| {
            assert!(batch != 3, "batch 3");
            see(&watch, batch)
        };
        let _ = in_turns(&watch, (0..5).collect(), |_| STACK, compute);
    }
}
