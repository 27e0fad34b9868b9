//! Scores of generated texts against references, equal to those of the Python tools.
//!
//! Files have one text per line. A line ends only at `\n` or `\r\n`, and an empty line is an empty text. With several files
//! of references, each prediction has several references.
//!
//! BLEU, chrF and TER are those of sacreBLEU with its defaults, for the whole corpus, from 0 to 100; `bleu_signature` describes
//! how BLEU was computed. The others are means over the lines, from 0 to 1: F1 of ROUGE as in rouge_score, METEOR as in NLTK
//! (with words separated by white space, and with NLTK's words), `exact_match` as in evaluate (equal character by character)
//! and the F1 of SQuAD's words, both the best over the references.
//!
//! ```sh
//! cargo run --release --example evaluate_text -- --predictions FILE --references FILE
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::eval::text::{
    BleuOptions, BleuTokenizer, ChrfOptions, MeteorOptions, Rouge, RougeOptions, TerOptions,
    corpus_bleu, corpus_chrf, corpus_meteor, corpus_rouge, corpus_ter, corpus_token_f1,
    exact_match, whitespace_words, word_tokenize,
};
use serde_json::{Map, Value};

/// Scores of generated texts against references.
#[derive(Parser)]
struct Args {
    /// UTF-8 file with one prediction per line.
    #[arg(long)]
    predictions: PathBuf,
    /// UTF-8 file with one reference per line; may be repeated for further references.
    #[arg(long, required = true)]
    references: Vec<PathBuf>,
    /// The tokenizer of BLEU: 13a, intl, char, zh or none.
    #[arg(long, default_value = "13a")]
    tokenize: BleuTokenizer,
    /// Compare stems of words in ROUGE (rouge_score's use_stemmer).
    #[arg(long)]
    stem: bool,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let predictions = read_lines(&args.predictions)?;
    let mut references = vec![Vec::new(); predictions.len()];
    for path in &args.references {
        let lines = read_lines(path)?;
        ensure!(
            lines.len() == predictions.len(),
            "{} has {} lines, but {} has {}: line i of one belongs to line i of the other",
            path.display(),
            lines.len(),
            args.predictions.display(),
            predictions.len()
        );
        for (references, line) in references.iter_mut().zip(lines) {
            references.push(line);
        }
    }

    let mut scores = Map::new();
    let options = BleuOptions {
        tokenizer: args.tokenize,
        ..BleuOptions::default()
    };
    let bleu = corpus_bleu(&predictions, &references, &options)?;
    scores.insert("bleu".into(), bleu.score.into());
    scores.insert("bleu_signature".into(), bleu.signature.into());
    let chrf = corpus_chrf(&predictions, &references, &ChrfOptions::default())?;
    scores.insert("chrf".into(), chrf.score.into());
    let ter = corpus_ter(&predictions, &references, &TerOptions::default())?;
    scores.insert("ter".into(), ter.score.into());
    let rouge = RougeOptions {
        stem: args.stem,
        ..RougeOptions::default()
    };
    let kinds = [Rouge::N(1), Rouge::N(2), Rouge::L, Rouge::Lsum];
    for (kind, score) in kinds
        .iter()
        .zip(corpus_rouge(&kinds, &predictions, &references, &rouge)?)
    {
        scores.insert(kind.to_string(), score.fmeasure.into());
    }
    let meteor = |words: fn(&str) -> Vec<String>| {
        corpus_meteor(&predictions, &references, words, &MeteorOptions::default())
    };
    scores.insert("meteor".into(), meteor(whitespace_words)?.into());
    scores.insert("meteor_word_tokenize".into(), meteor(word_tokenize)?.into());
    scores.insert(
        "exact_match".into(),
        exact_match(&predictions, &references)?.into(),
    );
    scores.insert(
        "token_f1".into(),
        corpus_token_f1(&predictions, &references)?.into(),
    );

    if args.json {
        println!("{}", Value::Object(scores));
        return Ok(());
    }
    println!(
        "{} predictions, references for each: {}\n",
        predictions.len(),
        args.references.len()
    );
    for (name, value) in &scores {
        match value.as_f64() {
            Some(score) => println!("{name:<22}{score:>10.4}"),
            None => println!("{name:<22}{}", value.as_str().unwrap_or_default()),
        }
    }
    Ok(())
}

/// The lines of a file, at least one.
fn read_lines(path: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        anyhow::anyhow!(
            "{} is not UTF-8 in line {line}: convert it, for example with iconv",
            path.display()
        )
    })?;
    ensure!(
        !text.is_empty(),
        "{} is empty: one text a line is needed",
        path.display()
    );
    // A line break ends a line and does not begin another one.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let lines = text.split('\n');
    Ok(lines
        .map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned())
        .collect())
}
