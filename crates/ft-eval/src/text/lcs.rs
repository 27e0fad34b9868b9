//! Longest common subsequences, many columns at a time.
//!
//! The table t of lengths (`t[i][j]` for the first i items of one list and the first j of the other) increases by 0 or
//! 1 from a column to the next. A row is therefore a list of bits, with a zero at each increase. Each row is computed
//! from the one before by a few operations on machine words: with `m` the bits where the row's item occurs,
//! `u = v & m`, `v ← (v + u) | (v − u)` (Hyyrö, "Bit-parallel LCS-length computation revisited", AWOCA 2004, figure
//! 2). `t[i][j]` is the number of zeros among the first j bits of row i.

/// The places of each item in a list.
pub(crate) struct Occurrences {
    length: usize,
    /// The places of item k are `places[starts[k]..starts[k + 1]]`.
    starts: Vec<usize>,
    places: Vec<usize>,
}

impl Occurrences {
    /// The places of a list of items below `kinds`.
    pub(crate) fn new(items: &[u32], kinds: usize) -> Self {
        let mut starts = vec![0; kinds + 1];
        for item in items {
            starts[*item as usize + 1] += 1;
        }
        for k in 0..kinds {
            starts[k + 1] += starts[k];
        }
        let mut next = starts.clone();
        let mut places = vec![0; items.len()];
        for (j, item) in items.iter().enumerate() {
            let slot = &mut next[*item as usize];
            places[*slot] = j;
            *slot += 1;
        }
        Self {
            length: items.len(),
            starts,
            places,
        }
    }

    fn words(&self) -> usize {
        self.length.div_ceil(64).max(1)
    }

    /// Computes the next row. The mask is all zeros before and after.
    fn advance(&self, row: &mut [u64], item: u32, mask: &mut [u64]) {
        let places = &self.places[self.starts[item as usize]..self.starts[item as usize + 1]];
        if places.is_empty() {
            return;
        }
        for j in places {
            mask[j / 64] |= 1 << (j % 64);
        }
        let mut carry = false;
        for (v, m) in row.iter_mut().zip(mask.iter_mut()) {
            let u = *v & *m;
            let (sum, first) = v.overflowing_add(u);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            carry = first || second;
            *v = sum | (*v - u);
            *m = 0;
        }
    }

    /// The length of the longest common subsequence of `other` and this list.
    pub(crate) fn lcs_length(&self, other: &[u32]) -> usize {
        let mut row = vec![u64::MAX; self.words()];
        let mut mask = vec![0; self.words()];
        for item in other {
            self.advance(&mut row, *item, &mut mask);
        }
        zeros(&row, self.length)
    }

    /// The places in `other` of one longest common subsequence, ascending. Of several it is the one that rouge_score
    /// finds: from the end, a matching place is selected; otherwise an item of `other` is dropped, unless dropping one of
    /// this list gives a longer subsequence.
    pub(crate) fn lcs_places(&self, other: &[u32], own: &[u32]) -> Vec<usize> {
        let words = self.words();
        let mut rows = vec![u64::MAX; words * (other.len() + 1)];
        let mut mask = vec![0; words];
        for (i, item) in other.iter().enumerate() {
            let (before, after) = rows.split_at_mut(words * (i + 1));
            let row = &mut after[..words];
            row.copy_from_slice(&before[words * i..]);
            self.advance(row, *item, &mut mask);
        }
        let t = |i: usize, j: usize| zeros(&rows[words * i..words * (i + 1)], j);
        let mut places = Vec::new();
        let (mut i, mut j) = (other.len(), self.length);
        while i > 0 && j > 0 {
            if other[i - 1] == own[j - 1] {
                places.push(i - 1);
                i -= 1;
                j -= 1;
            } else if t(i, j - 1) > t(i - 1, j) {
                j -= 1;
            } else {
                i -= 1;
            }
        }
        places.reverse();
        places
    }
}

/// The zeros among the first `count` bits.
fn zeros(row: &[u64], count: usize) -> usize {
    let (whole, rest) = (count / 64, count % 64);
    let mut ones: u32 = row[..whole].iter().map(|v| v.count_ones()).sum();
    if rest > 0 {
        ones += (row[whole] & ((1 << rest) - 1)).count_ones();
    }
    count - ones as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table itself, and rouge_score's walk through it.
    fn by_table(other: &[u32], own: &[u32]) -> Vec<usize> {
        let mut t = vec![vec![0; own.len() + 1]; other.len() + 1];
        for i in 1..=other.len() {
            for j in 1..=own.len() {
                t[i][j] = if other[i - 1] == own[j - 1] {
                    t[i - 1][j - 1] + 1
                } else {
                    t[i - 1][j].max(t[i][j - 1])
                };
            }
        }
        let (mut i, mut j, mut places) = (other.len(), own.len(), Vec::new());
        while i > 0 && j > 0 {
            if other[i - 1] == own[j - 1] {
                (i, j) = (i - 1, j - 1);
                places.insert(0, i);
            } else if t[i][j - 1] > t[i - 1][j] {
                j -= 1;
            } else {
                i -= 1;
            }
        }
        places
    }

    #[test]
    fn bits_and_table_agree_on_lists_of_all_lengths() {
        let mut state = 1u64;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 33) % below) as u32
        };
        for round in 0..400 {
            let kinds = [1, 2, 3, 20][round % 4];
            let longest = [5, 63, 66, 200][round / 4 % 4];
            let mut list = |kinds| -> Vec<u32> {
                let length = next(longest + 1);
                (0..length).map(|_| next(kinds)).collect()
            };
            let (other, own) = (list(kinds), list(kinds));
            let occurrences = Occurrences::new(&own, kinds as usize);
            let places = by_table(&other, &own);
            assert_eq!(occurrences.lcs_length(&other), places.len());
            assert_eq!(occurrences.lcs_places(&other, &own), places);
        }
    }
}
