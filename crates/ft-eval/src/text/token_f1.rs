//! The comparison of answers in SQuAD: by shared words after normalisation.
//!
//! Rajpurkar et al., "SQuAD: 100,000+ questions for machine comprehension of text", EMNLP 2016,
//! section 6.1, as in the official scripts.

use std::collections::HashMap;

use super::python_characters::{is_word, split};
use crate::{Error, Result};

/// An answer in lower case, without ASCII punctuation, without the words a, an and the, and with
/// one space between words.
///
/// Equals `normalize_answer` of the official SQuAD scripts. There a mark ends a word, since Python's `\b` does not
/// treat marks as part of words: the article "a" of a decomposed "á" is removed.
///
/// ```
/// use ft_eval::text::normalize_answer;
///
/// assert_eq!(normalize_answer("The U.S.  of an A."), "us of");
/// ```
pub fn normalize_answer(answer: &str) -> String {
    let text = answer.to_lowercase();
    let text = text.replace(|c: char| c.is_ascii_punctuation(), "");
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let in_word = is_word(first);
        let end = rest.find(|c| is_word(c) != in_word).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        kept.push_str(if matches!(run, "a" | "an" | "the") {
            " "
        } else {
            run
        });
        rest = after;
    }
    split(&kept).collect::<Vec<_>>().join(" ")
}

/// F1 of the words of a prediction and a reference after [`normalize_answer`]: with c common words, counted as often as
/// they are in both, 2·P·R / (P + R) with P = c / predicted and R = c / reference, from 0 to 1.
///
/// Equals `f1_score` of the SQuAD 1.1 script: 0 without common words, also for two answers without words. (In SQuAD 2.0
/// these score 1; see [`squad_v2`](super::squad_v2).)
///
/// ```
/// use ft_eval::text::token_f1;
///
/// // "big cat" and "cat": P = 1/2, R = 1.
/// assert!((token_f1("the big cat", "A cat!") - 2.0 / 3.0).abs() < 1e-12);
/// ```
pub fn token_f1(prediction: &str, reference: &str) -> f64 {
    normalized_f1(&normalize_answer(prediction), &normalize_answer(reference))
}

/// The highest [`token_f1`] over several references.
///
/// # Errors
/// No reference.
pub fn token_f1_multi<S: AsRef<str>>(prediction: &str, references: &[S]) -> Result<f64> {
    let prediction = normalize_answer(prediction);
    references
        .iter()
        .map(|reference| normalized_f1(&prediction, &normalize_answer(reference.as_ref())))
        .reduce(f64::max)
        .ok_or_else(|| Error::Input("no reference: give at least one".into()))
}

/// The mean of [`token_f1_multi`] over the predictions.
///
/// # Errors
/// No predictions; another number of predictions than of lists of references; an empty list.
pub fn corpus_token_f1<P, R, S>(predictions: &[P], references: &[R]) -> Result<f64>
where
    P: AsRef<str>,
    R: AsRef<[S]>,
    S: AsRef<str>,
{
    super::mean_of_pairs(predictions, references, token_f1_multi)
}

/// F1 of two normalised answers.
pub(crate) fn normalized_f1(prediction: &str, reference: &str) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    let (mut predicted, mut expected, mut common) = (0usize, 0usize, 0usize);
    for word in split(reference) {
        *left.entry(word).or_default() += 1;
        expected += 1;
    }
    for word in split(prediction) {
        predicted += 1;
        if let Some(left) = left.get_mut(word).filter(|left| **left > 0) {
            *left -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let precision = common as f64 / predicted as f64;
    let recall = common as f64 / expected as f64;
    2.0 * precision * recall / (precision + recall)
}
