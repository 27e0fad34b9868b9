//! `multi_choice_regex`: the choice that an answer names.
//!
//! The filter searches for the pattern, then for the texts of the choices, longest first, then for a letter after a colon.
//! The last two give `(A)`, `(B)`, ...

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::{RegexFilter, select};
use crate::Result;
use crate::harness::functions::Doc;
use crate::harness::python_regex::{Found, PythonRegex, escape};
use crate::harness::python_value::strip;
use crate::harness::task_config::as_bool;
use crate::harness::task_file::Origin;

pub(super) struct MultiChoiceRegex {
    regex: RegexFilter,
    ignore_case: bool,
    ignore_punctuation: bool,
    regexes_to_ignore: Vec<PythonRegex>,
}

/// The patterns for the choices of one document.
pub(super) struct Prepared {
    by_text: PythonRegex,
    letters: Vec<(String, String)>,
    by_letter: PythonRegex,
}

impl MultiChoiceRegex {
    pub(super) fn new(
        regex: RegexFilter,
        settings: &Map<String, Value>,
        origin: &Origin,
    ) -> Result<Self> {
        let flag = |key: &str| match settings.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => as_bool(value).ok_or_else(|| {
                origin.invalid(format!(
                    "'{key}' of multi_choice_regex has to be true or false"
                ))
            }),
        };
        let wrong = || {
            origin.invalid("'regexes_to_ignore' of multi_choice_regex has to be a list of patterns")
        };
        let regexes_to_ignore = match settings.get("regexes_to_ignore") {
            None | Some(Value::Null) => Vec::new(),
            Some(patterns) => patterns
                .as_array()
                .ok_or_else(wrong)?
                .iter()
                .map(|pattern| {
                    let pattern = pattern.as_str().ok_or_else(wrong)?;
                    PythonRegex::new(pattern).map_err(|reason| origin.invalid(reason))
                })
                .collect::<Result<_>>()?,
        };
        Ok(Self {
            ignore_case: flag("ignore_case")?,
            ignore_punctuation: flag("ignore_punctuation")?,
            regexes_to_ignore,
            regex,
        })
    }

    fn clean(&self, text: &str) -> Result<String, String> {
        static PUNCTUATION: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"\p{P}").expect("the pattern is right"));
        let mut text = text.to_string();
        for regex in &self.regexes_to_ignore {
            text = regex.sub("", &text, 0)?;
        }
        if self.ignore_case {
            text = text.to_lowercase();
        }
        if self.ignore_punctuation {
            text = PUNCTUATION.replace_all(&text, "").into_owned();
        }
        Ok(text)
    }

    pub(super) fn prepare(&self, doc: &Doc) -> Result<Prepared, String> {
        let choices = doc
            .get("choices")
            .and_then(Value::as_array)
            .ok_or("the documents need a field 'choices' with a list of texts")?;
        let (mut texts, mut alternatives, mut letters) = (Vec::new(), Vec::new(), Vec::new());
        for (letter, choice) in ('A'..).zip(choices) {
            let choice = choice
                .as_str()
                .ok_or("the field 'choices' has to be a list of texts")?;
            let text = self.clean(strip(choice))?;
            texts.push(escape(&text));
            // A later choice with the same text replaces the earlier one, as in a dictionary.
            letters.retain(|(known, _): &(String, String)| *known != text);
            letters.push((text, format!("({letter})")));
            alternatives.push(letter.to_string());
        }
        texts.sort_by_key(|text| std::cmp::Reverse(text.chars().count()));
        Ok(Prepared {
            by_text: PythonRegex::new(&texts.join("|"))?,
            letters,
            by_letter: PythonRegex::new(&format!(r":[\s]*({})", alternatives.join("|")))?,
        })
    }

    pub(super) fn apply(&self, prepared: &Prepared, answer: &str) -> Result<String, String> {
        let find = |regex: &PythonRegex, text: &str| -> Result<String, String> {
            let found = regex.find_all(text)?;
            Ok(match select(&found, self.regex.group_select)? {
                None => String::new(),
                Some(Found::Text(text)) => strip(text).to_string(),
                Some(Found::Groups(groups)) => groups
                    .iter()
                    .find(|group| !group.is_empty())
                    .map_or("", |group| strip(group))
                    .to_string(),
            })
        };
        let mut found = find(&self.regex.regex, answer)?;
        if found.is_empty() {
            found = find(&prepared.by_text, &self.clean(answer)?)?;
            if let Some((_, letter)) = prepared.letters.iter().find(|(text, _)| *text == found)
                && !found.is_empty()
            {
                found = letter.clone();
            }
        }
        if found.is_empty() {
            found = find(&prepared.by_letter, answer)?;
            if !found.is_empty() {
                found = format!("({found})");
            }
        }
        Ok(if found.is_empty() {
            self.regex.fallback.clone()
        } else {
            found
        })
    }
}
