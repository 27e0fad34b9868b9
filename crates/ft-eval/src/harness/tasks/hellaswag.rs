//! HellaSwag: a scene and its endings, without the marks of WikiHow's articles.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::text_of;
use crate::harness::functions::{Doc, Function, FunctionRegistry, FunctionResult};
use crate::harness::python_case::capitalize;
use crate::harness::python_value::{PyValue, parse_int, strip};

pub(super) fn register(registry: &mut FunctionRegistry) {
    registry.insert(
        "hellaswag/utils.process_docs",
        Function::ProcessDocs(process_docs),
    );
}

/// Adds the fields `query`, `choices` and `gold`.
fn process_docs(docs: Vec<Doc>) -> FunctionResult<Vec<Doc>> {
    docs.into_iter().map(process_doc).collect()
}

fn process_doc(mut doc: Doc) -> FunctionResult<Doc> {
    let scene = format!(
        "{}: {} {}",
        text_of(&doc, "activity_label")?,
        text_of(&doc, "ctx_a")?,
        capitalize(text_of(&doc, "ctx_b")?)
    );
    let endings = doc["endings"].as_array();
    let endings = endings.ok_or("the field \"endings\" is not a list")?;
    let choices: Vec<String> = endings
        .iter()
        .map(|ending| ending.as_str().map(clean).ok_or("an ending is not a text"))
        .collect::<Result<_, _>>()?;
    let gold = match &doc["label"] {
        Value::String(label) => {
            parse_int(label).ok_or_else(|| format!("the label {label:?} is not a number"))?
        }
        label => label
            .as_i64()
            .ok_or_else(|| format!("the label {} is not a number", PyValue::from(label).repr()))?,
    };
    doc["query"] = json!(clean(&scene));
    doc["choices"] = json!(choices);
    doc["gold"] = json!(gold);
    Ok(doc)
}

/// Removes the marks in brackets. The mark of a title begins a sentence.
fn clean(text: &str) -> String {
    static BRACKETS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\[.*?\]").expect("the pattern is right"));
    let text = strip(text).replace(" [title]", ". ");
    BRACKETS.replace_all(&text, "").replace("  ", " ")
}
