//! Seconds for corpus BLEU; `bleu.py` compares.
//!
//! `cargo bench -p ft-eval --bench bleu -- PAIRS.jsonl`, a line of which is `[prediction, reference]`.

mod shared;

use std::time::Instant;

use ft_eval::text::{BleuOptions, corpus_bleu};

fn main() {
    let Some((predictions, references)) = shared::pairs() else {
        return;
    };
    let start = Instant::now();
    let bleu = corpus_bleu(&predictions, &references, &BleuOptions::default())
        .expect("every pair can be scored");
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({ "seconds": seconds, "score": bleu.score })
    );
}
