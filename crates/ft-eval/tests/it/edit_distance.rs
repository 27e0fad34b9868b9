//! Distances and error rates against rapidfuzz and jiwer.

use ft_eval::text::{
    char_edit_distance, char_error_rate, normalized_edit_distance, word_edit_distance,
    word_error_rate,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    pairs: Vec<(String, String, usize, f64, f64, f64)>,
    corpora: Vec<(Vec<usize>, f64, f64)>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/edit_distance.json")).unwrap()
}

#[test]
fn pairs_are_as_far_apart_as_in_the_references() {
    let golden = golden();
    assert!(golden.pairs.len() >= 500);
    for (a, b, distance, normalized, wer, cer) in &golden.pairs {
        let case = format!("{a:?} {b:?}");
        assert_eq!(char_edit_distance(a, b), *distance, "{case}");
        let (x, y): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
        assert!(
            (normalized_edit_distance(&x, &y) - normalized).abs() < 1e-9,
            "{case}"
        );
        let word = word_error_rate(&[a], &[b]).unwrap();
        assert!((word - wer).abs() < 1e-9, "{word}, not {wer}: {case}");
        let char = char_error_rate(&[a], &[b]).unwrap();
        assert!((char - cer).abs() < 1e-9, "{char}, not {cer}: {case}");
    }
}

#[test]
fn corpora_sum_before_they_divide() {
    let golden = golden();
    for (places, wer, cer) in &golden.corpora {
        let predictions: Vec<&str> = places.iter().map(|i| &*golden.pairs[*i].0).collect();
        let references: Vec<&str> = places.iter().map(|i| &*golden.pairs[*i].1).collect();
        let word = word_error_rate(&predictions, &references).unwrap();
        assert!((word - wer).abs() < 1e-9, "{word}, not {wer}: {places:?}");
        let char = char_error_rate(&predictions, &references).unwrap();
        assert!((char - cer).abs() < 1e-9, "{char}, not {cer}: {places:?}");
    }
}

#[test]
fn words_are_counted_and_invalid_input_is_an_error() {
    assert_eq!(word_edit_distance("the cat  sat", "a cat sat down"), 2);
    let none: [&str; 0] = [];
    assert!(word_error_rate(&none, &none).is_err());
    assert!(char_error_rate(&["a"], &["a", "b"]).is_err());
}
