//! Measures of rankings against trec_eval, ranx and sentence-transformers; made by `golden/retrieval.py`.

use std::collections::BTreeMap;

use ft_eval::retrieval::{Measure, Qrels, Run, Ties, evaluate};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/retrieval.json")).unwrap()
}

fn read(golden: &Value, run: &str) -> (Qrels, Run) {
    let qrels = serde_json::from_value(golden["qrels"].clone()).unwrap();
    let run = serde_json::from_value(golden["runs"][run].clone()).unwrap();
    (qrels, run)
}

fn by_query(qrels: &Qrels, run: &Run, measure: &str, ties: Ties) -> BTreeMap<String, f64> {
    let measure: Measure = measure.parse().unwrap();
    let scores = evaluate(qrels, run, &[measure], ties).unwrap();
    let both = scores[0].queries.iter().cloned();
    both.zip(scores[0].values.iter().copied()).collect()
}

fn agree(name: &str, found: &BTreeMap<String, f64>, expected: &Value) {
    let expected: BTreeMap<String, f64> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(found.len(), expected.len(), "{name}");
    for (query, value) in found {
        let other = expected[query];
        assert!(
            (value - other).abs() < 1e-9,
            "{name} of {query}: {value}, not {other}"
        );
    }
}

#[test]
fn measures_are_those_of_trec_eval_also_among_ties() {
    let golden = golden();
    for name in ["apart", "tied"] {
        let (qrels, run) = read(&golden, name);
        for (measure, expected) in golden["trec_eval"][name].as_object().unwrap() {
            let found = by_query(&qrels, &run, measure, Ties::Descending);
            agree(&format!("{measure}, {name}"), &found, expected);
        }
    }
}

#[test]
fn measures_are_those_of_ranx() {
    let golden = golden();
    let (qrels, run) = read(&golden, "apart");
    for (measure, expected) in golden["ranx"].as_object().unwrap() {
        agree(
            measure,
            &by_query(&qrels, &run, measure, Ties::Descending),
            expected,
        );
    }
}

/// Its gains are 0 and 1, and its ties are broken by the first name.
#[test]
fn means_are_those_of_sentence_transformers() {
    let golden = golden();
    for name in ["apart", "tied"] {
        let (qrels, run) = read(&golden, name);
        let mut binary = Qrels::new();
        for query in qrels.queries() {
            for (document, relevance) in qrels.of(query).unwrap() {
                let relevance = f64::from(u8::from(*relevance > 0.0));
                binary.insert(query, document, relevance).unwrap();
            }
        }
        for (measure, expected) in golden["sentence_transformers"][name].as_object().unwrap() {
            let found = by_query(&binary, &run, measure, Ties::Ascending);
            let mean = found.values().sum::<f64>() / found.len() as f64;
            let expected = expected.as_f64().unwrap();
            assert!(
                (mean - expected).abs() < 1e-9,
                "{measure}, {name}: {mean} {expected}"
            );
        }
    }
}

#[test]
fn files_of_trec_and_ranx_are_read_as_they_were_written() {
    let golden = golden();
    let (qrels, run) = read(&golden, "apart");
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("qrels.txt"), qrels.to_trec()).unwrap();
    std::fs::write(path("run.txt"), run.to_trec("a", Ties::default())).unwrap();
    std::fs::write(path("qrels.json"), serde_json::to_vec(&qrels).unwrap()).unwrap();
    std::fs::write(path("run.json"), serde_json::to_vec(&run).unwrap()).unwrap();
    for end in ["txt", "json"] {
        assert_eq!(Qrels::read(&path(&format!("qrels.{end}"))).unwrap(), qrels);
        assert_eq!(Run::read(&path(&format!("run.{end}"))).unwrap(), run);
    }
    std::fs::write(path("bad.txt"), "q1 0 d1 1\nq2 0 d2\n").unwrap();
    let error = Qrels::read(&path("bad.txt")).unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
    std::fs::write(path("twice.txt"), "q Q0 d 1 0.5 x\nq Q0 d 2 0.4 x\n").unwrap();
    let error = Run::read(&path("twice.txt")).unwrap_err().to_string();
    assert!(error.contains("twice"), "{error}");
}
