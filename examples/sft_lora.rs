//! Instruction tuning with LoRA: trains an adapter for a model on a file of examples.
//!
//! ```sh
//! cargo run --release --example sft_lora -- --model DIR_OR_ID --data alpaca.json --format alpaca \
//!     --output my-adapter
//! ```
//!
//! The adapter is written to `--output` in PEFT's format. `merge` merges it into the model, and `generate --adapter`
//! generates text with it. Checkpoints and the log are also in `--output`: `--resume` continues an interrupted run.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Parser;
use ft::core::{AutoCausalLm, CausalLm, HubOptions, Tokenizer, Weights, resolve};
use ft::data::{Collation, Format, SftDataset};
use ft::peft::{LoraConfig, TargetModules};
use ft::train::{
    BoxError, Callback, ModelView, Optim, ParamTable, Schedule, TrainConfig, Trainer,
    next_token_loss,
};
use serde_json::json;

/// Instruction tuning with LoRA.
#[derive(Parser)]
struct Args {
    /// Model folder, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// JSON or JSONL file.
    #[arg(long)]
    data: PathBuf,
    /// alpaca, sharegpt, messages or prompt_completion.
    #[arg(long)]
    format: Format,
    /// Folder for the adapter.
    #[arg(long)]
    output: PathBuf,
    /// Passes over the data.
    #[arg(long, default_value_t = 1.0)]
    epochs: f64,
    /// Optimizer steps in all; overrides --epochs.
    #[arg(long)]
    max_steps: Option<usize>,
    /// Rows per batch.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Batches per step.
    #[arg(long, default_value_t = 1)]
    grad_accum: usize,
    /// The maximum length of rows; longer rows are cut at the end. With --packing, the length of a row.
    #[arg(long, default_value_t = 512)]
    seq_len: usize,
    /// Peak learning rate.
    #[arg(long, default_value_t = 2e-4)]
    lr: f64,
    /// constant, linear or cosine, after the warmup.
    #[arg(long, default_value = "linear")]
    schedule: Schedule,
    /// The share of the steps in which the learning rate rises.
    #[arg(long, default_value_t = 0.0)]
    warmup_ratio: f64,
    /// adamw, or adamw-8bit with states of a quarter of the size.
    #[arg(long, default_value_t = Optim::AdamW)]
    optim: Optim,
    /// Rank of the factors.
    #[arg(long, default_value_t = 16)]
    r: usize,
    #[arg(long, default_value_t = 32.0)]
    alpha: f64,
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// Scale by alpha / √r instead of alpha / r.
    #[arg(long)]
    rslora: bool,
    /// Layers to adapt: names separated by commas, or all-linear.
    #[arg(long, default_value = "all-linear")]
    target_modules: String,
    /// The share of the rows that is held out for evaluation.
    #[arg(long, default_value_t = 0.1)]
    eval_fraction: f64,
    /// Evaluate on the rows of this file instead, in the same format.
    #[arg(long, conflicts_with = "eval_fraction")]
    eval_data: Option<PathBuf>,
    /// Pack several rows into one, separated by the attention mask.
    #[arg(long)]
    packing: bool,
    /// Compute each block again in the backward pass instead of keeping its activations: half the memory
    /// or less, for a second forward pass.
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Seed of the split, the order, the factors and the dropout.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// The number of steps between checkpoints.
    #[arg(long, default_value_t = 100)]
    save_every: usize,
    /// Continue from the newest checkpoint in --output.
    #[arg(long)]
    resume: bool,
    /// Start again although --output contains a run.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
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
    let mut device = ft::device(&args.device)?.autodiff();
    if args.gradient_checkpointing {
        device = device.gradient_checkpointing();
    }
    std::fs::create_dir_all(&args.output)
        .map_err(|e| anyhow::anyhow!("cannot write to {}: {e}", args.output.display()))?;

    // The data before the model, so that errors in a file are reported at once.
    let folder = resolve(&args.model, &HubOptions::from_env())?;
    let tokenizer = Tokenizer::from_pretrained(&folder)?;
    let dataset = SftDataset::load(&args.data, args.format, &tokenizer, args.seq_len)?;
    eprintln!("{}: {}", args.data.display(), dataset.report);
    let (train, held_out) = match &args.eval_data {
        None => dataset.split(args.eval_fraction, args.seed)?,
        Some(file) => {
            let held_out = SftDataset::load(file, args.format, &tokenizer, args.seq_len)?;
            eprintln!("{}: {}", file.display(), held_out.report);
            (dataset, held_out)
        }
    };
    let (learnt_print, held_out_print) = (train.fingerprint(), held_out.fingerprint());
    let pad = tokenizer
        .pad_token_id()
        .or(tokenizer.eos_token_id())
        .unwrap_or(0);
    let collation = if args.packing {
        Collation::Packed {
            seq_len: args.seq_len,
        }
    } else {
        Collation::Padded { multiple: 1 }
    };
    let batches = train.into_batches(args.batch_size, collation, Some(args.seed), pad)?;

    // The model, with fresh factors on its frozen weights.
    let model = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored)?;
    tokenizer.check_vocab(model.dims().vocab_size)?;
    model.dims().check_length(args.seq_len)?;
    let lora = LoraConfig {
        r: args.r,
        lora_alpha: args.alpha,
        lora_dropout: args.dropout,
        use_rslora: args.rslora,
        ..LoraConfig::default()
    };
    let targets = match args.target_modules.as_str() {
        "all-linear" => TargetModules::all_linear(),
        names => TargetModules::names(names.split(',').map(str::trim)),
    };
    let lora = lora.with_targets(targets).with_base(&args.model);
    let model = ft::peft::attach(model, &lora, "default", args.seed)?;
    eprintln!("{}", ParamTable::new(&model, &[])?);

    // The training.
    let config = TrainConfig {
        learning_rate: args.lr,
        schedule: args.schedule,
        warmup_ratio: args.warmup_ratio,
        optim: args.optim,
        epochs: args.epochs,
        max_steps: args.max_steps,
        gradient_accumulation_steps: args.grad_accum,
        seed: args.seed,
        output_dir: Some(args.output.clone()),
        save_every: Some(args.save_every),
        save_total_limit: Some(2),
        resume: args.resume,
        overwrite: args.overwrite,
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(config, batches, next_token_loss)
        .with_callback(SaveAdapter)
        .with_identity("model", args.model.as_str())
        .with_identity("weights", "stored")
        .with_identity("training_rows", learnt_print)
        .with_identity("held_out_rows", held_out_print)
        .with_identity("seq_len", args.seq_len)
        .with_identity("packing", args.packing)
        .with_identity("batch_size", args.batch_size)
        .with_identity("lora", lora.to_json(false));
    if !held_out.is_empty() {
        let padded = Collation::Padded { multiple: 1 };
        trainer =
            trainer.with_evaluation(held_out.into_batches(args.batch_size, padded, None, pad)?);
    }
    let (model, report) = trainer.fit(model)?;

    // The adapter.
    ft::peft::save_adapter(&model, "default", &args.output)?;
    let (before, after) = (report.eval_before(), report.eval_after());
    if let (Some(before), Some(after)) = (before, after) {
        eprintln!("held-out loss {:.4} -> {:.4}", before.loss, after.loss);
    }
    eprintln!("adapter saved to {}", args.output.display());
    if args.json {
        let line = json!({
            "eval_loss_before": before.map(|e| e.loss),
            "eval_loss_after": after.map(|e| e.loss),
            "train_losses": report.train_losses,
            "steps": report.steps,
            "tokens_per_s": report.tokens_per_s,
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    ensure!(report.steps > 0, "no step was taken");
    Ok(())
}

/// Saves the adapter in every checkpoint.
struct SaveAdapter;

impl Callback<AutoCausalLm> for SaveAdapter {
    fn on_checkpoint(
        &mut self,
        model: &ModelView<'_, AutoCausalLm>,
        folder: &Path,
    ) -> Result<(), BoxError> {
        ft::peft::save_adapter(&**model, "default", &folder.join("adapter"))?;
        Ok(())
    }
}
