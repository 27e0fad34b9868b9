//! `exact_match`: whether an answer is the expected text, after both have been cleaned.
//!
//! In this order, as in Hugging Face's evaluate and lm-evaluation-harness: what the patterns of
//! `regexes_to_ignore` match is taken out, then case, ASCII punctuation and ASCII digits are ignored
//! if asked for. Like numpy, which compares the texts there, NULs at the end do not count.

use std::sync::Arc;

use serde_json::Value;

use super::python_regex::PythonRegex;
use super::python_value::PyValue;
use super::task_config::as_bool;
use super::task_file::Origin;
use crate::Result;

/// What `exact_match` does not look at.
#[derive(Clone, Default)]
pub(super) struct ExactMatch {
    regexes_to_ignore: Vec<Arc<PythonRegex>>,
    ignore_case: bool,
    ignore_punctuation: bool,
    ignore_numbers: bool,
}

impl std::fmt::Debug for ExactMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExactMatch")
            .field("regexes_to_ignore", &self.regexes_to_ignore.len())
            .field("ignore_case", &self.ignore_case)
            .field("ignore_punctuation", &self.ignore_punctuation)
            .field("ignore_numbers", &self.ignore_numbers)
            .finish()
    }
}

impl ExactMatch {
    /// Reads the settings of a metric; only `exact_match` has any.
    pub(super) fn new<'a>(
        metric: &str,
        settings: impl Iterator<Item = (&'a String, &'a Value)>,
        origin: &Origin,
    ) -> Result<Self> {
        let mut exact_match = ExactMatch::default();
        for (key, value) in settings {
            let flag = match key.as_str() {
                _ if metric != "exact_match" => None,
                "regexes_to_ignore" => {
                    let wrong = || {
                        origin.invalid(
                            "'regexes_to_ignore' of exact_match has to be a list of patterns",
                        )
                    };
                    exact_match.regexes_to_ignore = value
                        .as_array()
                        .ok_or_else(wrong)?
                        .iter()
                        .map(|pattern| {
                            let pattern = pattern.as_str().ok_or_else(wrong)?;
                            let regex = PythonRegex::new(pattern).map_err(|reason| {
                                origin.invalid(format!("'regexes_to_ignore': {reason}"))
                            })?;
                            Ok(Arc::new(regex))
                        })
                        .collect::<Result<_>>()?;
                    continue;
                }
                "ignore_case" => Some(&mut exact_match.ignore_case),
                "ignore_punctuation" => Some(&mut exact_match.ignore_punctuation),
                "ignore_numbers" => Some(&mut exact_match.ignore_numbers),
                _ => None,
            };
            let flag = flag.ok_or_else(|| {
                origin.invalid(format!(
                    "{key:?} is no setting of the metric {metric:?}; exact_match has regexes_to_ignore, \
                     ignore_case, ignore_punctuation and ignore_numbers"
                ))
            })?;
            *flag = as_bool(value).ok_or_else(|| {
                origin.invalid(format!("{key:?} of {metric} has to be true or false"))
            })?;
        }
        Ok(exact_match)
    }

    fn clean(&self, text: &str) -> Result<String, String> {
        let mut text = text.to_string();
        for regex in &self.regexes_to_ignore {
            text = regex.sub("", &text, 0)?;
        }
        // numpy keeps no NULs at the end.
        text.truncate(text.trim_end_matches('\0').len());
        if self.ignore_case {
            text = text.to_lowercase();
        }
        if self.ignore_punctuation {
            text.retain(|c| !c.is_ascii_punctuation());
        }
        if self.ignore_numbers {
            text.retain(|c| !c.is_ascii_digit());
        }
        text.truncate(text.trim_end_matches('\0').len());
        Ok(text)
    }

    /// Whether two values are the same; values that are not texts cannot be cleaned.
    pub(super) fn same(&self, prediction: &PyValue, reference: &PyValue) -> Result<bool, String> {
        match (prediction, reference) {
            (PyValue::Str(prediction), PyValue::Str(reference)) => {
                Ok(self.clean(prediction)? == self.clean(reference)?)
            }
            _ if self.ignore_case
                || self.ignore_punctuation
                || self.ignore_numbers
                || !self.regexes_to_ignore.is_empty() =>
            {
                Err(format!(
                    "exact_match cannot clean {} and {}: its settings are for texts",
                    prediction.repr(),
                    reference.repr()
                ))
            }
            (PyValue::Int(a), PyValue::Float(b)) | (PyValue::Float(b), PyValue::Int(a)) => {
                Ok(*a as f64 == *b)
            }
            _ => Ok(prediction == reference),
        }
    }
}
