//! IFEval (Zhou et al., 2023, arXiv:2311.07911): whether a reply follows instructions that a program can check.
//!
//! The strict metrics check the reply itself. The loose metrics accept one of eight versions of it: with or without its
//! first line, its last line, both, and asterisks. The 22 checkers are those of lm-evaluation-harness 0.4.13 for the rows of
//! google/IFEval.
//!
//! Differences: languages are detected by `whatlang` instead of langdetect (which is random, reports other languages in
//! capitals as English, and supports Swahili, which whatlang does not). Sentences are counted by rules instead of NLTK's
//! trained Punkt model. An instruction without its numbers or words is an error, where the reference draws a number.

mod checks;
mod language;
mod sentences;

use serde_json::Value;

use crate::harness::functions::{
    Doc, Function, FunctionRegistry, FunctionResult, MetricValue, Metrics, Response,
};
use crate::harness::python_value::strip;

pub(super) fn register(registry: &mut FunctionRegistry) {
    registry.insert(
        "ifeval/utils.process_results",
        Function::ProcessResults(process_results),
    );
    registry.insert(
        "ifeval/utils.agg_inst_level_acc",
        Function::Aggregation(mean_of_all),
    );
}

fn process_results(doc: &Doc, responses: &[Response]) -> FunctionResult<Metrics> {
    let Some(Response::Text(reply)) = responses.first() else {
        return Err("the filters must leave one text: use take_first".into());
    };
    let ids = doc["instruction_id_list"].as_array();
    let ids = ids.ok_or("the document has no list instruction_id_list")?;
    let none = Value::Null;
    let (mut strict, mut loose) = (Vec::new(), Vec::new());
    let versions = versions(reply);
    for (i, id) in ids.iter().enumerate() {
        let id = id.as_str().ok_or("an instruction is not a text")?;
        let arguments = doc["kwargs"].get(i).unwrap_or(&none);
        let follows = |reply: &str| -> FunctionResult<bool> {
            Ok(!strip(reply).is_empty() && checks::follows(id, arguments, reply)?)
        };
        strict.push(follows(reply)?);
        let mut any = false;
        for version in &versions {
            any = any || follows(version)?;
        }
        loose.push(any);
    }
    let all = |found: &[bool]| MetricValue::Int(i64::from(found.iter().all(|follows| *follows)));
    let list = |found: &[bool]| {
        MetricValue::List(
            found
                .iter()
                .map(|f| MetricValue::Int(i64::from(*f)))
                .collect(),
        )
    };
    Ok(vec![
        ("prompt_level_strict_acc".to_string(), all(&strict)),
        ("inst_level_strict_acc".to_string(), list(&strict)),
        ("prompt_level_loose_acc".to_string(), all(&loose)),
        ("inst_level_loose_acc".to_string(), list(&loose)),
    ])
}

/// The reply, also without its first line, its last line, and both; all with and without asterisks.
fn versions(reply: &str) -> Vec<String> {
    let lines: Vec<&str> = reply.split('\n').collect();
    let joined = |lines: &[&str]| strip(&lines.join("\n")).to_string();
    let end = lines.len() - 1;
    let both = if end > 1 {
        joined(&lines[1..end])
    } else {
        String::new()
    };
    let plain = [
        reply.to_string(),
        joined(&lines[1..]),
        joined(&lines[..end]),
        both,
    ];
    let bare: Vec<String> = plain.iter().map(|text| text.replace('*', "")).collect();
    plain.into_iter().chain(bare).collect()
}

/// The share of followed instructions among those of all documents.
fn mean_of_all(values: &[MetricValue]) -> FunctionResult<f64> {
    let (mut followed, mut all) = (0.0, 0.0);
    for value in values {
        let MetricValue::List(items) = value else {
            return Err(format!("{value:?} is not a list of instructions").into());
        };
        followed += items.iter().filter_map(MetricValue::as_number).sum::<f64>();
        all += items.len() as f64;
    }
    Ok(followed / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Value {
        serde_json::from_str(include_str!("../../../tests/golden/ifeval.json")).unwrap()
    }

    #[test]
    fn instructions_are_checked_as_by_the_reference() {
        let golden = golden();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() >= 900);
        for case in cases {
            let (doc, reply) = (&case[0], case[1].as_str().unwrap());
            let found = process_results(doc, &[Response::Text(reply.to_string())]).unwrap();
            for (which, expected) in [(1, &case[2]), (3, &case[3])] {
                let MetricValue::List(items) = &found[which].1 else {
                    panic!("a list");
                };
                let items: Vec<bool> = items.iter().map(|i| i.as_number() == Some(1.0)).collect();
                let expected: Vec<bool> = serde_json::from_value(expected.clone()).unwrap();
                assert_eq!(items, expected, "{}: {doc}\n{reply:?}", found[which].0);
            }
        }
    }

    #[test]
    fn everyday_sentences_are_counted_as_by_punkt() {
        let golden = golden();
        for case in golden["sentences"].as_array().unwrap() {
            let text = case[0].as_str().unwrap();
            assert_eq!(
                Some(sentences::count_sentences(text) as u64),
                case[1].as_u64(),
                "{text}"
            );
        }
    }

    #[test]
    fn incomplete_instructions_are_errors() {
        for (id, kwargs) in [
            ("keywords:existence", serde_json::json!({})),
            (
                "length_constraints:number_words",
                serde_json::json!({"num_words": 3, "relation": "about"}),
            ),
            ("no:such", Value::Null),
        ] {
            let doc = serde_json::json!({"instruction_id_list": [id], "kwargs": [kwargs]});
            let error = process_results(&doc, &[Response::Text("a".into())]).unwrap_err();
            assert!(error.to_string().contains(id), "{error}");
        }
    }
}
