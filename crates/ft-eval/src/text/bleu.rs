//! BLEU (Papineni et al., 2002, <https://aclanthology.org/P02-1040>), as in sacreBLEU 2.6.0 (Post, 2018,
//! arXiv:1804.08771), and in the variant of Hugging Face's evaluate.
//!
//! `BLEU = BP · exp(Σₙ ln pₙ / N)`, where `pₙ` is the share of the predictions' n-grams that occur in a reference. The count
//! of each n-gram is at most its largest count in a reference. `BP = e^(1 − r/c)` if the length `c` of the predictions is less
//! than the length `r` of the references, with the closest reference for each prediction.
//!
//! Scores are from 0 to 100, in the variant of evaluate from 0 to 1.

use std::fmt;

use rayon::prelude::*;
use serde::Serialize;

use super::bleu_tokenizer::BleuTokenizer;
use super::each_has_a_reference;
use super::ngrams::{Ids, Ngrams, matches};
use super::python_characters::{is_space, split};
use super::signature::Signature;
use crate::{Error, Result};

/// The smoothing of orders of n-grams without a match (Chen and Cherry, 2014,
/// <https://aclanthology.org/W14-3346>).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum BleuSmoothing {
    /// No smoothing: the score is 0.
    None,
    /// This number of matches instead of 0 (method 1; 0.1 in the paper).
    Floor(f64),
    /// This number is added to matches and n-grams, from 2-grams (method 2; 1 in the paper).
    AddK(f64),
    /// Half a match for the first order without one, a quarter for the next, and so on (method 3).
    #[default]
    Exp,
}

impl fmt::Display for BleuSmoothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BleuSmoothing::None => f.write_str("none"),
            BleuSmoothing::Floor(value) => write!(f, "floor[{value:.2}]"),
            BleuSmoothing::AddK(value) => write!(f, "add-k[{value:.2}]"),
            BleuSmoothing::Exp => f.write_str("exp"),
        }
    }
}

/// Options of BLEU. The defaults are those of sacreBLEU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BleuOptions {
    /// The tokenizer.
    pub tokenizer: BleuTokenizer,
    /// The smoothing of orders without a match.
    pub smoothing: BleuSmoothing,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// The longest n-grams, commonly 4.
    pub max_order: usize,
    /// Whether orders that are longer than the predictions are ignored. It should be true for single sentences, as in
    /// `sacrebleu.sentence_bleu`.
    pub effective_order: bool,
}

impl Default for BleuOptions {
    fn default() -> Self {
        Self {
            tokenizer: BleuTokenizer::V13a,
            smoothing: BleuSmoothing::Exp,
            lowercase: false,
            max_order: 4,
            effective_order: false,
        }
    }
}

/// BLEU and its components.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BleuScore {
    /// The score, from 0 to 100.
    pub score: f64,
    /// Matching n-grams of the predictions, by order, including the number that `AddK` adds.
    pub counts: Vec<f64>,
    /// n-grams of the predictions, by order, including the number that `AddK` adds.
    pub totals: Vec<f64>,
    /// The precisions, from 0 to 100, by order.
    pub precisions: Vec<f64>,
    /// The brevity penalty.
    pub brevity_penalty: f64,
    /// The number of words of the predictions.
    pub prediction_length: usize,
    /// The number of words of the references, with the reference of the closest length for each prediction.
    pub reference_length: usize,
    /// The signature that sacreBLEU 2.6.0 prints for these settings:
    /// `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0`. The version is that of the sacreBLEU with the
    /// same scores.
    pub signature: String,
}

/// BLEU of a corpus.
///
/// # Errors
///
/// If there are no predictions, the number of reference lists is another one, a prediction has no reference, or
/// `max_order` is 0.
///
/// ```
/// use ft_eval::text::{BleuOptions, corpus_bleu};
///
/// let predictions = ["The dog bit the man.", "It was not unexpected."];
/// let references = [["The dog bit the man."], ["It was expected."]];
/// let bleu = corpus_bleu(&predictions, &references, &BleuOptions::default())?;
/// assert!((bleu.score - 65.761).abs() < 1e-3);
/// assert_eq!(bleu.signature, "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0");
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn corpus_bleu<P, R, S>(
    predictions: &[P],
    references: &[R],
    options: &BleuOptions,
) -> Result<BleuScore>
where
    P: AsRef<str> + Sync,
    R: AsRef<[S]> + Sync,
    S: AsRef<str>,
{
    let words = Words {
        tokenizer: options.tokenizer,
        lowercase: options.lowercase,
        strip: true,
    };
    let counts = count(predictions, references, words, options.max_order)?;
    let signature = Signature::new(references.iter().map(|r| r.as_ref().len()))
        .with("case", if options.lowercase { "lc" } else { "mixed" })
        .with("eff", if options.effective_order { "yes" } else { "no" })
        .with("tok", options.tokenizer)
        .with("smooth", options.smoothing);
    Ok(score(&counts, options, signature.to_string()))
}

/// BLEU of one text; see [`BleuOptions::effective_order`].
///
/// # Errors
///
/// As [`corpus_bleu`].
pub fn sentence_bleu<S: AsRef<str> + Sync>(
    prediction: &str,
    references: &[S],
    options: &BleuOptions,
) -> Result<BleuScore> {
    corpus_bleu(&[prediction], &[references], options)
}

/// BLEU in the variant of Hugging Face's evaluate (metric `bleu`), which is that of TensorFlow's nmt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HfBleuScore {
    /// The score, from 0 to 1.
    pub bleu: f64,
    /// The precisions, from 0 to 1, by order.
    pub precisions: Vec<f64>,
    /// The brevity penalty.
    pub brevity_penalty: f64,
    /// The ratio of the predictions' words to those of the references; infinite if the references have none.
    pub length_ratio: f64,
    /// Words of the predictions.
    pub translation_length: usize,
    /// The number of words of the references, with the shortest reference for each prediction.
    pub reference_length: usize,
}

/// BLEU as in `evaluate.load("bleu")`. The words are those of sacreBLEU's `13a`, but the score is from 0 to 1, the length
/// is that of the shortest reference, and the score is 0 if an order has no match. With `smooth` a match and an n-gram are
/// added to every order (Lin and Och, 2004).
///
/// If the predictions or the references have no words, the reference raises a ZeroDivisionError, and the score here is 0.
///
/// # Errors
///
/// As [`corpus_bleu`].
pub fn hf_bleu<P, R, S>(
    predictions: &[P],
    references: &[R],
    max_order: usize,
    smooth: bool,
) -> Result<HfBleuScore>
where
    P: AsRef<str> + Sync,
    R: AsRef<[S]> + Sync,
    S: AsRef<str>,
{
    let words = Words {
        tokenizer: BleuTokenizer::V13a,
        lowercase: false,
        strip: false,
    };
    let counts = count(predictions, references, words, max_order)?;
    let plus = f64::from(u8::from(smooth));
    let precisions: Vec<f64> = (counts.matches.iter().zip(&counts.totals))
        .map(|(matches, total)| (*matches as f64 + plus, *total as f64 + plus))
        .map(|(matches, total)| if total > 0.0 { matches / total } else { 0.0 })
        .collect();
    let (length, reference) = (counts.prediction_length, counts.shortest_length);
    let length_ratio = length as f64 / reference as f64;
    let brevity_penalty = match (length, reference) {
        (0, _) | (_, 0) => 0.0,
        _ if length_ratio > 1.0 => 1.0,
        _ => (1.0 - 1.0 / length_ratio).exp(),
    };
    let mean = if precisions.iter().all(|p| *p > 0.0) {
        let logs = precisions.iter().map(|p| 1.0 / max_order as f64 * p.ln());
        logs.sum::<f64>().exp()
    } else {
        0.0
    };
    Ok(HfBleuScore {
        bleu: mean * brevity_penalty,
        precisions,
        brevity_penalty,
        length_ratio,
        translation_length: length,
        reference_length: reference,
    })
}

/// The tokenizer and its options.
#[derive(Clone, Copy)]
struct Words {
    tokenizer: BleuTokenizer,
    lowercase: bool,
    /// Whether white space at the end is removed first.
    strip: bool,
}

impl Words {
    /// The words of a text, as ids.
    fn of(self, text: &str, ids: &mut Ids<Box<str>>) -> Vec<u32> {
        let lower;
        let text = if self.lowercase {
            lower = text.to_lowercase();
            &lower
        } else {
            text
        };
        let text = if self.strip {
            text.trim_end_matches(is_space)
        } else {
            text
        };
        let tokenized = self.tokenizer.tokenize(text);
        split(&tokenized).map(|word| ids.id(word.into())).collect()
    }
}

/// The counts of BLEU.
#[derive(Clone, Debug)]
struct Counts {
    matches: Vec<usize>,
    totals: Vec<usize>,
    prediction_length: usize,
    closest_length: usize,
    shortest_length: usize,
}

impl Counts {
    fn none(max_order: usize) -> Self {
        Self {
            matches: vec![0; max_order],
            totals: vec![0; max_order],
            prediction_length: 0,
            closest_length: 0,
            shortest_length: 0,
        }
    }

    fn add(mut self, other: &Self) -> Self {
        for (mine, theirs) in [
            (&mut self.matches, &other.matches),
            (&mut self.totals, &other.totals),
        ] {
            mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        }
        self.prediction_length += other.prediction_length;
        self.closest_length += other.closest_length;
        self.shortest_length += other.shortest_length;
        self
    }
}

fn count<P, R, S>(
    predictions: &[P],
    references: &[R],
    words: Words,
    max_order: usize,
) -> Result<Counts>
where
    P: AsRef<str> + Sync,
    R: AsRef<[S]> + Sync,
    S: AsRef<str>,
{
    each_has_a_reference(predictions, references)?;
    if max_order == 0 {
        return Err(Error::Input("max_order is 0: it must be at least 1".into()));
    }
    let none = || Counts::none(max_order);
    Ok((predictions.par_iter().zip(references).with_min_len(64))
        .map(|(prediction, references)| {
            count_pair(prediction.as_ref(), references.as_ref(), words, max_order)
        })
        .fold(none, |sum, pair| sum.add(&pair))
        .reduce(none, |a, b| a.add(&b)))
}

fn count_pair<S: AsRef<str>>(
    prediction: &str,
    references: &[S],
    words: Words,
    max_order: usize,
) -> Counts {
    let mut ids = Ids::new();
    let mut texts = vec![words.of(prediction, &mut ids)];
    texts.extend(references.iter().map(|r| words.of(r.as_ref(), &mut ids)));
    let length = texts[0].len();
    let lengths = texts[1..].iter().map(Vec::len);
    let closest = lengths
        .clone()
        .min_by_key(|len| (len.abs_diff(length), *len));
    let mut counts = Counts {
        prediction_length: length,
        closest_length: closest.unwrap_or(0),
        shortest_length: lengths.min().unwrap_or(0),
        ..Counts::none(max_order)
    };
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let mut ngrams = Ngrams::new(&texts);
    for order in 0..max_order.min(length) {
        if order > 0 {
            ngrams.lengthen(&texts);
        }
        let mut most = ngrams.counts(1);
        for reference in 2..texts.len() {
            let counts = ngrams.counts(reference);
            most.iter_mut()
                .zip(counts)
                .for_each(|(a, b)| *a = b.max(*a));
        }
        counts.matches[order] = matches(&ngrams.counts(0), &most);
        counts.totals[order] = ngrams.total(0);
    }
    counts
}

fn score(counts: &Counts, options: &BleuOptions, signature: String) -> BleuScore {
    let (length, reference) = (counts.prediction_length, counts.closest_length);
    let mut result = BleuScore {
        score: 0.0,
        counts: counts.matches.iter().map(|n| *n as f64).collect(),
        totals: counts.totals.iter().map(|n| *n as f64).collect(),
        precisions: vec![0.0; options.max_order],
        brevity_penalty: match length {
            _ if length >= reference => 1.0,
            0 => 0.0,
            _ => (1.0 - reference as f64 / length as f64).exp(),
        },
        prediction_length: length,
        reference_length: reference,
        signature,
    };
    if counts.matches.iter().all(|matches| *matches == 0) {
        return result;
    }
    let mut halves = 1.0;
    let mut orders = options.max_order;
    for n in 0..options.max_order {
        if let (BleuSmoothing::AddK(k), true) = (options.smoothing, n > 0) {
            result.counts[n] += k;
            result.totals[n] += k;
        }
        let (matches, total) = (result.counts[n], result.totals[n]);
        if total == 0.0 {
            break;
        }
        if options.effective_order {
            orders = n + 1;
        }
        result.precisions[n] = match options.smoothing {
            _ if matches != 0.0 => 100.0 * matches / total,
            BleuSmoothing::Exp => {
                halves *= 2.0;
                100.0 / (halves * total)
            }
            BleuSmoothing::Floor(value) => 100.0 * value / total,
            BleuSmoothing::None | BleuSmoothing::AddK(_) => 0.0,
        };
    }
    // The reference's logarithm of 0, which makes the score 0.
    let log = |p: &f64| if *p == 0.0 { -9_999_999_999.0 } else { p.ln() };
    let mean = result.precisions[..orders].iter().map(log).sum::<f64>() / orders as f64;
    result.score = result.brevity_penalty * mean.exp();
    result
}
