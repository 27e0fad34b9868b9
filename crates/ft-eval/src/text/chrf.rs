//! chrF (Popović, 2015, <https://aclanthology.org/W15-3049>) and chrF++ (Popović, 2017,
//! <https://aclanthology.org/W17-4770>), as in sacreBLEU 2.6.0.
//!
//! The F score of character n-grams (and of word n-grams in chrF++), where precision and recall are means over the orders:
//! `F = (1 + β²)·P·R / (β²·P + R)`. Scores are from 0 to 100.

use rayon::prelude::*;
use serde::Serialize;

use super::each_has_a_reference;
use super::ngrams::{Ids, Ngrams, matches};
use super::python_characters::split;
use super::signature::Signature;
use crate::{Error, Result};

/// Options of chrF. The defaults are those of sacreBLEU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChrfOptions {
    /// The longest n-grams of characters.
    pub char_order: usize,
    /// The longest n-grams of words: 0 in chrF, 2 in chrF++.
    pub word_order: usize,
    /// The weight of recall relative to precision.
    pub beta: u32,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// Whether white space counts as characters.
    pub whitespace: bool,
    /// Whether orders without n-grams count with precision and recall of 1e-16, as in chrF++.py, Moses and NLTK. Otherwise
    /// they are ignored.
    pub eps_smoothing: bool,
}

impl Default for ChrfOptions {
    fn default() -> Self {
        Self {
            char_order: 6,
            word_order: 0,
            beta: 2,
            lowercase: false,
            whitespace: false,
            eps_smoothing: false,
        }
    }
}

/// chrF and its signature.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChrfScore {
    /// The score, from 0 to 100.
    pub score: f64,
    /// The signature that sacreBLEU 2.6.0 prints for these settings.
    pub signature: String,
}

/// chrF of a corpus. Counts are summed over the texts. Of several references, the one with the best F is used.
///
/// # Errors
///
/// If there are no predictions, the number of reference lists is another one, a prediction has no reference, or both orders
/// are 0.
///
/// ```
/// use ft_eval::text::{ChrfOptions, corpus_chrf};
///
/// let chrf = corpus_chrf(&["abcd ef"], &[["abce ef"]], &ChrfOptions::default())?;
/// assert!((chrf.score - 28.0556).abs() < 1e-3);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn corpus_chrf<P, R, S>(
    predictions: &[P],
    references: &[R],
    options: &ChrfOptions,
) -> Result<ChrfScore>
where
    P: AsRef<str> + Sync,
    R: AsRef<[S]> + Sync,
    S: AsRef<str>,
{
    each_has_a_reference(predictions, references)?;
    let orders = options.char_order + options.word_order;
    if orders == 0 {
        return Err(Error::Input(
            "char_order and word_order are both 0: one of them must be at least 1".into(),
        ));
    }
    let none = || vec![Count::default(); orders];
    let sum = |mut a: Vec<Count>, b: Vec<Count>| {
        a.iter_mut().zip(b).for_each(|(a, b)| a.add(b));
        a
    };
    let counts = (predictions.par_iter().zip(references).with_min_len(16))
        .map(|(prediction, references)| {
            best_counts(prediction.as_ref(), references.as_ref(), options)
        })
        .fold(none, sum)
        .reduce(none, sum);
    let signature = Signature::new(references.iter().map(|r| r.as_ref().len()))
        .with("case", if options.lowercase { "lc" } else { "mixed" })
        .with("eff", if options.eps_smoothing { "no" } else { "yes" })
        .with("nc", options.char_order)
        .with("nw", options.word_order)
        .with("space", if options.whitespace { "yes" } else { "no" });
    Ok(ChrfScore {
        score: f_score(&counts, options),
        signature: signature.to_string(),
    })
}

/// chrF of one text.
///
/// # Errors
///
/// As [`corpus_chrf`].
pub fn sentence_chrf<S: AsRef<str> + Sync>(
    prediction: &str,
    references: &[S],
    options: &ChrfOptions,
) -> Result<ChrfScore> {
    corpus_chrf(&[prediction], &[references], options)
}

/// n-grams of one order.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    prediction: usize,
    reference: usize,
    matches: usize,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.prediction += other.prediction;
        self.reference += other.reference;
        self.matches += other.matches;
    }
}

/// A text as characters and words.
struct Symbols {
    characters: Vec<u32>,
    words: Vec<u32>,
}

impl Symbols {
    fn new(text: &str, options: &ChrfOptions, ids: &mut Ids<Box<str>>) -> Self {
        let lower;
        let text = if options.lowercase {
            lower = text.to_lowercase();
            &lower
        } else {
            text
        };
        let characters = if options.whitespace {
            text.chars().map(u32::from).collect()
        } else {
            split(text).flat_map(str::chars).map(u32::from).collect()
        };
        let mut words = Vec::new();
        if options.word_order > 0 {
            for word in split(text) {
                words.extend(
                    without_punctuation(word)
                        .into_iter()
                        .flatten()
                        .map(|part| ids.id(part.into())),
                );
            }
        }
        Self { characters, words }
    }
}

/// Separates one ASCII punctuation mark from a word, at its end or otherwise at its beginning.
fn without_punctuation(word: &str) -> [Option<&str>; 2] {
    if word.chars().nth(1).is_none() {
        return [Some(word), None];
    }
    if word.ends_with(|c: char| c.is_ascii_punctuation()) {
        let (rest, sign) = word.split_at(word.len() - 1);
        [Some(rest), Some(sign)]
    } else if word.starts_with(|c: char| c.is_ascii_punctuation()) {
        let (sign, rest) = word.split_at(1);
        [Some(sign), Some(rest)]
    } else {
        [Some(word), None]
    }
}

/// The counts of the reference with the best F.
fn best_counts<S: AsRef<str>>(
    prediction: &str,
    references: &[S],
    options: &ChrfOptions,
) -> Vec<Count> {
    let mut ids = Ids::new();
    let prediction = Symbols::new(prediction, options, &mut ids);
    let mut best = (-1.0, Vec::new());
    for reference in references {
        let reference = Symbols::new(reference.as_ref(), options, &mut ids);
        let mut counts = count(
            [&prediction.characters, &reference.characters],
            options.char_order,
        );
        counts.extend(count(
            [&prediction.words, &reference.words],
            options.word_order,
        ));
        let f = f_score(&counts, options);
        if f > best.0 {
            best = (f, counts);
        }
    }
    best.1
}

fn count(pair: [&[u32]; 2], orders: usize) -> Vec<Count> {
    let mut counts = Vec::with_capacity(orders);
    let mut ngrams = Ngrams::new(&pair);
    for order in 0..orders {
        if order > 0 {
            ngrams.lengthen(&pair);
        }
        let reference = ngrams.total(1);
        counts.push(Count {
            // Orders without n-grams are ignored.
            prediction: if reference > 0 { ngrams.total(0) } else { 0 },
            reference,
            matches: matches(&ngrams.counts(0), &ngrams.counts(1)),
        });
    }
    counts
}

fn f_score(counts: &[Count], options: &ChrfOptions) -> f64 {
    const EPS: f64 = 1e-16;
    let factor = f64::from(options.beta).powi(2);
    let (mut score, mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0, 0);
    for count in counts {
        let share = |of: usize| match of {
            0 => EPS,
            _ => count.matches as f64 / of as f64,
        };
        let (p, r) = (share(count.prediction), share(count.reference));
        let weighted = factor * p + r;
        score += if weighted > 0.0 {
            (1.0 + factor) * p * r / weighted
        } else {
            EPS
        };
        if count.prediction > 0 && count.reference > 0 {
            precision += p;
            recall += r;
            orders += 1;
        }
    }
    if options.eps_smoothing {
        return 100.0 * score / counts.len() as f64;
    }
    if orders == 0 {
        return 0.0;
    }
    let (p, r) = (precision / f64::from(orders), recall / f64::from(orders));
    if p + r == 0.0 {
        return 0.0;
    }
    100.0 * ((1.0 + factor) * p * r / (factor * p + r))
}
