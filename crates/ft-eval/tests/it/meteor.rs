//! METEOR against NLTK.

use ft_eval::text::{
    MeteorOptions, corpus_meteor, meteor_score, single_meteor_score, whitespace_words,
    word_tokenize,
};

type Case = (Vec<String>, Vec<Vec<String>>, [f64; 3], f64, f64);

fn golden() -> Vec<Case> {
    serde_json::from_str(include_str!("../golden/meteor.json")).unwrap()
}

#[test]
fn scores_are_nltk_s() {
    let cases = golden();
    assert!(cases.len() > 900);
    for (i, (hypothesis, references, [alpha, beta, gamma], full, plain)) in cases.iter().enumerate()
    {
        let options = MeteorOptions {
            alpha: *alpha,
            beta: *beta,
            gamma: *gamma,
        };
        let expected = if cfg!(feature = "wordnet") {
            full
        } else {
            plain
        };
        let score = meteor_score(hypothesis, references, &options).unwrap();
        assert!(
            (score - expected).abs() < 1e-9,
            "case {i}: {score}, not {expected}: {hypothesis:?} {references:?} {options:?}"
        );
    }
}

#[test]
fn a_corpus_has_the_mean_for_each_tokenization() {
    let predictions = ["A cat sat.", "dogs"];
    let references = [vec!["A cat sat.", "no"], vec!["dog"]];
    let options = MeteorOptions::default();
    for (words, longest) in [
        (whitespace_words as fn(&str) -> Vec<String>, 3.0f64),
        (word_tokenize, 4.0),
    ] {
        let corpus = corpus_meteor(&predictions, &references, words, &options).unwrap();
        let mean = (1.0 - 0.5 / longest.powi(3) + 0.5) / 2.0;
        assert!((corpus - mean).abs() < 1e-12, "{corpus} {mean}");
    }
}

#[test]
fn invalid_input_is_an_error() {
    let options = MeteorOptions::default();
    let none: [&str; 0] = [];
    assert_eq!(single_meteor_score(&none, &none, &options), 0.0);
    assert!(meteor_score(&["a"], &[none; 0], &options).is_err());
    let words = whitespace_words;
    assert!(corpus_meteor(&none, &[none; 0], words, &options).is_err());
    assert!(corpus_meteor(&["a"], &[none], words, &options).is_err());
    assert!(corpus_meteor(&["a"], &[["a"], ["b"]], words, &options).is_err());
}
