//! LogiQA: a passage, a question and four choices with letters before them.

use serde_json::{Value, json};

use super::text_of;
use crate::harness::functions::{Doc, Function, FunctionRegistry, FunctionResult};
use crate::harness::python_value::strip;

pub(super) fn register(registry: &mut FunctionRegistry) {
    for (name, function) in [
        ("doc_to_text", doc_to_text as fn(&Doc) -> _),
        ("doc_to_target", doc_to_target),
    ] {
        registry.insert(
            format!("logiqa/utils_logiqa.{name}"),
            Function::Doc(function),
        );
    }
}

fn doc_to_text(doc: &Doc) -> FunctionResult<Value> {
    let options = doc["options"].as_array();
    let options = options.ok_or("the field \"options\" is not a list")?;
    let mut text = format!(
        "Passage: {}\nQuestion: {}\nChoices:\n",
        text_of(doc, "context")?,
        text_of(doc, "question")?
    );
    for (letter, option) in ('A'..='D').zip(options) {
        let option = option.as_str().ok_or("an option is not a text")?;
        text += &format!("{letter}. {option}\n");
    }
    Ok(json!(text + "Answer:"))
}

fn doc_to_target(doc: &Doc) -> FunctionResult<Value> {
    let label = text_of(doc, "label")?;
    ["a", "b", "c", "d"]
        .iter()
        .position(|letter| *letter == strip(label))
        .map(|number| json!(number))
        .ok_or_else(|| format!("the label is {label:?}, not one of a, b, c and d").into())
}
