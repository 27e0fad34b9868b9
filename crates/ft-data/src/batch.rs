//! A batch of token sequences on the host, and the trait of what gives batches.

use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::{IGNORE_INDEX, TokenBatch};
use serde::Serialize;

/// Token ids with labels, `[batch, seq]` in row-major order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Batch {
    /// Token ids.
    pub input_ids: Vec<i64>,
    /// The id of a token that is learnt, else [`IGNORE_INDEX`]; not shifted.
    pub labels: Vec<i64>,
    /// Positions within each document; `None` if they count from 0 in every row.
    pub position_ids: Option<Vec<i64>>,
    /// The number of a token's document in its row, from 1, and 0 for padding; `None` if each row is one
    /// document.
    pub segment_ids: Option<Vec<i64>>,
    /// How many rows.
    pub batch: usize,
    /// How many positions a row has.
    pub seq: usize,
    /// How many positions of each row are not padding, which is on the right.
    pub lengths: Vec<usize>,
}

impl Batch {
    /// The inputs of the model.
    pub fn tokens(&self, device: &Device) -> TokenBatch {
        TokenBatch {
            input_ids: self.tensor(&self.input_ids, device),
            position_ids: self
                .position_ids
                .as_ref()
                .map(|ids| self.tensor(ids, device)),
            segment_ids: self
                .segment_ids
                .as_ref()
                .map(|ids| self.tensor(ids, device)),
            token_type_ids: None,
        }
    }

    /// How many positions have a label after the labels are shifted by one.
    pub fn label_count(&self) -> usize {
        let rows = self.labels.chunks(self.seq.max(1));
        rows.flat_map(|row| row.iter().skip(1))
            .filter(|&&label| label != IGNORE_INDEX)
            .count()
    }

    /// How many tokens are not padding.
    pub fn token_count(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn tensor(&self, values: &[i64], device: &Device) -> Tensor<2, Int> {
        let data = TensorData::new(values.to_vec(), [self.batch, self.seq]);
        Tensor::from_data(data, device)
    }
}

/// Batches by epoch and index. Any batch can be requested at any time, so resuming is exact.
pub trait Batches {
    /// The type of a batch.
    type Batch;

    /// How many batches an epoch has.
    fn len(&self, epoch: usize) -> usize;

    /// Whether an epoch has no batches.
    fn is_empty(&self, epoch: usize) -> bool {
        self.len(epoch) == 0
    }

    /// One batch.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    fn batch(&self, epoch: usize, index: usize) -> Self::Batch;
}
