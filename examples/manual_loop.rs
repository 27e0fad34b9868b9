//! LoRA fine-tuning without the trainer, as a basis for other loops.
//!
//! The parts of the trainer are public: batches, the loss with its count, accumulation over a window with one division
//! at its end, the global norm, the schedule, optimizers and evaluation. The default model and data are part of the
//! repository.
//!
//! ```sh
//! cargo run --release --example manual_loop
//! ```

use std::path::PathBuf;

use anyhow::{Error, Result, ensure};
use clap::Parser;
use ft::burn::module::Module;
use ft::core::{AutoCausalLm, CausalLm, HubOptions, Tokenizer, Weights, resolve};
use ft::data::{Batches, Collation, Format, SftDataset};
use ft::peft::LoraConfig;
use ft::train::{
    Accumulator, OptimizerStates, StepContext, TrainConfig, clip_factor, cosine_with_warmup,
    evaluate, global_norm, next_token_loss,
};
use serde_json::json;

/// The maximum length of rows; longer rows are cut at the end.
const SEQ_LEN: usize = 256;

/// LoRA fine-tuning without the trainer.
#[derive(Parser)]
struct Args {
    /// Model folder, or hub id (needs --features hub).
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-llama"))]
    model: String,
    /// JSON or JSONL file in the format `messages`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/instructions.jsonl"))]
    data: PathBuf,
    #[arg(long, default_value_t = 40)]
    steps: usize,
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    /// Batches per step.
    #[arg(long, default_value_t = 2)]
    grad_accum: usize,
    #[arg(long, default_value_t = 2e-3)]
    lr: f64,
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// cpu, cuda, wgpu, vulkan or metal.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    ft::compute_threads(None);
    let args = Args::parse();
    let device = ft::device(&args.device)?.autodiff();
    let folder = resolve(&args.model, &HubOptions::from_env())?;
    let tokenizer = Tokenizer::from_pretrained(&folder)?;

    // Data: one part to train on, one to evaluate on.
    let dataset = SftDataset::load(&args.data, Format::Messages, &tokenizer, SEQ_LEN)?;
    let (train, held_out) = dataset.split(0.1, args.seed)?;
    let padded = Collation::Padded { multiple: 1 };
    let pad = tokenizer.pad_token_id().unwrap_or(0);
    let train = train.into_batches(args.batch_size, padded, Some(args.seed), pad)?;
    let held_out = held_out.into_batches(args.batch_size, padded, None, pad)?;

    // Model: the base is frozen, the factors train.
    let model = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored)?;
    tokenizer.check_vocab(model.dims().vocab_size)?;
    model.dims().check_length(SEQ_LEN)?;
    let lora = LoraConfig {
        r: 16,
        lora_alpha: 32.0,
        ..LoraConfig::default()
    };
    let mut model = ft::peft::attach(model, &lora, "default", args.seed)?;

    // The loop.
    let before = evaluate(&model, &held_out, next_token_loss)?.loss;
    eprintln!("held-out loss before: {before:.4}");
    let mut optimizer = OptimizerStates::adamw(&TrainConfig::default());
    let mut losses = Vec::new();
    let mut batches =
        (0..).flat_map(|epoch| (0..train.len(epoch)).map(move |index| (epoch, index)));
    for step in 0..args.steps {
        let mut window = Accumulator::new();
        for (micro, (epoch, index)) in batches.by_ref().take(args.grad_accum).enumerate() {
            let context = StepContext::training(&device, args.seed, step + 1, micro);
            device.seed(context.seed);
            let output = next_token_loss(&model, &train.batch(epoch, index), &context);
            window.add(&model, output.map_err(Error::from_boxed)?)?;
        }
        let window = window.finish();
        let count = window.count() as f64;
        let norm = global_norm(&model, &window.gradients) / count;
        let lr = args.lr * cosine_with_warmup(step, 4, args.steps);
        ensure!(
            window.mean_loss().is_finite() && norm.is_finite(),
            "loss or gradient of step {} is not a number: lower --lr",
            step + 1
        );
        losses.push(window.mean_loss());
        eprintln!(
            "step {:3}  loss {:.4}  gradient norm {norm:.3}  lr {lr:.2e}",
            step + 1,
            window.mean_loss()
        );
        model = optimizer.step(model, window.gradients, lr, clip_factor(norm, 1.0) / count);
    }
    let after = evaluate(&model, &held_out, next_token_loss)?.loss;
    eprintln!("held-out loss after: {after:.4}");

    // Merge the adapter's weights into the model's: a plain model again.
    let merged = ft::peft::merge_and_unload(model.valid())?;
    let merged_loss = evaluate(&merged, &held_out, next_token_loss)?.loss;
    eprintln!("held-out loss merged: {merged_loss:.4}");
    if args.json {
        let line = json!({
            "eval_loss_before": before,
            "eval_loss_after": after,
            "eval_loss_merged": merged_loss,
            "train_losses": losses,
            "steps": args.steps,
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    Ok(())
}
