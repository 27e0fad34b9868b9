//! What a cleaning removed, and what is left.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZero;
use std::thread;

use super::words::Words;
use crate::in_parallel::in_parallel;
use crate::quality::Removal;

/// The upper ends of the classes of lengths, in words.
const CLASSES: [usize; 9] = [10, 20, 50, 100, 200, 500, 1000, 2000, usize::MAX];

/// Bytes of texts whose words are hashed at a time.
const WINDOW: usize = 1 << 23;

/// Numbers that are hashes already.
type Hashes = HashSet<u64, BuildHasherDefault<AsItIs>>;

/// A number as its own hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed")
    }
}

/// The hashes of distinct words and pairs of words, a part for each thread.
struct Distinct(Vec<[Hashes; 2]>);

impl Distinct {
    fn new() -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        Self((0..threads).map(|_| Default::default()).collect())
    }

    /// Adds those of some texts, on all cores.
    fn extend(&mut self, found: &[(usize, [Vec<u64>; 2])]) {
        let count = self.0.len() as u64;
        thread::scope(|scope| {
            for (part, sets) in self.0.iter_mut().enumerate() {
                scope.spawn(move || {
                    for (_, hashes) in found {
                        for (set, hashes) in sets.iter_mut().zip(hashes) {
                            // A set finds its places by the lowest and the highest bits.
                            let own = |hash: &&u64| (**hash >> 40) % count == part as u64;
                            set.extend(hashes.iter().filter(own));
                        }
                    }
                });
            }
        });
    }

    /// How many words and pairs there are.
    fn counts(&self) -> [usize; 2] {
        [0, 1].map(|kind| self.0.iter().map(|sets| sets[kind].len()).sum())
    }
}

/// How many words a text has, and the hashes of its words and pairs of words.
fn hashes(text: &str) -> (usize, [Vec<u64>; 2]) {
    let text = Words::of(text);
    let of = |n| {
        let hash = |ngram: &str| xxhash_rust::xxh3::xxh3_64(ngram.as_bytes());
        let mut hashes: Vec<u64> = text.ngrams(n).map(hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    };
    (text.len(), [of(1), of(2)])
}

/// What a [`Cleaning`](crate::Cleaning) removed, and what is left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CleaningReport {
    /// Rows that were kept.
    pub kept: usize,
    /// Rows that were removed, in order.
    pub removed: Vec<Removal>,
    /// Words of the rows that were kept.
    pub words: usize,
    /// The share of distinct words among all words, and of distinct pairs of words: how diverse the text is.
    pub distinct: [f64; 2],
    /// How many rows that were kept have at most so many words and more than the class before.
    pub lengths: Vec<(usize, usize)>,
}

impl CleaningReport {
    pub(super) fn new(kept: &[String], removed: Vec<Removal>) -> Self {
        let mut lengths: Vec<(usize, usize)> = CLASSES.iter().map(|&class| (class, 0)).collect();
        let (mut words, mut pairs) = (0, 0);
        let mut distinct = Distinct::new();
        let mut rest = kept;
        while !rest.is_empty() {
            let mut bytes = 0;
            let whole = rest.iter().take_while(|text| {
                let is_next = bytes < WINDOW;
                bytes += text.len();
                is_next
            });
            let texts;
            (texts, rest) = rest.split_at(whole.count());
            // It has no errors.
            let found = in_parallel(texts, |text| Ok(hashes(text))).unwrap_or_default();
            distinct.extend(&found);
            for (len, _) in found {
                if let Some(class) = lengths.iter_mut().find(|(most, _)| len <= *most) {
                    class.1 += 1;
                }
                words += len;
                pairs += len.saturating_sub(1);
            }
        }
        let distinct = distinct.counts();
        let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
        Self {
            kept: kept.len(),
            removed,
            words,
            distinct: [share(distinct[0], words), share(distinct[1], pairs)],
            lengths,
        }
    }

    /// How many rows were removed, by heading.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for removal in &self.removed {
            *counts.entry(removal.reason.heading()).or_default() += 1;
        }
        counts
    }

    /// The report in Markdown, with the first ten removals of each kind.
    pub fn to_markdown(&self) -> String {
        let all = self.kept + self.removed.len();
        let percent = |count: usize| 100.0 * count as f64 / all.max(1) as f64;
        let mut out = String::from("# Data quality\n\n| rows | count | share |\n|---|---:|---:|\n");
        // Writing to a text cannot fail.
        let _ = writeln!(out, "| read | {all} | 100.0% |");
        for (heading, count) in self.counts() {
            let _ = writeln!(out, "| {heading} | {count} | {:.1}% |", percent(count));
        }
        let _ = writeln!(
            out,
            "| **kept** | {} | {:.1}% |",
            self.kept,
            percent(self.kept)
        );
        let _ = writeln!(
            out,
            "\n## What is kept\n\n{} words, {:.1} a row. {:.1}% of the words and {:.1}% of the pairs of words are distinct.\n\n\
             | words | rows | |\n|---:|---:|---|",
            self.words,
            self.words as f64 / self.kept.max(1) as f64,
            100.0 * self.distinct[0],
            100.0 * self.distinct[1],
        );
        let most = self
            .lengths
            .iter()
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(0)
            .max(1);
        for (class, count) in &self.lengths {
            let bar = "█".repeat((30 * count).div_ceil(most));
            let _ = match class {
                &usize::MAX => writeln!(out, "| more | {count} | {bar} |"),
                class => writeln!(out, "| to {class} | {count} | {bar} |"),
            };
        }
        for heading in self.counts().keys() {
            let _ = writeln!(out, "\n## Removed: {heading}\n");
            let these = self
                .removed
                .iter()
                .filter(|removal| removal.reason.heading() == *heading);
            for removal in these.take(10) {
                let _ = writeln!(out, "- {removal}");
            }
        }
        out
    }
}
