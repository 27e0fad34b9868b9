//! BLEU, chrF and TER against sacreBLEU and evaluate.

// Rows of the golden file as they are there.
#![allow(clippy::type_complexity)]

use ft_eval::text::{
    BleuOptions, BleuSmoothing, ChrfOptions, TerOptions, corpus_bleu, corpus_chrf, corpus_ter,
    hf_bleu, sentence_bleu,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<(String, Vec<String>)>,
    bleu: Vec<Case<Bleu, (f64, Vec<f64>, Vec<f64>, Vec<f64>, f64, usize, usize)>>,
    hf_bleu: Vec<(
        Vec<usize>,
        usize,
        usize,
        bool,
        (f64, Vec<f64>, f64, Option<f64>, usize, usize),
    )>,
    chrf: Vec<Case<Chrf, f64>>,
    ter: Vec<Case<Ter, (f64, usize, f64)>>,
    signature_of_different_numbers: String,
    sentence_bleu: f64,
}

/// Texts, references of each, options, result, signature.
type Case<O, R> = (Vec<usize>, usize, O, R, String);

#[derive(Debug, Deserialize)]
struct Bleu {
    tokenize: String,
    smooth_method: String,
    smooth_value: Option<f64>,
    lowercase: bool,
    max_ngram_order: usize,
    effective_order: bool,
}

impl Bleu {
    fn options(&self) -> BleuOptions {
        BleuOptions {
            tokenizer: self.tokenize.parse().unwrap(),
            smoothing: match self.smooth_method.as_str() {
                "none" => BleuSmoothing::None,
                "floor" => BleuSmoothing::Floor(self.smooth_value.unwrap_or(0.1)),
                "add-k" => BleuSmoothing::AddK(self.smooth_value.unwrap_or(1.0)),
                _ => BleuSmoothing::Exp,
            },
            lowercase: self.lowercase,
            max_order: self.max_ngram_order,
            effective_order: self.effective_order,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Chrf {
    char_order: usize,
    word_order: usize,
    beta: u32,
    lowercase: bool,
    whitespace: bool,
    eps_smoothing: bool,
}

#[derive(Debug, Deserialize)]
struct Ter {
    normalized: bool,
    no_punct: bool,
    asian_support: bool,
    case_sensitive: bool,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/translation.json")).unwrap()
}

impl Golden {
    fn corpus(&self, chosen: &[usize], count: usize) -> (Vec<&str>, Vec<&[String]>) {
        let texts = chosen.iter().map(|i| &self.texts[*i]);
        texts.map(|(p, r)| (p.as_str(), &r[..count])).unzip()
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9
}

fn all_close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(*a, *b))
}

#[test]
fn bleu_is_sacrebleu_s() {
    let golden = golden();
    assert!(golden.bleu.len() > 1000);
    for (chosen, count, options, expected, signature) in &golden.bleu {
        let (predictions, references) = golden.corpus(chosen, *count);
        let found = corpus_bleu(&predictions, &references, &options.options()).unwrap();
        let (score, counts, totals, precisions, bp, length, reference) = expected;
        assert!(
            close(found.score, *score)
                && all_close(&found.counts, counts)
                && all_close(&found.totals, totals)
                && all_close(&found.precisions, precisions)
                && close(found.brevity_penalty, *bp)
                && (found.prediction_length, found.reference_length) == (*length, *reference),
            "{options:?}: {found:?}, not {expected:?}\n{predictions:?}\n{references:?}"
        );
        assert_eq!(found.signature, *signature);
    }
}

#[test]
fn hf_bleu_is_evaluate_s() {
    let golden = golden();
    assert!(golden.hf_bleu.len() >= 200);
    for (chosen, count, order, smooth, expected) in &golden.hf_bleu {
        let (predictions, references) = golden.corpus(chosen, *count);
        let found = hf_bleu(&predictions, &references, *order, *smooth).unwrap();
        let (score, precisions, bp, ratio, length, reference) = expected;
        assert!(
            close(found.bleu, *score)
                && all_close(&found.precisions, precisions)
                && close(found.brevity_penalty, *bp)
                && ratio.is_none_or(|ratio| close(found.length_ratio, ratio))
                && (found.translation_length, found.reference_length) == (*length, *reference),
            "{order} {smooth}: {found:?}, not {expected:?}\n{predictions:?}\n{references:?}"
        );
    }
}

#[test]
fn chrf_is_sacrebleu_s() {
    let golden = golden();
    assert!(golden.chrf.len() >= 400);
    for (chosen, count, options, score, signature) in &golden.chrf {
        let (predictions, references) = golden.corpus(chosen, *count);
        let chrf = ChrfOptions {
            char_order: options.char_order,
            word_order: options.word_order,
            beta: options.beta,
            lowercase: options.lowercase,
            whitespace: options.whitespace,
            eps_smoothing: options.eps_smoothing,
        };
        let found = corpus_chrf(&predictions, &references, &chrf).unwrap();
        assert!(
            close(found.score, *score),
            "{options:?}: {found:?}, not {score}\n{predictions:?}\n{references:?}"
        );
        assert_eq!(found.signature, *signature);
    }
}

#[test]
fn ter_is_sacrebleu_s() {
    let golden = golden();
    assert!(golden.ter.len() >= 600);
    for (chosen, count, options, (score, edits, length), signature) in &golden.ter {
        let (predictions, references) = golden.corpus(chosen, *count);
        let ter = TerOptions {
            normalized: options.normalized,
            no_punct: options.no_punct,
            asian_support: options.asian_support,
            case_sensitive: options.case_sensitive,
        };
        let found = corpus_ter(&predictions, &references, &ter).unwrap();
        assert!(
            close(found.score, *score)
                && found.edits == *edits
                && close(found.reference_length, *length),
            "{options:?}: {found:?}, not {score}, {edits} of {length}\n{predictions:?}\n{references:?}"
        );
        assert_eq!(found.signature, *signature);
    }
}

#[test]
fn sentences_and_different_numbers_of_references() {
    let golden = golden();
    let options = BleuOptions {
        effective_order: true,
        ..BleuOptions::default()
    };
    let found = sentence_bleu("the cat sat", &["the cat sat down"], &options).unwrap();
    assert!(close(found.score, golden.sentence_bleu));
    let references = [vec!["a b c d"], vec!["e f g", "e f g h"]];
    let found = corpus_bleu(
        &["a b c d", "e f g h"],
        &references,
        &BleuOptions::default(),
    )
    .unwrap();
    assert_eq!(found.signature, golden.signature_of_different_numbers);
    assert!(close(found.score, 100.0));
}

#[test]
fn invalid_input_is_an_error() {
    let none: [&str; 0] = [];
    let bleu = BleuOptions::default();
    assert!(corpus_bleu(&none, &[["a"]; 0], &bleu).is_err());
    assert!(corpus_bleu(&["a"], &[["a"], ["b"]], &bleu).is_err());
    let message = corpus_bleu(&["a", "b"], &[vec!["a"], vec![]], &bleu).unwrap_err();
    assert!(
        message
            .to_string()
            .contains("prediction 1 has no reference")
    );
    assert!(corpus_chrf(&["a"], &[none], &ChrfOptions::default()).is_err());
    assert!(corpus_ter(&["a"], &[none], &TerOptions::default()).is_err());
    let no_order = BleuOptions {
        max_order: 0,
        ..bleu
    };
    assert!(corpus_bleu(&["a"], &[["a"]], &no_order).is_err());
}
