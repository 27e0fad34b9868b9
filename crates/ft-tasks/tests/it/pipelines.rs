//! Pipelines against those of transformers; made by `golden/pipelines.py` and `golden/answers.py`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use ft_tasks::pipelines::{
    Aggregation, FeatureExtraction, FillMask, QuestionAnswering, QuestionAnsweringOptions,
    TextClassification, TextOrPair, TokenClassification, ZeroShotClassification, ZeroShotOptions,
};
use serde_json::{Value, json};

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn read(name: &str) -> Vec<Value> {
    let bytes = std::fs::read(golden(name)).expect("reads");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The cases of a task: folder, input, options, output.
fn cases(task: &str) -> Vec<(PathBuf, Value, Value, Value)> {
    let cases = read("pipelines.json").into_iter();
    let cases = cases.filter(|case| case["task"] == task);
    let cases: Vec<_> = cases
        .map(|case| {
            let folder = golden(case["folder"].as_str().expect("folder"));
            let part = |name: &str| case[name].clone();
            (folder, part("input"), part("options"), part("output"))
        })
        .collect();
    assert!(!cases.is_empty(), "{task}");
    cases
}

/// Compares all texts and whole numbers, and other numbers to 1e-4.
fn assert_alike(what: &str, found: &Value, expected: &Value) {
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().expect("f64"), b.as_f64().expect("f64"));
            assert!((a - b).abs() < 1e-4, "{what}: {a} {b}");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{what}: {found} {expected}");
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                assert_alike(&format!("{what}[{i}]"), a, b);
            }
        }
        (Value::Object(a), Value::Object(b)) => {
            let keys =
                |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(a), keys(b), "{what}");
            for (key, value) in a {
                assert_alike(&format!("{what}.{key}"), value, &b[key]);
            }
        }
        _ => assert_eq!(found, expected, "{what}"),
    }
}

fn value(found: impl serde::Serialize) -> Value {
    serde_json::to_value(found).expect("serializes")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

#[test]
fn texts_get_the_labels_of_transformers() {
    for (folder, input, _, output) in cases("text-classification") {
        let made = TextClassification::from_pretrained(&folder, &Device::default());
        let made = made.expect("loads");
        let input = match &input {
            Value::String(text) => TextOrPair::from(text.as_str()),
            pair => TextOrPair::from((text(&pair["text"]), text(&pair["text_pair"]))),
        };
        let found = made.classify(&[input], None).expect("classifies");
        // A text alone gives a list, a pair too with top_k.
        assert_alike(&format!("{input:?}"), &value(&found[0]), &output);
        let best = made.classify(&[input], Some(1)).expect("classifies");
        assert_eq!(best[0], found[0][..1]);
    }
}

#[test]
fn batches_give_what_single_texts_give_and_long_texts_are_errors() {
    let made = TextClassification::from_pretrained(&golden("text"), &Device::default());
    let made = made.expect("loads");
    let texts = [
        "Anna bought the kettle.",
        "The river.",
        "It broke after one week!",
    ];
    let all = made.classify(&texts, None).expect("classifies");
    for (text, labels) in texts.iter().zip(&all) {
        let alone = made.classify(&[*text], None).expect("classifies");
        assert_alike(text, &value(labels), &value(&alone[0]));
    }
    let long = texts.join(" ").repeat(3);
    let error = made.classify(&[long.as_str()], None).expect_err("too long");
    assert!(error.to_string().contains("reads 32"), "{error}");
    made.truncated()
        .classify(&[long.as_str()], None)
        .expect("cut");
}

#[test]
fn labels_that_were_not_learnt_get_the_scores_of_transformers() {
    for (folder, input, options, output) in cases("zero-shot-classification") {
        let made = ZeroShotClassification::from_pretrained(&folder, &Device::default());
        let made = made.expect("loads");
        let labels = options["candidate_labels"].as_array().expect("labels");
        let labels: Vec<&str> = labels.iter().map(text).collect();
        let defaults = ZeroShotOptions::default();
        let options = ZeroShotOptions {
            hypothesis_template: options["hypothesis_template"]
                .as_str()
                .unwrap_or(defaults.hypothesis_template),
            multi_label: options["multi_label"] == true,
        };
        let made = made.truncated();
        let found = made.classify(&[text(&input)], &labels, &options);
        assert_alike(
            text(&input),
            &value(&found.expect("classifies")[0]),
            &output,
        );
    }
    let other = ZeroShotClassification::from_pretrained(&golden("text"), &Device::default());
    assert!(
        other
            .expect_err("no entailment")
            .to_string()
            .contains("entail")
    );
}

#[test]
fn tokens_are_grouped_as_in_transformers() {
    for (folder, input, options, output) in cases("token-classification") {
        let made = TokenClassification::from_pretrained(&folder, &Device::default());
        let strategy = text(&options["aggregation_strategy"]);
        let strategy: Aggregation = strategy.parse().expect("a strategy");
        let mut made = made.expect("loads").aggregated(strategy);
        if let Some(labels) = options["ignore_labels"].as_array() {
            made = made.ignoring(&labels.iter().map(text).collect::<Vec<_>>());
        }
        if let Some(overlap) = options["stride"].as_u64() {
            made = made.in_windows(overlap as usize);
        } else {
            made = made.truncated();
        }
        let found = made.tag(&[text(&input)]).expect("tags");
        assert_alike(&format!("{input} {options}"), &value(&found[0]), &output);
    }
}

#[test]
fn tags_of_long_texts_are_not_lost_without_notice() {
    let load = || {
        let made = TokenClassification::from_pretrained(&golden("tags"), &Device::default());
        made.expect("loads").aggregated(Aggregation::Simple)
    };
    let long = "Anna bought the kettle in Hamburg. ".repeat(12);
    let error = load().tag(&[&long]).expect_err("too long").to_string();
    assert!(error.contains("windows"), "{error}");
    let ends = |made: TokenClassification| {
        let found = made.ignoring(&[]).tag(&[&long]).expect("tags");
        found[0].iter().map(|own| own.end).max().unwrap_or(0)
    };
    assert!(ends(load().truncated()) < long.len() / 2);
    assert!(ends(load().in_windows(1000)) > long.len() * 3 / 4);
    let ungrouped = load().in_windows(4).aggregated(Aggregation::None);
    let error = ungrouped.tag(&[&long]).expect_err("no groups").to_string();
    assert!(error.contains("groups"), "{error}");
    let zero_shot = ZeroShotClassification::from_pretrained(&golden("nli"), &Device::default());
    let zero_shot = zero_shot.expect("loads");
    let classify = |made: &ZeroShotClassification| {
        made.classify(&[&long], &["kettle"], &ZeroShotOptions::default())
    };
    assert!(classify(&zero_shot).is_err());
    assert!(classify(&zero_shot.truncated()).is_ok());
}

#[test]
fn answers_are_those_of_transformers_4() {
    let made = QuestionAnswering::from_pretrained(&golden("answers"), &Device::default());
    let made = made.expect("loads");
    for case in read("answers.json") {
        let given = &case["options"];
        let number =
            |name: &str, default: usize| given[name].as_u64().map_or(default, |n| n as usize);
        let defaults = QuestionAnsweringOptions::default();
        let options = QuestionAnsweringOptions {
            top_k: number("top_k", 1),
            max_answer_len: number("max_answer_len", defaults.max_answer_len),
            max_seq_len: number("max_seq_len", defaults.max_seq_len),
            doc_stride: number("doc_stride", defaults.doc_stride),
            handle_impossible_answer: given["handle_impossible_answer"] == true,
            align_to_words: given["align_to_words"] != false,
        };
        let question = (text(&case["question"]), text(&case["context"]));
        let found = made.answer(&[question], &options).expect("answers");
        assert_alike(&case.to_string(), &value(&found[0]), &case["output"]);
    }
}

/// The question leaves windows of 9 tokens, fewer than they are to have in common.
#[test]
fn a_long_question_has_windows_with_less_in_common() {
    let made = QuestionAnswering::from_pretrained(&golden("answers"), &Device::default());
    let options = QuestionAnsweringOptions {
        max_seq_len: 32,
        ..QuestionAnsweringOptions::default()
    };
    let (question, context) = ("the river ".repeat(10), "the kettle and the sea ".repeat(8));
    let found = made
        .expect("loads")
        .answer(&[(&question, &context)], &options);
    assert_eq!(found.expect("answers")[0].len(), 1);
}

#[test]
fn masks_are_filled_as_in_transformers() {
    for (folder, input, options, output) in cases("fill-mask") {
        let made = FillMask::from_pretrained(&folder, &Device::default()).expect("loads");
        let targets = options["targets"].as_array();
        let targets: Option<Vec<&str>> = targets.map(|all| all.iter().map(text).collect());
        let top_k = options["top_k"].as_u64().unwrap_or(5) as usize;
        let found = made.fill(&[text(&input)], top_k, targets.as_deref());
        let mut found = value(&found.expect("fills")[0]);
        if found.as_array().map(Vec::len) == Some(1) {
            found = found[0].take();
        }
        assert_alike(text(&input), &found, &output);
    }
    let made = FillMask::from_pretrained(&golden("mask"), &Device::default()).expect("loads");
    let error = made.fill(&["no mask"], 5, None).expect_err("none");
    assert!(error.to_string().contains("[MASK]"), "{error}");
}

#[test]
fn states_of_tokens_are_those_of_transformers() {
    for (folder, input, _, output) in cases("feature-extraction") {
        let made = FeatureExtraction::from_pretrained(&folder, &Device::default());
        let found = made.expect("loads").extract(&[text(&input)]);
        assert_alike(text(&input), &json!(found.expect("extracts")), &output);
    }
}
