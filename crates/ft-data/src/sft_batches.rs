//! A dataset as batches: shuffled, padded or packed.

use std::sync::{Arc, Mutex, PoisonError};

use crate::collate_packed::collate_packed;
use crate::collate_padded::collate_padded;
use crate::pack::best_fit_decreasing;
use crate::shuffle::shuffled;
use crate::{Batch, Batches, Error, Result, SftDataset, Tokenized};

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

/// The batches of a dataset.
///
/// With a seed every epoch has an order of its own, which depends on seed and epoch only; without,
/// the order of the file is kept. The last batch of an epoch may have fewer rows.
#[derive(Debug)]
pub struct SftBatches {
    examples: Vec<Tokenized>,
    batch_size: usize,
    collation: Collation,
    shuffle_seed: Option<u64>,
    pad_id: u32,
    rows: usize,
    /// The rows of the epoch that was asked for last.
    plan: Mutex<Option<(usize, Plan)>>,
}

/// Which examples are in which row.
type Plan = Arc<Vec<Vec<usize>>>;

impl SftBatches {
    /// Batches of `batch_size` rows.
    ///
    /// # Errors
    ///
    /// If the dataset or a batch would be empty, or an example is longer than a packed row.
    pub fn new(
        dataset: SftDataset,
        batch_size: usize,
        collation: Collation,
        shuffle_seed: Option<u64>,
        pad_id: u32,
    ) -> Result<Self> {
        let examples = dataset.examples;
        if examples.is_empty() {
            return Err(Error::Dataset(
                "there are no examples to make batches of".to_string(),
            ));
        }
        if batch_size == 0 {
            return Err(Error::Settings(
                "a batch size of 0 makes no batches: make it 1 or more".to_string(),
            ));
        }
        let longest = examples.iter().map(Tokenized::len).max().unwrap_or(0);
        if let Collation::Packed { seq_len } = collation
            && longest > seq_len
        {
            return Err(Error::Settings(format!(
                "an example of {longest} tokens does not fit into packed rows of {seq_len}: load the dataset \
                 with a maximum length of {seq_len}, or make the rows longer"
            )));
        }
        let mut batches = Self {
            examples,
            batch_size,
            collation,
            shuffle_seed,
            pad_id,
            rows: 0,
            plan: Mutex::new(None),
        };
        // How many rows packing needs depends on the lengths, not on the order.
        batches.rows = batches.plan(0).len();
        Ok(batches)
    }

    /// How many rows an epoch has: examples, or packed rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    fn plan(&self, epoch: usize) -> Plan {
        let mut cached = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((of, plan)) if *of == epoch => plan.clone(),
            _ => {
                let plan = Arc::new(self.new_plan(epoch));
                *cached = Some((epoch, plan.clone()));
                plan
            }
        }
    }

    fn new_plan(&self, epoch: usize) -> Vec<Vec<usize>> {
        let order = |len: usize| match self.shuffle_seed {
            Some(seed) => shuffled(len, seed, epoch),
            None => (0..len).collect(),
        };
        let examples = order(self.examples.len());
        match self.collation {
            Collation::Padded { .. } => examples.into_iter().map(|index| vec![index]).collect(),
            Collation::Packed { seq_len } => {
                let lengths: Vec<usize> = self.examples.iter().map(Tokenized::len).collect();
                let rows = best_fit_decreasing(&lengths, examples, seq_len);
                let order = order(rows.len());
                order.into_iter().map(|row| rows[row].clone()).collect()
            }
        }
    }
}

impl Batches for SftBatches {
    type Batch = Batch;

    fn len(&self, _epoch: usize) -> usize {
        self.rows.div_ceil(self.batch_size)
    }

    fn batch(&self, epoch: usize, index: usize) -> Batch {
        let plan = self.plan(epoch);
        let start = index * self.batch_size;
        assert!(
            start < plan.len(),
            "batch {index} of an epoch of {} batches",
            Batches::len(self, epoch)
        );
        let end = (start + self.batch_size).min(plan.len());
        let rows: Vec<Vec<&Tokenized>> = plan[start..end]
            .iter()
            .map(|row| row.iter().map(|&index| &self.examples[index]).collect())
            .collect();
        match self.collation {
            Collation::Padded { multiple } => collate_padded(&rows.concat(), multiple, self.pad_id),
            Collation::Packed { seq_len } => collate_packed(&rows, seq_len, self.pad_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset() -> SftDataset {
        let examples = (0..10u32).map(|i| {
            let input_ids: Vec<u32> = (0..3 + i % 4).map(|j| 10 * i + j).collect();
            let labels = input_ids.iter().map(|&id| i64::from(id)).collect();
            Tokenized { input_ids, labels }
        });
        SftDataset::from_examples(examples.collect())
    }

    fn epoch(batches: &SftBatches, epoch: usize) -> Vec<Batch> {
        (0..Batches::len(batches, epoch))
            .map(|index| batches.batch(epoch, index))
            .collect()
    }

    fn tokens(batches: &[Batch]) -> Vec<i64> {
        let mut ids: Vec<i64> = batches.iter().flat_map(|b| b.input_ids.clone()).collect();
        ids.retain(|&id| id != 999);
        ids.sort_unstable();
        ids
    }

    #[test]
    fn any_batch_can_be_asked_for_in_any_order() {
        for collation in [
            Collation::Padded { multiple: 1 },
            Collation::Packed { seq_len: 12 },
        ] {
            let new = || SftBatches::new(dataset(), 2, collation, Some(3), 999).unwrap();
            let straight = (epoch(&new(), 0), epoch(&new(), 1));
            let batches = new();
            let last = Batches::len(&batches, 1) - 1;
            assert_eq!(batches.batch(1, last), straight.1[last]);
            assert_eq!(batches.batch(0, 1), straight.0[1]);
            assert_eq!(batches.batch(1, 0), straight.1[0]);
            assert_ne!(straight.0, straight.1);
            assert_eq!(tokens(&straight.0), tokens(&straight.1));
        }
    }

    #[test]
    fn without_a_seed_the_order_of_the_file_is_kept() {
        let batches =
            SftBatches::new(dataset(), 4, Collation::Padded { multiple: 8 }, None, 999).unwrap();
        let all = epoch(&batches, 5);
        let rows: Vec<usize> = all.iter().map(|batch| batch.batch).collect();
        assert_eq!(rows, [4, 4, 2]);
        assert_eq!(all[1].input_ids[0], 40);
        assert!(all.iter().all(|batch| batch.seq == 8));
    }

    #[test]
    fn settings_that_make_no_batches_are_errors() {
        let new = |dataset, size, collation| SftBatches::new(dataset, size, collation, None, 0);
        let padded = Collation::Padded { multiple: 1 };
        assert!(new(SftDataset::default(), 1, padded).is_err());
        assert!(new(dataset(), 0, padded).is_err());
        let error = new(dataset(), 1, Collation::Packed { seq_len: 5 }).unwrap_err();
        assert!(
            error.to_string().contains("an example of 6 tokens"),
            "{error}"
        );
    }
}
