//! Speed of reading a prompt and of greedy decoding; prints one JSON line.
//!
//! As in the peer, the prompt is read once to warm up and once for the time: with the logits of all its tokens as in
//! transformers, or with `--last` those of the last one, as in llama.cpp. Then
//! `--new` tokens are generated, without regard to end tokens. Decoding is timed from the first to the last of them.
//! With `--rows` several prompts of different lengths are continued at once, and all their tokens count.
//!
//! ```sh
//! cargo bench --bench decode -- --model DIR
//! ```

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Parser;
use ft::core::{CausalLm, GenerationConfig, TokenBatch, Tokenizer, generate};
use ft::kernels::{Precision, set_precision};
use serde_json::json;

#[path = "shared/held.rs"]
mod held;
use held::Held;

const SENTENCE: &str =
    "Once upon a time, in a small village by the sea, there lived an old man who ";

#[derive(Parser)]
struct Args {
    /// Model folder or .gguf file.
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    prompt: Option<String>,
    #[arg(long, default_value_t = 96)]
    new: usize,
    /// Compute logits of the prompt's last token only.
    #[arg(long)]
    last: bool,
    /// How many prompts are continued at once; each is a token shorter than the one before.
    #[arg(long, default_value_t = 1)]
    rows: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// The type of the weights: stored (that of the file), f32, or a packed format, such as int8.
    #[arg(long, default_value_t = Held::Stored)]
    weights: Held,
    /// cpu, cuda, wgpu, vulkan or metal.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Of matrix products: f32 or bf16.
    #[arg(long, default_value_t)]
    matmul_precision: Precision,
    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ft::compute_threads(Some(args.threads));
    let possible = set_precision(args.matmul_precision);
    anyhow::ensure!(possible, "this processor has no instructions for bf16");
    let device = ft::device(&args.device)?;
    let tokenizer = Tokenizer::from_pretrained(&args.model)?;
    let model = args.weights.load(&args.model, &device)?;
    let prompt = args.prompt.unwrap_or_else(|| SENTENCE.repeat(8));
    let ids = tokenizer.encode(&prompt, true)?;

    let read = || -> Result<f64> {
        let start = Instant::now();
        let tokens = TokenBatch::from_ids(&ids, &device);
        match args.last {
            true => {
                let hidden = model.hidden_states(&tokens, None);
                model.head().forward(hidden.narrow(1, ids.len() - 1, 1))
            }
            false => model.logits(&tokens, None),
        };
        device.sync()?;
        Ok(start.elapsed().as_secs_f64())
    };
    read()?;
    let prompt_s = read()?;
    let config = GenerationConfig {
        max_new_tokens: args.new,
        temperature: 0.0,
        ..GenerationConfig::default()
    };
    let mut times = Vec::new();
    let mut listen = |_: ft::core::Streamed<'_>| {
        times.push(Instant::now());
        ControlFlow::Continue(())
    };
    if args.rows == 0 || args.rows > ids.len() {
        bail!(
            "--rows must be from 1 to the {} tokens of the prompt",
            ids.len()
        );
    }
    let prompts: Vec<Vec<u32>> = (0..args.rows).map(|cut| ids[cut..].to_vec()).collect();
    let generated = generate(&model, None, &prompts, &config, &device, &mut listen)?;
    let firsts = &times[..args.rows];
    let decode_s = match (firsts.last(), times.last()) {
        (Some(first), Some(last)) if args.new > 1 => (*last - *first).as_secs_f64(),
        _ => bail!("--new must be at least 2"),
    };
    let tokens = &generated[0].token_ids;
    let decoded = times.len() - firsts.len();
    let round = |x: f64| (x * 10.0).round() / 10.0;
    let line = json!({
        "peer": concat!("ft ", env!("CARGO_PKG_VERSION")),
        "matmul_precision": args.matmul_precision.to_string(),
        "weights": args.weights.to_string(),
        "rows": args.rows,
        "prompt_tokens": ids.len(),
        "prompt_tokens_per_s": round(ids.len() as f64 / prompt_s),
        "decode_tokens_per_s": round(decoded as f64 / decode_s),
        "peak_rss_mb": ft::peak_rss_mb(),
        "text": tokenizer.decode(tokens, false)?,
    });
    println!("{line}");
    Ok(())
}
