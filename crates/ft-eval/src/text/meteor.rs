//! METEOR: words matched exactly, by stem and by synonym, with a penalty for their order.
//!
//! Lavie and Agarwal, "METEOR: an automatic metric for MT evaluation with high levels of correlation
//! with human judgments", WMT 2007. With m matched words, precision P = m / hypothesis, recall
//! R = m / reference and c chunks (matches that are neighbours in both texts are one chunk):
//!
//! F = P·R / (α·P + (1−α)·R), score = F·(1 − γ·(c/m)^β).
//!
//! Numbers equal those of NLTK 3.10 (`nltk.translate.meteor_score`) on the same words, from 0 to 1.
//! Unlike the paper, NLTK matches greedily: three passes (words, then Porter stems, then synonyms in WordNet 3.0), each
//! from the hypothesis's last word to its first, each matching the last free word of the reference. The pass over
//! synonyms uses the *stems* of the remaining words, so that only words whose stem is a word have synonyms. The penalty
//! also applies to a perfect match: one chunk of m words costs γ/m^β.
//!
//! Without the feature `wordnet` there is no pass over synonyms, and scores may be lower. `evaluate`'s METEOR uses
//! NLTK's words: see [`word_tokenize`](super::word_tokenize).

use std::collections::HashMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::porter_stemmer::porter_stem;
use crate::{Error, Result};

/// Parameters of METEOR. The default is NLTK's: α = 0.9, β = 3, γ = 0.5.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeteorOptions {
    /// Weight of precision in the denominator of F. A higher value gives recall more weight.
    pub alpha: f64,
    /// Exponent of the fragmentation c/m.
    pub beta: f64,
    /// The highest penalty.
    pub gamma: f64,
}

impl Default for MeteorOptions {
    fn default() -> Self {
        Self {
            alpha: 0.9,
            beta: 3.0,
            gamma: 0.5,
        }
    }
}

/// METEOR of a hypothesis and one reference, both as words, which are lower-cased here. 0 if no words match or one of
/// them is empty.
///
/// Equals `single_meteor_score(reference, hypothesis, alpha=..., beta=..., gamma=...)`.
///
/// ```
/// use ft_eval::text::{MeteorOptions, single_meteor_score};
///
/// // Three words of three in one chunk: F = 1, penalty 0.5·(1/3)³.
/// let words = ["the", "cat", "sat"];
/// let score = single_meteor_score(&words, &words, &MeteorOptions::default());
/// assert!((score - (1.0 - 0.5 / 27.0)).abs() < 1e-12);
/// ```
pub fn single_meteor_score<H: AsRef<str>, W: AsRef<str>>(
    hypothesis: &[H],
    reference: &[W],
    options: &MeteorOptions,
) -> f64 {
    let mut matches = align(lower(hypothesis), lower(reference));
    matches.sort_unstable();
    let matched = matches.len() as f64;
    if matches.is_empty() {
        return 0.0;
    }
    let precision = matched / hypothesis.len() as f64;
    let recall = matched / reference.len() as f64;
    let weighted = options.alpha * precision + (1.0 - options.alpha) * recall;
    if weighted == 0.0 {
        return 0.0;
    }
    let breaks = matches
        .windows(2)
        .filter(|pair| pair[1] != (pair[0].0 + 1, pair[0].1 + 1))
        .count();
    let fragmentation = (breaks + 1) as f64 / matched;
    let penalty = options.gamma * fragmentation.powf(options.beta);
    (1.0 - penalty) * (precision * recall / weighted)
}

/// The best METEOR of a hypothesis over several references, all as words.
///
/// Equals `meteor_score(references, hypothesis, alpha=..., beta=..., gamma=...)`.
///
/// # Errors
/// No reference.
pub fn meteor_score<H, R, W>(
    hypothesis: &[H],
    references: &[R],
    options: &MeteorOptions,
) -> Result<f64>
where
    H: AsRef<str>,
    R: AsRef<[W]>,
    W: AsRef<str>,
{
    references
        .iter()
        .map(|reference| single_meteor_score(hypothesis, reference.as_ref(), options))
        .reduce(f64::max)
        .ok_or_else(|| Error::Input("no reference: give at least one".into()))
}

/// The mean METEOR of texts, cut into words by `words`: [`whitespace_words`](super::whitespace_words)
/// or [`word_tokenize`](super::word_tokenize).
///
/// # Errors
/// No predictions; another number of predictions than of lists of references; an empty list.
pub fn corpus_meteor<P, R, S>(
    predictions: &[P],
    references: &[R],
    words: impl Fn(&str) -> Vec<String> + Sync,
    options: &MeteorOptions,
) -> Result<f64>
where
    P: AsRef<str> + Sync,
    R: AsRef<[S]> + Sync,
    S: AsRef<str>,
{
    super::not_empty(predictions.len())?;
    super::same_length(predictions.len(), references.len())?;
    let scores: Vec<f64> = (0..predictions.len())
        .into_par_iter()
        .map(|i| {
            let references = references[i].as_ref().iter();
            let references: Vec<_> = references.map(|text| words(text.as_ref())).collect();
            meteor_score(&words(predictions[i].as_ref()), &references, options)
                .map_err(|error| Error::Input(format!("prediction {i}: {error}")))
        })
        .collect::<Result<_>>()?;
    Ok(scores.iter().sum::<f64>() / scores.len() as f64)
}

/// Words without a match, with their places.
type Left = Vec<(usize, String)>;

fn lower<S: AsRef<str>>(words: &[S]) -> Left {
    let words = words.iter().map(|word| word.as_ref().to_lowercase());
    words.enumerate().collect()
}

/// The matches as places in hypothesis and reference, in any order.
fn align(mut hypothesis: Left, mut reference: Left) -> Vec<(usize, usize)> {
    let same = |word: &str, free: &Free<'_>| free.last(word);
    let mut matches = Vec::new();
    take_matches(&mut hypothesis, &mut reference, same, &mut matches);
    for (_, word) in hypothesis.iter_mut().chain(&mut reference) {
        *word = porter_stem(word);
    }
    take_matches(&mut hypothesis, &mut reference, same, &mut matches);
    // No remaining stem is on both sides, so a word is not its own synonym.
    #[cfg(feature = "wordnet")]
    {
        let synonym = |word: &str, free: &Free<'_>| {
            let mut best = None;
            super::wordnet::each_synonym(word, |synonym| best = best.max(free.last(synonym)));
            best
        };
        take_matches(&mut hypothesis, &mut reference, synonym, &mut matches);
    }
    matches
}

/// The free places of the words of a reference, ascending.
struct Free<'a>(HashMap<&'a str, Vec<usize>>);

impl Free<'_> {
    fn last(&self, word: &str) -> Option<usize> {
        self.0.get(word)?.last().copied()
    }
}

/// One pass, from the last word of the hypothesis to the first. Each word matches the place in the reference that `pick`
/// returns.
fn take_matches(
    hypothesis: &mut Left,
    reference: &mut Left,
    pick: impl Fn(&str, &Free<'_>) -> Option<usize>,
    matches: &mut Vec<(usize, usize)>,
) {
    let mut free = Free(HashMap::new());
    for (j, (_, word)) in reference.iter().enumerate() {
        free.0.entry(word).or_default().push(j);
    }
    let mut taken = vec![false; reference.len()];
    let mut unmatched = Vec::new();
    for (place, word) in std::mem::take(hypothesis).into_iter().rev() {
        match pick(&word, &free) {
            Some(j) => {
                let (reference_place, reference_word) = &reference[j];
                if let Some(places) = free.0.get_mut(reference_word.as_str()) {
                    places.pop();
                }
                taken[j] = true;
                matches.push((place, *reference_place));
            }
            None => unmatched.push((place, word)),
        }
    }
    unmatched.reverse();
    *hypothesis = unmatched;
    let mut taken = taken.into_iter();
    reference.retain(|_| taken.next() != Some(true));
}
