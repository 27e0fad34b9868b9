//! Quantization-aware training (QAT), offline in minutes: a model is rounded to 4 and to 3 bits, and trained to undo the loss.
//!
//! ```sh
//! cargo run --release --example qat
//! ```
//!
//! For each number of bits the perplexity of three models is measured on a text: the model as it is, the model rounded to
//! nearest, and the trained one, whose weights are rounded in the forward pass while it learns the distributions of the model as
//! it is. Without `--text` it trains on text that the model has written itself (Liu et al., 2023, arXiv:2305.17888), so that
//! no data is needed.

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::burn::module::Module;
use ft::burn::tensor::Device;
use ft::core::{AutoCausalLm, GenerationConfig, HubOptions, Tokenizer, Weights, generate, resolve};
use ft::distill::{Distill, DistillConfig, TeacherSource};
use ft::quant::{
    Algorithm, QuantizeConfig, Scheme, attach_fake_quantizers, quantize_model, round_fake_quantized,
};
use ft::train::{Schedule, TrainConfig, Trainer};
use serde_json::json;

#[path = "shared/blocks.rs"]
mod blocks;
#[path = "shared/windows.rs"]
mod windows;
use blocks::Blocks;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-llama");
const EVAL_TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/general.txt");
/// Tokens of a block.
const CONTEXT: usize = 128;
/// Texts that are written at the same time.
const AT_ONCE: usize = 32;

/// Quantization-aware training.
#[derive(Parser)]
struct Args {
    /// Model folder, or hub id (needs --features hub); the small model of the repository without it.
    #[arg(long, default_value = MODEL)]
    model: String,
    /// Text to train on; without it the model writes its own.
    #[arg(long)]
    text: Option<PathBuf>,
    /// Text whose perplexity is measured.
    #[arg(long, default_value = EVAL_TEXT)]
    eval_text: PathBuf,
    /// Bits, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "4,3")]
    bits: Vec<u32>,
    /// Numbers that share a scale.
    #[arg(long, default_value_t = 64)]
    group_size: usize,
    /// Blocks of 128 tokens to train on.
    #[arg(long, default_value_t = 128)]
    samples: usize,
    /// Optimizer steps.
    #[arg(long, default_value_t = 48)]
    steps: usize,
    /// Blocks per step.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Peak learning rate, of weights and of logarithms of scales.
    #[arg(long, default_value_t = 2e-4)]
    lr: f64,
    /// Seed of the text and the order.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    ensure!(
        args.samples > 0 && args.batch_size > 0,
        "--samples and --batch-size must be at least 1"
    );
    let device = ft::device("cpu")?;
    let folder = resolve(&args.model, &HubOptions::from_env())?;
    let tokenizer = Tokenizer::from_pretrained(&folder)?;
    let load = |device: &Device| AutoCausalLm::from_pretrained_with(&folder, device, Weights::F32);
    let model = load(&device)?;
    let test = windows::windows(&args.eval_text, &tokenizer, CONTEXT)?;
    let perplexity = |model: &AutoCausalLm| {
        let (nll, tokens) = windows::nll(model, &test, 8, &device, |_, _, _| {});
        (nll / tokens as f64).exp()
    };
    let before = perplexity(&model);
    eprintln!("perplexity {before:.4}");

    let blocks = match &args.text {
        Some(path) => {
            let mut blocks = windows::windows(path, &tokenizer, CONTEXT)?;
            blocks.truncate(args.samples);
            blocks
        }
        None => written(&model, &tokenizer, &args, &device)?,
    };
    eprintln!("{} blocks of {CONTEXT} tokens to train on", blocks.len());

    let tracked = device.clone().autodiff();
    let teacher = load(&tracked)?;
    let mut results = Vec::new();
    for &bits in &args.bits {
        let scheme = Scheme::grouped(bits, args.group_size);
        let config = QuantizeConfig {
            algorithm: Algorithm::Nearest,
            scheme,
        };
        let mut rounded = load(&device)?;
        quantize_model(&mut rounded, &config, None, &mut |_, _| {})?;
        let nearest = perplexity(&rounded);

        // Weights, scales and zero points train; norms and the embedding do, too.
        let student = attach_fake_quantizers(load(&tracked)?, &scheme)?;
        let train = TrainConfig {
            learning_rate: args.lr,
            schedule: Schedule::Cosine,
            warmup_ratio: 0.1,
            max_steps: Some(args.steps),
            seed: args.seed,
            ..TrainConfig::default()
        };
        let batches = Blocks {
            blocks: blocks.clone(),
            batch_size: args.batch_size,
            seed: Some(args.seed),
        };
        let distill = DistillConfig {
            temperature: 1.0,
            alpha: 1.0,
            ..DistillConfig::default()
        };
        let method = Distill::new(distill, TeacherSource::model(&teacher), &student, batches)?;
        let (student, report) = Trainer::with_method(train, method).fit(student)?;

        // The weights as integers: the same logits.
        let mut student = student.valid();
        let simulated = perplexity(&student);
        let layers = round_fake_quantized(&mut student)?;
        let trained = perplexity(&student);
        let recovered = (nearest - trained) / (nearest - before);
        eprintln!(
            "{bits} bits: rounded to nearest {nearest:.4}, trained {trained:.4} ({simulated:.4} before {layers} layers became \
             integers): {:.0}% of the loss recovered in {} steps",
            recovered * 100.0,
            report.steps
        );
        results.push(json!({
            "bits": bits,
            "nearest": nearest,
            "simulated": simulated,
            "trained": trained,
            "recovered": recovered,
            "losses": report.train_losses,
        }));
    }
    if args.json {
        println!(
            "{}",
            json!({"perplexity": before, "results": results, "peak_rss_mb": ft::peak_rss_mb()})
        );
    }
    Ok(())
}

/// Text that the model writes, sampled from its own distribution.
fn written(
    model: &AutoCausalLm,
    tokenizer: &Tokenizer,
    args: &Args,
    device: &Device,
) -> Result<Vec<Vec<u32>>> {
    let begin = (tokenizer.bos_token_id().or(tokenizer.eos_token_id()))
        .context("the tokenizer has no token that begins a text")?;
    let mut blocks = Vec::with_capacity(args.samples);
    while blocks.len() < args.samples {
        let count = AT_ONCE.min(args.samples - blocks.len());
        let config = GenerationConfig {
            max_new_tokens: CONTEXT - 1,
            temperature: 1.0,
            seed: ft::core::mix_seed(args.seed, blocks.len() as u64),
            ..GenerationConfig::default()
        };
        let mut listen = |_: ft::core::Streamed<'_>| ControlFlow::Continue(());
        let prompts = vec![vec![begin]; count];
        let texts = generate(model, None, &prompts, &config, device, &mut listen)?;
        blocks.extend(
            texts
                .into_iter()
                .map(|text| [vec![begin], text.token_ids].concat()),
        );
    }
    Ok(blocks)
}
