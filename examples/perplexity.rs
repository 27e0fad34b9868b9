//! Perplexity of a model on a text file.
//!
//! The whole file is tokenized without special tokens and cut into disjoint windows of `--context` tokens (the last,
//! partial one is dropped). All tokens of a window except the first are scored.
//!
//! ```sh
//! cargo run --release --example perplexity -- --model DIR_OR_ID --text FILE
//! ```

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::core::{AutoCausalLm, CausalLm, HubOptions, Tokenizer, Weights, resolve};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

#[path = "shared/windows.rs"]
mod windows;

/// The number of windows between two progress lines without a terminal.
const REPORT_EVERY: usize = 50;

/// Perplexity of a model on a text file.
#[derive(Parser)]
struct Args {
    /// Model folder, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// Adapter folder in PEFT's format, or hub id.
    #[arg(long)]
    adapter: Option<String>,
    /// UTF-8 text file.
    #[arg(long)]
    text: PathBuf,
    /// Tokens per window.
    #[arg(long, default_value_t = 512)]
    context: usize,
    /// Windows computed at once.
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    ensure!(args.context >= 2, "--context must be at least 2");
    ensure!(args.batch_size >= 1, "--batch-size must be at least 1");
    let device = args.computation.device()?;

    // The model, with the adapter if there is one.
    let hub = HubOptions::from_env();
    let folder = resolve(&args.model, &hub)?;
    let tokenizer = Tokenizer::from_pretrained(&folder)?;
    let mut model = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored)?;
    tokenizer.check_vocab(model.dims().vocab_size)?;
    model.dims().check_length(args.context)?;
    if let Some(adapter) = &args.adapter {
        model = ft::peft::load_adapter(model, &resolve(adapter, &hub)?, "default", false)?;
    }

    // The windows.
    let windows = windows::windows(&args.text, &tokenizer, args.context)?;

    // Their negative log-likelihood.
    let start = Instant::now();
    let bar = ProgressBar::new(windows.len() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} windows  {msg}  {eta} left",
    )?);
    let mut before = 0;
    let progress = |nll: f64, tokens: usize, done: usize| {
        bar.set_position(done as u64);
        let so_far = format!("perplexity {:.3}", (nll / tokens as f64).exp());
        if bar.is_hidden() && done / REPORT_EVERY > before / REPORT_EVERY {
            eprintln!("{done}/{} windows, {so_far}", windows.len());
        }
        before = done;
        bar.set_message(so_far);
    };
    let (nll, tokens) = windows::nll(&model, &windows, args.batch_size, &device, progress);
    bar.finish();

    let mean = nll / tokens as f64;
    anyhow::ensure!(
        mean.is_finite(),
        "the loss is {mean}: the model's weights or its config.json are damaged"
    );
    eprintln!(
        "perplexity {:.4} (nll {mean:.5} a token) over {tokens} tokens, {:.0} tokens/s",
        mean.exp(),
        (windows.len() * args.context) as f64 / start.elapsed().as_secs_f64()
    );
    if args.json {
        println!(
            "{}",
            json!({"perplexity": mean.exp(), "nll": mean, "tokens": tokens})
        );
    }
    Ok(())
}
