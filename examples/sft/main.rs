//! Instruction tuning: trains a model, or an adapter for it, on a file of examples.
//!
//! ```sh
//! cargo run --release --example sft -- --model DIR_OR_ID --data alpaca.json --format alpaca \
//!     --output my-adapter
//! ```
//!
//! `--method` says what trains: an adapter (`lora`, the default, `dora`, `ia3` and all other methods of `ft::peft`), the
//! whole model (`full`), its output layer (`head`), or its first or last N blocks (`bottom:N`, `top:N`). An adapter is written to `--output` in PEFT's format: `merge`
//! merges it into the model, and `generate --adapter` generates text with it. A model is written as a model folder.
//! Checkpoints and the log are also in `--output`: `--resume` continues an interrupted run. `manifest.json` there has what the run
//! depends on: `--from-manifest OUTPUT/manifest.json --output OTHER` repeats it and prints what differs.
//!
//! What goes wrong is named as it happens: divergence, spikes, a plateau, overfitting, adapters that do not train. `--general-data`
//! names text whose perplexity must not rise; the run ends when the model forgets it. `--stream` reads the rows while it trains, for
//! data larger than memory, and `--mix` mixes rows of another file into them.
//!
//! `--estimate` prints how much memory the run will take and ends before it reads the weights. `--batch-size auto` takes the largest
//! batch for which the memory is enough.
//!
//! With `--base-format nf4` (or q4_k, q8_0, int8_g64 and others) the frozen weights of the linear layers are rounded to few bits
//! when they are loaded, and the adapter trains on top of them: QLoRA. A `.gguf` file as `--model` has its blocks already. With
//! `--loftq 1` beside it the adapter begins as what the rounding loses, and `merge` takes the base from `OUTPUT/base`.
//! `--base-format int8` is for speed: inputs and gradients of these layers are rounded to 8 bits too, and products are sums of
//! integers.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Parser;
use clap::builder::ArgPredicate;
use ft::AdaLora;
use ft::core::{
    AutoCausalLm, CausalLm, HubOptions, SaveOptions, StageManifest, Tokenizer, Weights,
    copy_generation_config, dequantize, resolve, weights_hash,
};
use ft::data::{
    BadRows, Batch, Batches, Collation, DatasetInfo, Format, RowFormat, SftDataset, StreamLoader,
    StreamOptions, built_in_template,
};
use ft::kernels::PackedFormat;
#[cfg(feature = "mlflow")]
use ft::train::MlflowTracker;
use ft::train::{
    CsvTracker, EarlyStopping, ForgettingMonitor, Manifest, Method, OnBatches, OnStream, Optim,
    ParamTable, Results, Schedule, SftStep, TensorBoard, TrainConfig, Trainer, WandbTracker,
    draw_loss_curves, total_steps,
};
use serde_json::json;

#[path = "../shared/computation.rs"]
mod computation;
use computation::Computation;

mod batch_size;
mod repeat;
#[path = "../shared/save_adapter.rs"]
mod save_adapter;
mod streams;
#[path = "../shared/trains.rs"]
mod trains;
use batch_size::{BatchSize, batch_size, longest};
use repeat::{WriteManifest, arguments, manifest};
use save_adapter::{InCheckpoints, save_adapter};
use streams::{stream, stream_print};
use trains::{Prepared, Start, Trains, TrainsOptions};

/// Instruction tuning.
#[derive(Parser)]
struct Args {
    /// Model folder, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// A file, folder or glob: JSON, JSONL, CSV, TSV (also .gz), Parquet and Arrow with --features parquet,arrow; or hf://datasets/ORG/NAME.
    #[arg(long)]
    data: PathBuf,
    /// Read the rows while training, shuffled in a buffer, for data larger than memory. Needs --max-steps and --eval-data.
    #[arg(long, requires = "max_steps")]
    stream: bool,
    /// Mix rows of this file, folder or glob, in the same format, into the stream: general text beside that of a domain.
    #[arg(long, requires = "stream")]
    mix: Option<PathBuf>,
    /// The share of the rows that come from --mix.
    #[arg(long, default_value_t = 0.1, requires = "mix")]
    mix_share: f64,
    /// The share of rows that may be unusable; they are reported. With 0 the first ends the run.
    #[arg(long, default_value_t = 0.0)]
    max_bad_rows: f64,
    /// alpaca, sharegpt, messages, prompt_completion or text; without it, by the columns of the first row, and alpaca with --columns.
    #[arg(long)]
    format: Option<Format>,
    /// Columns that the data calls otherwise than the format, whose name comes first: instruction=question,output=answer.
    #[arg(long)]
    columns: Option<String>,
    /// Learn only the last answer of each conversation.
    #[arg(long)]
    last_turn: bool,
    /// A registry of LLaMA-Factory (dataset_info.json, or its folder); --data is then a name in it.
    #[arg(long, conflicts_with_all = ["format", "columns"])]
    dataset_info: Option<PathBuf>,
    /// Chat template for a model without one: chatml, llama3, alpaca, ... as LLaMA-Factory names them.
    #[arg(long)]
    template: Option<String>,
    /// Folder for the adapter, or for the model if weights of the model train.
    #[arg(
        long,
        required = false,
        required_unless_present = "estimate",
        default_value_if("estimate", ArgPredicate::IsPresent, ".")
    )]
    output: PathBuf,
    #[command(flatten)]
    trains: TrainsOptions,
    /// Round the frozen linear layers below the adapter to blocks of this format: nf4, q4_k, q8_0, int8_g64, ... (QLoRA). int8
    /// also rounds what they are multiplied with, which is fast.
    #[arg(long)]
    base_format: Option<PackedFormat>,
    /// Passes over the data.
    #[arg(long, default_value_t = 1.0)]
    epochs: f64,
    /// Optimizer steps in all; overrides --epochs.
    #[arg(long)]
    max_steps: Option<usize>,
    /// Rows per batch; `auto` is the largest power of two, up to 64, that is estimated to fit in nine tenths of the memory.
    #[arg(long, default_value = "8")]
    batch_size: BatchSize,
    /// Print how much memory the run will take, and end.
    #[arg(long)]
    estimate: bool,
    /// Batches per step.
    #[arg(long, default_value_t = 1)]
    grad_accum: usize,
    /// The maximum length of rows; longer rows are cut at the end. With --packing, the length of a row.
    #[arg(long, default_value_t = 512)]
    seq_len: usize,
    /// Peak learning rate; without it that of the method: 2e-4 for LoRA and its like, 2e-5 for the weights of the model.
    #[arg(long)]
    lr: Option<f64>,
    /// constant, linear, cosine, cosine_with_restarts:N, cosine_with_min_lr:MIN, polynomial:POWER,END, inverse_sqrt,
    /// warmup_stable_decay:SHARE,MIN,SHAPE or reduce_lr_on_plateau:FACTOR,PATIENCE, after the warmup.
    #[arg(long, default_value = "linear")]
    schedule: Schedule,
    /// The share of the steps in which the learning rate rises.
    #[arg(long, default_value_t = 0.0)]
    warmup_ratio: f64,
    /// adamw, adamw-8bit with states of a quarter of the size, adafactor, lion, sgd, or muon for the matrices of hidden layers.
    #[arg(long, default_value_t = Optim::AdamW)]
    optim: Optim,
    /// The target is the label with 1 - X, and all tokens alike with X.
    #[arg(long, default_value_t = 0.0)]
    label_smoothing: f64,
    /// Noise on the embeddings (NEFTune); 5 is usual, 0 is none.
    #[arg(long, default_value_t = 0.0)]
    neftune_alpha: f64,
    /// The share of the rows that is held out for evaluation.
    #[arg(long, default_value_t = 0.1)]
    eval_fraction: f64,
    /// Evaluate on the rows of this file instead, in the same format.
    #[arg(long, conflicts_with = "eval_fraction")]
    eval_data: Option<PathBuf>,
    /// The number of steps between evaluations; without it before and after the training.
    #[arg(long)]
    eval_every: Option<usize>,
    /// End the run after so many evaluations without an improvement. Needs --eval-every.
    #[arg(long, requires = "eval_every")]
    early_stopping: Option<usize>,
    /// Save the model of the best evaluation instead of the last.
    #[arg(long)]
    load_best: bool,
    /// General text, in any format of --data: a warning at 5% more perplexity than before the training, the end at 15%.
    #[arg(long)]
    general_data: Option<PathBuf>,
    /// Also write TensorBoard's event files into this folder.
    #[arg(long)]
    tensorboard: Option<PathBuf>,
    /// Also write all numbers into this CSV file.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Also write a run of Weights & Biases into this folder, for `wandb sync`.
    #[arg(long)]
    wandb: Option<PathBuf>,
    /// Also send all numbers to the MLflow server at this address.
    #[cfg(feature = "mlflow")]
    #[arg(long)]
    mlflow: Option<String>,
    /// The experiment of the MLflow server.
    #[cfg(feature = "mlflow")]
    #[arg(long, default_value = "sft", requires = "mlflow")]
    mlflow_experiment: String,
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
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    ft::compute_threads(None);
    let (mut args, before) = arguments()?;
    ensure!(
        args.base_format.is_none() || matches!(args.trains.method, Trains::Adapter(_)),
        "--base-format is for weights that stay frozen below an adapter: leave it out where weights of the model train"
    );
    let mut device = args.computation.device()?.autodiff();
    if args.gradient_checkpointing {
        device = device.gradient_checkpointing();
    }
    if !args.estimate {
        std::fs::create_dir_all(&args.output)
            .map_err(|e| anyhow::anyhow!("cannot write to {}: {e}", args.output.display()))?;
    }

    // The data before the model, so that errors in a file are reported at once.
    let folder = resolve(&args.model, &HubOptions::from_env())?;
    let mut tokenizer = Tokenizer::from_pretrained(&folder)?;
    // A tokenizer whose template the base lacks comes with the adapter.
    let mut with_adapter = None;
    if let Some(name) = &args.template {
        match tokenizer.chat_template() {
            Some(_) => eprintln!(
                "the model has a chat template of its own, which is taken; --template {name} is ignored"
            ),
            None => {
                tokenizer = tokenizer.with_chat_template(built_in_template(name)?);
                with_adapter = Some(tokenizer.clone());
            }
        }
    }
    let mut stage = StageManifest::begin("sft", &args.model, &folder, None, &tokenizer)?;
    let format = row_format(&mut args)?;
    ensure!(
        (0.0..=1.0).contains(&args.max_bad_rows),
        "--max-bad-rows is {}: it is a share in [0, 1]",
        args.max_bad_rows
    );
    ensure!(
        args.mix_share > 0.0 && args.mix_share < 1.0,
        "--mix-share is {}: it is a share above 0 and below 1",
        args.mix_share
    );
    let load = |path: &Path, format: RowFormat| -> Result<SftDataset> {
        let mut bad = BadRows::at_most(args.max_bad_rows);
        let dataset = SftDataset::load_with(path, format, &tokenizer, args.seq_len, &mut bad)?;
        eprintln!("{}: {}", path.display(), dataset.report);
        if !bad.is_empty() {
            eprintln!("{bad}");
        }
        Ok(dataset)
    };
    let (train, held_out) = match &args.eval_data {
        None if args.stream => (None, SftDataset::default()),
        None => {
            let (train, held_out) =
                load(&args.data, format.clone())?.split(args.eval_fraction, args.seed)?;
            (Some(train), held_out)
        }
        Some(file) => {
            let train = (!args.stream)
                .then(|| load(&args.data, format.clone()))
                .transpose()?;
            (train, load(file, format.clone())?)
        }
    };
    let general = match &args.general_data {
        Some(path) => Some(load(path, Format::of_file(path)?.into())?),
        None => None,
    };
    let learnt_print = train.as_ref().map(SftDataset::fingerprint);
    let held_out_print = held_out.fingerprint();
    stage.data = match &learnt_print {
        Some(rows) => rows.clone(),
        None => stream_print(&args)?,
    };
    let batch_size = match args.batch_size {
        BatchSize::Rows(rows) if !args.estimate => rows,
        _ => {
            let longest = match &train {
                Some(train) if !args.packing => longest(train),
                _ => args.seq_len,
            };
            match batch_size(&args, &folder, &tokenizer, &device, longest)? {
                Some(rows) => rows,
                None => return Ok(()),
            }
        }
    };
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
    let batches = match train {
        Some(train) => Some(train.into_batches(batch_size, collation, Some(args.seed), pad)?),
        None => None,
    };
    let manifest = manifest(&args, batch_size, &folder, &stage)?
        .with_fact("training_rows", learnt_print.clone())
        .with_fact("held_out_rows", held_out_print.as_str());

    // The model: with a fresh adapter on its frozen weights, or with weights that train.
    let weights = match &args.trains.method {
        Trains::Adapter(_) => Weights::Stored,
        Trains::Weights(_) => Weights::F32,
    };
    let mut model = AutoCausalLm::from_pretrained_with(&folder, &device, weights)?;
    if let Some(format) = args.base_format.filter(|_| args.trains.loftq.is_none()) {
        let layers = ft::quant::pack_model(&mut model, format)?;
        let error = layers.iter().map(|layer| layer.error).sum::<f64>() / layers.len() as f64;
        eprintln!("{} layers in {format}, mean error {error:.5}", layers.len());
    }
    tokenizer.check_vocab(model.dims().vocab_size)?;
    model.dims().check_length(args.seq_len)?;
    let config = TrainConfig {
        learning_rate: args
            .lr
            .unwrap_or_else(|| args.trains.method.learning_rate()),
        schedule: args.schedule,
        warmup_ratio: args.warmup_ratio,
        optim: args.optim,
        epochs: args.epochs,
        max_steps: args.max_steps,
        gradient_accumulation_steps: args.grad_accum,
        seed: args.seed,
        eval_every: args.eval_every,
        load_best_model_at_end: args.load_best,
        output_dir: Some(args.output.clone()),
        save_every: Some(args.save_every),
        save_total_limit: Some(2),
        resume: args.resume,
        overwrite: args.overwrite,
        ..TrainConfig::default()
    };
    let streamed = args.max_steps.unwrap_or_default() * args.grad_accum;
    let steps = total_steps(&config, |epoch| {
        batches.as_ref().map_or(streamed, |all| all.len(epoch))
    })?;
    // LoftQ rounds the base for the adapter, so the adapter goes with the rounded base.
    let rounded = args.trains.loftq.map(|_| args.output.join("base"));
    let Prepared {
        model,
        identity: trains,
        allocates,
    } = args.trains.prepare(
        model,
        &Start {
            base: &rounded
                .as_ref()
                .map_or(args.model.clone(), |base| base.display().to_string()),
            tokenizer: &tokenizer,
            batches: batches.as_ref(),
            base_format: args.base_format,
            device: &device,
            seed: args.seed,
            steps,
        },
    )?;
    if let Some(base) = &rounded {
        write_rounded(&model, base, &args, &tokenizer, &folder)?;
        stage.base_weights = weights_hash(base)?;
    }
    eprintln!("{}", ParamTable::new(&model, &[])?);
    let settings = json!({
        "trains": trains, "base_format": args.base_format.map(|format| format.name()), "learning_rate": config.learning_rate, "schedule": format!("{:?}", config.schedule),
        "epochs": args.epochs, "max_steps": args.max_steps, "batch_size": batch_size,
        "gradient_accumulation_steps": args.grad_accum, "seq_len": args.seq_len, "packing": args.packing,
        "seed": args.seed, "data": args.data.file_name().map(|name| name.to_string_lossy()),
    });
    stage.settings = settings.as_object().cloned().unwrap_or_default();
    let (trainable, _) = ft::peft::trainable_parameters(&model);

    // The training.
    let step = SftStep {
        label_smoothing: args.label_smoothing,
        neftune_noise_alpha: args.neftune_alpha,
    }
    .into_fn();
    let padded = |rows: SftDataset| {
        rows.into_batches(batch_size, Collation::Padded { multiple: 1 }, None, pad)
    };
    let to_json = |batch: &Batch| serde_json::to_value(batch).unwrap_or_default();
    let (mut on_batches, mut on_stream) = (None, None);
    let method: &mut dyn Method<AutoCausalLm, Batch = Batch> = match batches {
        Some(batches) => {
            let mut method = OnBatches::new(batches, step).with_batch_to_json(to_json);
            if !held_out.is_empty() {
                method = method.with_evaluation(padded(held_out)?);
            }
            if let Some(general) = general {
                method = method.with_named_evaluation("general", padded(general)?);
            }
            on_batches.insert(method)
        }
        None => {
            let stream = stream(&args)?;
            let options = StreamOptions {
                batch_size,
                bad_rows: args.max_bad_rows,
                ..StreamOptions::default()
            };
            let loader = StreamLoader::sft(
                stream,
                format.clone(),
                &tokenizer,
                args.seq_len,
                collation,
                options,
            )?;
            let mut method = OnStream::new(loader, streamed, step).with_batch_to_json(to_json);
            if !held_out.is_empty() {
                method = method.with_evaluation(padded(held_out)?);
            }
            if let Some(general) = general {
                method = method.with_named_evaluation("general", padded(general)?);
            }
            on_stream.insert(method)
        }
    };
    // Rows of a stream have no hash, so where they are from is part of the run.
    let streamed_from = args.stream.then(|| {
        let shown = |path: &Path| path.display().to_string();
        json!({
            "data": shown(&args.data),
            "mix": args.mix.as_deref().map(shown),
            "mix_share": args.mix_share,
            "format": format.format().name(),
            "columns": args.columns,
            "last_turn": args.last_turn,
        })
    });
    let groups = args.trains.groups(config.learning_rate);
    let has_adapter = matches!(args.trains.method, Trains::Adapter(_));
    let fit = |model, method: &mut dyn Method<AutoCausalLm, Batch = Batch>| {
        let mut trainer = Trainer::with_method(config, method)
            .with_groups(groups)
            .with_identity("model", args.model.as_str())
            .with_identity("base_weights", stage.base_weights.as_str())
            .with_identity("chat_template", stage.template.clone())
            .with_identity("label_smoothing", args.label_smoothing)
            .with_identity("neftune_alpha", args.neftune_alpha)
            .with_identity("training_rows", learnt_print)
            .with_identity("streamed_from", streamed_from)
            .with_identity("held_out_rows", held_out_print)
            .with_identity("seq_len", args.seq_len)
            .with_identity("packing", args.packing)
            .with_identity("batch_size", batch_size)
            .with_identity("trains", trains)
            .with_identity("base_format", args.base_format.map(|format| format.name()));
        if has_adapter {
            let (stage, tokenizer) = (stage.clone(), with_adapter.clone());
            let save = move |model: &AutoCausalLm, folder: &Path| {
                save_adapter(model, folder, &stage, tokenizer.as_ref(), &[])
            };
            trainer = trainer.with_callback(InCheckpoints(save));
        }
        if let Some(patience) = args.early_stopping {
            trainer = trainer.with_callback(EarlyStopping::new(patience.max(1)));
        }
        if args.general_data.is_some() {
            trainer = trainer.with_callback(ForgettingMonitor::new("general"));
        }
        if let Some(folder) = &args.tensorboard {
            trainer = trainer.with_tracker(TensorBoard::new(folder));
        }
        if let Some(file) = &args.csv {
            trainer = trainer.with_tracker(CsvTracker::new(file));
        }
        if let Some(folder) = &args.wandb {
            let mut wandb = WandbTracker::new(folder, "sft");
            for (name, value) in &stage.settings {
                wandb = wandb.with_setting(name, value.clone());
            }
            trainer = trainer.with_tracker(wandb);
        }
        #[cfg(feature = "mlflow")]
        if let Some(url) = &args.mlflow {
            let mut mlflow = MlflowTracker::new(url, &args.mlflow_experiment, &args.output)
                .with_credentials_from_env();
            for (name, value) in &stage.settings {
                mlflow = mlflow.with_param(name, value.clone());
            }
            trainer = trainer.with_tracker(mlflow);
        }
        // The last, since one before it may refuse the run.
        let manifest = WriteManifest(manifest.clone(), args.output.clone());
        trainer.with_tracker(manifest).fit(model)
    };
    let (model, report) = match allocates {
        // Ranks are distributed while it trains, and those that are not kept are removed at the end.
        true => {
            let mut method = AdaLora::new(&model, "default", method)?;
            let (model, report) = fit(model, &mut method)?;
            (method.trim(model), report)
        }
        false => fit(model, method)?,
    };
    if let Some(stream) = &on_stream {
        let (loader, data) = (stream.loader(), args.data.display());
        eprintln!("{data}: {}", loader.report());
        if !loader.bad_rows().is_empty() {
            eprintln!("{}", loader.bad_rows());
        }
    }

    // The adapter, or the model.
    if has_adapter {
        let [before, after] =
            [report.eval_before(), report.eval_after()].map(|e| e.map(|e| e.loss));
        let results = [
            ("held_out_loss_before", json!(before)),
            ("held_out_loss_after", json!(after)),
        ];
        save_adapter(
            &model,
            &args.output,
            &stage,
            with_adapter.as_ref(),
            &results,
        )?;
    } else {
        model.save_pretrained(&args.output, &SaveOptions::default())?;
        tokenizer.save_pretrained(&args.output)?;
        copy_generation_config(&folder, &args.output)?;
        stage.save_model(&args.output)?;
    }
    draw_loss_curves(&args.output)?;
    let manifest = Manifest {
        results: Some(Results::from(&report)),
        ..manifest
    };
    manifest.write(&args.output)?;
    let differences = before.map(|before| before.differences(&manifest));
    match &differences {
        Some(lines) if lines.is_empty() => eprintln!("the run was repeated: nothing differs"),
        Some(lines) => eprintln!(
            "the run was repeated; what differs:\n  {}",
            lines.join("\n  ")
        ),
        None => {}
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
            "best_step": report.best_step,
            "findings": report.findings,
            "differences": differences,
            "trainable_parameters": trainable,
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
    ensure!(report.steps > 0, "no step was taken");
    Ok(())
}

/// Writes the base that LoftQ rounded, once for all runs that continue one.
fn write_rounded(
    model: &AutoCausalLm,
    base: &Path,
    args: &Args,
    tokenizer: &Tokenizer,
    folder: &Path,
) -> Result<()> {
    if base.exists() && args.resume {
        return Ok(());
    }
    ensure!(
        !base.exists() || args.overwrite,
        "{} has the base of another run: continue that with --resume, or give --overwrite",
        base.display()
    );
    let mut dense = ft::peft::unload(model.clone());
    dequantize(&mut dense);
    dense.save_pretrained(base, &SaveOptions::default())?;
    tokenizer.save_pretrained(base)?;
    Ok(copy_generation_config(folder, base)?)
}

/// How rows are read. The path of a dataset of a registry takes the place of its name.
fn row_format(args: &mut Args) -> Result<RowFormat> {
    if let Some(registry) = &args.dataset_info {
        let name = args.data.to_string_lossy();
        let entry = DatasetInfo::read(registry)?.get(&name)?;
        args.data = entry.path;
        return Ok(entry.format.with_last_turn_only(args.last_turn));
    }
    let format = match args.format {
        Some(format) => format,
        None if args.columns.is_some() => Format::Alpaca,
        None => Format::of_file(&args.data)?,
    };
    let mut format = RowFormat::new(format).with_last_turn_only(args.last_turn);
    if let Some(columns) = &args.columns {
        format = format.with_columns(columns)?;
    }
    Ok(format)
}
