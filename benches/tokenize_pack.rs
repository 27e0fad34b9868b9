//! Chat rows to packed rows with a mask: the file read, the template rendered, tokens, labels, packing; prints one JSON line. With
//! `--stream` the file is read while rows are packed, a window at a time behind a buffer that shuffles, for files larger than memory.
//!
//! ```sh
//! cargo bench --bench tokenize_pack -- --model DIR --input chats.jsonl
//! ```

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use ft::core::{IGNORE_INDEX, Tokenizer};
use ft::data::{Collation, Format, RowStream, SftDataset, StreamLoader, StreamOptions};
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
    /// Do not hold the file in memory.
    #[arg(long)]
    stream: bool,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ft::compute_threads(Some(args.threads));
    let tokenizer = Tokenizer::from_pretrained(&args.model)?;
    let found = match args.stream {
        true => streamed(&args, &tokenizer)?,
        false => whole(&args, &tokenizer)?,
    };
    let Found {
        rows,
        tokens,
        loss_tokens,
        packs,
        tokenize,
        pack,
    } = found;
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

/// What came out, and the seconds of both parts.
#[derive(Default)]
struct Found {
    rows: usize,
    tokens: usize,
    loss_tokens: usize,
    packs: usize,
    tokenize: f64,
    pack: f64,
}

fn learned(labels: &[i64]) -> usize {
    (labels.iter())
        .filter(|label| **label != IGNORE_INDEX)
        .count()
}

fn whole(args: &Args, tokenizer: &Tokenizer) -> Result<Found> {
    let start = Instant::now();
    let dataset = SftDataset::load(&args.input, Format::Messages, tokenizer, args.seq)?;
    let mut found = Found {
        rows: dataset.examples.len(),
        tokenize: start.elapsed().as_secs_f64(),
        ..Found::default()
    };
    for row in &dataset.examples {
        found.tokens += row.input_ids.len();
        found.loss_tokens += learned(&row.labels);
    }
    let start = Instant::now();
    let collation = Collation::Packed { seq_len: args.seq };
    found.packs = dataset.into_batches(1, collation, None, 0)?.rows();
    found.pack = start.elapsed().as_secs_f64();
    Ok(found)
}

/// All seconds are those of the first part, since both go on together.
fn streamed(args: &Args, tokenizer: &Tokenizer) -> Result<Found> {
    let start = Instant::now();
    let rows = RowStream::open(&args.input)?.shuffle(10_000, 0);
    let collation = Collation::Packed { seq_len: args.seq };
    let options = StreamOptions {
        batch_size: 1,
        bad_rows: 1.0,
        ..StreamOptions::default()
    };
    let format = Format::Messages;
    let mut batches = StreamLoader::sft(rows, format, tokenizer, args.seq, collation, options)?;
    let mut found = Found::default();
    while let Some(batch) = batches.next_batch()? {
        found.packs += batch.batch;
        found.tokens += batch.token_count();
        found.loss_tokens += learned(&batch.labels);
    }
    found.rows = batches.report().kept;
    found.tokenize = start.elapsed().as_secs_f64();
    Ok(found)
}
