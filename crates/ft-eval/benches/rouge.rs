//! Seconds for ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum over a corpus; `rouge.py` compares.
//!
//! `cargo bench -p ft-eval --bench rouge -- PAIRS.jsonl`, a line of which is `[prediction, reference]`.

use std::time::Instant;

use ft_eval::text::{Rouge, RougeOptions, corpus_rouge};

fn main() {
    let mut paths = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"));
    let Some(path) = paths.next() else {
        eprintln!("give a file of pairs: rouge.py makes one");
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
