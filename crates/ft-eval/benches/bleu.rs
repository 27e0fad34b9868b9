//! Seconds for corpus BLEU; `bleu.py` compares.
//!
//! `cargo bench -p ft-eval --bench bleu -- PAIRS.jsonl`, a line of which is `[prediction, reference]`.

use std::time::Instant;

use ft_eval::text::{BleuOptions, corpus_bleu};

fn main() {
    let mut paths = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"));
    let Some(path) = paths.next() else {
        eprintln!("give a file of pairs: bleu.py makes one");
        return;
    };
    let text = std::fs::read_to_string(path).expect("the file of pairs can be read");
    let (predictions, references): (Vec<String>, Vec<[String; 1]>) = text
        .lines()
        .map(|line| {
            let (prediction, reference): (String, String) =
                serde_json::from_str(line).expect("a line is a pair of texts");
            (prediction, [reference])
        })
        .unzip();
    let start = Instant::now();
    let bleu = corpus_bleu(&predictions, &references, &BleuOptions::default())
        .expect("every pair can be scored");
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({ "seconds": seconds, "score": bleu.score })
    );
}
