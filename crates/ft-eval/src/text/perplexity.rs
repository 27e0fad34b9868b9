//! Perplexity from summed log-likelihoods.
//!
//! With the summed natural log-likelihood L of all texts and n units, perplexity is exp(−L/n). For tokens it depends on
//! the tokenizer; for words or bytes, models with different tokenizers can be compared. Bits per byte are
//! −L / (bytes·ln 2).
//!
//! Equals `weighted_perplexity` and `bits_per_byte` of lm-evaluation-harness 0.4 (`word_perplexity`,
//! `byte_perplexity`, `bits_per_byte`), which sum over documents before they divide.

use super::python_characters::is_space;

/// exp(−`log_likelihood` / `count`) for a count of tokens, words ([`count_words`]) or bytes (`str::len`). Infinite on
/// overflow, where Python raises an exception; NaN for a count of 0.
///
/// ```
/// use ft_eval::text::perplexity;
///
/// // Four tokens, each with probability 1/8.
/// assert!((perplexity(4.0 * 0.125f64.ln(), 4) - 8.0).abs() < 1e-12);
/// ```
pub fn perplexity(log_likelihood: f64, count: usize) -> f64 {
    if count == 0 {
        return f64::NAN;
    }
    (-log_likelihood / count as f64).exp()
}

/// −`log_likelihood` / (`bytes`·ln 2). NaN for no bytes.
///
/// ```
/// use ft_eval::text::bits_per_byte;
///
/// assert_eq!(bits_per_byte(2.0 * 0.5f64.ln(), 2), 1.0);
/// ```
pub fn bits_per_byte(log_likelihood: f64, bytes: usize) -> f64 {
    if bytes == 0 {
        return f64::NAN;
    }
    -log_likelihood / bytes as f64 / std::f64::consts::LN_2
}

/// The number of words of a text for `word_perplexity` in lm-evaluation-harness: the pieces between runs of white space,
/// including an empty one if the text begins or ends with such a run.
///
/// ```
/// use ft_eval::text::count_words;
///
/// assert_eq!(count_words("two words"), 2);
/// assert_eq!(count_words(" two words\n"), 4);
/// ```
pub fn count_words(text: &str) -> usize {
    let mut previous = false;
    let runs = text.chars().filter(|c| {
        let starts = is_space(*c) && !previous;
        previous = is_space(*c);
        starts
    });
    runs.count() + 1
}
