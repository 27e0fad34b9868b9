//! RACE: an article and its problems. The last problem is the question; the others are shown with their answers.

use serde_json::{Value, json};

use super::text_of;
use crate::harness::functions::{Doc, Function, FunctionRegistry, FunctionResult};
use crate::harness::python_literal::literal_eval;

pub(super) fn register(registry: &mut FunctionRegistry) {
    for (name, function) in [
        ("doc_to_text", doc_to_text as fn(&Doc) -> _),
        ("doc_to_choice", doc_to_choice),
        ("doc_to_target", doc_to_target),
    ] {
        registry.insert(
            format!("race/preprocess_race.{name}"),
            Function::Doc(function),
        );
    }
}

/// All problems except the last, and the last.
fn problems(doc: &Doc) -> FunctionResult<(Vec<Value>, Value)> {
    let problems = literal_eval(text_of(doc, "problems")?)?.to_json();
    let mut problems = match problems {
        Value::Array(problems) => problems,
        other => return Err(format!("the problems are not a list: {other}").into()),
    };
    let last = problems.pop().ok_or("there are no problems")?;
    Ok((problems, last))
}

/// The index of the correct choice.
fn answer(problem: &Value) -> FunctionResult<usize> {
    let letter = text_of(problem, "answer")?;
    ["A", "B", "C", "D"]
        .iter()
        .position(|known| *known == letter)
        .ok_or_else(|| format!("the answer is {letter:?}, not one of A, B, C and D").into())
}

fn option(problem: &Value, number: usize) -> FunctionResult<&str> {
    problem["options"][number]
        .as_str()
        .ok_or_else(|| format!("a problem has no option {}", number + 1).into())
}

fn doc_to_text(doc: &Doc) -> FunctionResult<Value> {
    let (before, asked) = problems(doc)?;
    let mut text = format!("Article: {}\n\n", text_of(doc, "article")?);
    for problem in &before {
        let question = text_of(problem, "question")?;
        let right = option(problem, answer(problem)?)?;
        // A sentence that ends in a gap is filled, and loses its full stop.
        text += &match question.strip_suffix("  _  .") {
            Some(sentence) => format!("{sentence} {right}\n"),
            None => format!("Question: {question}\nAnswer: {right}\n"),
        };
    }
    text += text_of(&asked, "question")?;
    Ok(json!(text))
}

fn doc_to_choice(doc: &Doc) -> FunctionResult<Value> {
    let (_, asked) = problems(doc)?;
    let options: Vec<&str> = (0..4)
        .map(|number| option(&asked, number))
        .collect::<FunctionResult<_>>()?;
    Ok(json!(options))
}

fn doc_to_target(doc: &Doc) -> FunctionResult<Value> {
    let (_, asked) = problems(doc)?;
    Ok(json!(answer(&asked)?))
}
