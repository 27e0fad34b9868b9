//! Winogrande: the two words for the gap give two prompts, whose continuation is the text after the gap.

use serde_json::{Value, json};

use super::text_of;
use crate::harness::functions::{Doc, Function, FunctionRegistry, FunctionResult};
use crate::harness::python_value::strip;

pub(super) fn register(registry: &mut FunctionRegistry) {
    for (name, function) in [
        ("doc_to_text", doc_to_text as fn(&Doc) -> _),
        ("doc_to_choice", doc_to_choice),
        ("doc_to_target", doc_to_target),
    ] {
        registry.insert(
            format!("winogrande/preprocess_winogrande.{name}"),
            Function::Doc(function),
        );
    }
}

/// The index of the correct prompt.
fn doc_to_text(doc: &Doc) -> FunctionResult<Value> {
    match doc["answer"].as_str() {
        Some("1") => Ok(json!(0)),
        Some("2") => Ok(json!(1)),
        _ => Err(format!("the answer is {}, not \"1\" or \"2\"", doc["answer"]).into()),
    }
}

/// The prompts: the sentence up to the gap, followed by either word.
fn doc_to_choice(doc: &Doc) -> FunctionResult<Value> {
    let (before, _) = at_gap(doc)?;
    let prompt = |option| Ok(format!("{before}{}", text_of(doc, option)?));
    let prompts: Vec<String> = ["option1", "option2"]
        .into_iter()
        .map(prompt)
        .collect::<FunctionResult<_>>()?;
    Ok(json!(prompts))
}

/// The text after the gap.
fn doc_to_target(doc: &Doc) -> FunctionResult<Value> {
    let (_, after) = at_gap(doc)?;
    Ok(json!(strip(after)))
}

fn at_gap(doc: &Doc) -> FunctionResult<(&str, &str)> {
    let sentence = text_of(doc, "sentence")?;
    sentence
        .split_once('_')
        .ok_or_else(|| format!("the sentence {sentence:?} has no gap \"_\"").into())
}
