//! A model in few bits, as a GGUF file for llama.cpp, Ollama and this workspace.
//!
//! ```sh
//! cargo run --release --example quantize -- --model DIR_OR_ID --format q4_k_m --output model-q4_k_m.gguf
//! ```
//!
//! With `--calibration FILE` rounding keeps the errors small that matter on that text, as with an importance matrix of llama.cpp.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use ft::core::{AutoCausalLm, HubOptions, ModelConfig, Tokenizer, Weights, open_weights, resolve};
use ft::quant::{GgufOptions, Importance, Mix, calibration_windows, write_gguf};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

/// A model in few bits, as a GGUF file.
#[derive(Parser)]
struct Args {
    /// Model folder, .gguf file, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// A mix of llama.cpp: q4_k_m, q8_0, f16 and others.
    #[arg(long)]
    format: Mix,
    /// Text by which the importance of columns is measured: JSONL with a field `text`, or plain text.
    #[arg(long)]
    calibration: Option<PathBuf>,
    /// Windows of the calibration text.
    #[arg(long, default_value_t = 128)]
    samples: usize,
    /// Tokens per window.
    #[arg(long, default_value_t = 512)]
    context: usize,
    /// The file to write.
    #[arg(long)]
    output: PathBuf,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let start = Instant::now();
    let folder = resolve(&args.model, &HubOptions::from_env())?;
    let config = ModelConfig::from_pretrained(&folder)?.to_json();
    let tokenizer = Tokenizer::from_pretrained(&folder)?;
    let importance = (args.calibration.as_ref())
        .map(|path| measure(path, &folder, &tokenizer, &args))
        .transpose()?;
    let weights = open_weights(&folder)?;
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} tensors  {eta} left",
    )?);
    let progress = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    let name = folder
        .file_stem()
        .map(|name| name.to_string_lossy().to_string());
    let options = GgufOptions {
        name,
        importance: importance.as_ref(),
        progress: Some(&progress),
        ..GgufOptions::new(args.format)
    };
    let written = write_gguf(&*weights, &config, &tokenizer, &args.output, &options)?;
    bar.finish();
    let seconds = start.elapsed().as_secs_f64();
    eprintln!(
        "{}: {:.2} MB, {:.3} bits a weight, mean error {:.5}, {seconds:.2} s",
        args.output.display(),
        written.bytes as f64 / 1e6,
        written.bits_per_weight(),
        written.mean_error()
    );
    if args.json {
        let line = json!({
            "seconds": seconds,
            "peak_rss_mb": ft::peak_rss_mb(),
            "bytes": written.bytes,
            "bits_per_weight": written.bits_per_weight(),
            "mean_error": written.mean_error(),
        });
        println!("{line}");
    }
    Ok(())
}

/// What matters on the calibration text.
fn measure(text: &Path, folder: &Path, tokenizer: &Tokenizer, args: &Args) -> Result<Importance> {
    let windows = calibration_windows(text, tokenizer, args.context, args.samples)?;
    let device = ft::device("cpu")?;
    let mut model = AutoCausalLm::from_pretrained_with(folder, &device, Weights::Stored)?;
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} blocks measured  {eta} left",
    )?);
    let importance = Importance::measure(&mut model, &windows, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish();
    Ok(importance)
}
