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

use std::path::Path;

use anyhow::{Result, ensure};
use clap::Parser;
use ft::align::{RewardModel, process_reward_step};
use ft::burn::module::Module;
use ft::core::{
    AutoSequenceClassifier, AutoTokenClassifier, Dims, ModelConfig, Parts, SaveOptions,
    SequenceClassifierConfig, Weights,
};
use ft::data::{Collation, PreferenceDataset, SftDataset, load_stepwise};
use ft::train::{EvalMetrics, Method, OnBatches, ParamTable, TrainReport};
use serde_json::{Value, json};

#[path = "shared/alignment.rs"]
#[allow(dead_code)] // The policy and its reference.
mod alignment;
use alignment::{Common, InCheckpoints, Start, save_adapter};

/// Reward modelling.
///
/// Rows are preferences: prompt, chosen and rejected answer, or conversations with two answers. With --process: prompt, completions
/// (the steps) and labels (whether each is right).
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    common: Common,
    /// Score the steps of solutions.
    #[arg(long, conflicts_with = "center_rewards_coefficient")]
    process: bool,
    /// What stands behind each step; \n is a line break, \t a tab, \\ a backslash.
    #[arg(long, default_value = "\\n", requires = "process", value_parser = unescaped)]
    step_separator: String,
    /// Merge the adapter into the model at the end.
    #[arg(long, conflicts_with = "full")]
    merged: bool,
    /// Pairs per batch.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// The maximum length of a prompt with an answer; longer pairs are dropped.
    #[arg(long, default_value_t = 512)]
    seq_len: usize,
    /// How strongly the scores of a pair are drawn to a sum of 0; 0.01 is usual.
    #[arg(long, default_value_t = 0.0)]
    center_rewards_coefficient: f64,
}

/// A text in which a backslash begins a line break, a tab or a backslash.
fn unescaped(text: &str) -> Result<String, String> {
    let (mut found, mut rest) = (String::new(), text.chars());
    while let Some(next) = rest.next() {
        found.push(match (next, next == '\\') {
            (_, false) => next,
            (_, true) => match rest.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('\\') => '\\',
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "`\\{other}` is not known: \\n is a line break, \\t a tab, \\\\ a backslash"
                    ));
                }
            },
        });
    }
    Ok(found)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let common = &args.common;
    ensure!(
        common.base_format.is_none(),
        "--base-format is for policies, and not for reward models: leave it out"
    );
    // The data before the model, so that errors in a file are reported at once.
    let start = common.start("reward_model")?;
    let (tokenizer, device) = (&start.tokenizer, &start.device);
    let pad = tokenizer
        .pad_token_id()
        .or(tokenizer.eos_token_id())
        .unwrap_or(0);
    let mut config = SequenceClassifierConfig::new(ModelConfig::from_pretrained(&start.folder)?, 1);
    config.pad_token_id = Some(pad.into());
    let weights = match common.full || args.merged {
        true => Weights::F32,
        false => Weights::Stored,
    };
    let run = Run {
        args: &args,
        start: &start,
    };
    let (size, seed) = (args.batch_size, Some(common.seed));
    let report = if args.process {
        let separator = &args.step_separator;
        let tokens = tokenizer.encode(separator, false)?;
        eprintln!("the separator of steps is {separator:?}, the tokens {tokens:?}");
        let load = |file: &Path| -> ft::data::Result<SftDataset> {
            let (dataset, longer) = load_stepwise(file, tokenizer, separator, args.seq_len)?;
            let rows = dataset.len();
            let file = file.display();
            eprintln!("{file}: {rows} solutions, {longer} longer ones left out");
            Ok(dataset)
        };
        let dataset = load(&common.data)?;
        let rows = dataset.fingerprint();
        let (train, held_out) = common.split(dataset, load)?;
        let padded = Collation::Padded { multiple: 1 };
        let batches = train.into_batches(size, padded, seed, pad)?;
        config.labels = ["wrong", "right"].map(String::from).to_vec();
        config.step_separator = Some(separator.clone());
        let folder = &start.folder;
        let model =
            AutoTokenClassifier::from_causal_lm(folder, &config, common.seed, device, weights)?;
        run.check(model.dims())?;
        let mut method = OnBatches::new(batches, process_reward_step);
        if !held_out.is_empty() {
            method = method.with_evaluation(held_out.into_batches(size, padded, None, pad)?);
        }
        let save = |model: &AutoTokenClassifier| {
            model.save_pretrained(&common.output, &SaveOptions::default())
        };
        run.train(model, "TOKEN_CLS", method, rows, save)?
    } else {
        let load = |file: &Path| PreferenceDataset::load(file, tokenizer, args.seq_len);
        let dataset = load(&common.data)?;
        eprintln!("{}: {}", common.data.display(), dataset.report);
        let rows = dataset.fingerprint();
        let (train, held_out) = common.split(dataset, load)?;
        let batches = train.into_batches(size, seed, pad)?;
        let folder = &start.folder;
        let model =
            AutoSequenceClassifier::from_causal_lm(folder, &config, common.seed, device, weights)?;
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
            model.save_pretrained(&common.output, &SaveOptions::default())
        };
        run.train(model, "SEQ_CLS", method, rows, save)?
    };
    run.report(&report)
}

/// The usual learning rates of reward models: of an adapter, and of all weights.
const RATES: [f64; 2] = [1e-4, 1e-5];

struct Run<'a> {
    args: &'a Args,
    start: &'a Start,
}

impl Run<'_> {
    fn check(&self, dims: Dims) -> Result<()> {
        self.start.tokenizer.check_vocab(dims.vocab_size)?;
        Ok(dims.check_length(self.args.seq_len)?)
    }

    /// The model with the adapter of `--adapter`, or a new one with the new layer, unless all weights train.
    fn adapted<M: Module + Parts>(&self, model: M, task: &str) -> Result<M> {
        let common = &self.args.common;
        if common.full {
            return Ok(model);
        }
        if let Some(folder) = &common.adapter {
            return Ok(ft::peft::load_adapter(model, folder, "default", true)?);
        }
        let settings = json!({
            "r": common.r,
            "lora_alpha": 2 * common.r,
            "modules_to_save": ["score"],
            "task_type": task,
            "base_model_name_or_path": common.model,
        });
        let settings = settings.as_object().cloned().unwrap_or_default();
        let lora = ft::peft::method("lora", &settings)?;
        Ok(ft::peft::attach(model, &*lora, "default", common.seed)?)
    }

    /// Trains an adapter with the new layer, or all weights, and writes the adapter, or the model with `save`.
    fn train<M: Module + Parts, T: Method<M>>(
        &self,
        model: M,
        task: &str,
        method: T,
        rows: String,
        save: impl FnOnce(&M) -> ft::core::Result<()>,
    ) -> Result<TrainReport> {
        let (args, common, start) = (self.args, &self.args.common, self.start);
        let model = self.adapted(model, task)?;
        eprintln!("{}", ParamTable::new(&model, &[])?);
        let separator = args.process.then(|| args.step_separator.clone());
        let identity: [(&str, Value); 5] = [
            ("rows", rows.into()),
            ("batch_size", args.batch_size.into()),
            ("task", task.into()),
            (
                "center_rewards_coefficient",
                args.center_rewards_coefficient.into(),
            ),
            ("step_separator", separator.into()),
        ];
        let config = common.train_config(RATES);
        let stage = common.manifest(start, &config, &identity);
        let mut trainer = common.trainer(start, config, method, &identity)?;
        if !common.full {
            let (stage, tokenizer) = (stage.clone(), start.own_tokenizer().cloned());
            let save = move |model: &M, folder: &Path| {
                save_adapter(model, folder, &stage, tokenizer.as_ref(), &[])
            };
            trainer = trainer.with_callback(InCheckpoints(save));
        }
        let (model, report) = trainer.fit(model)?;
        let output = &common.output;
        if common.full || args.merged {
            save(&ft::peft::merge_and_unload(model)?)?;
            start.tokenizer.save_pretrained(output)?;
            stage.save_model(output)?;
        } else {
            save_adapter(&model, output, &stage, start.own_tokenizer(), &[])?;
        }
        eprintln!("saved to {}", output.display());
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
        if self.args.common.json {
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
