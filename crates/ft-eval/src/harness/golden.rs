//! Parts that follow Python, compared with Python: `tests/golden/harness_python.py`. The parts are private, so the
//! tests are here and not in `tests/it`.

use std::path::Path;

use serde_json::{Value, json};

use super::PythonRandom;
use super::aggregation::Aggregation;
use super::dataset::{as_columns, parse_rows};
use super::exact_match::ExactMatch;
use super::filters::FilterPipeline;
use super::functions::{MetricValue, Response};
use super::group::{pooled, unweighted};
use super::python_literal::literal_eval;
use super::python_regex::{Found, PythonRegex, escape};
use super::python_value::PyValue;
use super::task_file::Origin;
use super::template;

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/harness_python.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn cases(golden: &Value, key: &str) -> Vec<Value> {
    golden[key].as_array().unwrap().clone()
}

fn origin() -> Origin {
    Origin::BuiltIn("test".to_string())
}

/// Collects all differences.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn add(&mut self, same: bool, message: impl FnOnce() -> String) {
        if !same {
            self.0.push(message());
        }
    }

    #[track_caller]
    fn none(self) {
        assert!(
            self.0.is_empty(),
            "{} differ:\n{}",
            self.0.len(),
            self.0.join("\n")
        );
    }
}

#[test]
fn random_numbers_samples_choices_and_shuffles_are_python_s() {
    for case in cases(&golden(), "random") {
        let seed = case["seed"].as_u64().unwrap();
        let mut random = PythonRandom::new(seed);
        let numbers: Vec<f64> = (0..5).map(|_| random.random()).collect();
        assert_eq!(json!(numbers), case["random"], "seed {seed}");
        for sample in case["samples"].as_array().unwrap() {
            let (n, k) = (sample[0].as_u64().unwrap(), sample[1].as_u64().unwrap());
            assert_eq!(
                json!(random.sample(n as usize, k as usize)),
                sample[2],
                "seed {seed}: {k} of {n}"
            );
        }
        let choices: Vec<usize> = (0..20).map(|_| random.choice_of(37)).collect();
        assert_eq!(json!(choices), case["choices"], "seed {seed}");
        let mut items: Vec<usize> = (0..30).collect();
        random.shuffle(&mut items);
        assert_eq!(json!(items), case["shuffle"], "seed {seed}");
        let last = (0..700).map(|_| random.random()).last();
        assert_eq!(json!(last), case["last"], "seed {seed}");
    }
}

#[test]
fn patterns_find_what_python_finds() {
    let mut differences = Differences::default();
    for case in cases(&golden(), "findall") {
        let (pattern, text) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
        let ours = PythonRegex::new(pattern).and_then(|regex| regex.find_all(text));
        let ours = ours.map(|found| {
            let found = found.iter().map(|found| match found {
                Found::Text(text) => json!(text),
                Found::Groups(groups) => json!(groups),
            });
            Value::Array(found.collect())
        });
        let same = match &ours {
            Ok(found) => case[2]["ok"] == *found,
            Err(_) => case[2].get("error").is_some(),
        };
        differences.add(same, || {
            format!("{pattern:?} in {text:?}: {ours:?} is not {}", case[2])
        });
    }
    differences.none();
}

#[test]
fn patterns_replace_what_python_replaces() {
    let mut differences = Differences::default();
    for case in cases(&golden(), "sub") {
        let text = |i: usize| case[i].as_str().unwrap();
        let count = case[3].as_u64().unwrap() as usize;
        let ours = PythonRegex::new(text(0)).and_then(|regex| regex.sub(text(1), text(2), count));
        let same = match &ours {
            Ok(replaced) => case[4]["ok"] == json!(replaced),
            Err(_) => case[4].get("error").is_some(),
        };
        differences.add(same, || format!("{case}: {ours:?}"));
    }
    for case in cases(&golden(), "escape") {
        let ours = escape(case[0].as_str().unwrap());
        differences.add(case[1] == json!(ours), || format!("{case}: {ours:?}"));
    }
    differences.none();
}

#[test]
fn values_are_written_as_str_repr_and_json_dumps_write_them() {
    let mut differences = Differences::default();
    for case in cases(&golden(), "values") {
        let value = PyValue::from(&case[0]);
        let ours = [
            value.str(),
            value.repr(),
            value.json(Some(2)),
            value.json(None),
        ];
        for (i, ours) in ours.iter().enumerate() {
            let expected = case[i + 1].as_str().unwrap();
            differences.add(ours == expected, || format!("{ours} is not {expected}"));
        }
    }
    differences.none();
}

#[test]
fn literals_are_read_as_python_reads_them() {
    let mut differences = Differences::default();
    for case in cases(&golden(), "literals") {
        let text = case[0].as_str().unwrap();
        let ours = literal_eval(text.trim_start_matches([' ', '\t'])).map(|value| value.to_json());
        let same = match &ours {
            Ok(value) => case[1].get("ok").is_some_and(|expected| expected == value),
            Err(_) => case[1].get("error").is_some(),
        };
        differences.add(same, || format!("{text:?}: {ours:?} is not {}", case[1]));
    }
    differences.none();
}

#[test]
fn templates_are_rendered_as_jinja2_renders_them() {
    let golden = golden();
    let mut differences = Differences::default();
    for case in cases(&golden, "templates") {
        let text = case[0].as_str().unwrap();
        let ours = template::render(text, &golden["doc"]);
        let same = match &ours {
            Ok(rendered) => case[1]["ok"] == json!(rendered),
            Err(_) => case[1].get("error").is_some(),
        };
        differences.add(same, || format!("{text:?}: {ours:?} is not {}", case[1]));
    }
    differences.none();
}

#[test]
fn filters_take_what_the_reference_takes() {
    let golden = golden();
    let mut differences = Differences::default();
    let doc = &golden["choices"];
    let apply = |filters: Vec<Value>, repeats: Vec<Response>| {
        let list = json!([{"name": "x", "filter": filters}]);
        let pipelines = FilterPipeline::list(Some(&list), &origin()).unwrap();
        pipelines[0]
            .apply(vec![repeats], &[doc])
            .map(|mut filtered| filtered.remove(0))
    };
    for case in cases(&golden, "filters") {
        let mut filters: Vec<Value> = case[0]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| {
                let mut filter = component[1].clone();
                filter["function"] = component[0].clone();
                filter
            })
            .collect();
        filters.push(json!({"function": "take_first"}));
        let ours = apply(
            filters,
            vec![Response::Text(case[1].as_str().unwrap().to_string())],
        );
        let same = match &ours {
            Ok(Response::Text(text)) => case[2]["ok"] == json!(text),
            Ok(_) => false,
            Err(_) => case[2].get("error").is_some(),
        };
        differences.add(same, || format!("{case}: {ours:?}"));
    }
    for case in cases(&golden, "votes") {
        let text = |value: &Value| Response::Text(value.as_str().unwrap().to_string());
        let repeats: Vec<Response> = case[0].as_array().unwrap().iter().map(text).collect();
        let vote = vec![
            json!({"function": "majority_vote"}),
            json!({"function": "take_first"}),
        ];
        assert_eq!(
            apply(vote, repeats.clone()).unwrap(),
            text(&case[1]),
            "{case}"
        );
        let first = vec![json!({"function": "take_first_k", "k": 1})];
        assert_eq!(
            apply(first, repeats).unwrap(),
            Response::Repeats(vec![text(&case[2][0])]),
            "{case}"
        );
    }
    differences.none();
}

#[test]
fn exact_match_is_that_of_the_reference() {
    let mut differences = Differences::default();
    for case in cases(&golden(), "exact_match") {
        let settings = case[0].as_object().unwrap();
        let metric = ExactMatch::new("exact_match", settings.iter(), &origin()).unwrap();
        let text = |i: usize| PyValue::Str(case[i].as_str().unwrap().to_string());
        let ours = metric.count_same(&[text(1)], &[text(2)]).unwrap();
        differences.add((ours == 1) == (case[3] == json!(1.0)), || {
            format!("{case}: {ours}")
        });
    }
    differences.none();
}

fn metric_value(value: &Value) -> MetricValue {
    match value {
        Value::Array(items) => MetricValue::List(items.iter().map(metric_value).collect()),
        Value::Number(number) if number.is_i64() => MetricValue::Int(number.as_i64().unwrap()),
        other => MetricValue::Number(other.as_f64().unwrap()),
    }
}

fn close(ours: f64, golden: f64) -> bool {
    (ours - golden).abs() <= 1e-9 * golden.abs().max(1.0)
}

#[test]
fn numbers_and_their_bootstrap_errors_are_those_of_the_reference() {
    let golden = golden();
    let mut differences = Differences::default();
    for case in cases(&golden, "aggregations") {
        let name = case[0].as_str().unwrap();
        let aggregation = Aggregation::by_name(name).unwrap();
        let values: Vec<MetricValue> = case[1]
            .as_array()
            .unwrap()
            .iter()
            .map(metric_value)
            .collect();
        let ours = aggregation.of(&values);
        let same = match (&ours, case[2]["ok"].as_f64()) {
            (Ok(ours), Some(golden)) => close(*ours, golden),
            (Err(_), None) => continue,
            _ => false,
        };
        differences.add(same, || {
            format!("{name} of {}: {ours:?} is not {}", case[1], case[2])
        });
        for stderr in case[3].as_array().unwrap() {
            let iterations = stderr[0].as_u64().unwrap() as usize;
            let ours = aggregation.standard_error(&values, iterations).unwrap();
            let same = match (ours, stderr[1]["ok"].as_f64()) {
                (Some(ours), Some(golden)) => close(ours, golden),
                (None, None) => true,
                // Python raises an OverflowError here.
                (Some(ours), None) => ours.is_infinite(),
                _ => false,
            };
            differences.add(same, || {
                format!("error of {name} of {}: {ours:?} is not {stderr}", case[1])
            });
        }
    }
    for case in cases(&golden, "brier") {
        let values: Vec<MetricValue> = case[0]
            .as_array()
            .unwrap()
            .iter()
            .map(metric_value)
            .collect();
        let ours = Aggregation::BrierScore.of(&values).unwrap();
        differences.add(close(ours, case[1].as_f64().unwrap()), || {
            format!("{case}: {ours}")
        });
    }
    for case in cases(&golden, "groups") {
        let list = |i: usize| {
            case[i]
                .as_array()
                .unwrap()
                .iter()
                .map(|x| x.as_f64().unwrap())
        };
        let errors: Vec<(f64, f64)> = list(1).zip(list(2)).collect();
        for (ours, golden) in [(pooled(&errors), &case[4]), (unweighted(&errors), &case[6])] {
            differences.add(close(ours, golden.as_f64().unwrap()), || {
                format!("{case}: {ours}")
            });
        }
    }
    differences.none();
}

#[test]
fn rows_of_json_files_are_those_of_datasets() {
    let mut differences = Differences::default();
    for case in cases(&golden(), "files") {
        let rows = parse_rows(case[1].as_str().unwrap(), None).map(as_columns);
        let rows = rows.map(|rows| {
            rows.iter()
                .map(|row| PyValue::from(row).json(None))
                .collect::<Vec<_>>()
        });
        let same = match &rows {
            Ok(rows) => case[2]["ok"] == json!(rows),
            Err(_) => case[2].get("error").is_some(),
        };
        differences.add(same, || format!("{}: {rows:?} is not {}", case[1], case[2]));
    }
    differences.none();
}
