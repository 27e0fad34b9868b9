//! `exact_match`: whether an answer equals the expected text after both are cleaned.
//!
//! The order is that of Hugging Face's evaluate and lm-evaluation-harness: matches of `regexes_to_ignore` are
//! removed, then case, ASCII punctuation and ASCII digits are ignored if the settings say so. NULs at the end are
//! ignored, as in numpy, with which the reference compares texts.

use std::sync::Arc;

use serde_json::Value;

use super::python_regex::PythonRegex;
use super::python_value::PyValue;
use super::task_config::as_bool;
use super::task_file::Origin;
use crate::Result;

/// What `exact_match` ignores.
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
    /// Reads the settings of a metric. Only `exact_match` has settings.
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
                    "{key:?} is not a setting of the metric {metric:?}; exact_match has regexes_to_ignore, \
                     ignore_case, ignore_punctuation and ignore_numbers"
                ))
            })?;
            *flag = as_bool(value).ok_or_else(|| {
                origin.invalid(format!("{key:?} of {metric} has to be true or false"))
            })?;
        }
        Ok(exact_match)
    }

    /// The cleaned texts of one array. A numpy array has the width of its longest text, and longer results are cut:
    /// the lower case of `İ` has two characters.
    fn clean(&self, texts: &[&str]) -> Result<Vec<String>, String> {
        let mut texts: Vec<String> = texts.iter().map(|text| (*text).to_string()).collect();
        for regex in &self.regexes_to_ignore {
            for text in &mut texts {
                *text = regex.sub("", text, 0)?;
            }
        }
        let width = texts.iter().map(|text| text.chars().count()).max();
        for text in &mut texts {
            drop_nuls(text);
            if self.ignore_case {
                *text = text
                    .to_lowercase()
                    .chars()
                    .take(width.unwrap_or(0))
                    .collect();
            }
            if self.ignore_punctuation {
                text.retain(|c| !c.is_ascii_punctuation());
            }
            if self.ignore_numbers {
                text.retain(|c| !c.is_ascii_digit());
            }
            drop_nuls(text);
        }
        Ok(texts)
    }

    /// The number of equal pairs of prediction and reference. Values that are not texts cannot be cleaned.
    pub(super) fn count_same(
        &self,
        predictions: &[PyValue],
        references: &[PyValue],
    ) -> Result<usize, String> {
        if let (Some(predictions), Some(references)) = (texts(predictions), texts(references)) {
            let references = self.clean(&references)?;
            let predictions = self.clean(&predictions)?;
            return Ok(count_pairs(&predictions, &references, |a, b| a == b));
        }
        if self.ignore_case
            || self.ignore_punctuation
            || self.ignore_numbers
            || !self.regexes_to_ignore.is_empty()
        {
            return Err(format!(
                "exact_match cannot clean {} and {}: its settings are for texts",
                PyValue::List(predictions.to_vec()).repr(),
                PyValue::List(references.to_vec()).repr()
            ));
        }
        Ok(count_pairs(predictions, references, same))
    }
}

fn texts(values: &[PyValue]) -> Option<Vec<&str>> {
    values
        .iter()
        .map(|value| match value {
            PyValue::Str(text) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

/// numpy removes NULs at the end.
fn drop_nuls(text: &mut String) {
    text.truncate(text.trim_end_matches('\0').len());
}

fn count_pairs<T>(a: &[T], b: &[T], same: impl Fn(&T, &T) -> bool) -> usize {
    a.iter()
        .map(|a| b.iter().filter(|b| same(a, b)).count())
        .sum()
}

fn same(a: &PyValue, b: &PyValue) -> bool {
    match (a, b) {
        (PyValue::Str(a), PyValue::Str(b)) => a.trim_end_matches('\0') == b.trim_end_matches('\0'),
        (PyValue::Int(a), PyValue::Float(b)) | (PyValue::Float(b), PyValue::Int(a)) => {
            *a as f64 == *b
        }
        _ => a == b,
    }
}
