//! The share of predictions that equal a reference.
//!
//! As `exact_match` of `evaluate` and of lm-evaluation-harness 0.4, from 0 to 1. These have one reference for each
//! prediction; here a prediction that equals one of several references is correct. Two things differ from NumPy, which
//! they use for the comparison: a NUL at the end of a text counts here, and lower-casing may lengthen a text (NumPy cuts
//! it to its array's width). Two texts that are empty after the removal are equal, as in the harness; in `evaluate`'s
//! current script they must be equal before it.

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What the comparison ignores, in this order. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExactMatchOptions {
    /// Matches of these regular expressions, one after the other. The syntax is that of the crate `regex`: there is no
    /// look-around and there are no back-references, and `$` matches only at the end.
    pub regexes_to_ignore: Vec<String>,
    /// Case.
    pub ignore_case: bool,
    /// ASCII punctuation.
    pub ignore_punctuation: bool,
    /// ASCII digits.
    pub ignore_numbers: bool,
}

/// The share of predictions that equal one of their references, character by character.
///
/// # Errors
/// No predictions; another number of predictions than of lists of references; an empty list.
///
/// ```
/// use ft_eval::text::exact_match;
///
/// assert_eq!(exact_match(&["yes", "No"], &[["yes"], ["no"]])?, 0.5);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn exact_match<P, R, S>(predictions: &[P], references: &[R]) -> Result<f64>
where
    P: AsRef<str>,
    R: AsRef<[S]>,
    S: AsRef<str>,
{
    exact_match_with(predictions, references, &ExactMatchOptions::default())
}

/// The share of predictions that equal one of their references, apart from the differences that `options` ignore.
///
/// # Errors
/// As [`exact_match`]; an invalid regular expression.
pub fn exact_match_with<P, R, S>(
    predictions: &[P],
    references: &[R],
    options: &ExactMatchOptions,
) -> Result<f64>
where
    P: AsRef<str>,
    R: AsRef<[S]>,
    S: AsRef<str>,
{
    let regexes = options.regexes_to_ignore.iter().map(|pattern| {
        Regex::new(pattern)
            .map_err(|error| Error::Settings(format!("regexes_to_ignore: {pattern:?}: {error}")))
    });
    let regexes = regexes.collect::<Result<Vec<_>>>()?;
    super::mean_of_pairs(predictions, references, |prediction, references: &[S]| {
        if references.is_empty() {
            return Err(Error::Input("no reference: give at least one".into()));
        }
        let prediction = strip(prediction, &regexes, options);
        let mut references = references.iter();
        let equal = references.any(|r| strip(r.as_ref(), &regexes, options) == prediction);
        Ok(f64::from(u8::from(equal)))
    })
}

fn strip(text: &str, regexes: &[Regex], options: &ExactMatchOptions) -> String {
    let mut text = text.to_owned();
    for regex in regexes {
        text = regex.replace_all(&text, "").into_owned();
    }
    if options.ignore_case {
        text = text.to_lowercase();
    }
    if options.ignore_punctuation {
        text.retain(|c| !c.is_ascii_punctuation());
    }
    if options.ignore_numbers {
        text.retain(|c| !c.is_ascii_digit());
    }
    text
}
