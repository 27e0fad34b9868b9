//! A model's blocks, one after the other, on windows of a text.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::layers::Adapter;
use ft_core::{AutoCausalLm, CausalLm, Parts, Pass};

use super::passes::in_turns;
use super::watch::{Round, Stage, Watch, Watched, Work, sums};
use crate::moments::{Moments, Order};
use crate::{Error, Result};

/// The name of the adapters that watch.
const ADAPTER: &str = "calibration";
/// Windows that go through a block together, at least.
const BATCH: usize = 4;
/// The most batches, each of which is a thread while stages are rounded.
const MOST_BATCHES: usize = 64;
/// The stack of such a thread.
const STACK: usize = 8 << 20;
/// Tokens that show which layers get the same input.
const FEW: usize = 8;

/// A model whose linear layers are watched, and the hidden states of the windows before a block.
pub(crate) struct Blocks<'a> {
    pub(crate) model: &'a mut AutoCausalLm,
    watch: Arc<Watch>,
    /// The block that comes next.
    next: usize,
    /// `[windows, tokens, hidden]`
    hidden: Vec<Tensor<3>>,
}

impl<'a> Blocks<'a> {
    /// All windows before the first block.
    ///
    /// # Errors
    ///
    /// If there are no windows, they differ in length, are longer than the model allows or have ids that it does not, the model
    /// carries adapters, or is on a device with autodiff.
    pub(crate) fn new(model: &'a mut AutoCausalLm, windows: &[Vec<u32>]) -> Result<Self> {
        check(model, windows)?;
        let device = device_of(model);
        let length = windows[0].len();
        let hidden = windows.chunks(batch_size(windows.len())).map(|batch| {
            let ids: Vec<i64> = batch.iter().flatten().map(|id| i64::from(*id)).collect();
            let ids = TensorData::new(ids, [batch.len(), length]);
            (model.body()).embed(Tensor::<2, Int>::from_data(ids, &device))
        });
        let hidden = hidden.collect();
        let watch = Arc::new(Watch::default());
        model.for_each_linear_mut(&mut |path, linear| {
            let kind = Watched {
                path: path.to_string(),
                watch: watch.clone(),
            };
            let adapter = Adapter::new(ADAPTER, Arc::new(kind), Vec::new(), 0.0, Arc::new(()));
            linear.adapters.push(adapter);
        });
        Ok(Self {
            model,
            watch,
            next: 0,
            hidden,
        })
    }

    /// The number of the block that comes next; none after the last.
    pub(crate) fn next(&self) -> Option<usize> {
        (self.next < self.model.dims().num_layers).then_some(self.next)
    }

    /// A few tokens before the next block.
    pub(crate) fn few(&self) -> Tensor<3> {
        let [_, seq, _] = self.hidden[0].dims();
        self.hidden[0]
            .clone()
            .narrow(0, 0, 1)
            .narrow(1, 0, FEW.min(seq))
    }

    /// The first windows before the next block.
    pub(crate) fn first(&self) -> Tensor<3> {
        self.hidden[0].clone()
    }

    /// The output of the next block for `x`, with the weights of `model`, which is this one or a copy of it.
    pub(crate) fn output(&self, model: &AutoCausalLm, x: Tensor<3>) -> Tensor<3> {
        forward(model, self.next, x)
    }

    /// The stages of the next block, in the order of their use: layers whose inputs are equal for a few tokens.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.watch.begin(Work::Record(Vec::new()), 1);
        self.output(self.model, self.few());
        let Work::Record(seen) = self.watch.end() else {
            unreachable!("recording ends as it began")
        };
        let mut stages: Vec<(Stage, Vec<f32>)> = Vec::new();
        for (path, input) in seen {
            match stages.iter_mut().find(|(_, same)| *same == input) {
                Some((stage, _)) => stage.paths.push(path),
                None => {
                    let [_, tokens, _] = self.few().dims();
                    let stage = Stage {
                        paths: vec![path],
                        cols: input.len() / tokens,
                    };
                    stages.push((stage, input));
                }
            }
        }
        stages.into_iter().map(|(stage, _)| stage).collect()
    }

    /// The moments of the inputs of all stages. The windows are then behind the block as it is.
    pub(crate) fn moments(&mut self, stages: &[Stage], order: Order) -> Vec<Moments> {
        self.watch.begin(Work::Sum(sums(stages, order)), 1);
        for hidden in &mut self.hidden {
            *hidden = forward(self.model, self.next, hidden.clone());
        }
        self.next += 1;
        let Work::Sum(sums) = self.watch.end() else {
            unreachable!("summing ends as it began")
        };
        sums.into_iter().map(|(_, sums)| sums.means()).collect()
    }

    /// Rounds one stage after the other, each for the inputs that the rounded stages before it give. The windows are then
    /// behind the rounded block.
    ///
    /// # Errors
    ///
    /// Those of `round`, or if a thread cannot be started.
    pub(crate) fn round(&mut self, stages: &[Stage], round: Round) -> Result<()> {
        let stages = sums(stages, Order::Second).into_iter();
        let work = Work::Round {
            stages: stages.map(|(stage, sums)| (stage, Some(sums))).collect(),
            round,
            weights: Default::default(),
            failure: None,
        };
        let hidden = std::mem::take(&mut self.hidden);
        self.watch.begin(work, hidden.len());
        let (watch, block) = (&self.watch, self.next);
        let inputs = hidden.into_iter().map(|x| (self.model.clone(), x));
        let pass = |(model, x): (AutoCausalLm, _)| forward(&model, block, x);
        self.hidden = in_turns(watch, inputs.collect(), |_| STACK, pass)?;
        self.next += 1;
        match self.watch.end() {
            Work::Round {
                failure: Some(error),
                ..
            } => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Blocks<'_> {
    fn drop(&mut self) {
        self.model.for_each_linear_mut(&mut |_, linear| {
            linear.adapters.retain(|adapter| adapter.name != ADAPTER);
        });
    }
}

fn forward(model: &AutoCausalLm, block: usize, x: Tensor<3>) -> Tensor<3> {
    let pass = Pass {
        passed: block,
        layers: Some(block + 1),
        ..Pass::default()
    };
    model.body().forward(x, pass)
}

fn check(model: &AutoCausalLm, windows: &[Vec<u32>]) -> Result<()> {
    let wrong = |reason: String| Err(Error::Settings(reason));
    let Some(first) = windows.first().filter(|first| !first.is_empty()) else {
        return wrong("calibration needs at least one window of tokens".into());
    };
    if let Some(other) = windows.iter().find(|window| window.len() != first.len()) {
        return wrong(format!(
            "windows of {} and {} tokens: give all of them the same length",
            first.len(),
            other.len()
        ));
    }
    model.dims().check_length(first.len())?;
    let vocab = model.dims().vocab_size;
    if let Some(id) = windows.iter().flatten().find(|id| **id as usize >= vocab) {
        return wrong(format!(
            "token {id} is not in the model's vocabulary of {vocab}: use the tokenizer of the model"
        ));
    }
    check_adapters(model)?;
    if device_of(model).is_autodiff() {
        return wrong("load the model on a device without autodiff to quantize it".into());
    }
    Ok(())
}

/// Refuses a model with adapters, below which weights would change.
pub(crate) fn check_adapters(model: &AutoCausalLm) -> Result<()> {
    let mut adapter = None;
    model.for_each_part(&mut |path, part| {
        if let Some(first) = part.adapters().first() {
            adapter.get_or_insert(format!("{path} carries the adapter {:?}", first.name));
        }
    });
    match adapter {
        None => Ok(()),
        Some(adapter) => Err(Error::Settings(format!(
            "{adapter}: merge adapters before quantizing"
        ))),
    }
}

/// How many of so many windows go through a block together.
fn batch_size(windows: usize) -> usize {
    windows.div_ceil(MOST_BATCHES).max(BATCH)
}

fn device_of(model: &AutoCausalLm) -> Device {
    let mut device = None;
    model.for_each_part(&mut |_, part| {
        if let Some(weight) = part.weight() {
            device.get_or_insert_with(|| weight.lazy_device());
        }
    });
    device.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_windows_do_not_take_more_threads() {
        assert_eq!([1, 4, 128, 256].map(batch_size), [BATCH; 4]);
        for windows in [257usize, 1000, 100_000] {
            assert!(windows.div_ceil(batch_size(windows)) <= MOST_BATCHES);
        }
    }
}
