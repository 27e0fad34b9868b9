//! Agreement against scikit-learn 1.9.1, statsmodels 0.15.0 and krippendorff 0.9.0; see `golden/agreement.py`.

use ft_eval::agreement::*;
use serde_json::Value;

fn golden(of: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/agreement.json");
    let mut golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = serde_json::from_value(golden[of].take()).unwrap();
    let enough: &Vec<Value> = &cases;
    assert!(enough.len() >= 100);
    cases
}

#[track_caller]
fn same(what: &str, ours: Option<f64>, expected: &Value) {
    match (ours, expected.as_f64()) {
        (None, None) => {}
        (Some(ours), Some(expected)) if (ours - expected).abs() < 1e-9 => {}
        (ours, expected) => panic!("{what}: {ours:?} and not {expected:?}"),
    }
}

fn ratings(list: &Value) -> Vec<Rating> {
    let cells = list.as_array().unwrap().iter().map(cell);
    cells.map(|c| c.expect("a rating")).collect()
}

fn cell(value: &Value) -> Option<Rating> {
    match value {
        Value::Null => None,
        Value::Number(n) => Some(Rating::Number(n.as_f64().unwrap())),
        value => Some(Rating::Word(value.as_str().unwrap().to_string())),
    }
}

#[test]
fn cohens_kappa_equals_scikit_learn_and_its_error_statsmodels() {
    for (i, case) in golden("cohens").iter().enumerate() {
        let (a, b) = (ratings(&case["a"]), ratings(&case["b"]));
        for (w, weights) in [Weights::Equal, Weights::Linear, Weights::Quadratic]
            .into_iter()
            .enumerate()
        {
            let kappa = if case["labels"].is_null() {
                cohen_kappa(&a, &b, weights)
            } else {
                cohen_kappa_with_labels(&a, &b, &ratings(&case["labels"]), weights)
            }
            .unwrap();
            let expected = &case["expected"][w];
            let what = format!("case {i}, {weights:?}");
            same(&what, kappa.map(|k| k.value), &expected[0]);
            same(&what, kappa.map(|k| k.standard_error), &expected[1]);
        }
    }
}

#[test]
fn fleiss_kappa_equals_statsmodels() {
    for (i, case) in golden("fleisses").iter().enumerate() {
        let rows: Vec<Vec<Rating>> = case["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(ratings)
            .collect();
        let table = fleiss_table(&rows);
        assert_eq!(serde_json::json!(table), case["table"], "case {i}");
        let kappa = fleiss_kappa(&table).unwrap();
        same(
            &format!("case {i}"),
            kappa.map(|k| k.value),
            &case["expected"],
        );
    }
}

#[test]
fn krippendorffs_alpha_equals_the_package() {
    let levels = [
        Level::Nominal,
        Level::Ordinal,
        Level::Interval,
        Level::Ratio,
    ];
    for (i, case) in golden("krippendorffs").iter().enumerate() {
        let items: Vec<Vec<Option<f64>>> = serde_json::from_value(case["items"].clone()).unwrap();
        for (level, expected) in levels.into_iter().zip(case["expected"].as_array().unwrap()) {
            let alpha = krippendorff_alpha(&items, level).unwrap();
            same(&format!("case {i}, {level:?}"), alpha, expected);
        }
    }
}

#[test]
fn krippendorffs_alpha_of_words_equals_the_package() {
    for (i, case) in golden("krippendorff_words").iter().enumerate() {
        let items: Vec<Vec<Option<String>>> =
            serde_json::from_value(case["items"].clone()).unwrap();
        for (k, level) in [Level::Nominal, Level::Ordinal].into_iter().enumerate() {
            let alpha = krippendorff_alpha_of_labels(&items, level).unwrap();
            same(&format!("case {i}, {level:?}"), alpha, &case["expected"][k]);
        }
    }
}
