//! Exact match against lm-evaluation-harness.

use ft_eval::text::{ExactMatchOptions, exact_match, exact_match_with};

type Case = (String, String, ExactMatchOptions, f64);

#[test]
fn texts_match_as_in_the_reference() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../golden/exact_match.json")).unwrap();
    assert!(cases.len() > 400);
    for (prediction, reference, options, expected) in &cases {
        let score = exact_match_with(&[prediction], &[[reference]], options).unwrap();
        assert_eq!(score, *expected, "{prediction:?} {reference:?} {options:?}");
    }
}

#[test]
fn any_reference_may_be_equal_and_nothing_is_ignored_by_default() {
    let references = [vec!["b", "a"], vec!["A"], vec!["a "], vec!["a\0"]];
    assert_eq!(exact_match(&["a"; 4], &references).unwrap(), 0.25);
}

#[test]
fn invalid_input_is_an_error() {
    let none: [&str; 0] = [];
    assert!(exact_match(&none, &[none; 0]).is_err());
    assert!(exact_match(&["a"], &[none]).is_err());
    assert!(exact_match(&["a", "b"], &[["a"]]).is_err());
    let options = ExactMatchOptions {
        regexes_to_ignore: vec!["(".into()],
        ..ExactMatchOptions::default()
    };
    let error = exact_match_with(&["a"], &[["a"]], &options).unwrap_err();
    assert!(error.to_string().contains("regexes_to_ignore"));
}
