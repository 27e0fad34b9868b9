//! Chat rows to packed rows with a mask: the file read, the template rendered, tokens, labels, packing; prints one JSON line.
//!
//! ```sh
//! cargo bench --bench tokenize_pack -- --model DIR --input chats.jsonl
//! ```

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use ft::core::{IGNORE_INDEX, Tokenizer};
use ft::data::{Collation, Format, SftDataset};
use serde_json::json;

#[derive(Parser)]
struct Args {
    /// Folder with the tokenizer.
    #[arg(long)]
    model: PathBuf,
    /// JSONL file of `messages`.
    #[arg(long)]
    input: PathBuf,
    /// Tokens of a packed row; longer conversations are cut.
    #[arg(long, default_value_t = 2048)]
    seq: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ft::compute_threads(Some(args.threads));
    let tokenizer = Tokenizer::from_pretrained(&args.model)?;
    let start = Instant::now();
    let dataset = SftDataset::load(&args.input, Format::Messages, &tokenizer, args.seq)?;
    let tokenize = start.elapsed().as_secs_f64();
    let rows = dataset.examples.len();
    let tokens: usize = (dataset.examples.iter())
        .map(|row| row.input_ids.len())
        .sum();
    let labels = dataset.examples.iter().flat_map(|row| &row.labels);
    let loss_tokens = labels.filter(|label| **label != IGNORE_INDEX).count();
    let start = Instant::now();
    let collation = Collation::Packed { seq_len: args.seq };
    let packs = dataset.into_batches(1, collation, None, 0)?.rows();
    let pack = start.elapsed().as_secs_f64();
    let line = json!({
        "peer": concat!("ft ", env!("CARGO_PKG_VERSION")),
        "rows": rows,
        "rows_per_s": (rows as f64 / (tokenize + pack)).round(),
        "seconds": {"tokenize": tokenize, "pack": pack},
        "tokens": tokens,
        "loss_tokens": loss_tokens,
        "packs": packs,
        "fill": tokens as f64 / (packs * args.seq) as f64,
        "peak_rss_mb": ft::peak_rss_mb(),
    });
    println!("{line}");
    Ok(())
}
