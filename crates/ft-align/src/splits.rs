//! Examples to train on and examples to evaluate on, in batches that are collated later, for the model that is there then.

use ft_data::{Batches, Loader};
use ft_train::StepContext;

use crate::Result;

/// Examples to train on, and perhaps others to evaluate on.
#[derive(Debug)]
pub(crate) struct Splits<E> {
    train: Loader<E, Vec<E>>,
    evaluation: Option<Loader<E, Vec<E>>>,
    batch_size: usize,
}

impl<E: Clone + 'static> Splits<E> {
    /// Batches of `batch_size` examples, in another order in every epoch if a seed is given.
    pub(crate) fn new(train: Vec<E>, batch_size: usize, shuffle_seed: Option<u64>) -> Result<Self> {
        Ok(Self {
            train: loader(train, batch_size, shuffle_seed)?,
            evaluation: None,
            batch_size,
        })
    }

    /// With examples to evaluate on, in batches of the same size. Without examples there is no evaluation.
    pub(crate) fn with_evaluation(self, held_out: Vec<E>) -> Result<Self> {
        let size = self.batch_size;
        self.with_evaluation_of(held_out, size)
    }

    /// The same in batches of another size.
    pub(crate) fn with_evaluation_of(self, held_out: Vec<E>, batch_size: usize) -> Result<Self> {
        let evaluation = match held_out.is_empty() {
            true => None,
            false => Some(loader(held_out, batch_size, None)?),
        };
        Ok(Self { evaluation, ..self })
    }

    /// How many batches an epoch has.
    pub(crate) fn len(&self, epoch: usize) -> usize {
        self.train.len(epoch)
    }

    /// How many batches an evaluation has.
    pub(crate) fn evaluation_len(&self) -> Option<usize> {
        self.evaluation.as_ref().map(|batches| batches.len(0))
    }

    /// All examples of the training.
    pub(crate) fn training(&self) -> &[E] {
        self.train.examples()
    }

    /// A batch of the training, or of the evaluation if the context says so.
    pub(crate) fn batch(&self, epoch: usize, index: usize, context: &StepContext) -> Vec<E> {
        self.loader(context).batch(epoch, index)
    }

    fn loader(&self, context: &StepContext) -> &Loader<E, Vec<E>> {
        match &self.evaluation {
            Some(evaluation) if !context.is_training() => evaluation,
            _ => &self.train,
        }
    }
}

fn loader<E: Clone + 'static>(
    examples: Vec<E>,
    batch_size: usize,
    shuffle_seed: Option<u64>,
) -> Result<Loader<E, Vec<E>>> {
    let clones = |rows: &[&E]| rows.iter().map(|row| (*row).clone()).collect();
    Ok(Loader::new(examples, batch_size, shuffle_seed, clones)?)
}
