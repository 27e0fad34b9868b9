//! Training rows that have text of an evaluation set.
//!
//! Language models are few-shot learners (Brown et al., 2020, arXiv:2005.14165), appendix C: a text is contaminated if it has an
//! n-gram of words, 13 of them, in common with the set. Case and punctuation do not count.

use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_64;

use super::words::Words;

/// The n-grams of evaluation sets.
///
/// ```
/// use ft_data::Contamination;
///
/// let test = Contamination::new(3, ["What is the capital of France?"]);
/// assert_eq!(test.found("We asked: what is the CAPITAL?"), Some("what is the".to_string()));
/// assert_eq!(test.found("The capital is Paris."), None);
/// ```
#[derive(Clone, Debug)]
pub struct Contamination {
    n: usize,
    hashes: HashSet<u64>,
    short: usize,
}

impl Contamination {
    /// The n-grams of these texts. 13 is usual.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn new<T: AsRef<str>>(n: usize, texts: impl IntoIterator<Item = T>) -> Self {
        assert!(n > 0, "an n-gram has one word or more");
        let (mut hashes, mut short) = (HashSet::new(), 0);
        for text in texts {
            let words = Words::of(text.as_ref());
            short += usize::from(words.len() < n);
            hashes.extend(words.ngrams(n).map(|ngram| xxh3_64(ngram.as_bytes())));
        }
        Self { n, hashes, short }
    }

    /// The first n-gram of a text that the sets have too.
    pub fn found(&self, text: &str) -> Option<String> {
        if self.hashes.is_empty() {
            return None;
        }
        let words = Words::of(text);
        let mut ngrams = words.ngrams(self.n);
        ngrams
            .find(|ngram| self.hashes.contains(&xxh3_64(ngram.as_bytes())))
            .map(str::to_string)
    }

    /// How many texts of the sets are shorter than an n-gram, so that nothing is compared with them.
    pub fn short(&self) -> usize {
        self.short
    }
}
