//! ROUGE: overlap with reference summaries.
//!
//! Lin, "ROUGE: a package for automatic evaluation of summaries", ACL workshop 2004. With M matches,
//! R words (or n-grams) in the reference and P in the prediction: recall M/R (equation 1), precision
//! M/P, F = 2·precision·recall / (precision + recall). M is
//! - ROUGE-N: n-grams in both, each with the smaller of its two counts;
//! - ROUGE-L: the length of the longest common subsequence (section 3.1);
//! - ROUGE-Lsum: over the lines of the reference, the words that are in a longest common subsequence
//!   with any line of the prediction (section 3.2), where a word counts at most as often as in either text.
//!
//! Numbers equal those of rouge_score 0.1.2 (its words, its stemmer, its choice of several longest subsequences), from 0
//! to 1. Three notes: The score of a corpus is the mean over its pairs; Hugging Face's `evaluate` resamples the pairs
//! and returns the median of 1,000 such means, which depends on the seed. Sentences for Lsum are lines, as in
//! rouge_score by default; its `split_summaries` needs a trained sentence splitter. [`RougeWords::Unicode`] is an
//! addition: the original scores 0 on scripts other than Latin.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::lcs::Occurrences;
use super::rouge_words::{RougeWords, WordNumbers};
use crate::{Error, Result};

/// A kind of ROUGE: `rouge1` to `rouge9`, `rougeL`, `rougeLsum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rouge {
    /// Runs of this many words, 1 to 9.
    N(usize),
    /// The longest common subsequence of the whole texts.
    L,
    /// Longest common subsequences line by line.
    Lsum,
}

impl fmt::Display for Rouge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::N(n) => write!(f, "rouge{n}"),
            Self::L => f.write_str("rougeL"),
            Self::Lsum => f.write_str("rougeLsum"),
        }
    }
}

impl FromStr for Rouge {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.strip_prefix("rouge") {
            Some("L") => Ok(Self::L),
            Some("Lsum") => Ok(Self::Lsum),
            Some(n) if matches!(n.as_bytes(), [b'1'..=b'9']) => {
                Ok(Self::N(usize::from(n.as_bytes()[0] - b'0')))
            }
            _ => Err(Error::Settings(format!(
                "there is no {name:?}: use rouge1 to rouge9, rougeL or rougeLsum"
            ))),
        }
    }
}

/// Options of ROUGE. The default is rouge_score's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RougeOptions {
    /// The definition of a word.
    pub words: RougeWords,
    /// Whether words of more than three characters are stemmed ([`porter_stem`](super::porter_stem)):
    /// rouge_score's `use_stemmer`.
    pub stem: bool,
}

/// The scores of one kind of ROUGE, from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct RougeScore {
    /// Matches divided by the number in the prediction.
    pub precision: f64,
    /// Matches divided by the number in the reference.
    pub recall: f64,
    /// Harmonic mean of both; 0 if both are 0.
    pub fmeasure: f64,
}

impl RougeScore {
    fn new(matches: usize, reference: usize, prediction: usize) -> Self {
        let precision = matches as f64 / prediction.max(1) as f64;
        let recall = matches as f64 / reference.max(1) as f64;
        let fmeasure = if precision + recall > 0.0 {
            2.0 * precision * recall / (precision + recall)
        } else {
            0.0
        };
        Self {
            precision,
            recall,
            fmeasure,
        }
    }
}

/// The scores of a prediction and one reference, one for each of `kinds`. Texts without words
/// score 0.
///
/// Equals `RougeScorer(kinds).score(reference, prediction)`.
///
/// # Errors
/// `Rouge::N` of 0 or more than 9.
///
/// ```
/// use ft_eval::text::{Rouge, RougeOptions, rouge};
///
/// // Lin 2004, section 3.1: "police killed the gunman", "police kill the gunman".
/// let kinds = [Rouge::N(1), Rouge::N(2), Rouge::L];
/// let scores = rouge(
///     &kinds,
///     "police kill the gunman",
///     "police killed the gunman",
///     &RougeOptions::default(),
/// )?;
/// assert_eq!(scores[0].fmeasure, 0.75);
/// assert!((scores[1].fmeasure - 1.0 / 3.0).abs() < 1e-12);
/// assert_eq!(scores[2].fmeasure, 0.75);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn rouge(
    kinds: &[Rouge],
    prediction: &str,
    reference: &str,
    options: &RougeOptions,
) -> Result<Vec<RougeScore>> {
    check(kinds)?;
    Ok(score(kinds, prediction, reference, options))
}

/// For each of `kinds` the score for the reference with the highest F, or the first of several.
///
/// Equals `RougeScorer(kinds).score_multi(references, prediction)`.
///
/// # Errors
/// No reference; `Rouge::N` of 0 or more than 9.
pub fn rouge_multi<S: AsRef<str>>(
    kinds: &[Rouge],
    prediction: &str,
    references: &[S],
    options: &RougeOptions,
) -> Result<Vec<RougeScore>> {
    check(kinds)?;
    best(kinds, prediction, references, options)
}

/// [`rouge_multi`] of each prediction and its references.
///
/// # Errors
/// Another number of predictions than of lists of references; an empty list; `Rouge::N` of 0 or more
/// than 9.
pub fn rouge_pairs<P, R, S>(
    kinds: &[Rouge],
    predictions: &[P],
    references: &[R],
    options: &RougeOptions,
) -> Result<Vec<Vec<RougeScore>>>
where
    P: AsRef<str> + Sync,
    R: AsRef<[S]> + Sync,
    S: AsRef<str>,
{
    check(kinds)?;
    super::same_length(predictions.len(), references.len())?;
    (0..predictions.len())
        .into_par_iter()
        .map(|i| {
            best(
                kinds,
                predictions[i].as_ref(),
                references[i].as_ref(),
                options,
            )
            .map_err(|error| Error::Input(format!("prediction {i}: {error}")))
        })
        .collect()
}

/// The means of precision, recall and F over the pairs. F is therefore not the harmonic mean of the other two.
///
/// # Errors
/// As [`rouge_pairs`]; no predictions.
pub fn corpus_rouge<P, R, S>(
    kinds: &[Rouge],
    predictions: &[P],
    references: &[R],
    options: &RougeOptions,
) -> Result<Vec<RougeScore>>
where
    P: AsRef<str> + Sync,
    R: AsRef<[S]> + Sync,
    S: AsRef<str>,
{
    super::not_empty(predictions.len())?;
    let pairs = rouge_pairs(kinds, predictions, references, options)?;
    let mean = |kind: usize, value: fn(&RougeScore) -> f64| {
        pairs.iter().map(|scores| value(&scores[kind])).sum::<f64>() / pairs.len() as f64
    };
    Ok((0..kinds.len())
        .map(|kind| RougeScore {
            precision: mean(kind, |score| score.precision),
            recall: mean(kind, |score| score.recall),
            fmeasure: mean(kind, |score| score.fmeasure),
        })
        .collect())
}

fn check(kinds: &[Rouge]) -> Result<()> {
    for kind in kinds {
        if let Rouge::N(n) = kind
            && !(1..=9).contains(n)
        {
            return Err(Error::Settings(format!(
                "there is no ROUGE of {n} words: use 1 to 9"
            )));
        }
    }
    Ok(())
}

fn best<S: AsRef<str>>(
    kinds: &[Rouge],
    prediction: &str,
    references: &[S],
    options: &RougeOptions,
) -> Result<Vec<RougeScore>> {
    let mut scores = references
        .iter()
        .map(|reference| score(kinds, prediction, reference.as_ref(), options));
    let mut best = scores
        .next()
        .ok_or_else(|| Error::Input("no reference: give at least one".into()))?;
    for others in scores {
        for (best, other) in best.iter_mut().zip(others) {
            if other.fmeasure > best.fmeasure {
                *best = other;
            }
        }
    }
    Ok(best)
}

fn score(
    kinds: &[Rouge],
    prediction: &str,
    reference: &str,
    options: &RougeOptions,
) -> Vec<RougeScore> {
    let (prediction, reference) = (prediction.to_lowercase(), reference.to_lowercase());
    let mut numbers = WordNumbers::new(options.stem);
    let prediction_lines = numbers.lines(&prediction, options.words);
    let reference_lines = numbers.lines(&reference, options.words);
    let prediction = prediction_lines.concat();
    let reference = reference_lines.concat();
    let longest = kinds.iter().map(|kind| match kind {
        Rouge::N(n) => *n,
        _ => 0,
    });
    let ngrams = ngram_matches(
        &prediction,
        &reference,
        numbers.kinds,
        longest.max().unwrap_or(0),
    );
    let score = |kind: &Rouge| match kind {
        Rouge::N(n) => RougeScore::new(
            ngrams[n - 1],
            (reference.len() + 1).saturating_sub(*n),
            (prediction.len() + 1).saturating_sub(*n),
        ),
        Rouge::L => {
            let matches = Occurrences::new(&prediction, numbers.kinds).lcs_length(&reference);
            RougeScore::new(matches, reference.len(), prediction.len())
        }
        Rouge::Lsum => {
            let matches = union_lcs(&prediction_lines, &reference_lines, numbers.kinds);
            RougeScore::new(matches, reference.len(), prediction.len())
        }
    };
    kinds.iter().map(score).collect()
}

/// For n = 1 to `longest` the number of n-grams in both lists, clipped. The id of a longer n-gram is that of the pair of
/// its beginning's id and its last word.
fn ngram_matches(
    prediction: &[u32],
    reference: &[u32],
    kinds: usize,
    longest: usize,
) -> Vec<usize> {
    let mut ids = [prediction.to_vec(), reference.to_vec()];
    let mut kinds = kinds;
    let mut matches = Vec::with_capacity(longest);
    for n in 1..=longest {
        if n > 1 {
            let mut numbers = HashMap::new();
            for (ids, words) in ids.iter_mut().zip([prediction, reference]) {
                ids.pop();
                for (id, last) in ids.iter_mut().zip(words.iter().skip(n - 1)) {
                    let next = numbers.len() as u32;
                    *id = *numbers.entry((*id, *last)).or_insert(next);
                }
            }
            kinds = numbers.len();
        }
        let mut left = vec![0u32; kinds];
        ids[1].iter().for_each(|id| left[*id as usize] += 1);
        let taken = ids[0].iter().filter(|id| take(&mut left, **id)).count();
        matches.push(taken);
    }
    matches
}

/// Decrements a count, if it is positive.
fn take(left: &mut [u32], id: u32) -> bool {
    let left = &mut left[id as usize];
    let some = *left > 0;
    *left -= u32::from(some);
    some
}

/// The number of words of the reference's lines in a longest common subsequence with any line of the prediction.
fn union_lcs(prediction: &[Vec<u32>], reference: &[Vec<u32>], kinds: usize) -> usize {
    let mut covered: Vec<Vec<bool>> = reference
        .iter()
        .map(|line| vec![false; line.len()])
        .collect();
    let mut left = vec![0u32; kinds];
    for line in prediction {
        if line.is_empty() {
            continue;
        }
        let occurrences = Occurrences::new(line, kinds);
        for (covered, other) in covered.iter_mut().zip(reference) {
            for place in occurrences.lcs_places(other, line) {
                covered[place] = true;
            }
        }
        line.iter().for_each(|word| left[*word as usize] += 1);
    }
    // A place of the reference is counted once, so only the counts of the prediction's words limit the matches.
    let covered = covered.iter().flatten();
    let words = reference.iter().flatten().zip(covered);
    words
        .filter(|(word, covered)| **covered && take(&mut left, **word))
        .count()
}
