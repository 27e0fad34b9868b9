//! Examples of any type as batches.
//!
//! Three steps make the batches of an epoch, and each is independent of the others:
//!
//! 1. The **order** of the examples: that of the file, or shuffled by a seed and the epoch.
//! 2. The **grouping** into rows: one example a row, or several that fit into a row together.
//! 3. The **collator**, a function from the rows of a batch to the input of a training step.
//!
//! Only the collator knows what an example is.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::pack::best_fit_decreasing;
use crate::shuffle::shuffled;
use crate::{Batches, Error, Result};

/// The batches of a list of examples.
///
/// With a seed every epoch has its own order, which depends on the seed and the epoch only. Without a
/// seed the order of the examples is kept. The last batch of an epoch may have fewer rows.
///
/// ```
/// use ft_data::{Batches, Loader};
///
/// // Pairs of texts; a batch holds the texts of its pairs side by side.
/// let pairs = vec![("good", "bad"), ("yes", "no"), ("warm", "cold")];
/// let loader = Loader::new(pairs, 2, None, |rows: &[&(&str, &str)]| {
///     rows.iter().flat_map(|pair| [pair.0, pair.1]).collect::<Vec<_>>()
/// })?;
/// assert_eq!(loader.len(0), 2);
/// assert_eq!(loader.batch(0, 0), ["good", "bad", "yes", "no"]);
/// assert_eq!(loader.batch(0, 1), ["warm", "cold"]);
/// # Ok::<(), ft_data::Error>(())
/// ```
pub struct Loader<E, B> {
    examples: Vec<E>,
    batch_size: usize,
    shuffle_seed: Option<u64>,
    grouping: Grouping,
    collate: Collate<E, B>,
    rows: usize,
    /// The rows of the epoch that was requested last.
    plan: Mutex<Option<(usize, Plan)>>,
}

/// Which examples share a row.
enum Grouping {
    /// None: each has its own.
    Single,
    /// Those whose lengths add up to at most `capacity`.
    Packed {
        lengths: Vec<usize>,
        capacity: usize,
    },
}

type Collate<E, B> = Box<dyn Fn(&[Vec<&E>]) -> B + Send + Sync>;

/// The examples of each row, by index.
type Plan = Arc<Vec<Vec<usize>>>;

impl<E: 'static, B: 'static> Loader<E, B> {
    /// Batches of `batch_size` examples.
    ///
    /// # Errors
    ///
    /// If there are no examples or the batch size is 0.
    pub fn new(
        examples: Vec<E>,
        batch_size: usize,
        shuffle_seed: Option<u64>,
        collate: impl Fn(&[&E]) -> B + Send + Sync + 'static,
    ) -> Result<Self> {
        let collate = Box::new(move |rows: &[Vec<&E>]| collate(&rows.concat()));
        Self::grouped(
            examples,
            batch_size,
            shuffle_seed,
            Grouping::Single,
            collate,
        )
    }

    /// Batches of `batch_size` rows. A row holds examples whose lengths add up to at most `capacity`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and if an example is longer than a row.
    pub fn packed(
        examples: Vec<E>,
        batch_size: usize,
        shuffle_seed: Option<u64>,
        capacity: usize,
        length: impl Fn(&E) -> usize,
        collate: impl Fn(&[Vec<&E>]) -> B + Send + Sync + 'static,
    ) -> Result<Self> {
        let lengths: Vec<usize> = examples.iter().map(length).collect();
        if let Some(index) = lengths.iter().position(|&length| length > capacity) {
            return Err(Error::Settings(format!(
                "example {} has the length {}, but a packed row holds {capacity}: cut the examples to at \
                 most {capacity}, or make the rows longer",
                index + 1,
                lengths[index],
            )));
        }
        let packed = Grouping::Packed { lengths, capacity };
        Self::grouped(
            examples,
            batch_size,
            shuffle_seed,
            packed,
            Box::new(collate),
        )
    }

    fn grouped(
        examples: Vec<E>,
        batch_size: usize,
        shuffle_seed: Option<u64>,
        grouping: Grouping,
        collate: Collate<E, B>,
    ) -> Result<Self> {
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
        let mut loader = Self {
            examples,
            batch_size,
            shuffle_seed,
            grouping,
            collate,
            rows: 0,
            plan: Mutex::new(None),
        };
        // How many rows packing needs depends on the lengths, not on the order.
        loader.rows = loader.plan(0).len();
        Ok(loader)
    }
}

impl<E, B> Loader<E, B> {
    /// The examples, in the order in which they were given.
    pub fn examples(&self) -> &[E] {
        &self.examples
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
        match &self.grouping {
            Grouping::Single => examples.into_iter().map(|index| vec![index]).collect(),
            Grouping::Packed { lengths, capacity } => {
                // Packing puts full rows first, so that the rows have to be shuffled as well.
                let mut rows = best_fit_decreasing(lengths, examples, *capacity);
                let order = order(rows.len());
                order
                    .into_iter()
                    .map(|row| std::mem::take(&mut rows[row]))
                    .collect()
            }
        }
    }
}

impl<E, B> Batches for Loader<E, B> {
    type Batch = B;

    fn len(&self, _epoch: usize) -> usize {
        self.rows.div_ceil(self.batch_size)
    }

    fn batch(&self, epoch: usize, index: usize) -> B {
        let plan = self.plan(epoch);
        let rows = plan.chunks(self.batch_size).nth(index);
        let rows = rows.unwrap_or_else(|| {
            let len = self.len(epoch);
            panic!("batch {index} of an epoch of {len} batches")
        });
        let examples = |row: &Vec<usize>| row.iter().map(|&index| &self.examples[index]).collect();
        (self.collate)(&rows.iter().map(examples).collect::<Vec<_>>())
    }
}

impl<E, B> fmt::Debug for Loader<E, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("examples", &self.examples.len())
            .field("rows", &self.rows)
            .field("batch_size", &self.batch_size)
            .field("shuffle_seed", &self.shuffle_seed)
            .finish_non_exhaustive()
    }
}
