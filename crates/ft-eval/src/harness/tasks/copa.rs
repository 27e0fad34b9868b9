//! COPA: a sentence that continues with "because" or "therefore", and two endings.

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
        registry.insert(format!("copa/utils.{name}"), Function::Doc(function));
    }
}

fn doc_to_text(doc: &Doc) -> FunctionResult<Value> {
    let connector = match text_of(doc, "question")? {
        "cause" => "because",
        "effect" => "therefore",
        other => {
            return Err(format!("the question is {other:?}, not \"cause\" or \"effect\"").into());
        }
    };
    let mut premise = strip(text_of(doc, "premise")?).chars();
    // The full stop.
    premise.next_back();
    Ok(json!(format!("{} {connector}", premise.as_str())))
}

fn doc_to_choice(doc: &Doc) -> FunctionResult<Value> {
    Ok(json!([ending(doc, "choice1")?, ending(doc, "choice2")?]))
}

fn doc_to_target(doc: &Doc) -> FunctionResult<Value> {
    let right = if doc["label"].as_f64() == Some(0.0) {
        "choice1"
    } else {
        "choice2"
    };
    Ok(json!(ending(doc, right)?))
}

/// A choice with a lower-case first letter, since it continues a sentence.
fn ending(doc: &Doc, choice: &str) -> FunctionResult<String> {
    let mut rest = text_of(doc, choice)?.chars();
    let first = rest.next().ok_or_else(|| format!("{choice:?} is empty"))?;
    Ok(format!(" {}{}", first.to_lowercase(), rest.as_str()))
}
