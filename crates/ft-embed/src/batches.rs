//! Which rows are in a batch: shuffled, of one dataset each, and without texts that would be false negatives.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use ft_core::mix_seed;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::{Error, Result, TextRow};

/// The numbers below `len`, shuffled by a seed and an epoch.
pub(crate) fn shuffled(len: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut StdRng::seed_from_u64(mix_seed(seed, epoch as u64)));
    order
}

/// A plan of batches. All batches of an epoch follow from the seed and the epoch.
///
/// Batches are drawn from datasets in proportion to their sizes, and a batch holds rows of one dataset.
#[derive(Debug)]
pub(crate) struct BatchPlan {
    /// Of each row hashes of its texts.
    texts: Vec<Vec<u64>>,
    /// The number of rows of each dataset.
    sizes: Vec<usize>,
    batch_size: usize,
    seed: Option<u64>,
    duplicates: bool,
    plan: Mutex<Option<(usize, Rows)>>,
}

/// The rows of each batch.
type Rows = Arc<Vec<Vec<usize>>>;

impl BatchPlan {
    /// Batches of `batch_size` rows. Without `duplicates` a row waits for a later batch if one of its texts is in the batch
    /// already.
    pub(crate) fn new<'a>(
        datasets: impl Iterator<Item = &'a [TextRow]>,
        batch_size: usize,
        seed: Option<u64>,
        duplicates: bool,
    ) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::Settings(
                "a batch size of 0 makes no batches: make it 1 or more".into(),
            ));
        }
        let hash = |text: &String| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish()
        };
        let (mut texts, mut sizes) = (Vec::new(), Vec::new());
        for rows in datasets {
            sizes.push(rows.len());
            texts.extend(rows.iter().map(|row| row.texts.iter().map(hash).collect()));
        }
        Ok(Self {
            texts,
            sizes,
            batch_size,
            seed,
            duplicates,
            plan: Mutex::new(None),
        })
    }

    /// The number of batches.
    pub(crate) fn len(&self, epoch: usize) -> usize {
        self.plan(epoch).len()
    }

    /// The rows of a batch.
    pub(crate) fn rows(&self, epoch: usize, index: usize) -> Vec<usize> {
        self.plan(epoch).get(index).cloned().unwrap_or_default()
    }

    fn plan(&self, epoch: usize) -> Arc<Vec<Vec<usize>>> {
        let mut cached = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((of, plan)) if *of == epoch => plan.clone(),
            _ => {
                let plan = Arc::new(self.make(epoch));
                *cached = Some((epoch, plan.clone()));
                plan
            }
        }
    }

    fn make(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut batches = Vec::new();
        let mut first = 0;
        for (dataset, &size) in self.sizes.iter().enumerate() {
            let order: Vec<usize> = match self.seed {
                Some(seed) => shuffled(size, mix_seed(seed, dataset as u64), epoch),
                None => (0..size).collect(),
            };
            self.fill(
                order.into_iter().map(|row| first + row).collect(),
                &mut batches,
            );
            first += size;
        }
        if let (Some(seed), true) = (self.seed, self.sizes.len() > 1) {
            let order = shuffled(batches.len(), mix_seed(seed, u64::MAX), epoch);
            batches = order
                .into_iter()
                .map(|i| std::mem::take(&mut batches[i]))
                .collect();
        }
        batches
    }

    fn fill(&self, rows: Vec<usize>, batches: &mut Vec<Vec<usize>>) {
        if self.duplicates {
            batches.extend(rows.chunks(self.batch_size).map(<[usize]>::to_vec));
            return;
        }
        // Rows that wait are looked at first when the next batch is filled.
        let mut rest = rows.into_iter();
        let mut waiting: Vec<usize> = Vec::new();
        while !waiting.is_empty() || rest.len() > 0 {
            let mut batch = Vec::with_capacity(self.batch_size);
            let mut seen: HashSet<u64> = HashSet::new();
            let takes = |row: usize, batch: &mut Vec<usize>, seen: &mut HashSet<u64>| {
                // A row may hold a text twice itself.
                let free = batch.len() < self.batch_size
                    && self.texts[row].iter().all(|text| !seen.contains(text));
                if free {
                    seen.extend(&self.texts[row]);
                    batch.push(row);
                }
                free
            };
            waiting.retain(|&row| !takes(row, &mut batch, &mut seen));
            while batch.len() < self.batch_size {
                let Some(row) = rest.next() else { break };
                if !takes(row, &mut batch, &mut seen) {
                    waiting.push(row);
                }
            }
            batches.push(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(anchors: &[&str]) -> Vec<TextRow> {
        let row = |(i, anchor): (usize, &&str)| TextRow {
            texts: vec![(*anchor).to_string(), format!("document {i}")],
            labels: Vec::new(),
        };
        anchors.iter().enumerate().map(row).collect()
    }

    #[test]
    fn no_batch_holds_a_text_twice_and_no_row_is_lost() {
        let rows = rows(&["a", "a", "b", "a", "c", "d", "b", "e", "f", "a"]);
        for seed in 0..20 {
            let plan =
                BatchPlan::new([rows.as_slice()].into_iter(), 3, Some(seed), false).expect("plans");
            let mut all = Vec::new();
            for index in 0..plan.len(1) {
                let batch = plan.rows(1, index);
                let texts: HashSet<_> = batch.iter().map(|&row| &rows[row].texts[0]).collect();
                assert_eq!(texts.len(), batch.len());
                all.extend(batch);
            }
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn batches_hold_rows_of_one_dataset() {
        let (a, b) = (rows(&["a"; 7]), rows(&["b"; 5]));
        let plan = BatchPlan::new([a.as_slice(), &b].into_iter(), 2, Some(3), true).expect("plans");
        assert_eq!(plan.len(0), 4 + 3);
        for index in 0..7 {
            let batch = plan.rows(0, index);
            assert!(batch.iter().all(|&row| row < 7) || batch.iter().all(|&row| row >= 7));
        }
        assert_ne!(
            (0..7).map(|i| plan.rows(0, i)).collect::<Vec<_>>(),
            (0..7).map(|i| plan.rows(1, i)).collect::<Vec<_>>()
        );
    }
}
