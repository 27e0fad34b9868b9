//! Instruction tuning: trains a model, or an adapter for it, on a file of examples.
//!
//! ```sh
//! cargo run --release --example sft -- --model DIR_OR_ID --data alpaca.json --format alpaca \
//!     --output my-adapter
//! ```
//!
//! `--method` says what trains: an adapter (`lora`, the default, `dora`, `ia3` and all other methods of `ft::peft`), the
//! whole model (`full`), or its last N blocks (`freeze:N`). An adapter is written to `--output` in PEFT's format: `merge`
//! merges it into the model, and `generate --adapter` generates text with it. A model is written as a model folder.
//! Checkpoints and the log are also in `--output`: `--resume` continues an interrupted run.
//!
//! With `--base-format nf4` (or q4_k, q8_0, int8_g64 and others) the frozen weights of the linear layers are rounded to few bits
//! when they are loaded, and the adapter trains on top of them: QLoRA. A `.gguf` file as `--model` has its blocks already.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::AdaLora;
use ft::core::{
    AutoCausalLm, CausalLm, HubOptions, SaveOptions, StageManifest, Tokenizer, Weights,
    copy_generation_config, resolve,
};
use ft::data::{Batch, Batches, Collation, Format, SftDataset};
use ft::kernels::PackedFormat;
use ft::peft::Method;
use ft::train::{
    BoxError, Callback, ModelView, OnBatches, Optim, ParamTable, Schedule, Selection, TrainConfig,
    Trainer, next_token_loss, total_steps, train_only,
};
use serde_json::{Map, Value, json};

/// Instruction tuning.
#[derive(Parser)]
struct Args {
    /// Model folder, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// JSON or JSONL file.
    #[arg(long)]
    data: PathBuf,
    /// alpaca, sharegpt, messages or prompt_completion; without it, by the columns of the first row.
    #[arg(long)]
    format: Option<Format>,
    /// Folder for the adapter, or for the model with --method full or freeze:N.
    #[arg(long)]
    output: PathBuf,
    /// What trains: an adapter (lora, dora, ia3, ...), full, or freeze:N, the last N blocks.
    #[arg(long, default_value = "lora")]
    method: Trains,
    /// Round the frozen linear layers below the adapter to blocks of this format: nf4, q4_k, q8_0, int8_g64, ... (QLoRA).
    #[arg(long)]
    base_format: Option<PackedFormat>,
    /// A setting of the adapter in PEFT's name, as NAME=JSON: --set use_rslora=true. May be given several times.
    #[arg(long = "set", value_name = "NAME=JSON", value_parser = setting)]
    settings: Vec<(String, Value)>,
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
    /// Peak learning rate; without it that of the method: 2e-4 for LoRA and its like, 2e-5 for the weights of the model.
    #[arg(long)]
    lr: Option<f64>,
    /// constant, linear or cosine, after the warmup.
    #[arg(long, default_value = "linear")]
    schedule: Schedule,
    /// The share of the steps in which the learning rate rises.
    #[arg(long, default_value_t = 0.0)]
    warmup_ratio: f64,
    /// adamw, or adamw-8bit with states of a quarter of the size.
    #[arg(long, default_value_t = Optim::AdamW)]
    optim: Optim,
    /// Rank of the factors; 16 for LoRA.
    #[arg(long)]
    r: Option<usize>,
    /// The adapter's output is scaled by alpha / r; 32 for LoRA.
    #[arg(long)]
    alpha: Option<f64>,
    /// Dropout on what the adapter reads.
    #[arg(long)]
    dropout: Option<f64>,
    /// Scale by alpha / √r instead of alpha / r.
    #[arg(long)]
    rslora: bool,
    /// Layers to adapt: names separated by commas, or all-linear, which is the default of LoRA.
    #[arg(long)]
    target_modules: Option<String>,
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
    let mut stage = StageManifest::begin("sft", &args.model, &folder, None, &tokenizer)?;
    let format = match args.format {
        Some(format) => format,
        None => Format::of_file(&args.data)?,
    };
    let dataset = SftDataset::load(&args.data, format, &tokenizer, args.seq_len)?;
    eprintln!("{}: {}", args.data.display(), dataset.report);
    let (train, held_out) = match &args.eval_data {
        None => dataset.split(args.eval_fraction, args.seed)?,
        Some(file) => {
            let held_out = SftDataset::load(file, format, &tokenizer, args.seq_len)?;
            eprintln!("{}: {}", file.display(), held_out.report);
            (dataset, held_out)
        }
    };
    let (learnt_print, held_out_print) = (train.fingerprint(), held_out.fingerprint());
    stage.data.clone_from(&learnt_print);
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

    // The model: with a fresh adapter on its frozen weights, or with weights that train.
    let weights = match &args.method {
        Trains::Adapter(_) => Weights::Stored,
        Trains::Full | Trains::Freeze(_) => Weights::F32,
    };
    let mut model = AutoCausalLm::from_pretrained_with(&folder, &device, weights)?;
    if let Some(format) = args.base_format {
        let has_adapter = matches!(args.method, Trains::Adapter(_));
        ensure!(
            has_adapter,
            "--base-format is for weights that stay frozen below an adapter: leave it out with --method full and freeze:N"
        );
        let layers = ft::quant::pack_model(&mut model, format)?;
        let error = layers.iter().map(|layer| layer.error).sum::<f64>() / layers.len() as f64;
        eprintln!("{} layers in {format}, mean error {error:.5}", layers.len());
    }
    tokenizer.check_vocab(model.dims().vocab_size)?;
    model.dims().check_length(args.seq_len)?;
    let config = TrainConfig {
        learning_rate: args.lr.unwrap_or_else(|| args.method.learning_rate()),
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
    let steps = total_steps(&config, |epoch| batches.len(epoch))?;
    let (model, trains) = prepare(model, &args, steps)?;
    eprintln!("{}", ParamTable::new(&model, &[])?);
    let settings = json!({
        "trains": trains, "learning_rate": config.learning_rate, "schedule": format!("{:?}", config.schedule),
        "epochs": args.epochs, "max_steps": args.max_steps, "batch_size": args.batch_size,
        "gradient_accumulation_steps": args.grad_accum, "seq_len": args.seq_len, "packing": args.packing,
        "seed": args.seed,
    });
    stage.settings = settings.as_object().cloned().unwrap_or_default();
    let (trainable, _) = ft::peft::trainable_parameters(&model);

    // The training.
    let mut method = OnBatches::new(batches, next_token_loss);
    if !held_out.is_empty() {
        let padded = Collation::Padded { multiple: 1 };
        method =
            method.with_evaluation(held_out.into_batches(args.batch_size, padded, None, pad)?);
    }
    let has_adapter = matches!(args.method, Trains::Adapter(_));
    let fit = |model, method: &mut dyn ft::train::Method<AutoCausalLm, Batch = Batch>| {
        let mut trainer = Trainer::with_method(config, method)
            .with_identity("model", args.model.as_str())
            .with_identity("base_weights", stage.base_weights.as_str())
            .with_identity("chat_template", stage.template.clone())
            .with_identity("training_rows", learnt_print)
            .with_identity("held_out_rows", held_out_print)
            .with_identity("seq_len", args.seq_len)
            .with_identity("packing", args.packing)
            .with_identity("batch_size", args.batch_size)
            .with_identity("trains", trains)
            .with_identity("base_format", args.base_format.map(|format| format.name()));
        if has_adapter {
            trainer = trainer.with_callback(SaveAdapter(stage.clone()));
        }
        trainer.fit(model)
    };
    let (model, report) = match &args.method {
        // Ranks are distributed while it trains, and those that are not kept are removed at the end.
        Trains::Adapter(name) if is_adalora(name) => {
            let mut method = AdaLora::new(&model, "default", method)?;
            let (model, report) = fit(model, &mut method)?;
            (method.trim(model), report)
        }
        _ => fit(model, &mut method)?,
    };

    // The adapter, or the model.
    if has_adapter {
        ft::peft::save_adapter(&model, "default", &args.output)?;
        stage.save_adapter(&args.output)?;
    } else {
        model.save_pretrained(&args.output, &SaveOptions::default())?;
        tokenizer.save_pretrained(&args.output)?;
        copy_generation_config(&folder, &args.output)?;
        stage.save_model(&args.output)?;
    }
    let (before, after) = (report.eval_before(), report.eval_after());
    if let (Some(before), Some(after)) = (before, after) {
        eprintln!("held-out loss {:.4} -> {:.4}", before.loss, after.loss);
    }
    let what = if has_adapter { "adapter" } else { "model" };
    eprintln!("{what} saved to {}", args.output.display());
    if args.json {
        let line = json!({
            "eval_loss_before": before.map(|e| e.loss),
            "eval_loss_after": after.map(|e| e.loss),
            "train_losses": report.train_losses,
            "steps": report.steps,
            "tokens_per_s": report.tokens_per_s,
            "trainable_parameters": trainable,
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    ensure!(report.steps > 0, "no step was taken");
    Ok(())
}

/// What trains.
#[derive(Clone, Debug, PartialEq)]
enum Trains {
    /// An adapter of this method.
    Adapter(String),
    /// Everything.
    Full,
    /// The last blocks.
    Freeze(usize),
}

impl FromStr for Trains {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "full" => Ok(Self::Full),
            None => Ok(Self::Adapter(text.to_string())),
            Some(("freeze", blocks)) => match blocks.parse() {
                Ok(blocks) if blocks > 0 => Ok(Self::Freeze(blocks)),
                _ => Err("freeze:N trains the last N blocks: N is 1 or more".into()),
            },
            Some((name, _)) => Err(format!("{name} takes no number; freeze:N does")),
        }
    }
}

impl Trains {
    /// A learning rate that usually serves.
    fn learning_rate(&self) -> f64 {
        match self {
            Self::Full | Self::Freeze(_) => 2e-5,
            Self::Adapter(method) => {
                match method.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
                    "ia3" | "prefix" | "prefixtuning" => 3e-3,
                    "vera" => 4e-3,
                    "prompt" | "prompttuning" | "ptuning" | "fourierft" => 3e-2,
                    "bitfit" | "lntuning" => 1e-3,
                    _ => 2e-4,
                }
            }
        }
    }
}

/// The model with what trains, and its settings as part of the run's identity.
fn prepare(model: AutoCausalLm, args: &Args, steps: usize) -> Result<(AutoCausalLm, Value)> {
    let only = match &args.method {
        Trains::Adapter(name) => {
            let method = adapter(name, args, steps)?;
            let identity = ft::peft::to_json(&*method, false);
            let model = ft::peft::attach(model, &*method, "default", args.seed)?;
            return Ok((model, identity));
        }
        Trains::Full => Selection::All,
        Trains::Freeze(blocks) => Selection::Top(*blocks),
    };
    ensure!(
        args.settings.is_empty()
            && args.r.is_none()
            && args.alpha.is_none()
            && args.dropout.is_none(),
        "--set, --r, --alpha and --dropout are settings of adapters, and --method trains the model"
    );
    let identity = only.to_string().into();
    Ok((train_only(model, &[only])?, identity))
}

/// The settings of the adapter: those of the options, and those of `--set`.
fn adapter(name: &str, args: &Args, steps: usize) -> Result<Box<dyn Method>> {
    let mut settings = Map::new();
    if is_adalora(name) {
        settings.insert("total_step".into(), steps.into());
    }
    let own = ft::peft::method(name, &settings)?.own();
    let (mut r, mut alpha) = (args.r.map(Value::from), args.alpha.map(Value::from));
    if own.contains_key("lora_alpha") && own.contains_key("r") {
        r = r.or(Some(16.into()));
        alpha = alpha.or(Some(32.0.into()));
    }
    let rslora = args.rslora.then(|| Value::from(true));
    for (option, value, names) in [
        ("--r", r, &["r"][..]),
        ("--alpha", alpha, &["lora_alpha", "alpha"]),
        (
            "--dropout",
            args.dropout.map(Value::from),
            &[
                "lora_dropout",
                "vera_dropout",
                "boft_dropout",
                "miss_dropout",
            ],
        ),
        ("--rslora", rslora, &["use_rslora"]),
    ] {
        let Some(value) = value else { continue };
        let key = names.iter().find(|key| own.contains_key(**key));
        let key = key.with_context(|| format!("{option} is not a setting of {name}"))?;
        settings.insert((*key).to_string(), value);
    }
    settings.insert("base_model_name_or_path".into(), args.model.as_str().into());
    if let Some(targets) = &args.target_modules {
        let targets = match targets.as_str() {
            "all-linear" => targets.as_str().into(),
            names => names.split(',').map(str::trim).collect::<Vec<_>>().into(),
        };
        settings.insert("target_modules".into(), targets);
    }
    settings.extend(args.settings.iter().cloned());
    Ok(ft::peft::method(name, &settings)?)
}

fn is_adalora(name: &str) -> bool {
    name.eq_ignore_ascii_case("adalora")
}

/// `NAME=JSON`; what is not JSON is a text.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=JSON")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_string(), value))
}

/// Saves the adapter in every checkpoint, and what it was trained from.
struct SaveAdapter(StageManifest);

impl Callback<AutoCausalLm> for SaveAdapter {
    fn on_checkpoint(
        &mut self,
        model: &ModelView<'_, AutoCausalLm>,
        folder: &Path,
    ) -> Result<(), BoxError> {
        let folder = folder.join("adapter");
        ft::peft::save_adapter(&**model, "default", &folder)?;
        Ok(self.0.save_adapter(&folder)?)
    }
}
