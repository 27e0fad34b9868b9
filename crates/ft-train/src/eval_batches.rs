//! The batches that a method evaluates on: the held-out set, and named sets, which are numbered behind it.

use ft_data::Batches;

use crate::BoxError;

/// Batches of any kind.
pub(crate) type BoxedBatches<'a, B> = Box<dyn Batches<Batch = B> + 'a>;

/// The held-out set and the named sets.
pub(crate) struct EvalBatches<'a, B> {
    pub(crate) held_out: Option<BoxedBatches<'a, B>>,
    pub(crate) named: Vec<(String, BoxedBatches<'a, B>)>,
}

impl<B> Default for EvalBatches<'_, B> {
    fn default() -> Self {
        Self {
            held_out: None,
            named: Vec::new(),
        }
    }
}

impl<B> EvalBatches<'_, B> {
    /// How many batches the held-out set has.
    pub(crate) fn len(&self) -> Option<usize> {
        self.held_out.as_ref().map(|batches| batches.len(0))
    }

    /// Names of the other sets, and how many batches they have.
    pub(crate) fn sets(&self) -> Vec<(String, usize)> {
        let named = self.named.iter();
        named
            .map(|(name, batches)| (name.clone(), batches.len(0)))
            .collect()
    }

    /// The batch of this number.
    pub(crate) fn batch(&self, number: usize) -> Result<B, BoxError> {
        let mut index = number;
        let named = self.named.iter().map(|(_, batches)| batches);
        for batches in self.held_out.iter().chain(named) {
            let len = batches.len(0);
            if index < len {
                return Ok(batches.batch(0, index));
            }
            index -= len;
        }
        Err(format!("the evaluation has no batch {number}").into())
    }
}
