//! ROUGE against rouge_score.

use ft_eval::text::{
    Rouge, RougeOptions, RougeScore, RougeWords, corpus_rouge, rouge, rouge_multi, rouge_pairs,
};
use serde::Deserialize;

type Scores = Vec<[f64; 3]>;

#[derive(Deserialize)]
struct Golden {
    kinds: Vec<String>,
    cases: Vec<(Vec<String>, String, Scores, Scores)>,
}

fn golden() -> (Vec<Rouge>, Golden) {
    let golden: Golden = serde_json::from_str(include_str!("../golden/rouge.json")).unwrap();
    let kinds = golden.kinds.iter().map(|kind| kind.parse().unwrap());
    (kinds.collect(), golden)
}

fn close(score: RougeScore, [precision, recall, fmeasure]: [f64; 3]) -> bool {
    (score.precision - precision).abs() < 1e-9
        && (score.recall - recall).abs() < 1e-9
        && (score.fmeasure - fmeasure).abs() < 1e-9
}

#[test]
fn scores_are_rouge_score_s() {
    let (kinds, golden) = golden();
    assert!(golden.cases.len() > 500);
    for (i, (references, prediction, plain, stemmed)) in golden.cases.iter().enumerate() {
        for (stem, expected) in [(false, plain), (true, stemmed)] {
            let options = RougeOptions {
                stem,
                ..RougeOptions::default()
            };
            let scores = rouge_multi(&kinds, prediction, references, &options).unwrap();
            for ((kind, score), expected) in kinds.iter().zip(scores).zip(expected) {
                assert!(
                    close(score, *expected),
                    "case {i}, {kind}, stem {stem}: {score:?}, not {expected:?}\n{prediction:?}\n{references:?}"
                );
            }
        }
    }
}

#[test]
fn a_corpus_has_the_means_of_its_pairs() {
    let (kinds, golden) = golden();
    let predictions: Vec<&str> = golden.cases.iter().map(|case| case.1.as_str()).collect();
    let references: Vec<&[String]> = golden.cases.iter().map(|case| &case.0[..]).collect();
    let options = RougeOptions::default();
    let corpus = corpus_rouge(&kinds, &predictions, &references, &options).unwrap();
    let pairs = rouge_pairs(&kinds, &predictions, &references, &options).unwrap();
    assert_eq!(pairs.len(), golden.cases.len());
    for (k, score) in corpus.into_iter().enumerate() {
        let mean = |part: usize| {
            let values = golden.cases.iter().map(|case| case.2[k][part]);
            values.sum::<f64>() / golden.cases.len() as f64
        };
        assert!(close(score, [mean(0), mean(1), mean(2)]), "{}", kinds[k]);
    }
}

#[test]
fn unicode_words_equal_ascii_words_on_ascii_and_exist_for_other_scripts() {
    let (kinds, golden) = golden();
    let unicode = RougeOptions {
        words: RougeWords::Unicode,
        ..RougeOptions::default()
    };
    for (references, prediction, plain, _) in &golden.cases {
        if prediction.is_ascii() && references.iter().all(|r| r.is_ascii()) {
            let scores = rouge_multi(&kinds, prediction, references, &unicode).unwrap();
            for (score, expected) in scores.into_iter().zip(plain) {
                assert!(close(score, *expected), "{prediction:?}");
            }
        }
    }
    // Two characters of three, and one word of two.
    for (prediction, reference, f) in [
        ("北京人", "北京话", 2.0 / 3.0),
        ("мир да", "МИР!", 2.0 / 3.0),
    ] {
        let of = |options: &RougeOptions| {
            rouge(&[Rouge::N(1)], prediction, reference, options).unwrap()[0]
        };
        assert_eq!(of(&RougeOptions::default()).fmeasure, 0.0);
        assert!((of(&unicode).fmeasure - f).abs() < 1e-12);
    }
}

#[test]
fn invalid_input_is_an_error() {
    let options = RougeOptions::default();
    let none: [&str; 0] = [];
    let lists = [["a"]];
    for message in [
        rouge(&[Rouge::N(0)], "a", "a", &options).unwrap_err(),
        rouge(&[Rouge::N(10)], "a", "a", &options).unwrap_err(),
        rouge_multi(&[Rouge::L], "a", &none, &options).unwrap_err(),
        rouge_pairs(&[Rouge::L], &["a", "b"], &lists, &options).unwrap_err(),
        rouge_pairs(&[Rouge::L], &["a"], &[none], &options).unwrap_err(),
        corpus_rouge(&[Rouge::L], &none, &[none; 0], &options).unwrap_err(),
        "rouge10".parse::<Rouge>().unwrap_err(),
        "ROUGE1".parse::<Rouge>().unwrap_err(),
    ] {
        assert!(message.to_string().len() > 20, "{message}");
    }
    for kind in ["rouge1", "rouge9", "rougeL", "rougeLsum"] {
        assert_eq!(kind.parse::<Rouge>().unwrap().to_string(), kind);
    }
}
