//! The checkers, by the names of the instructions.

use serde_json::Value;

use super::language::{is_lower, is_upper, speaks};
use super::sentences::count_sentences;
use crate::harness::functions::{FunctionError, FunctionResult};
use crate::harness::python_regex::PythonRegex;
use crate::harness::python_value::strip;
use crate::text::word_tokenize;

/// Whether a reply follows an instruction.
pub(super) fn follows(id: &str, arguments: &Value, reply: &str) -> FunctionResult<bool> {
    let arguments = Arguments {
        id,
        values: arguments,
    };
    Ok(match id {
        "keywords:existence" => {
            let keywords = arguments.texts("keywords")?;
            all(&keywords, |keyword| {
                Ok(count(&format!("(?i){keyword}"), reply)? > 0)
            })?
        }
        "keywords:frequency" => {
            let keyword = arguments.text("keyword")?;
            let found = count(&format!("(?i){}", strip(&keyword)), reply)?;
            arguments.compare(found, "frequency", "relation")?
        }
        "keywords:forbidden_words" => {
            let words = arguments.texts("forbidden_words")?;
            all(&words, |word| {
                Ok(count(&format!(r"(?i)\b{word}\b"), reply)? == 0)
            })?
        }
        "keywords:letter_frequency" => {
            let letter = arguments.text("letter")?.to_lowercase();
            let found = reply.to_lowercase().matches(strip(&letter)).count();
            arguments.compare(found, "let_frequency", "let_relation")?
        }
        "language:response_language" => speaks(reply, &arguments.text("language")?),
        "length_constraints:number_sentences" => {
            arguments.compare(count_sentences(reply), "num_sentences", "relation")?
        }
        "length_constraints:number_paragraphs" => {
            paragraphs(reply)? == Some(arguments.number("num_paragraphs")?)
        }
        "length_constraints:number_words" => {
            arguments.compare(count(r"\w+", reply)?, "num_words", "relation")?
        }
        "length_constraints:nth_paragraph_first_word" => first_word(&arguments, reply)?,
        "detectable_content:number_placeholders" => {
            count(r"\[.*?\]", reply)? >= arguments.number("num_placeholders")?
        }
        "detectable_content:postscript" => {
            let marker = arguments.text("postscript_marker")?;
            let pattern = match strip(&marker) {
                "P.P.S" => r"(?m)\s*p\.\s?p\.\s?s.*$".to_string(),
                "P.S." => r"(?m)\s*p\.\s?s\..*$".to_string(),
                other => format!(r"(?m)\s*{}.*$", other.to_lowercase()),
            };
            count(&pattern, &reply.to_lowercase())? > 0
        }
        "detectable_format:number_bullet_lists" => {
            let found = count(r"(?m)^\s*\*[^\*].*$", reply)? + count(r"(?m)^\s*-.*$", reply)?;
            found == arguments.number("num_bullets")?
        }
        "detectable_format:constrained_response" => ["yes", "no", "maybe"]
            .iter()
            .any(|word| reply.contains(&format!("My answer is {word}."))),
        "detectable_format:number_highlighted_sections" => {
            highlights(reply)? >= arguments.number("num_highlights")?
        }
        "detectable_format:multiple_sections" => {
            let mark = arguments.text("section_spliter")?;
            let found = count(&format!(r"\s?{}\s?\d+\s?", strip(&mark)), reply)?;
            found >= arguments.number("num_sections")?
        }
        "detectable_format:json_format" => is_json(reply),
        "detectable_format:title" => {
            let titles = matches(r"<<[^\n]+>>", reply)?;
            let inside = |title: &str| {
                let title = title.trim_start_matches('<').trim_end_matches('>');
                !strip(title).is_empty()
            };
            titles.iter().any(|title| inside(title))
        }
        "combination:two_responses" => two_responses(reply),
        "combination:repeat_prompt" => {
            let prompt = arguments.text("prompt_to_repeat")?.to_lowercase();
            strip(reply).to_lowercase().starts_with(strip(&prompt))
        }
        "startend:end_checker" => {
            let end = arguments.text("end_phrase")?.to_lowercase();
            let reply = strip(reply).trim_matches('"').to_lowercase();
            reply.ends_with(strip(&end))
        }
        "startend:quotation" => {
            let reply = strip(reply);
            reply.chars().count() > 1 && reply.starts_with('"') && reply.ends_with('"')
        }
        "change_case:capital_word_frequency" => {
            let words = word_tokenize(reply);
            let found = words.iter().filter(|word| is_upper(word)).count();
            arguments.compare(found, "capital_frequency", "capital_relation")?
        }
        "change_case:english_capital" => is_upper(reply) && speaks(reply, "en"),
        "change_case:english_lowercase" => is_lower(reply) && speaks(reply, "en"),
        "punctuation:no_comma" => !reply.contains(','),
        _ => return Err(format!("the instruction {id:?} is unknown").into()),
    })
}

/// The arguments of an instruction.
struct Arguments<'a> {
    id: &'a str,
    values: &'a Value,
}

impl Arguments<'_> {
    fn missing(&self, name: &str) -> FunctionError {
        let id = self.id;
        FunctionError::from(format!(
            "the argument {name} of the instruction {id} is missing or invalid"
        ))
    }

    fn text(&self, name: &str) -> FunctionResult<String> {
        let text = self.values[name].as_str().filter(|text| !text.is_empty());
        text.map(str::to_string).ok_or_else(|| self.missing(name))
    }

    fn texts(&self, name: &str) -> FunctionResult<Vec<String>> {
        let list = self.values[name].as_array().filter(|list| !list.is_empty());
        let texts = list.and_then(|list| {
            list.iter()
                .map(|text| text.as_str().map(str::to_string))
                .collect()
        });
        texts.ok_or_else(|| self.missing(name))
    }

    fn number(&self, name: &str) -> FunctionResult<usize> {
        let number = self.values[name].as_f64().filter(|number| *number >= 0.0);
        number
            .map(|number| number as usize)
            .ok_or_else(|| self.missing(name))
    }

    /// Compares a count with a number, by "less than" or "at least".
    fn compare(&self, found: usize, number: &str, relation: &str) -> FunctionResult<bool> {
        let number = self.number(number)?;
        match self.text(relation)?.as_str() {
            "less than" => Ok(found < number),
            "at least" => Ok(found >= number),
            _ => Err(self.missing(relation)),
        }
    }
}

fn all(texts: &[String], holds: impl Fn(&str) -> FunctionResult<bool>) -> FunctionResult<bool> {
    for text in texts {
        if !holds(text)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn count(pattern: &str, text: &str) -> FunctionResult<usize> {
    Ok(PythonRegex::new(pattern)?.find_all(text)?.len())
}

fn matches(pattern: &str, text: &str) -> FunctionResult<Vec<String>> {
    // The whole match is the only group.
    let found = PythonRegex::new(&format!("({pattern})"))?.find_all(text)?;
    Ok(found
        .into_iter()
        .filter_map(|found| match found {
            crate::harness::python_regex::Found::Text(text) => Some(text),
            crate::harness::python_regex::Found::Groups(groups) => groups.into_iter().next(),
        })
        .collect())
}

/// Parts between `***`; `None` if an inner one is empty.
fn paragraphs(reply: &str) -> FunctionResult<Option<usize>> {
    let marked = PythonRegex::new(r"\s?\*\*\*\s?")?.sub("\u{0}", reply, 0)?;
    let parts: Vec<&str> = marked.split('\u{0}').collect();
    let empty = |part: &&str| strip(part).is_empty();
    let mut count = parts.len();
    for (i, part) in parts.iter().enumerate() {
        if empty(part) {
            if i > 0 && i + 1 < parts.len() {
                return Ok(None);
            }
            count -= 1;
        }
    }
    Ok(Some(count))
}

fn first_word(arguments: &Arguments<'_>, reply: &str) -> FunctionResult<bool> {
    let wanted = arguments.number("num_paragraphs")?;
    let nth = arguments.number("nth_paragraph")?;
    let first = arguments.text("first_word")?.to_lowercase();
    let parts: Vec<&str> = reply.split("\n\n").collect();
    let count = parts.iter().filter(|part| !strip(part).is_empty()).count();
    if nth == 0 || nth > count || nth > parts.len() {
        return Ok(false);
    }
    let paragraph = strip(parts[nth - 1]);
    let Some(word) = crate::text::python_characters::split(paragraph).next() else {
        return Ok(false);
    };
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let stops = ['.', ',', '?', '!', '\'', '"'];
    let word: String = word.chars().take_while(|c| !stops.contains(c)).collect();
    Ok(count == wanted && word.to_lowercase() == first)
}

fn highlights(reply: &str) -> FunctionResult<usize> {
    let single = matches(r"\*[^\n\*]*\*", reply)?;
    let double = matches(r"\*\*[^\n\*]*\*\*", reply)?;
    let single = single
        .iter()
        .filter(|text| !strip(text.trim_matches('*')).is_empty());
    let double = double.iter().filter(|text| {
        let text = text.strip_prefix("**").unwrap_or(text);
        !strip(text.strip_suffix("**").unwrap_or(text)).is_empty()
    });
    Ok(single.count() + double.count())
}

/// Whether a text, without a fence around it, is JSON for Python, which also accepts NaN and Infinity.
fn is_json(reply: &str) -> bool {
    let mut text = strip(reply);
    for fence in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(fence).unwrap_or(text);
    }
    let text = strip(text.strip_suffix("```").unwrap_or(text));
    serde_json::from_str::<Value>(text).is_ok() || matches!(text, "NaN" | "Infinity" | "-Infinity")
}

/// Two different texts with `******` between them.
fn two_responses(reply: &str) -> bool {
    let parts: Vec<&str> = reply.split("******").map(strip).collect();
    let inner_empty = parts
        .iter()
        .enumerate()
        .any(|(i, part)| part.is_empty() && i > 0 && i + 1 < parts.len());
    let given: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
    !inner_empty && given.len() == 2 && given[0] != given[1]
}
