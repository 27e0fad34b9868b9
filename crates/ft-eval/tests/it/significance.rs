//! Tests of significance against SciPy 1.17.1, statsmodels 0.15.0 and NumPy; see `golden/significance.py`.

use std::sync::LazyLock;

use ft_eval::significance::*;
use serde_json::Value;

static GOLDEN: LazyLock<Value> = LazyLock::new(|| {
    let mut golden = read("significance.json");
    let tukey = read("tukey.json");
    for (name, cases) in tukey.as_object().unwrap() {
        golden[name] = cases.clone();
    }
    golden
});

fn read(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/");
    serde_json::from_str(&std::fs::read_to_string(format!("{folder}{name}")).unwrap()).unwrap()
}

fn cases(name: &str) -> impl Iterator<Item = (String, &'static Value)> {
    let cases = GOLDEN.pointer(name).and_then(Value::as_array).unwrap();
    assert!(!cases.is_empty());
    (cases.iter().enumerate()).map(move |(i, case)| (format!("{name} {i}"), case))
}

/// Null is NaN, strings are infinities.
fn number(value: &Value) -> f64 {
    match value {
        Value::Null => f64::NAN,
        Value::String(s) => s.parse().unwrap(),
        value => value.as_f64().unwrap(),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn lists(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(numbers).collect()
}

/// Equal to 1e-9 of the expected number, or to `absolute`.
#[track_caller]
fn same(name: &str, what: &str, ours: f64, expected: f64, absolute: f64) {
    let close = ours == expected
        || (ours.is_nan() && expected.is_nan())
        || (ours - expected).abs() <= (1e-9 * expected.abs()).max(absolute);
    assert!(close, "{name}, {what}: {ours:e} and not {expected:e}");
}

#[test]
fn paired_t_tests_equal_scipy() {
    for (name, case) in cases("/t_tests") {
        let (a, b) = (numbers(&case["a"]), numbers(&case["b"]));
        let expected = numbers(&case["expected"]);
        let test = paired_t_test(&a, &b, number(&case["level"])).unwrap();
        same(&name, "statistic", test.statistic, expected[0], 1e-12);
        same(&name, "p", test.p_value, expected[1], 0.0);
        if a.len() > 1 {
            same(&name, "df", test.degrees_of_freedom, expected[2], 0.0);
        }
        same(&name, "low", test.interval.low, expected[3], 1e-11);
        same(&name, "high", test.interval.high, expected[4], 1e-11);
    }
}

#[test]
fn distributions_equal_scipy() {
    for (name, case) in cases("/distributions/tails") {
        let [t, degrees, p] = numbers(case)[..] else {
            panic!("{name}")
        };
        let what = format!("t {t}, degrees {degrees}");
        same(&name, &what, student_t_two_sided(t, degrees), p, 0.0);
    }
    for (name, case) in cases("/distributions/quantiles") {
        let [p, degrees, t] = numbers(case)[..] else {
            panic!("{name}")
        };
        let what = format!("p {p}, degrees {degrees}");
        same(&name, &what, student_t_critical(p, degrees), t, 0.0);
    }
    for (name, case) in cases("/distributions/normal") {
        let [p, z] = numbers(case)[..] else {
            panic!("{name}")
        };
        same(&name, &p.to_string(), normal_quantile(p), z, 0.0);
    }
}

#[test]
fn exact_randomization_tests_equal_scipy() {
    for (name, case) in cases("/randomizations") {
        let (a, b) = (numbers(&case["a"]), numbers(&case["b"]));
        let test = randomization_test(&a, &b, &Randomization::default()).unwrap();
        assert!(test.exact, "{name}");
        same(&name, "p", test.p_value, number(&case["expected"]), 0.0);
    }
}

#[test]
fn wilcoxon_tests_equal_scipy() {
    for (name, case) in cases("/wilcoxons") {
        let test = wilcoxon_test(&numbers(&case["a"]), &numbers(&case["b"])).unwrap();
        let expected = numbers(&case["expected"]);
        same(&name, "statistic", test.statistic, expected[0], 0.0);
        same(&name, "p", test.p_value, expected[1], 0.0);
    }
}

#[test]
fn mcnemar_tests_equal_statsmodels() {
    for (name, case) in cases("/mcnemars") {
        let case = numbers(case);
        let (b, c) = (case[0] as u64, case[1] as u64);
        let tests = [
            mcnemar_exact(b, c),
            mcnemar_test(b, c, true),
            mcnemar_test(b, c, false),
        ];
        for (i, test) in tests.iter().enumerate() {
            let what = format!("{b} and {c}, test {i}");
            if b + c == 0 && i > 0 {
                // statsmodels divides by zero.
                assert!(test.statistic.is_nan() && test.p_value.is_nan());
                continue;
            }
            same(&name, &what, test.statistic, case[2 + 2 * i], 0.0);
            same(&name, &what, test.p_value, case[3 + 2 * i], 0.0);
        }
    }
}

#[test]
fn corrections_equal_statsmodels() {
    for (name, case) in cases("/corrections") {
        let (p, alpha) = (numbers(&case["p"]), number(&case["alpha"]));
        let ours = [holm(&p, alpha), benjamini_hochberg(&p, alpha)];
        for (i, corrected) in ours.into_iter().enumerate() {
            let corrected = corrected.unwrap();
            let expected = numbers(&case["expected"][2 * i]);
            assert_eq!(corrected.p_values.len(), expected.len(), "{name}");
            for (ours, expected) in corrected.p_values.iter().zip(expected) {
                same(&name, "p", *ours, expected, 0.0);
            }
            let reject: Vec<bool> =
                serde_json::from_value(case["expected"][2 * i + 1].clone()).unwrap();
            assert_eq!(corrected.reject, reject, "{name}");
        }
    }
}

#[test]
fn studentized_ranges_equal_scipy() {
    for (name, case) in cases("/ranges/tails") {
        let [q, groups, degrees, p] = numbers(case)[..] else {
            panic!("{name}")
        };
        let what = format!("q {q}, {groups} groups, {degrees} degrees");
        let ours = studentized_range_sf(q, groups as usize, degrees);
        same(&name, &what, ours, p, 1e-10);
    }
    for (name, case) in cases("/ranges/quantiles") {
        let [p, groups, degrees, q] = numbers(case)[..] else {
            panic!("{name}")
        };
        let what = format!("p {p}, {groups} groups, {degrees} degrees");
        let ours = studentized_range_critical(p, groups as usize, degrees);
        same(&name, &what, ours, q, 0.0);
    }
}

fn same_pairs(name: &str, pairs: &[TukeyPair], expected: &Value) {
    let expected = lists(expected);
    assert_eq!(pairs.len(), expected.len(), "{name}");
    for (pair, expected) in pairs.iter().zip(expected) {
        let what = format!("{} against {}", pair.first, pair.second);
        same(name, &what, pair.difference, expected[0], 1e-13);
        same(name, &what, pair.p_value, expected[1], 1e-10);
        same(name, &what, pair.interval.low, expected[2], 1e-8);
        same(name, &what, pair.interval.high, expected[3], 1e-8);
    }
}

#[test]
fn tukeys_test_of_groups_equals_scipy() {
    for (name, case) in cases("/tukeys") {
        let pairs = tukey_hsd(&lists(&case["groups"]), number(&case["level"])).unwrap();
        same_pairs(&name, &pairs, &case["expected"]);
    }
}

#[test]
fn tukeys_test_of_systems_on_the_same_items_equals_the_linear_model() {
    for (name, case) in cases("/blocked_tukeys") {
        let pairs = tukey_hsd_blocked(&lists(&case["systems"]), 0.95).unwrap();
        same_pairs(&name, &pairs, &case["expected"]);
    }
}

#[test]
fn percentiles_equal_numpy() {
    for (name, case) in cases("/percentiles") {
        let interval =
            percentile_interval(numbers(&case["values"]), number(&case["level"])).unwrap();
        let expected = numbers(&case["expected"]);
        same(&name, "low", interval.low, expected[0], 1e-12);
        same(&name, "high", interval.high, expected[1], 1e-12);
    }
}
