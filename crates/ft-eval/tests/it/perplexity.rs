//! Perplexities against lm-evaluation-harness.

use ft_eval::text::{bits_per_byte, count_words, perplexity};

type Case = (Vec<(String, f64)>, f64, f64, f64);

#[test]
fn perplexities_are_the_harness_s() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/perplexity.json")).unwrap();
    assert!(cases.len() >= 200);
    for (i, (documents, by_word, by_byte, bits)) in cases.iter().enumerate() {
        let total: f64 = documents.iter().map(|document| document.1).sum();
        let words = documents
            .iter()
            .map(|document| count_words(&document.0))
            .sum();
        let bytes = documents.iter().map(|document| document.0.len()).sum();
        for (name, score, expected) in [
            ("by word", perplexity(total, words), by_word),
            ("by byte", perplexity(total, bytes), by_byte),
            ("bits", bits_per_byte(total, bytes), bits),
        ] {
            let error = (score - expected).abs() / expected.abs().max(1.0);
            assert!(error < 1e-9, "case {i}, {name}: {score}, not {expected}");
        }
    }
}

#[test]
fn counts_of_zero_give_nan() {
    assert!(perplexity(-1.0, 0).is_nan() && bits_per_byte(-1.0, 0).is_nan());
    assert_eq!(perplexity(-1e9, 1), f64::INFINITY);
}
