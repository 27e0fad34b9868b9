//! Search for passages by their words: Okapi BM25 (Robertson and Zaragoza, 2009, doi:10.1561/1500000019).

use std::collections::HashMap;

use super::Retriever;

/// The saturation of repeated words, and the weight of a passage's length.
const K1: f64 = 1.2;
const B: f64 = 0.75;

/// An index of passages.
///
/// `score = Σ idf(w)·f·(k₁ + 1) / (f + k₁·(1 − b + b·|d|/mean))` over the words of the query, with
/// `idf(w) = ln(1 + (N − n + ½)/(n + ½))`, k₁ = 1.2 and b = 0.75; words are runs of letters and digits, in lower case.
#[derive(Clone, Debug)]
pub struct Bm25 {
    passages: Vec<String>,
    /// For each word the passages that contain it, and how often.
    postings: HashMap<String, Vec<(usize, f64)>>,
    lengths: Vec<f64>,
    mean: f64,
}

impl Bm25 {
    /// An index of these passages.
    pub fn new(passages: Vec<String>) -> Self {
        let mut postings: HashMap<String, Vec<(usize, f64)>> = HashMap::new();
        let mut lengths = Vec::with_capacity(passages.len());
        for (i, passage) in passages.iter().enumerate() {
            let mut count = 0.0;
            for word in words(passage) {
                count += 1.0;
                let list = postings.entry(word).or_default();
                match list.last_mut() {
                    Some((last, times)) if *last == i => *times += 1.0,
                    _ => list.push((i, 1.0)),
                }
            }
            lengths.push(count);
        }
        let mean = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        Self {
            passages,
            postings,
            lengths,
            mean: mean.max(1.0),
        }
    }

    /// The passages that share a word with the query, with their scores, the best first.
    pub fn search(&self, query: &str, count: usize) -> Vec<(&str, f64)> {
        let mut scores: HashMap<usize, f64> = HashMap::new();
        for word in words(query) {
            let Some(list) = self.postings.get(&word) else {
                continue;
            };
            let (all, having) = (self.passages.len() as f64, list.len() as f64);
            let idf = (1.0 + (all - having + 0.5) / (having + 0.5)).ln();
            for (passage, times) in list {
                let length = 1.0 - B + B * self.lengths[*passage] / self.mean;
                *scores.entry(*passage).or_default() +=
                    idf * times * (K1 + 1.0) / (times + K1 * length);
            }
        }
        let mut found: Vec<(usize, f64)> = scores.into_iter().collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.truncate(count);
        found
            .into_iter()
            .map(|(i, score)| (self.passages[i].as_str(), score))
            .collect()
    }
}

impl Retriever for Bm25 {
    fn retrieve(&self, claim: &str, count: usize) -> Vec<String> {
        self.search(claim, count)
            .into_iter()
            .map(|(passage, _)| passage.to_string())
            .collect()
    }
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_the_formula() {
        let passages = ["a red cat", "a dog", "cats and dogs and a red, red fox"];
        let index = Bm25::new(passages.map(str::to_string).to_vec());
        let found = index.search("Red dog!", 9);
        assert_eq!(
            found.iter().map(|(p, _)| *p).collect::<Vec<_>>(),
            [passages[1], passages[0], passages[2]]
        );
        // `dog` is in one of three passages; this one has two words, and the mean is 13/3.
        let idf = (1.0f64 + 2.5 / 1.5).ln();
        let expected = idf * 2.2 / (1.0 + 1.2 * (0.25 + 0.75 * 2.0 / (13.0 / 3.0)));
        assert!((found[0].1 - expected).abs() < 1e-12);
        assert!(index.search("nothing", 9).is_empty());
        assert_eq!(index.retrieve("a", 2).len(), 2);
        assert!(Bm25::new(Vec::new()).search("a", 1).is_empty());
    }
}
