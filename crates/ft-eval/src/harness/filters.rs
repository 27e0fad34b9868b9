//! Filters: how answers are extracted from a model's texts before scoring.
//!
//! A pipeline processes the answers of all requests of a task. Several pipelines give several results
//! (`exact_match,strict-match` and `exact_match,flexible-extract`). Before `take_first` an answer is a list of
//! repeats, after it a single one. A text filter after `take_first` is an error; the reference would iterate over
//! the characters of the answer.

mod multi_choice_regex;

use std::sync::Arc;

use serde_json::{Map, Value};

use super::functions::{Doc, Response};
use super::python_regex::{Found, PythonRegex};
use super::python_value::strip;
use super::task_config::check_keys;
use super::task_file::Origin;
use crate::Result;

use multi_choice_regex::MultiChoiceRegex;

/// One entry of `filter_list`: a sequence of filters with a name.
#[derive(Clone, Debug)]
pub(super) struct FilterPipeline {
    pub(super) name: String,
    filters: Vec<Filter>,
}

#[derive(Clone)]
enum Filter {
    Regex(Arc<RegexFilter>),
    MultiChoiceRegex(Arc<MultiChoiceRegex>),
    RemoveWhitespace,
    Lowercase,
    Uppercase,
    Map {
        mapping: Map<String, Value>,
        default: Value,
    },
    TakeFirst,
    TakeFirstK(usize),
    MajorityVote,
}

const NAMES: &str = "regex, multi_choice_regex, remove_whitespace, lowercase, uppercase, map, \
                     take_first, take_first_k, majority_vote";

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// `regex`: the matches of a pattern.
struct RegexFilter {
    regex: PythonRegex,
    group_select: i64,
    fallback: String,
}

impl RegexFilter {
    fn apply(&self, text: &str) -> Result<String, String> {
        Ok(
            match select(&self.regex.find_all(text)?, self.group_select)? {
                None => self.fallback.clone(),
                Some(Found::Text(text)) => strip(text).to_string(),
                Some(Found::Groups(groups)) => {
                    match groups.iter().find(|group| !group.is_empty()) {
                        Some(group) => strip(group).to_string(),
                        None => strip(&self.fallback).to_string(),
                    }
                }
            },
        )
    }
}

/// The match with the index `group_select`. Negative numbers count from the end.
fn select(found: &[Found], group_select: i64) -> Result<Option<&Found>, String> {
    if found.is_empty() {
        return Ok(None);
    }
    let index = if group_select < 0 {
        group_select + found.len() as i64
    } else {
        group_select
    };
    usize::try_from(index)
        .ok()
        .and_then(|index| found.get(index))
        .map(Some)
        .ok_or_else(|| {
            format!(
                "group_select is {group_select}, but the pattern found {} matches",
                found.len()
            )
        })
}

impl FilterPipeline {
    /// The pipelines of a task. The default is the first repeat, under the name `none`.
    pub(super) fn list(entries: Option<&Value>, origin: &Origin) -> Result<Vec<FilterPipeline>> {
        let entries = match entries {
            None | Some(Value::Null) => {
                return Ok(vec![FilterPipeline {
                    name: "none".to_string(),
                    filters: vec![Filter::TakeFirst],
                }]);
            }
            Some(Value::Array(entries)) if !entries.is_empty() => entries,
            Some(_) => return Err(origin.invalid("'filter_list' has to be a list of pipelines")),
        };
        let mut pipelines = Vec::new();
        for entry in entries {
            let name = entry.get("name").and_then(Value::as_str);
            let filters = entry.get("filter").and_then(Value::as_array);
            let (Some(name), Some(filters)) = (name, filters) else {
                return Err(
                    origin.invalid("an entry of 'filter_list' has a 'name' and a list 'filter'")
                );
            };
            let filters = filters
                .iter()
                .map(|filter| Filter::new(filter, origin))
                .collect::<Result<_>>()?;
            pipelines.push(FilterPipeline {
                name: name.to_string(),
                filters,
            });
        }
        Ok(pipelines)
    }

    /// Filters the repeats of every request.
    pub(super) fn apply(
        &self,
        responses: Vec<Vec<Response>>,
        docs: &[&Doc],
    ) -> Result<Vec<Response>, String> {
        let mut responses: Vec<Response> = responses.into_iter().map(Response::Repeats).collect();
        for filter in &self.filters {
            responses = responses
                .into_iter()
                .zip(docs)
                .map(|(response, doc)| match response {
                    Response::Repeats(repeats) => filter.apply(repeats, doc),
                    _ => Err("there is only a single answer: \
                              put the filter before take_first"
                        .to_string()),
                })
                .collect::<Result<_, String>>()
                .map_err(|reason| {
                    format!("the filter {} of {:?}: {reason}", filter.name(), self.name)
                })?;
        }
        Ok(responses)
    }
}

impl Filter {
    fn new(filter: &Value, origin: &Origin) -> Result<Self> {
        let wrong = || {
            origin.invalid(format!(
                "a filter is a mapping with the key 'function', one of {NAMES}"
            ))
        };
        let mut settings = filter.as_object().ok_or_else(wrong)?.clone();
        let Some(Value::String(name)) = settings.shift_remove("function") else {
            return Err(wrong());
        };
        let prefix = format!("{name}.");
        let known: &[&str] = match name.as_str() {
            "regex" => &["regex_pattern", "group_select", "fallback"],
            "multi_choice_regex" => &[
                "regex_pattern",
                "group_select",
                "fallback",
                "ignore_case",
                "ignore_punctuation",
                "regexes_to_ignore",
            ],
            "map" => &["mapping_dict", "default_value"],
            "take_first_k" => &["k"],
            "remove_whitespace" | "lowercase" | "uppercase" | "take_first" | "majority_vote" => &[],
            _ => {
                return Err(origin.invalid(format!(
                    "the filter {name:?} is not supported; supported are {NAMES}"
                )));
            }
        };
        check_keys(&settings, known, origin, &prefix)?;
        Ok(match name.as_str() {
            "regex" => Filter::Regex(Arc::new(regex_filter(&settings, origin)?)),
            "multi_choice_regex" => {
                let regex = regex_filter(&settings, origin)?;
                Filter::MultiChoiceRegex(Arc::new(MultiChoiceRegex::new(regex, &settings, origin)?))
            }
            "remove_whitespace" => Filter::RemoveWhitespace,
            "lowercase" => Filter::Lowercase,
            "uppercase" => Filter::Uppercase,
            "take_first" => Filter::TakeFirst,
            "majority_vote" => Filter::MajorityVote,
            "take_first_k" => {
                let k = settings
                    .get("k")
                    .and_then(Value::as_u64)
                    .and_then(|k| usize::try_from(k).ok());
                let k =
                    k.ok_or_else(|| origin.invalid("'take_first_k.k' has to be a whole number"))?;
                Filter::TakeFirstK(k)
            }
            _ => {
                let mapping = match settings.get("mapping_dict") {
                    None | Some(Value::Null) => Map::new(),
                    Some(Value::Object(mapping)) => mapping.clone(),
                    Some(_) => return Err(origin.invalid("'map.mapping_dict' has to be a mapping")),
                };
                let default = settings
                    .get("default_value")
                    .cloned()
                    .unwrap_or(Value::Null);
                Filter::Map { mapping, default }
            }
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Filter::Regex(_) => "regex",
            Filter::MultiChoiceRegex(_) => "multi_choice_regex",
            Filter::RemoveWhitespace => "remove_whitespace",
            Filter::Lowercase => "lowercase",
            Filter::Uppercase => "uppercase",
            Filter::Map { .. } => "map",
            Filter::TakeFirst => "take_first",
            Filter::TakeFirstK(_) => "take_first_k",
            Filter::MajorityVote => "majority_vote",
        }
    }

    fn apply(&self, mut repeats: Vec<Response>, doc: &Doc) -> Result<Response, String> {
        let each_text = |filter: &dyn Fn(&str) -> Result<Response, String>| {
            let filtered = repeats.iter().map(|repeat| match repeat {
                Response::Text(text) => filter(text),
                other => Err(format!("{other:?} is not a text")),
            });
            filtered.collect::<Result<_, _>>().map(Response::Repeats)
        };
        match self {
            Filter::Regex(filter) => {
                // The reference treats other values as an empty text here.
                let filtered = repeats.iter().map(|repeat| match repeat {
                    Response::Text(text) => filter.apply(text),
                    _ => filter.apply(""),
                });
                let filtered = filtered.map(|text| text.map(Response::Text));
                filtered.collect::<Result<_, _>>().map(Response::Repeats)
            }
            Filter::MultiChoiceRegex(filter) => {
                let prepared = filter.prepare(doc)?;
                each_text(&|text| filter.apply(&prepared, text).map(Response::Text))
            }
            Filter::RemoveWhitespace => {
                each_text(&|text| Ok(Response::Text(strip(text).to_string())))
            }
            Filter::Lowercase => each_text(&|text| Ok(Response::Text(text.to_lowercase()))),
            Filter::Uppercase => each_text(&|text| Ok(Response::Text(text.to_uppercase()))),
            Filter::Map { mapping, default } => each_text(&|text| {
                Ok(match mapping.get(text).unwrap_or(default) {
                    Value::String(text) => Response::Text(text.clone()),
                    other => Response::Mapped(other.clone()),
                })
            }),
            Filter::TakeFirst if repeats.is_empty() => Err("there is no answer".to_string()),
            Filter::TakeFirst => Ok(repeats.swap_remove(0)),
            Filter::TakeFirstK(k) if repeats.len() < *k => Err(format!(
                "there are {} answers, not {k}: set 'repeats'",
                repeats.len()
            )),
            Filter::TakeFirstK(k) => {
                repeats.truncate(*k);
                Ok(Response::Repeats(repeats))
            }
            Filter::MajorityVote => {
                let count =
                    |repeat: &Response| repeats.iter().filter(|other| *other == repeat).count();
                let most = repeats
                    .iter()
                    .map(count)
                    .max()
                    .ok_or("there is no answer")?;
                let winner = repeats.iter().find(|repeat| count(repeat) == most);
                Ok(Response::Repeats(winner.into_iter().cloned().collect()))
            }
        }
    }
}

fn regex_filter(settings: &Map<String, Value>, origin: &Origin) -> Result<RegexFilter> {
    let text = |key: &str, default: &str| match settings.get(key) {
        None => Ok(default.to_string()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(origin.invalid(format!("'{key}' of a regex filter has to be a text"))),
    };
    let pattern = text("regex_pattern", r"#### (\-?[0-9\.\,]+)")?;
    let group_select = match settings.get("group_select") {
        None => 0,
        Some(value) => value.as_i64().ok_or_else(|| {
            origin.invalid("'group_select' of a regex filter has to be a whole number")
        })?,
    };
    Ok(RegexFilter {
        regex: PythonRegex::new(&pattern).map_err(|reason| origin.invalid(reason))?,
        group_select,
        fallback: text("fallback", "[invalid]")?,
    })
}
