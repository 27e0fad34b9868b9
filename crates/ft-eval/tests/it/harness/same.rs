//! Comparison with the output of lm-evaluation-harness.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Equal, with the same keys in the same order, and numbers to 1e-9.
#[track_caller]
pub(crate) fn assert_same(ours: &Value, golden: &Value, place: &str) {
    match (ours, golden) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = |object: &serde_json::Map<String, Value>| {
                object.keys().cloned().collect::<Vec<_>>()
            };
            assert_eq!(keys(a), keys(b), "the keys of {place}");
            for (key, value) in b {
                assert_same(&a[key], value, &format!("{place}.{key}"));
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(
                a.len(),
                b.len(),
                "the length of {place}: {ours} is not {golden}"
            );
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                assert_same(a, b, &format!("{place}[{i}]"));
            }
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!(
                (a - b).abs() <= 1e-9 * b.abs().max(1.0),
                "{place}: {a} is not {b}"
            );
        }
        // True and false are the numbers 1 and 0 of a choice.
        (Value::Number(a), Value::Bool(b)) => {
            assert_eq!(a.as_i64(), Some(i64::from(*b)), "{place}")
        }
        _ => assert_eq!(ours, golden, "{place}"),
    }
}

pub(crate) fn compare_sample(line: &str, expected: &Value, place: &str) {
    let line: Value = serde_json::from_str(line).unwrap();
    for key in ["doc_id", "filter"] {
        assert_eq!(line[key], expected[key], "{place}");
    }
    // In full if the golden file has it, to show the difference.
    for key in ["arguments", "filtered_resps", "resps", "target"] {
        if !expected[key].is_null() {
            assert_eq!(line[key], expected[key], "{place}, {key}");
        }
    }
    if let Some(keys) = expected["line_keys"].as_array() {
        let ours: Vec<Value> = line
            .as_object()
            .unwrap()
            .keys()
            .map(|key| json!(key))
            .collect();
        assert_eq!(&ours, keys, "{place}");
    }
    for (key, hash) in ["doc_hash", "prompt_hash", "target_hash"]
        .iter()
        .zip(expected["hashes"].as_array().unwrap())
    {
        assert_eq!(
            &line[key].as_str().unwrap()[..24],
            hash.as_str().unwrap(),
            "{place}, {key}"
        );
    }
    let spaced = spaced(&line["arguments"]);
    let sha: String = Sha256::digest(spaced.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        &sha[..24],
        expected["arguments_sha"].as_str().unwrap(),
        "{place}: {spaced}"
    );
    for (metric, value) in expected["metrics"].as_object().unwrap() {
        assert_same(&line[metric], value, &format!("{place}, {metric}"));
    }
}

/// JSON with a space after commas and colons, as Python writes it.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| format!("{}: {}", json!(key), spaced(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(spaced).collect::<Vec<_>>().join(", ")
        ),
        other => other.to_string(),
    }
}
