//! MATH: the model's answer is the text between the first and the last dollar, or the whole text; the correct answer
//! is in the last box of the solution.

use serde_json::json;

use super::math_answer::{between_dollars, boxed};
use super::math_equality::same_answer;
use super::{text_of, text_response};
use crate::harness::functions::{
    Doc, Function, FunctionRegistry, FunctionResult, MetricValue, Metrics, Response,
};

pub(super) fn register(registry: &mut FunctionRegistry) {
    registry.insert(
        "hendrycks_math/utils.process_docs",
        Function::ProcessDocs(process_docs),
    );
    registry.insert(
        "hendrycks_math/utils.process_results",
        Function::ProcessResults(process_results),
    );
}

/// Adds the field `answer`.
fn process_docs(docs: Vec<Doc>) -> FunctionResult<Vec<Doc>> {
    docs.into_iter()
        .map(|mut doc| {
            doc["answer"] = json!(right_answer(&doc)?);
            Ok(doc)
        })
        .collect()
}

fn right_answer(doc: &Doc) -> FunctionResult<&str> {
    let solution = text_of(doc, "solution")?;
    boxed(solution)
        .ok_or_else(|| format!("the solution {solution:?} has no answer in \\boxed{{}}").into())
}

fn process_results(doc: &Doc, responses: &[Response]) -> FunctionResult<Metrics> {
    let response = text_response(responses)?;
    let answer = between_dollars(response).unwrap_or(response);
    let right = same_answer(answer, right_answer(doc)?);
    Ok(vec![(
        "exact_match".to_string(),
        MetricValue::Int(i64::from(right)),
    )])
}
