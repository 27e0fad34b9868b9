//! What watches the inputs of linear layers: an adapter on each of them, which changes nothing until a stage is rounded.
//!
//! A stage is the linear layers of a block that get the same input. In a sequential pass all batches reach a stage before any
//! goes on, so that each stage is rounded for the inputs that the rounded stages before it give. Every batch is a thread
//! which waits there, and only one runs at a time, in the order of batches: sums do not depend on threads, and nothing is
//! computed twice.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use burn::tensor::Tensor;
use ft_core::layers::{Adapter, AdapterKind, At};

use crate::Result;
use crate::moments::{Moments, Order, Sums};

/// The linear layers of a block with the same input, in the order of their use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stage {
    pub(crate) paths: Vec<String>,
    pub(crate) cols: usize,
}

/// Rounds a stage: the weights by path, as the layers hold them.
pub(crate) type Round = Box<dyn FnMut(&Stage, Moments) -> Result<Vec<(String, Tensor<2>)>> + Send>;

/// What is done with inputs.
#[derive(Default)]
pub(crate) enum Work {
    /// Nothing.
    #[default]
    Nothing,
    /// The first numbers of each input are kept, in the order of use.
    Record(Vec<(String, Vec<f32>)>),
    /// Moments are summed.
    Sum(Vec<(Stage, Sums)>),
    /// Moments are summed, and each stage is rounded when all batches are there.
    Round {
        stages: Vec<(Stage, Option<Sums>)>,
        round: Round,
        weights: HashMap<String, Tensor<2>>,
        failure: Option<crate::Error>,
    },
}

#[derive(Default)]
struct State {
    work: Work,
    /// Whose turn it is, of so many batches.
    turn: usize,
    batches: usize,
    /// A thread panicked, or could not be started.
    broken: bool,
}

/// What a thread panics with whose turn never comes, since another one panicked or could not be started.
pub(super) struct GaveUp;

/// Shared by the adapters of a model.
#[derive(Default)]
pub(crate) struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, work: Work, batches: usize) {
        *self.lock() = State {
            work,
            batches,
            ..State::default()
        };
    }

    pub(crate) fn end(&self) -> Work {
        std::mem::take(&mut self.lock().work)
    }

    /// What a batch computes, when it is its turn.
    pub(crate) fn in_turn<T>(&self, batch: usize, compute: impl FnOnce() -> T) -> T {
        struct Turn<'a>(&'a Watch, usize);
        impl Drop for Turn<'_> {
            fn drop(&mut self) {
                let mut state = self.0.lock();
                state.broken |= std::thread::panicking();
                state.turn = (self.1 + 1) % state.batches;
                self.0.changed.notify_all();
            }
        }
        self.wait(self.lock(), batch);
        let _turn = Turn(self, batch);
        compute()
    }

    /// Ends all batches that wait for a turn.
    pub(super) fn give_up(&self) {
        self.lock().broken = true;
        self.changed.notify_all();
    }

    fn wait(&self, state: MutexGuard<'_, State>, batch: usize) {
        let mut state = state;
        while state.turn != batch && !state.broken {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.broken {
            drop(state);
            // Without the message of a panic: this is not where it began.
            std::panic::resume_unwind(Box::new(GaveUp));
        }
    }

    pub(super) fn see(&self, path: &str, x: &Tensor<2>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let last = state.turn + 1 == state.batches;
        match &mut state.work {
            Work::Nothing => return,
            Work::Record(seen) => {
                let numbers = crate::cholesky::numbers(x.clone());
                seen.push((path.to_string(), numbers));
                return;
            }
            Work::Sum(stages) => {
                let mut stages = stages.iter_mut();
                if let Some((_, sums)) = stages.find(|(stage, _)| stage.paths[0] == path) {
                    sums.add(x);
                }
                return;
            }
            Work::Round {
                stages,
                round,
                weights,
                failure,
            } => {
                let mut stages = stages.iter_mut();
                let Some((stage, sums)) = stages.find(|(stage, _)| stage.paths[0] == path) else {
                    return;
                };
                if let Some(sums) = sums {
                    sums.add(x);
                }
                if last
                    && failure.is_none()
                    && let Some(sums) = sums.take()
                {
                    match round(stage, sums.means()) {
                        Ok(rounded) => weights.extend(rounded),
                        Err(error) => *failure = Some(error),
                    }
                }
            }
        }
        let batch = state.turn;
        state.turn = (batch + 1) % state.batches;
        self.changed.notify_all();
        self.wait(guard, batch);
    }

    fn weight(&self, path: &str) -> Option<Tensor<2>> {
        match &self.lock().work {
            Work::Round { weights, .. } => weights.get(path).cloned(),
            _ => None,
        }
    }
}

/// The adapter of a layer.
pub(crate) struct Watched {
    pub(crate) path: String,
    pub(crate) watch: Arc<Watch>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl AdapterKind for Watched {
    fn input(&self, _: &At<'_>, x: &Tensor<2>) -> Option<Tensor<2>> {
        self.watch.see(&self.path, x);
        None
    }

    fn weight(&self, _: &Adapter) -> Option<Tensor<2>> {
        self.watch.weight(&self.path)
    }
}

/// Sums for each stage.
pub(crate) fn sums(stages: &[Stage], order: Order) -> Vec<(Stage, Sums)> {
    let sums = stages.iter().map(|stage| {
        let sums = Sums::new(stage.cols, order);
        (stage.clone(), sums)
    });
    sums.collect()
}
