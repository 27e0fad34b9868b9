//! Near-duplicates by MinHash and locality-sensitive hashing.
//!
//! On the resemblance and containment of documents (Broder, 1997): if `hᵢ` are random orders of all n-grams, two texts have the same
//! smallest n-gram in the order `hᵢ` with a probability of their Jaccard similarity `s`. A signature has the smallest hash in each of
//! `bands · band_rows` orders. Texts that agree in all rows of a band are a pair, which happens with the probability
//! `1 − (1 − s^rows)^bands`: with 14 bands of 8 rows 0.92 at `s = 0.8`, 0.65 at 0.72, and a half at 0.685. The similarity of such a
//! pair is then computed, and pairs below the threshold are no near-duplicates. The others are joined to clusters.
//!
//! The normal form of a text, its n-grams and the joining are those of text-dedup. The orders are
//! `mix(a·h + b)` of the 32 low bits `h` of an n-gram's xxh3 hash, with `a` odd and `mix` a bijection of 32 bits, so that each is a
//! permutation and eight of them fit into a vector instruction.

use std::num::NonZero;
use std::thread;

use ft_core::mix_seed;
use xxhash_rust::xxh3::xxh3_64;

use super::words::Words;
use crate::in_parallel::in_parallel;

/// The settings of a search for near-duplicates.
///
/// ```
/// use ft_data::MinHash;
///
/// let fox = "the quick brown fox jumps over the lazy dog near the river bank in the early morning light";
/// let texts = [fox, "an altogether different text about the training of language models on rows of text", &fox.to_uppercase()];
/// assert_eq!(MinHash::default().clusters(&texts), [0, 1, 0]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MinHash {
    /// Words of an n-gram. A text with fewer words is one n-gram.
    pub ngram: usize,
    /// Bands.
    pub bands: usize,
    /// Rows of a band.
    pub band_rows: usize,
    /// The seed of the orders.
    pub seed: u64,
    /// The Jaccard similarity of the n-grams from which on two texts are near-duplicates. Fewer pairs are found the lower it is; see
    /// [`probability`](Self::probability).
    pub threshold: f64,
}

impl Default for MinHash {
    fn default() -> Self {
        Self {
            ngram: 5,
            bands: 14,
            band_rows: 8,
            seed: 42,
            threshold: 0.5,
        }
    }
}

impl MinHash {
    /// For each text the number of the first text of its cluster, on all cores. A text whose number is its own is the first.
    ///
    /// Texts without words have no near-duplicates.
    pub fn clusters<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Vec<usize> {
        let orders = self.orders();
        let keys = in_parallel(texts, |text| Ok(self.band_keys(text.as_ref(), &orders)));
        // It has no errors.
        let keys = keys.unwrap_or_default();
        let mut pairs = self.pairs(&keys);
        pairs.sort_unstable();
        pairs.dedup();
        let groups: Vec<&[(usize, usize)]> = pairs.chunk_by(|a, b| a.0 == b.0).collect();
        let similar = in_parallel(&groups, |group| {
            let ngrams = |text: usize| self.ngrams(texts[text].as_ref());
            let first = ngrams(group[0].0);
            let pairs = group.iter().copied();
            let similar =
                pairs.filter(|(_, text)| jaccard(&first, &ngrams(*text)) >= self.threshold);
            Ok(similar.collect::<Vec<_>>())
        });
        let mut first: Vec<usize> = (0..texts.len()).collect();
        for (a, b) in similar.unwrap_or_default().concat() {
            let (a, b) = (find(&mut first, a), find(&mut first, b));
            // The root is the first text.
            first[a.max(b)] = a.min(b);
        }
        (0..texts.len())
            .map(|text| find(&mut first, text))
            .collect()
    }

    /// The smallest number in each order.
    pub fn signature(&self, text: &str) -> Vec<u32> {
        self.signature_in(text, &self.orders())
    }

    /// The hashes of a text's n-grams, in order.
    fn ngrams(&self, text: &str) -> Vec<u64> {
        let words = Words::of(text);
        let mut hashes: Vec<u64> = match words.len() < self.ngram {
            true => vec![xxh3_64(words.as_str().as_bytes())],
            false => {
                let ngrams = words.ngrams(self.ngram);
                ngrams.map(|ngram| xxh3_64(ngram.as_bytes())).collect()
            }
        };
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    /// The probability with which texts of this similarity, if it is not below the threshold, are found to be a pair.
    pub fn probability(&self, similarity: f64) -> f64 {
        1.0 - (1.0 - similarity.powi(self.band_rows as i32)).powi(self.bands as i32)
    }

    fn orders(&self) -> Orders {
        let draws = (0..self.bands * self.band_rows).map(|i| mix_seed(self.seed, i as u64));
        let (a, b) = draws
            .map(|draw| (draw as u32 | 1, (draw >> 32) as u32))
            .unzip();
        Orders { a, b }
    }

    fn signature_in(&self, text: &str, orders: &Orders) -> Vec<u32> {
        let words = Words::of(text);
        let mut signature = vec![u32::MAX; orders.a.len()];
        if words.len() < self.ngram {
            lower(
                &mut signature,
                xxh3_64(words.as_str().as_bytes()) as u32,
                orders,
            );
            return signature;
        }
        for ngram in words.ngrams(self.ngram) {
            lower(&mut signature, xxh3_64(ngram.as_bytes()) as u32, orders);
        }
        signature
    }

    /// A hash of each band's rows; none for a text without words.
    fn band_keys(&self, text: &str, orders: &Orders) -> Vec<u64> {
        if !text.chars().any(|c| c.is_alphanumeric() || c == '_') {
            return Vec::new();
        }
        let signature = self.signature_in(text, orders);
        let bands = signature.chunks(self.band_rows.max(1));
        bands
            .map(|rows| {
                let bytes: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
                xxh3_64(&bytes)
            })
            .collect()
    }

    /// Texts whose keys are equal in a band, each with the first of them and with the one before it, the smaller number first.
    fn pairs(&self, keys: &[Vec<u64>]) -> Vec<(usize, usize)> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let of_band = |band: usize| {
            let texts = keys.iter().enumerate();
            let mut sorted: Vec<(u64, usize)> = texts
                .filter_map(|(text, keys)| Some((*keys.get(band)?, text)))
                .collect();
            sorted.sort_unstable();
            let equal = sorted.chunk_by(|a, b| a.0 == b.0);
            let pairs = equal.flat_map(|run| {
                let firsts = run[1..].iter().map(|(_, text)| (run[0].1, *text));
                firsts.chain(run.windows(2).map(|pair| (pair[0].1, pair[1].1)))
            });
            pairs.collect::<Vec<_>>()
        };
        let of_band = &of_band;
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|worker| {
                    scope.spawn(move || {
                        let bands = (worker..self.bands).step_by(threads);
                        bands.flat_map(of_band).collect::<Vec<_>>()
                    })
                })
                .collect();
            let joined = workers.into_iter().map(|worker| match worker.join() {
                Ok(pairs) => pairs,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.flatten().collect()
        })
    }
}

/// The factors and summands of the orders.
struct Orders {
    a: Vec<u32>,
    b: Vec<u32>,
}

/// Lowers each number of a signature to that of an n-gram.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512dq", "x86_64+avx2", "aarch64+neon"))]
fn lower(signature: &mut [u32], hash: u32, orders: &Orders) {
    let orders = orders.a.iter().zip(&orders.b);
    for (least, (a, b)) in signature.iter_mut().zip(orders) {
        let mut x = hash.wrapping_mul(*a).wrapping_add(*b);
        // The finalizer of MurmurHash3, of which each step is a bijection.
        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
        x ^= x >> 16;
        *least = (*least).min(x);
    }
}

/// `|a ∩ b| / |a ∪ b|` of sorted numbers.
fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let common = a
        .iter()
        .filter(|hash| b.binary_search(hash).is_ok())
        .count();
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}

/// The root, with shorter paths for the next time.
fn find(first: &mut [usize], mut text: usize) -> usize {
    while first[text] != text {
        first[text] = first[first[text]];
        text = first[text];
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Words from a small generator.
    fn words(seed: u64, count: u64) -> Vec<String> {
        (0..count)
            .map(|i| format!("w{}", mix_seed(seed, i) % 5000))
            .collect()
    }

    /// The similarity by sets of texts.
    fn similarity(a: &str, b: &str) -> f64 {
        let (a, b) = (Words::of(a), Words::of(b));
        let (a, b): (HashSet<&str>, HashSet<&str>) = (a.ngrams(5).collect(), b.ngrams(5).collect());
        a.intersection(&b).count() as f64 / a.union(&b).count() as f64
    }

    /// Over 400 orders the standard deviation of the share is below 0.025.
    #[test]
    fn the_share_of_equal_numbers_is_the_jaccard_similarity() {
        let minhash = MinHash {
            bands: 50,
            ..MinHash::default()
        };
        for changed in [0, 5, 20, 60] {
            let mut text = words(1, 300);
            let before = text.join(" ");
            for place in 0..changed {
                text[place * 5] = "x".into();
            }
            let after = text.join(" ");
            let (a, b) = (minhash.signature(&before), minhash.signature(&after));
            let equal = a.iter().zip(&b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64;
            let expected = similarity(&before, &after);
            let exact = jaccard(&minhash.ngrams(&before), &minhash.ngrams(&after));
            assert_eq!(exact, expected);
            assert!(
                (equal - expected).abs() < 0.08,
                "{changed}: {equal} {expected}"
            );
        }
    }

    #[test]
    fn clusters_are_named_by_their_first_text_and_join_over_common_members() {
        let text = words(2, 200);
        let change = |from: usize| {
            let mut text = text.clone();
            text[from..from + 4].fill("changed".into());
            text.join(" ")
        };
        let texts = [
            words(3, 200).join(" "),
            change(10),
            "".into(),
            change(190),
            text.join(" "),
            "".into(),
            "a b".into(),
            "A, b!".into(),
        ];
        assert_eq!(
            MinHash::default().clusters(&texts),
            [0, 1, 2, 1, 1, 5, 6, 6]
        );
    }

    #[test]
    fn probabilities_are_those_of_the_formula() {
        let minhash = MinHash::default();
        assert!((minhash.probability(0.8) - 0.9236).abs() < 1e-3);
        assert!((minhash.probability(0.72) - 0.6498).abs() < 1e-3);
        assert!((minhash.probability(0.685) - 0.5013).abs() < 1e-3);
    }

    /// With 200 bands of one row, texts of any similarity are compared: one of 0.9 is found, and one of 0.48 is not.
    #[test]
    fn texts_that_agree_in_a_band_by_chance_are_no_near_duplicates() {
        let minhash = MinHash {
            bands: 200,
            band_rows: 1,
            ..MinHash::default()
        };
        let text = words(4, 200);
        let change = |from: usize, count: usize| {
            let mut text = text.clone();
            text[from..from + count].fill("changed".into());
            text.join(" ")
        };
        let texts = [text.join(" "), change(100, 100), change(20, 8)];
        assert!(similarity(&texts[0], &texts[1]) > 0.2);
        assert!(minhash.probability(similarity(&texts[0], &texts[1])) > 0.999);
        assert_eq!(minhash.clusters(&texts), [0, 1, 0]);
    }
}
