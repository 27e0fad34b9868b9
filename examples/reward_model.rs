//! Reward modelling: trains a model that scores answers on pairs of which one answer is preferred, or the steps of solutions on
//! steps that are labelled right or wrong.
//!
//! ```sh
//! cargo run --release --example reward_model -- --model DIR_OR_ID --data preferences.json --output my-reward-model
//! cargo run --release --example reward_model -- --model DIR_OR_ID --process --data steps.jsonl --output my-step-scorer
//! ```
//!
//! The model is the body of a language model and a new layer with one score. A LoRA adapter on all layers trains together
//! with that layer, and both are written to `--output` in PEFT's format. With `--merged` the adapter is merged and a whole
//! model is written; with `--full` all weights train. transformers reads such a model with
//! `AutoModelForSequenceClassification`, and with `--process`, which gives two scores to the end of each step, with
//! `AutoModelForTokenClassification`. Checkpoints and the log are also in `--output`: `--resume` continues an
//! interrupted run.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::align::{RewardModel, process_reward_step};
use ft::burn::module::Module;
use ft::core::{
    AutoSequenceClassifier, AutoTokenClassifier, Dims, HubOptions, ModelConfig, Parts, SaveOptions,
    SequenceClassifierConfig, Tokenizer, Weights, resolve,
};
use ft::data::{Collation, PreferenceDataset, load_stepwise};
use ft::train::{EvalMetrics, Method, OnBatches, ParamTable, TrainConfig, TrainReport, Trainer};
use serde_json::{Value, json};

/// Reward modelling.
#[derive(Parser)]
struct Args {
    /// Folder of a causal language model, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// JSON or JSONL file of preferences: prompt, chosen and rejected answer, or conversations with two answers. With --process:
    /// prompt, completions (the steps) and labels (whether each is right).
    #[arg(long)]
    data: PathBuf,
    /// Score the steps of solutions.
    #[arg(long, conflicts_with = "center_rewards_coefficient")]
    process: bool,
    /// What stands behind each step.
    #[arg(long, default_value = "\n")]
    step_separator: String,
    /// Folder for the adapter, or for the model with --merged or --full.
    #[arg(long)]
    output: PathBuf,
    /// Train all weights instead of an adapter.
    #[arg(long)]
    full: bool,
    /// Merge the adapter into the model at the end.
    #[arg(long, conflicts_with = "full")]
    merged: bool,
    /// Passes over the data.
    #[arg(long, default_value_t = 1.0)]
    epochs: f64,
    /// Optimizer steps in all; overrides --epochs.
    #[arg(long)]
    max_steps: Option<usize>,
    /// Pairs per batch.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// The maximum length of a prompt with an answer; longer pairs are dropped.
    #[arg(long, default_value_t = 512)]
    seq_len: usize,
    /// Peak learning rate; without it 1e-4, or 1e-5 with --full.
    #[arg(long)]
    lr: Option<f64>,
    /// Rank of the adapter; its output is scaled by 2.
    #[arg(long, default_value_t = 16)]
    r: usize,
    /// How strongly the scores of a pair are drawn to a sum of 0; 0.01 is usual.
    #[arg(long, default_value_t = 0.0)]
    center_rewards_coefficient: f64,
    /// The share of the pairs that is held out for evaluation.
    #[arg(long, default_value_t = 0.1)]
    eval_fraction: f64,
    /// Compute each block again in the backward pass instead of keeping its activations.
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Seed of the split, the order, the factors and the new layer.
    #[arg(long, default_value_t = 42)]
    seed: u64,
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

    // The data before the model, so that errors in a file are reported at once.
    let folder = resolve(&args.model, &HubOptions::from_env())?;
    let tokenizer = Tokenizer::from_pretrained(&folder)?;
    let pad = tokenizer
        .pad_token_id()
        .or(tokenizer.eos_token_id())
        .unwrap_or(0);
    let mut config = SequenceClassifierConfig::new(ModelConfig::from_pretrained(&folder)?, 1);
    config.pad_token_id = Some(pad.into());
    let weights = match args.full || args.merged {
        true => Weights::F32,
        false => Weights::Stored,
    };
    let run = Run {
        args: &args,
        tokenizer: &tokenizer,
    };
    let (size, seed) = (args.batch_size, Some(args.seed));
    let report = if args.process {
        let (dataset, longer) =
            load_stepwise(&args.data, &tokenizer, &args.step_separator, args.seq_len)?;
        let rows = dataset.len();
        eprintln!(
            "{}: {rows} solutions, {longer} longer ones left out",
            args.data.display()
        );
        let (train, held_out) = dataset.split(args.eval_fraction, args.seed)?;
        let prints = [train.fingerprint(), held_out.fingerprint()];
        let padded = Collation::Padded { multiple: 1 };
        let batches = train.into_batches(size, padded, seed, pad)?;
        config.labels = ["wrong", "right"].map(String::from).to_vec();
        let model =
            AutoTokenClassifier::from_causal_lm(&folder, &config, args.seed, &device, weights)?;
        run.check(model.dims())?;
        let mut method = OnBatches::new(batches, process_reward_step);
        if !held_out.is_empty() {
            method = method.with_evaluation(held_out.into_batches(size, padded, None, pad)?);
        }
        let save = |model: &AutoTokenClassifier| {
            model.save_pretrained(&args.output, &SaveOptions::default())
        };
        run.train(model, "TOKEN_CLS", method, prints, save)?
    } else {
        let dataset = PreferenceDataset::load(&args.data, &tokenizer, args.seq_len)?;
        eprintln!("{}: {}", args.data.display(), dataset.report);
        let (train, held_out) = dataset.split(args.eval_fraction, args.seed)?;
        let prints = [train.fingerprint(), held_out.fingerprint()];
        let batches = train.into_batches(size, seed, pad)?;
        let model =
            AutoSequenceClassifier::from_causal_lm(&folder, &config, args.seed, &device, weights)?;
        run.check(model.dims())?;
        let reward = RewardModel {
            center_rewards_coefficient: args.center_rewards_coefficient,
        };
        let step = move |model: &_, batch: &_, context: &_| reward.step(model, batch, context);
        let mut method = OnBatches::new(batches, step);
        if !held_out.is_empty() {
            method = method.with_evaluation(held_out.into_batches(size, None, pad)?);
        }
        let save = |model: &AutoSequenceClassifier| {
            model.save_pretrained(&args.output, &SaveOptions::default())
        };
        run.train(model, "SEQ_CLS", method, prints, save)?
    };
    run.report(&report)
}

struct Run<'a> {
    args: &'a Args,
    tokenizer: &'a Tokenizer,
}

impl Run<'_> {
    fn check(&self, dims: Dims) -> Result<()> {
        self.tokenizer.check_vocab(dims.vocab_size)?;
        Ok(dims.check_length(self.args.seq_len)?)
    }

    /// Trains an adapter with the new layer, or all weights, and writes the adapter, or the model with `save`.
    fn train<M: Module + Parts, T: Method<M>>(
        &self,
        mut model: M,
        task: &str,
        method: T,
        [training_rows, held_out_rows]: [String; 2],
        save: impl FnOnce(&M) -> ft::core::Result<()>,
    ) -> Result<TrainReport> {
        let args = self.args;
        let mut trains = Value::from("full");
        if !args.full {
            let settings = json!({
                "r": args.r,
                "lora_alpha": 2 * args.r,
                "modules_to_save": ["score"],
                "task_type": task,
                "base_model_name_or_path": args.model,
            });
            let settings = settings.as_object().cloned().unwrap_or_default();
            let lora = ft::peft::method("lora", &settings)?;
            model = ft::peft::attach(model, &*lora, "default", args.seed)?;
            trains = ft::peft::to_json(&*lora, false);
        }
        eprintln!("{}", ParamTable::new(&model, &[])?);
        let default_rate = if args.full { 1e-5 } else { 1e-4 };
        let config = TrainConfig {
            learning_rate: args.lr.unwrap_or(default_rate),
            epochs: args.epochs,
            max_steps: args.max_steps,
            seed: args.seed,
            output_dir: Some(args.output.clone()),
            save_every: Some(100),
            save_total_limit: Some(2),
            resume: args.resume,
            overwrite: args.overwrite,
            ..TrainConfig::default()
        };
        let (model, report) = Trainer::with_method(config, method)
            .with_identity("model", args.model.as_str())
            .with_identity("training_rows", training_rows)
            .with_identity("held_out_rows", held_out_rows)
            .with_identity("batch_size", args.batch_size)
            .with_identity("trains", trains)
            .with_identity(
                "center_rewards_coefficient",
                args.center_rewards_coefficient,
            )
            .fit(model)?;
        if args.full || args.merged {
            save(&ft::peft::merge_and_unload(model)?)?;
            self.tokenizer.save_pretrained(&args.output)?;
        } else {
            ft::peft::save_adapter(&model, "default", &args.output)?;
        }
        eprintln!("saved to {}", args.output.display());
        Ok(report)
    }

    /// The result, for people and for `--json`.
    fn report(&self, report: &TrainReport) -> Result<()> {
        let metric = |evaluation: Option<&EvalMetrics>, name: &str| {
            evaluation.and_then(|found| found.metrics.get(name).copied())
        };
        let (before, after) = (report.eval_before(), report.eval_after());
        let accuracies = [before, after].map(|evaluation| metric(evaluation, "accuracy"));
        if let [Some(before), Some(after)] = accuracies {
            eprintln!(
                "held out, right: {:.1}% -> {:.1}%",
                100.0 * before,
                100.0 * after
            );
        }
        if self.args.json {
            let line = json!({
                "losses": report.train_losses,
                "accuracy_before": accuracies[0],
                "accuracy_after": accuracies[1],
                "margin_before": metric(before, "margin"),
                "margin_after": metric(after, "margin"),
                "steps": report.steps,
                "tokens_per_s": report.tokens_per_s,
                "peak_rss_mb": ft::peak_rss_mb(),
            });
            println!("{line}");
        }
        ensure!(report.steps > 0, "no step was taken");
        Ok(())
    }
}
