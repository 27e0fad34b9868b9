// What the examples that train encoders have in common: settings, what trains, and the run.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use ft::burn::module::Module;
use ft::core::Parts;
use ft::data::{TextTokens, fingerprint};
use ft::train::{Method, ParamTable, Selection, TrainConfig, TrainReport, Trainer, train_only};
use serde_json::{Value, json};

#[path = "computation.rs"]
mod computation;
use computation::Computation;

/// Settings of the training.
#[derive(Args)]
pub(crate) struct TrainingArgs {
    /// Model folder of an encoder (BERT, RoBERTa, DistilBERT, MPNet, ModernBERT, or sentence-transformers' around one).
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// JSON or JSONL file; without it, rows are made by the example.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// JSON or JSONL file of rows to measure on; without it, a part of --data is held out.
    #[arg(long, requires = "data")]
    pub(crate) held_out: Option<PathBuf>,
    /// The share of --data that is held out.
    #[arg(long, default_value_t = 0.2)]
    pub(crate) eval_fraction: f64,
    /// Folder for the model.
    #[arg(long)]
    pub(crate) output: PathBuf,
    /// all, lora, or a selection of parameters besides the head: top:2, biases, norms; head is the head alone.
    #[arg(long, default_value = "all")]
    pub(crate) train: String,
    /// Rank of LoRA.
    #[arg(long, default_value_t = 16)]
    pub(crate) r: usize,
    /// Passes over the data.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) epochs: f64,
    /// Optimizer steps in all; overrides --epochs.
    #[arg(long)]
    pub(crate) max_steps: Option<usize>,
    /// Rows per batch.
    #[arg(long, default_value_t = 16)]
    pub(crate) batch_size: usize,
    /// Peak learning rate; without it 1e-4, or 1e-3 where only a part trains.
    #[arg(long)]
    pub(crate) lr: Option<f64>,
    /// The longest input in tokens.
    #[arg(long, default_value_t = 256)]
    pub(crate) seq_len: usize,
    /// Seed of the split, the order and the new head.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Continue from the newest checkpoint in --output.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Start again although --output contains a run.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The names of the layers of heads, as they are in the models of all families.
const HEADS: [&str; 5] = [
    "classifier",
    "pre_classifier",
    "qa_outputs",
    "pooler.dense",
    "head.dense",
];

impl TrainingArgs {
    /// Chooses what trains, and runs the training; the adapter is merged at the end. A run resumes only with the same `identity`:
    /// labels, settings and rows.
    pub(crate) fn fit<M, T>(
        &self,
        model: M,
        method: T,
        identity: &[(&str, Value)],
    ) -> Result<(M, TrainReport)>
    where
        M: Module + Parts,
        T: Method<M>,
    {
        let mut heads = Vec::new();
        model.for_each_linear(&mut |path, _| {
            let own = |head: &&str| {
                path == *head
                    || path.ends_with(&format!(".{head}"))
                    || path.starts_with(&format!("{head}."))
            };
            if HEADS.iter().any(own) {
                heads.push(path.to_string());
            }
        });
        let model = match self.train.as_str() {
            "all" => model,
            "lora" => {
                let settings = json!({
                    "r": self.r, "lora_alpha": 2 * self.r, "target_modules": "all-linear",
                    "exclude_modules": heads, "modules_to_save": heads,
                });
                let settings = settings.as_object().cloned().unwrap_or_default();
                let lora = ft::peft::method("lora", &settings)?;
                ft::peft::attach(model, &*lora, "default", self.seed)?
            }
            other => {
                let mut names: Vec<String> =
                    heads.iter().map(|head| head.replace('.', r"\.")).collect();
                if heads.iter().any(|head| head == "head.dense") {
                    // The norm of ModernBERT's head is no layer.
                    names.push(r"head\.norm".into());
                }
                let mut rules: Vec<Selection> =
                    vec![format!(r"regex:({})(\..*)?", names.join("|")).parse()?];
                if other != "head" {
                    rules.push(other.parse()?);
                }
                train_only(model, &rules)?
            }
        };
        eprintln!("{}", ParamTable::new(&model, &[])?);
        let rate = if self.train == "all" { 1e-4 } else { 1e-3 };
        let config = TrainConfig {
            learning_rate: self.lr.unwrap_or(rate),
            warmup_ratio: 0.1,
            epochs: self.epochs,
            max_steps: self.max_steps,
            seed: self.seed,
            output_dir: Some(self.output.join("run")),
            save_total_limit: Some(2),
            resume: self.resume,
            overwrite: self.overwrite,
            eval_at_start: false,
            eval_at_end: false,
            ..TrainConfig::default()
        };
        let mut trainer = Trainer::with_method(config, method)
            .with_identity("model", self.model.display().to_string())
            .with_identity("trains", self.train.as_str())
            .with_identity("batch_size", self.batch_size)
            .with_identity("seq_len", self.seq_len);
        if self.train == "lora" {
            trainer = trainer.with_identity("r", self.r);
        }
        for (name, value) in identity {
            trainer = trainer.with_identity(name, value.clone());
        }
        let (model, report) = trainer.fit(model)?;
        Ok((ft::peft::merge_and_unload(model)?, report))
    }

    /// Writes rows that the example made into a file of the output folder, which shows the format of the user's own data.
    pub(crate) fn write_rows(&self, name: &str, rows: &[Value]) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.output)?;
        let path = self.output.join(name);
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        std::fs::write(&path, lines.join("\n") + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Prints whether the head of --model goes on to train.
    pub(crate) fn print_start(&self, trained: bool) {
        match trained {
            true => eprintln!("the head of {} goes on to train", self.model.display()),
            false => eprintln!("a new head on the encoder of {}", self.model.display()),
        }
    }

    /// Refuses lengths that the model has no positions for.
    pub(crate) fn check(&self, positions: usize) -> Result<()> {
        if self.seq_len > positions {
            bail!(
                "--seq-len is {}, but the model has {positions} positions",
                self.seq_len
            );
        }
        Ok(())
    }
}

/// The numbers of a run.
pub(crate) fn losses(report: &TrainReport) -> Value {
    json!({"steps": report.steps, "loss_first": report.train_losses.first(), "loss_last": report.train_losses.last(),
        "tokens_per_s": report.tokens_per_s, "peak_rss_mb": ft::peak_rss_mb()})
}

/// One JSON object of two.
pub(crate) fn merged(a: Value, b: Value) -> Value {
    let (mut a, b) = (
        a.as_object().cloned().unwrap_or_default(),
        b.as_object().cloned().unwrap_or_default(),
    );
    a.extend(b);
    Value::Object(a)
}

/// A hash of the token ids and labels of all rows.
#[allow(dead_code)] // Rows of cross-encoders have one of their own.
pub(crate) fn row_print<'a, L: IntoIterator<Item = i64>>(
    rows: impl Iterator<Item = (&'a TextTokens, L)>,
) -> Value {
    let numbers = rows.flat_map(|(tokens, labels)| {
        let ids = tokens.ids.iter().map(|&id| i64::from(id));
        ids.chain(labels).chain([-1]).collect::<Vec<i64>>()
    });
    fingerprint(numbers).into()
}
