//! AIME: extracts the answer of a solution and compares it.
//!
//! The answer is the content of the last `\boxed{..}`, or else the text between the first and the last `$`, or else
//! the whole text.

use super::math_answer::{between_dollars, boxed};
use super::math_equality::same_answer;
use super::text_response;
use crate::harness::functions::{
    Doc, Function, FunctionRegistry, FunctionResult, MetricValue, Metrics, Response,
};
use crate::harness::python_value::PyValue;

pub(super) fn register(registry: &mut FunctionRegistry) {
    registry.insert(
        "aime/utils.process_results",
        Function::ProcessResults(process_results),
    );
}

fn process_results(doc: &Doc, responses: &[Response]) -> FunctionResult<Metrics> {
    let response = text_response(responses)?;
    // The field is "Answer" in some of the datasets and "answer" in others.
    let (_, target) = doc
        .as_object()
        .and_then(|fields| {
            fields
                .iter()
                .find(|(name, _)| name.to_lowercase() == "answer")
        })
        .ok_or("the document has no field \"answer\"")?;
    let right = same_answer(answer_in(response), &PyValue::from(target).str());
    Ok(vec![(
        "exact_match".to_string(),
        MetricValue::Int(i64::from(right)),
    )])
}

fn answer_in(response: &str) -> &str {
    boxed(response)
        .or_else(|| between_dollars(response))
        .unwrap_or(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_box_takes_precedence_over_dollars_and_dollars_over_the_text() {
        for (response, answer) in [
            ("so $x = 3$ and $4$", "x = 3$ and $4"),
            (r"$1$ \boxed{2} \boxed{\frac{1}{2}} 5", r"\frac{1}{2}"),
            (r"\boxed{2} or \boxed 7$ so", "7"),
            (r"\boxed{2} or \boxed{7", r"\boxed{2} or \boxed{7"),
            (r"\fbox{3} $4$", "4"),
            ("just $ 12", "just $ 12"),
            ("", ""),
        ] {
            assert_eq!(answer_in(response), answer, "{response}");
        }
    }
}
