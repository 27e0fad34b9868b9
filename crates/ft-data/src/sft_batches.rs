//! A dataset for supervised fine-tuning as batches: padded or packed.

use crate::collate_packed::collate_packed;
use crate::collate_padded::collate_padded;
use crate::{Batch, Loader, Result, SftDataset, Tokenized};

/// How examples of different lengths become rows of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collation {
    /// One example a row, padded on the right to the longest of the batch.
    Padded {
        /// Lengths are rounded up to a multiple of this.
        multiple: usize,
    },
    /// Several examples a row, every row `seq_len` long.
    Packed {
        /// The length of a row.
        seq_len: usize,
    },
}

/// The batches of an [`SftDataset`].
pub type SftBatches = Loader<Tokenized, Batch>;

impl SftDataset {
    /// The examples as batches of `batch_size` rows, shuffled if there is a seed.
    ///
    /// # Errors
    ///
    /// If the dataset or a batch would be empty, or an example is longer than a packed row.
    pub fn into_batches(
        self,
        batch_size: usize,
        collation: Collation,
        shuffle_seed: Option<u64>,
        pad_id: u32,
    ) -> Result<SftBatches> {
        let examples = self.examples;
        match collation {
            Collation::Padded { multiple } => {
                Loader::new(examples, batch_size, shuffle_seed, move |rows| {
                    collate_padded(rows, multiple, pad_id)
                })
            }
            Collation::Packed { seq_len } => Loader::packed(
                examples,
                batch_size,
                shuffle_seed,
                seq_len,
                Tokenized::len,
                move |rows| collate_packed(rows, seq_len, pad_id),
            ),
        }
    }
}
