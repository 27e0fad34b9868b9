//! Cleans a dataset: duplicates, near-duplicates, lengths, languages, and text of evaluation sets.
//!
//! ```sh
//! cargo run --release --example clean_dataset -- --data rows.jsonl --output clean.jsonl --report quality.md
//! ```
//!
//! Without `--data` it cleans rows that are made for it, with duplicates among them. Rows of any format will do: the text of a row is
//! all its texts. Near-duplicates are found by MinHash on all cores. `--eval` names files whose rows must not be trained on.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use ft::core::safetensors_folder::write_file;
use ft::data::{Cleaning, Contamination, MinHash, Table, row_text};
use serde_json::json;

/// Cleans a dataset.
#[derive(Parser)]
struct Args {
    /// A file, folder or glob: JSON, JSONL, CSV, text.
    #[arg(long)]
    data: Option<PathBuf>,
    /// JSONL file for the rows that are kept.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Markdown file for the report; without it the report goes to stdout.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Rows of fewer words are removed.
    #[arg(long, default_value_t = 1)]
    min_words: usize,
    /// Rows of more words are removed.
    #[arg(long, default_value_t = usize::MAX)]
    max_words: usize,
    /// Languages to keep, as codes of ISO 639-3: eng,deu. Without it all are kept.
    #[arg(long, value_delimiter = ',')]
    languages: Vec<String>,
    /// Files with evaluation sets, of which no n-gram may be in a row.
    #[arg(long)]
    eval: Vec<PathBuf>,
    /// Words of such an n-gram.
    #[arg(long, default_value_t = 13)]
    eval_ngram: usize,
    /// Keep near-duplicates.
    #[arg(long)]
    keep_near_duplicates: bool,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let table = match &args.data {
        Some(path) => Table::load(path)?,
        None => made_rows(),
    };
    let mut eval_texts = Vec::new();
    for file in &args.eval {
        eval_texts.extend(Table::load(file)?.rows().iter().map(row_text));
    }
    let contamination = Contamination::new(args.eval_ngram, &eval_texts);
    if contamination.short() > 0 {
        eprintln!(
            "{} of {} evaluation rows have fewer than {} words, so nothing is compared with them",
            contamination.short(),
            eval_texts.len(),
            args.eval_ngram
        );
    }
    let cleaning = Cleaning {
        min_words: args.min_words,
        max_words: args.max_words,
        languages: args.languages,
        contamination: Some(contamination),
        exact_duplicates: true,
        near_duplicates: (!args.keep_near_duplicates).then(MinHash::default),
    };
    let rows = table.len();
    let began = Instant::now();
    let (kept, report) = cleaning.apply(table);
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "{} of {rows} rows are kept; {:.0} rows a second",
        kept.len(),
        rows as f64 / seconds
    );
    if let Some(output) = &args.output {
        kept.to_jsonl(output)?;
    }
    match &args.report {
        Some(path) => write_file(path, report.to_markdown().as_bytes())?,
        None => println!("{}", report.to_markdown()),
    }
    if args.json {
        let removed: Vec<usize> = report.removed.iter().map(|removal| removal.row).collect();
        let line = json!({
            "rows": rows,
            "kept": report.kept,
            "removed": report.counts(),
            "removed_rows": removed,
            "seconds": seconds,
            "rows_per_s": rows as f64 / seconds,
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    Ok(())
}

/// Reports of stations, some of them twice and some nearly so.
fn made_rows() -> Table {
    let report = |n: usize, wind: &str| {
        format!(
            "Station {n} reports a pressure of {} hectopascals and a temperature of {} degrees. The wind was {wind} through the \
             day, with {} millimetres of rain before noon and a clear sky over the coast in the evening.",
            990 + n * 7 % 40,
            5 + n * 11 % 20,
            n * 13 % 9
        )
    };
    let mut rows: Vec<_> = (0..40)
        .map(|n| json!({"text": report(n, "weak")}))
        .collect();
    rows.extend((0..5).map(|n| json!({"text": report(n, "weak").to_uppercase()})));
    rows.extend((5..10).map(|n| json!({"text": report(n, "strong")})));
    Table::from_rows(rows)
}
