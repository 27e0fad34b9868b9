//! The share of predictions that equal a reference.
//!
//! As `exact_match` of `evaluate` and of lm-evaluation-harness 0.4 compute it, from 0 to 1. Those have
//! one reference for a prediction; here a prediction that equals any of several is right. Two things
//! differ from NumPy, which they compare with: a NUL at the end of a text counts here, and
//! lower-casing may lengthen a text (NumPy cuts it to its array's width). Two texts of which nothing is
//! left are equal, as in the harness; `evaluate`'s current script asks that they were equal before.

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What is taken away before texts are compared, in this order. By default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExactMatchOptions {
    /// Whatever one of these regular expressions matches, one after the other. They are those of the crate
    /// `regex`: no look-around and no references to groups, and `$` stands at the very end only.
    pub regexes_to_ignore: Vec<String>,
    /// The difference of upper and lower case.
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

/// The share of predictions that equal one of their references, after what `options` say.
///
/// # Errors
/// As [`exact_match`]; a regular expression that is none.
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
