//! Blocks of token ids as batches, for training on plain text.

use ft::core::mix_seed;
use ft::data::{Batch, Batches};
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};

/// Blocks in a different order for every epoch.
pub(crate) struct Blocks {
    /// All of one length.
    pub(crate) blocks: Vec<Vec<u32>>,
    /// Blocks in a batch.
    pub(crate) batch_size: usize,
    /// Without a seed the order is not changed.
    pub(crate) seed: Option<u64>,
}

impl Batches for Blocks {
    type Batch = Batch;

    fn len(&self, _epoch: usize) -> usize {
        self.blocks.len().div_ceil(self.batch_size)
    }

    fn batch(&self, epoch: usize, index: usize) -> Batch {
        let mut order: Vec<usize> = (0..self.blocks.len()).collect();
        if let Some(seed) = self.seed {
            order.shuffle(&mut StdRng::seed_from_u64(mix_seed(seed, epoch as u64)));
        }
        let start = index * self.batch_size;
        let end = (start + self.batch_size).min(order.len());
        let chosen = order[start..end].iter();
        let ids = chosen.flat_map(|&block| &self.blocks[block]);
        let input_ids: Vec<i64> = ids.map(|&id| i64::from(id)).collect();
        let (batch, seq) = (end - start, input_ids.len() / (end - start));
        Batch {
            labels: input_ids.clone(),
            input_ids,
            batch,
            seq,
            lengths: vec![seq; batch],
            ..Batch::default()
        }
    }
}
