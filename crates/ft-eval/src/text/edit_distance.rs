//! The edit distance of two lists, and the error rates of speech recognition, which are based on it.
//!
//! Levenshtein, "Binary codes capable of correcting deletions, insertions and reversals", 1966; the
//! table of Wagner and Fischer (1974), a row at a time. Distances equal rapidfuzz's, error rates
//! those of jiwer 4 with its default transforms (which `evaluate`'s `wer` and `cer` call).

use std::sync::OnceLock;

use regex::Regex;

use super::python_characters::is_space;
use crate::Result;

/// The Levenshtein distance of two lists. Time is the product of their lengths.
///
/// ```
/// use ft_eval::text::edit_distance;
///
/// assert_eq!(edit_distance(b"kitten", b"sitting"), 3);
/// assert_eq!(edit_distance(&["a", "b"], &["b"]), 1);
/// ```
pub fn edit_distance<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[start..], &b[start..]);
    let backwards = a.iter().rev().zip(b.iter().rev());
    let end = backwards.take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - end], &b[..b.len() - end]);
    // row[j] is the distance of the items of `a` so far and the first j items of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The Levenshtein distance of two texts in characters (Unicode scalar values).
pub fn char_edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    edit_distance(&a, &b)
}

/// The Levenshtein distance of two texts in words, which are separated by spaces as in [`word_error_rate`].
pub fn word_edit_distance(a: &str, b: &str) -> usize {
    edit_distance(&words(a), &words(b))
}

/// [`edit_distance`] divided by the length of the longer list, from 0 to 1; 0 for two empty lists.
pub fn normalized_edit_distance<T: PartialEq>(a: &[T], b: &[T]) -> f64 {
    edit_distance(a, b) as f64 / a.len().max(b.len()).max(1) as f64
}

/// Word error rate: the edits of all predictions in words, divided by the number of words of all references. It
/// may exceed 1.
///
/// Equals `jiwer.wer(references, predictions)`: white space at the ends is removed, two or more white space
/// characters are a space, and only spaces separate words (a single tab or line break does not). If no reference has
/// a word, it is the number of predicted words.
///
/// # Errors
/// No predictions; another number of predictions than of references.
///
/// ```
/// use ft_eval::text::word_error_rate;
///
/// assert_eq!(word_error_rate(&["the cat sit", "a"], &["the cat sat down", "a"])?, 2.0 / 5.0);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn word_error_rate<P, S>(predictions: &[P], references: &[S]) -> Result<f64>
where
    P: AsRef<str>,
    S: AsRef<str>,
{
    error_rate(predictions, references, words)
}

/// Character error rate: the edits of all predictions in characters, divided by the number of characters of all
/// references, without white space at the ends.
///
/// Equals `jiwer.cer(references, predictions)`. If no reference has a character, it is the number of predicted
/// characters.
///
/// # Errors
/// No predictions; another number of predictions than of references.
pub fn char_error_rate<P, S>(predictions: &[P], references: &[S]) -> Result<f64>
where
    P: AsRef<str>,
    S: AsRef<str>,
{
    error_rate(predictions, references, |text: &str| {
        text.trim_matches(is_space).chars().collect()
    })
}

fn error_rate<'a, P, S, T>(
    predictions: &'a [P],
    references: &'a [S],
    cut: impl Fn(&'a str) -> Vec<T>,
) -> Result<f64>
where
    P: AsRef<str>,
    S: AsRef<str>,
    T: PartialEq,
{
    super::not_empty(predictions.len())?;
    super::same_length(predictions.len(), references.len())?;
    let (mut edits, mut length) = (0, 0);
    for (prediction, reference) in predictions.iter().zip(references) {
        let reference = cut(reference.as_ref());
        edits += edit_distance(&reference, &cut(prediction.as_ref()));
        length += reference.len();
    }
    Ok(edits as f64 / length.max(1) as f64)
}

/// The words of jiwer, separated by a space, or by two or more white space characters.
fn words(text: &str) -> Vec<&str> {
    static GAP: OnceLock<Regex> = OnceLock::new();
    let gap = GAP.get_or_init(|| Regex::new(r"[\s\x1c-\x1f]{2,}| ").expect("a constant pattern"));
    let words = gap.split(text.trim_matches(is_space));
    words.filter(|word| !word.is_empty()).collect()
}
