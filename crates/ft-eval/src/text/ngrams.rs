//! n-grams as ids: equal n-grams of any symbols and any length have equal ids.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A fast hash of small numbers and short words. Texts with many collisions are slow but correct.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QuickHasher(u64);

impl QuickHasher {
    fn mix(&mut self, value: u64) {
        // Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4), with the high bits folded in.
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

impl Hasher for QuickHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word) ^ (chunk.len() as u64).rotate_left(56));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }
}

/// Ids from 0, in the order of occurrence.
#[derive(Debug)]
pub(super) struct Ids<K> {
    of: HashMap<K, u32, BuildHasherDefault<QuickHasher>>,
}

impl<K: Eq + Hash> Ids<K> {
    pub(super) fn new() -> Self {
        Self {
            of: HashMap::default(),
        }
    }

    pub(super) fn id(&mut self, key: K) -> u32 {
        let next = self.of.len() as u32;
        *self.of.entry(key).or_insert(next)
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    pub(super) fn clear(&mut self) {
        self.of.clear();
    }
}

/// The n-grams of a few sequences of ids, order by order. An n-gram is represented by its beginning and its last symbol,
/// so that each order needs one look-up per n-gram.
#[derive(Debug)]
pub(super) struct Ngrams {
    ids: Ids<(u32, u32)>,
    order: usize,
    /// For each sequence the ids of its n-grams.
    sequences: Vec<Vec<u32>>,
}

impl Ngrams {
    /// The 1-grams of the sequences.
    pub(super) fn new(sequences: &[&[u32]]) -> Self {
        let mut ngrams = Self {
            ids: Ids::new(),
            order: 0,
            sequences: sequences.iter().map(|s| vec![0; s.len() + 1]).collect(),
        };
        ngrams.lengthen(sequences);
        ngrams
    }

    /// Replaces n-grams by the (n + 1)-grams of the same sequences.
    pub(super) fn lengthen(&mut self, sequences: &[&[u32]]) {
        self.ids.clear();
        for (ngrams, symbols) in self.sequences.iter_mut().zip(sequences) {
            let count = (symbols.len() + 1).saturating_sub(self.order + 1);
            ngrams.truncate(count);
            for (ngram, last) in ngrams.iter_mut().zip(&symbols[symbols.len() - count..]) {
                *ngram = self.ids.id((*ngram, *last));
            }
        }
        self.order += 1;
    }

    /// The count of each n-gram in a sequence, by id.
    pub(super) fn counts(&self, sequence: usize) -> Vec<u32> {
        let mut counts = vec![0; self.ids.len()];
        for ngram in &self.sequences[sequence] {
            counts[*ngram as usize] += 1;
        }
        counts
    }

    /// The number of n-grams of a sequence.
    pub(super) fn total(&self, sequence: usize) -> usize {
        self.sequences[sequence].len()
    }
}

/// The number of n-grams that two texts share: the sum of the smaller counts.
pub(super) fn matches(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).map(|(a, b)| *a.min(b) as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ngrams_of_every_order_are_counted() {
        let sequences: [&[u32]; 3] = [&[5, 6, 5, 6, 5], &[6, 5, 6], &[]];
        let mut ngrams = Ngrams::new(&sequences);
        let mut found = Vec::new();
        for _ in 0..6 {
            let totals = [0, 1, 2].map(|sequence| ngrams.total(sequence));
            found.push((totals, matches(&ngrams.counts(0), &ngrams.counts(1))));
            ngrams.lengthen(&sequences);
        }
        assert_eq!(
            found,
            [
                ([5, 3, 0], 3),
                ([4, 2, 0], 2),
                ([3, 1, 0], 1),
                ([2, 0, 0], 0),
                ([1, 0, 0], 0),
                ([0, 0, 0], 0),
            ]
        );
    }
}
