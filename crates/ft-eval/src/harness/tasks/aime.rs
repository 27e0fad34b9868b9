//! AIME: the answer in a solution, and whether it is the right one.
//!
//! The answer is what stands in the last `\boxed{..}`, else what stands between the first and the last
//! `$`, else the whole text.

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

fn between_dollars(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('$')?;
    rest.rsplit_once('$').map(|(inside, _)| inside)
}

/// What stands in the last box. `\boxed 5` has no braces and goes up to a dollar.
fn boxed(text: &str) -> Option<&str> {
    const BARE: &str = r"\boxed ";
    if let Some(start) = text.rfind(BARE) {
        return text[start + BARE.len()..].split('$').next();
    }
    // An `\fbox` without a `\boxed` is found by the reference too, and then left.
    let tail = &text[text.rfind(r"\boxed")?..];
    let mut open = 0;
    let end = tail.char_indices().find_map(|(i, c)| {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        (c == '}' && open == 0).then_some(i)
    })?;
    tail[..end].strip_prefix(r"\boxed{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_box_goes_before_dollars_and_those_before_the_text() {
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
