//! Batches of preference pairs.

use burn::tensor::Device;
use ft_data::{Branches, PreferenceExample};

use crate::sequences::collate;

/// Pairs that a step is taken on.
#[derive(Clone, Debug)]
pub struct PairBatch {
    /// The completions are those that are chosen, then those that are rejected.
    pub sequences: Branches,
    /// Log-probabilities of the completions under the reference; none without a reference.
    pub reference: Option<Vec<f32>>,
}

impl PairBatch {
    /// Pairs without log-probabilities of a reference, for models of this [reach](crate::sequences::reach).
    pub(crate) fn new(reach: Option<usize>, pairs: &[PreferenceExample], device: &Device) -> Self {
        let groups: Vec<_> = (pairs.iter())
            .map(|pair| vec![&pair.chosen, &pair.rejected])
            .collect();
        let mut sequences = collate(reach, &groups, device);
        chosen_first(&mut sequences.completions);
        chosen_first(&mut sequences.prompts);
        Self {
            sequences,
            reference: None,
        }
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.sequences.completions.len() / 2
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// From chosen, rejected, chosen, rejected, ... to all chosen, then all rejected.
fn chosen_first<T: Clone>(rows: &mut Vec<T>) {
    let every_second = |from: usize| rows.iter().skip(from).step_by(2).cloned();
    *rows = every_second(0).chain(every_second(1)).collect();
}
