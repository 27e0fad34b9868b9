//! Seconds for ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum over a corpus; `rouge.py` compares.
//!
//! `cargo bench -p ft-eval --bench rouge -- PAIRS.jsonl`, a line of which is `[prediction, reference]`.

mod shared;

use std::time::Instant;

use ft_eval::text::{Rouge, RougeOptions, corpus_rouge};

fn main() {
    let Some((predictions, references)) = shared::pairs() else {
        return;
    };
    let kinds = [Rouge::N(1), Rouge::N(2), Rouge::L, Rouge::Lsum];
    let start = Instant::now();
    let scores = corpus_rouge(&kinds, &predictions, &references, &RougeOptions::default())
        .expect("every pair can be scored");
    let seconds = start.elapsed().as_secs_f64();
    let fmeasures: Vec<f64> = scores.iter().map(|score| score.fmeasure).collect();
    println!(
        "{}",
        serde_json::json!({ "seconds": seconds, "fmeasures": fmeasures })
    );
}
