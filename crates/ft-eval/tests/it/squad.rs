//! Answers against the official scripts of SQuAD.

use ft_eval::text::{corpus_token_f1, normalize_answer, squad, squad_v2, token_f1, token_f1_multi};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Golden {
    normalized: Vec<(String, String)>,
    pairs: Vec<(String, String, f64)>,
    sets: Vec<Set>,
}

#[derive(Deserialize)]
struct Set {
    questions: Vec<(String, Vec<String>, f64)>,
    threshold: f64,
    probabilities: bool,
    v1: Option<Map<String, Value>>,
    v2: Map<String, Value>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/squad.json")).unwrap()
}

/// The same keys with the same numbers.
fn assert_same(scores: impl serde::Serialize, expected: &Map<String, Value>, case: usize) {
    let scores = serde_json::to_value(scores).unwrap();
    let scores = scores.as_object().unwrap();
    assert_eq!(scores.len(), expected.len(), "set {case}: {scores:?}");
    for (key, value) in expected {
        let (score, value) = (scores[key].as_f64().unwrap(), value.as_f64().unwrap());
        assert!(
            (score - value).abs() < 1e-9,
            "set {case}, {key}: {score}, not {value}"
        );
    }
}

#[test]
fn answers_are_normalised_as_in_the_script() {
    let golden = golden();
    assert!(golden.normalized.len() > 500);
    for (answer, normalized) in golden.normalized {
        assert_eq!(normalize_answer(&answer), normalized, "{answer:?}");
    }
}

#[test]
fn f1_is_the_script_s() {
    let golden = golden();
    assert!(golden.pairs.len() >= 500);
    for (prediction, answer, f1) in &golden.pairs {
        let score = token_f1(prediction, answer);
        assert!(
            (score - f1).abs() < 1e-9,
            "{score}, not {f1}: {prediction:?} {answer:?}"
        );
    }
    let predictions: Vec<&str> = golden.pairs.iter().map(|pair| pair.0.as_str()).collect();
    let references: Vec<[&str; 2]> = golden.pairs.iter().map(|pair| [&*pair.1, "..."]).collect();
    let mean = golden.pairs.iter().map(|pair| pair.2).sum::<f64>() / golden.pairs.len() as f64;
    let score = corpus_token_f1(&predictions, &references).unwrap();
    assert!((score - mean).abs() < 1e-9, "{score} {mean}");
}

#[test]
fn sets_of_questions_score_as_in_the_scripts() {
    let golden = golden();
    assert!(golden.sets.len() > 200);
    let mut first = 0;
    for (case, set) in golden.sets.iter().enumerate() {
        let predictions: Vec<&str> = set.questions.iter().map(|q| q.0.as_str()).collect();
        let answers: Vec<&[String]> = set.questions.iter().map(|q| &q.1[..]).collect();
        let probabilities: Vec<f64> = set.questions.iter().map(|q| q.2).collect();
        let probabilities = set.probabilities.then_some(&probabilities[..]);
        let scores = squad_v2(&predictions, &answers, probabilities, set.threshold).unwrap();
        assert_same(scores, &set.v2, case);
        if let Some(expected) = &set.v1 {
            assert_same(squad(&predictions, &answers).unwrap(), expected, case);
            first += 1;
        }
    }
    assert!(first > 100);
}

#[test]
fn invalid_input_is_an_error() {
    let none: [&str; 0] = [];
    assert!(squad(&none, &[none; 0]).is_err());
    assert!(
        squad(&["a"], &[none])
            .unwrap_err()
            .to_string()
            .contains("squad_v2")
    );
    assert!(squad(&["a"], &[["a"], ["b"]]).is_err());
    assert!(squad_v2(&none, &[none; 0], None, 1.0).is_err());
    assert!(squad_v2(&["a"], &[["a"]], Some(&[]), 1.0).is_err());
    assert!(squad_v2(&["a"], &[["a"]], Some(&[f64::NAN]), 1.0).is_err());
    assert!(token_f1_multi("a", &none).is_err());
    assert!(corpus_token_f1(&["a"], &[none]).is_err());
}
