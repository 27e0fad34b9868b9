//! Classes against scikit-learn, tagged entities against seqeval.

// Rows of the golden file as they are there.
#![allow(clippy::type_complexity)]

use ft_eval::classification::{
    ConfusionMatrix, MultiClass, Scores, calibration, roc_auc, roc_auc_multiclass,
};
use ft_eval::tagging::{TagOptions, TagScheme, entities, entity_scores, tag_accuracy};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Golden {
    labels: Vec<Labels>,
    roc: Vec<(Vec<bool>, Vec<f64>, Option<f64>)>,
    multiclass: Vec<(Vec<usize>, Vec<Vec<f64>>, [f64; 4])>,
    calibration: Vec<(Vec<f64>, Vec<bool>, usize, f64, f64)>,
    tagging: Vec<Tagging>,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(rename = "true")]
    truth: Vec<Value>,
    pred: Vec<Value>,
    beta: f64,
    labels: Vec<Value>,
    matrix: Vec<Vec<usize>>,
    accuracy: f64,
    balanced: f64,
    matthews: f64,
    table: (
        (Vec<f64>, Vec<f64>, Vec<f64>, Vec<f64>),
        [f64; 3],
        [f64; 3],
        [f64; 3],
    ),
}

#[derive(Debug, Deserialize)]
struct Tagging {
    scheme: Option<String>,
    suffix: bool,
    #[serde(rename = "true")]
    truth: Vec<Vec<String>>,
    pred: Vec<Vec<String>>,
    entities: Vec<Vec<(String, usize, usize)>>,
    report: Option<Map<String, Value>>,
    detected: Option<String>,
    accuracy: f64,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/classification.json")).unwrap()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 || a.is_nan() && b.is_nan()
}

fn same(found: &Scores, expected: [f64; 3]) -> bool {
    close(found.precision, expected[0])
        && close(found.recall, expected[1])
        && close(found.f, expected[2])
}

/// Numbers and texts, each ordered as in Python.
fn check_labels<L: Ord + Clone + std::fmt::Debug>(
    i: usize,
    case: &Labels,
    read: impl Fn(&Value) -> L,
) {
    let list = |values: &[Value]| values.iter().map(&read).collect::<Vec<L>>();
    let (truth, pred) = (list(&case.truth), list(&case.pred));
    let matrix = ConfusionMatrix::new(&truth, &pred).unwrap();
    assert_eq!(matrix.labels(), list(&case.labels), "case {i}");
    for (label, row) in case.matrix.iter().enumerate() {
        for (prediction, count) in row.iter().enumerate() {
            assert_eq!(matrix.count(label, prediction), *count, "case {i}");
        }
    }
    assert!(close(matrix.accuracy(), case.accuracy), "case {i}");
    assert!(close(matrix.balanced_accuracy(), case.balanced), "case {i}");
    assert!(
        close(matrix.matthews(), case.matthews),
        "case {i}: {}",
        matrix.matthews()
    );
    let scores = matrix.scores(case.beta);
    let (classes, micro, macro_, weighted) = &case.table;
    for (class, (_, found)) in scores.classes.iter().enumerate() {
        let expected = [classes.0[class], classes.1[class], classes.2[class]];
        assert!(
            same(found, expected) && found.support as f64 == classes.3[class],
            "case {i}: {found:?}"
        );
    }
    assert!(same(&scores.micro_average, *micro), "case {i}: {scores:?}");
    assert!(same(&scores.macro_average, *macro_), "case {i}: {scores:?}");
    assert!(
        same(&scores.weighted_average, *weighted),
        "case {i}: {scores:?}"
    );
}

#[test]
fn classes_are_scored_as_by_scikit_learn() {
    let golden = golden();
    assert!(golden.labels.len() >= 200);
    for (i, case) in golden.labels.iter().enumerate() {
        match &case.truth[0] {
            Value::Number(_) => check_labels(i, case, |value| value.as_i64().unwrap()),
            _ => check_labels(i, case, |value| value.as_str().unwrap().to_string()),
        }
    }
}

#[test]
fn areas_under_the_curve_are_scikit_learn_s() {
    let golden = golden();
    assert!(golden.roc.len() >= 200 && golden.multiclass.len() >= 200);
    assert!(golden.roc.iter().filter(|case| case.2.is_none()).count() > 5);
    for (i, (labels, scores, expected)) in golden.roc.iter().enumerate() {
        let found = roc_auc(labels, scores).unwrap();
        assert_eq!(found.is_some(), expected.is_some(), "case {i}");
        assert!(
            close(found.unwrap_or(0.0), expected.unwrap_or(0.0)),
            "case {i}: {found:?}, not {expected:?}"
        );
    }
    for (i, (labels, rows, expected)) in golden.multiclass.iter().enumerate() {
        let mut expected = expected.iter();
        for how in [MultiClass::OneVsRest, MultiClass::OneVsOne] {
            for weighted in [false, true] {
                let found = roc_auc_multiclass(labels, rows, how, weighted)
                    .unwrap()
                    .unwrap();
                let expected = *expected.next().unwrap();
                assert!(
                    close(found, expected),
                    "case {i}, {how:?}, {weighted}: {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn calibration_errors_follow_their_formulas() {
    let golden = golden();
    assert!(golden.calibration.len() >= 200);
    for (i, (confidences, right, bins, expected, largest)) in golden.calibration.iter().enumerate()
    {
        let found = calibration(confidences, right, *bins).unwrap();
        assert!(
            close(found.expected_error, *expected),
            "case {i}: {found:?}, not {expected}"
        );
        assert!(
            close(found.maximum_error, *largest),
            "case {i}: {found:?}, not {largest}"
        );
    }
}

#[test]
fn entities_are_seqeval_s() {
    let golden = golden();
    assert!(golden.tagging.len() >= 400);
    let mut reports = 0;
    for (i, case) in golden.tagging.iter().enumerate() {
        let scheme = case.scheme.as_deref().map(|name| match name {
            "IOB1" => TagScheme::Iob1,
            "IOB2" => TagScheme::Iob2,
            "IOE1" => TagScheme::Ioe1,
            "IOE2" => TagScheme::Ioe2,
            "IOBES" => TagScheme::Iobes,
            _ => TagScheme::Bilou,
        });
        let options = TagOptions {
            scheme,
            suffix: case.suffix,
        };
        for (tags, expected) in case.truth.iter().zip(&case.entities) {
            let found = entities(tags, &options).unwrap();
            let found: Vec<_> = found
                .into_iter()
                .map(|e| (e.kind, e.start, e.end))
                .collect();
            assert_eq!(found, *expected, "case {i}: {tags:?}, {options:?}");
        }
        assert!(
            close(
                tag_accuracy(&case.truth, &case.pred).unwrap(),
                case.accuracy
            ),
            "case {i}"
        );
        let detected = TagScheme::detect(&case.truth, case.suffix).ok();
        let name = detected.map(|scheme| format!("{scheme:?}").to_uppercase());
        assert_eq!(name, case.detected, "case {i}: {:?}", case.truth);
        let Some(report) = &case.report else { continue };
        reports += 1;
        let scores = entity_scores(&case.truth, &case.pred, &options).unwrap();
        let expected = |key: &str| {
            let row = report
                .get(key)
                .unwrap_or_else(|| panic!("case {i} has no {key}"));
            let row: Vec<f64> = row
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_f64().unwrap_or(f64::NAN))
                .collect();
            ([row[0], row[1], row[2]], row[3])
        };
        assert_eq!(
            scores.classes.len() + 3,
            report.len(),
            "case {i}: {report:?}"
        );
        for (kind, found) in &scores.classes {
            let (values, support) = expected(kind);
            assert!(
                same(found, values) && found.support as f64 == support,
                "case {i}, {kind}: {found:?}, not {values:?}\n{case:?}"
            );
        }
        for (key, found) in [
            ("micro avg", &scores.micro_average),
            ("weighted avg", &scores.weighted_average),
            ("macro avg", &scores.macro_average),
        ] {
            let (values, support) = expected(key);
            assert!(
                same(found, values) && found.support as f64 == support,
                "case {i}, {key}: {found:?}, not {values:?}\n{case:?}"
            );
        }
    }
    assert!(reports >= 400);
}

#[test]
fn empty_lists_and_tags_outside_the_scheme_are_errors() {
    assert!(ConfusionMatrix::<u8>::new(&[], &[]).is_err());
    assert!(ConfusionMatrix::new(&[1], &[1, 2]).is_err());
    assert!(roc_auc(&[true, false], &[0.5, f64::NAN]).is_err());
    assert!(
        roc_auc_multiclass(
            &[0, 2],
            &[[0.5, 0.5], [0.5, 0.5]],
            MultiClass::OneVsOne,
            false
        )
        .is_err()
    );
    assert!(calibration(&[1.5], &[true], 15).is_err());
    assert!(calibration(&[0.5], &[true], 0).is_err());
    let strict = TagOptions {
        scheme: Some(TagScheme::Iob2),
        suffix: false,
    };
    let message = entity_scores(&[["O", "E-PER"]], &[["O", "O"]], &strict)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("sequence 0") && message.contains("E-PER"),
        "{message}"
    );
    assert!(entities(&[""], &TagOptions::default()).is_err());
    assert!(entity_scores(&[vec!["O"]], &[vec!["O", "O"]], &strict).is_err());
    let none = entity_scores(&[["O"]], &[["O"]], &strict).unwrap();
    assert_eq!(none.micro_average.f, 0.0);
    assert!(none.macro_average.f.is_nan());
}
