//! What the programs of alignment have in common: the policy with its adapter, the settings of the run, the result.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use ft::align::{PolicyWatch, Reference};
use ft::burn::module::Module;
use ft::burn::tensor::Device;
use ft::core::{
    AutoCausalLm, CausalLm, HubOptions, Parts, SaveOptions, StageManifest, Tokenizer, Weights,
    copy_generation_config, fnv1a, resolve, weights_hash,
};
use ft::data::{PreferenceDataset, PromptDataset, SftDataset, UnpairedDataset, read_rows};
use ft::kernels::PackedFormat;
use ft::peft::LoraConfig;
use ft::train::{EvalMetrics, Method, TrainConfig, TrainReport, Trainer};
use serde_json::{Map, Value, json};

#[path = "computation.rs"]
mod computation;
use computation::Computation;

#[path = "save_adapter.rs"]
mod save_adapter;
pub(crate) use save_adapter::{InCheckpoints, save_adapter};

/// Options of every program of alignment.
#[derive(Args, Clone)]
pub(crate) struct Common {
    /// Model folder, or hub id (needs --features hub): what training starts from.
    #[arg(long)]
    pub(crate) model: String,
    /// Folder of an adapter to continue, instead of a new one.
    #[arg(long, conflicts_with = "full")]
    pub(crate) adapter: Option<PathBuf>,
    /// JSON or JSONL file.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Folder for the adapter, or for the model with --full.
    #[arg(long)]
    pub(crate) output: PathBuf,
    /// Train all weights instead of an adapter.
    #[arg(long)]
    pub(crate) full: bool,
    /// The share of the rows that is held out for evaluation.
    #[arg(long, default_value_t = 0.1, conflicts_with = "eval_data")]
    pub(crate) eval_fraction: f64,
    /// File of the rows to evaluate on, instead of a share of --data.
    #[arg(long)]
    pub(crate) eval_data: Option<PathBuf>,
    /// The number of steps between evaluations; without it before and after the training.
    #[arg(long)]
    pub(crate) eval_every: Option<usize>,
    /// Passes over the data.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) epochs: f64,
    /// Optimizer steps in all; overrides --epochs.
    #[arg(long)]
    pub(crate) max_steps: Option<usize>,
    /// Batches per step.
    #[arg(long, default_value_t = 1)]
    pub(crate) grad_accum: usize,
    /// Peak learning rate; it falls linearly. Without it 5e-5 for adapters and 1e-6 with --full; for reward models 1e-4 and 1e-5.
    #[arg(long)]
    pub(crate) lr: Option<f64>,
    /// Rank of the LoRA factors on all linear layers; alpha is twice the rank.
    #[arg(long, default_value_t = 16)]
    pub(crate) r: usize,
    /// Round the frozen linear layers of the policy below the adapter to blocks of this format: nf4, q4_k, q8_0, ... (QLoRA). int8
    /// also rounds what they are multiplied with, which is fast.
    #[arg(long, conflicts_with = "full")]
    pub(crate) base_format: Option<PackedFormat>,
    /// Compute each block again in the backward pass: less memory, more time.
    #[arg(long)]
    pub(crate) gradient_checkpointing: bool,
    /// Seed of the split, the order, the factors and the sampling.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// The number of steps between checkpoints.
    #[arg(long, default_value_t = 100)]
    pub(crate) save_every: usize,
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

/// The model folder, its tokenizer, and where the model will be.
pub(crate) struct Start {
    pub(crate) folder: PathBuf,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) device: Device,
    /// This stage of training, and those that the model has gone through.
    pub(crate) stage: StageManifest,
    /// Whether the tokenizer is the one beside the adapter that is continued.
    of_adapter: bool,
}

impl Start {
    /// The tokenizer that comes with the adapter, if the model's own is another one.
    pub(crate) fn own_tokenizer(&self) -> Option<&Tokenizer> {
        self.of_adapter.then_some(&self.tokenizer)
    }
}

impl Common {
    /// Reads what is needed before the data; `stage` is the name of the method. The data comes before the weights, so that errors in it are reported at once.
    pub(crate) fn start(&self, stage: &str) -> Result<Start> {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .init();
        ft::compute_threads(None);
        let mut device = self.computation.device()?.autodiff();
        if self.gradient_checkpointing {
            device = device.gradient_checkpointing();
        }
        std::fs::create_dir_all(&self.output)
            .with_context(|| format!("cannot write to {}", self.output.display()))?;
        let folder = resolve(&self.model, &HubOptions::from_env())?;
        let adapter = self.adapter.as_deref();
        let tokenizer = match adapter {
            Some(adapter) => Tokenizer::for_adapter(adapter, &folder)?,
            None => Tokenizer::from_pretrained(&folder)?,
        };
        let stage = StageManifest::begin(stage, &self.model, &folder, adapter, &tokenizer)?;
        eprintln!("stages of training: {}", stage.names().join(", "));
        Ok(Start {
            of_adapter: adapter.is_some_and(|folder| folder.join("tokenizer.json").is_file()),
            folder,
            tokenizer,
            device,
            stage,
        })
    }

    /// The policy: the model with a new adapter, the adapter of `--adapter`, or all of its weights.
    pub(crate) fn policy(&self, start: &Start) -> Result<AutoCausalLm> {
        let weights = if self.full {
            Weights::F32
        } else {
            Weights::Stored
        };
        let mut model = AutoCausalLm::from_pretrained_with(&start.folder, &start.device, weights)?;
        start.tokenizer.check_vocab(model.dims().vocab_size)?;
        if self.full {
            return Ok(model);
        }
        if let Some(format) = self.base_format {
            let layers = ft::quant::pack_model(&mut model, format)?;
            eprintln!("{} layers of the base in {format}", layers.len());
        }
        if let Some(folder) = &self.adapter {
            return Ok(ft::peft::load_adapter(model, folder, "default", true)?);
        }
        let mut config = LoraConfig {
            r: self.r,
            lora_alpha: 2.0 * self.r as f64,
            ..LoraConfig::default()
        };
        config.common.base_model_name_or_path = Some(self.model.clone());
        Ok(ft::peft::attach(model, &config, "default", self.seed)?)
    }

    /// The rows to train on, and those to evaluate on; `load` reads a file of them.
    pub(crate) fn split<D: Split>(
        &self,
        dataset: D,
        load: impl FnOnce(&Path) -> ft::data::Result<D>,
    ) -> Result<(D, D)> {
        match &self.eval_data {
            Some(file) => Ok((dataset, load(file)?)),
            None => Ok(dataset.split(self.eval_fraction, self.seed)?),
        }
    }

    /// The settings of the loop, with the usual learning rates of an adapter and of all weights.
    pub(crate) fn train_config(&self, [adapter, full]: [f64; 2]) -> TrainConfig {
        let usual = if self.full { full } else { adapter };
        TrainConfig {
            learning_rate: self.lr.unwrap_or(usual),
            eval_every: self.eval_every,
            epochs: self.epochs,
            max_steps: self.max_steps,
            gradient_accumulation_steps: self.grad_accum,
            seed: self.seed,
            output_dir: Some(self.output.clone()),
            save_every: Some(self.save_every),
            save_total_limit: Some(2),
            resume: self.resume,
            overwrite: self.overwrite,
            ..TrainConfig::default()
        }
    }

    /// Trains, and writes the adapter or the model. `identity` is what a resumed run must have in common with the one that
    /// it continues.
    pub(crate) fn fit<T: Method<AutoCausalLm>>(
        &self,
        start: &Start,
        policy: AutoCausalLm,
        method: T,
        identity: &[(&str, Value)],
        watch: Option<PolicyWatch>,
    ) -> Result<(AutoCausalLm, TrainReport)> {
        let config = self.train_config(POLICY_RATES);
        let stage = self.manifest(start, &config, identity);
        let mut trainer = self.trainer(start, config, method, identity)?;
        if let Some(watch) = watch {
            trainer = trainer.with_callback(watch);
        }
        if !self.full {
            let (stage, tokenizer) = (stage.clone(), start.own_tokenizer().cloned());
            trainer =
                trainer.with_callback(InCheckpoints(move |model: &AutoCausalLm, folder: &Path| {
                    save_adapter(model, folder, &stage, tokenizer.as_ref(), &[])
                }));
        }
        let (policy, report) = trainer.fit(policy)?;
        self.save(start, &policy, &stage)?;
        ensure!(report.steps > 0, "no step was taken");
        Ok((policy, report))
    }

    /// A trainer, with the settings that a resumed run must have in common with the run that it continues.
    pub(crate) fn trainer<'a, M: Module + Parts, T: Method<M>>(
        &self,
        start: &Start,
        config: TrainConfig,
        method: T,
        identity: &[(&str, Value)],
    ) -> Result<Trainer<'a, M, T>> {
        let eval_data = self.eval_data.as_deref().map(rows_hash).transpose()?;
        let mut trainer = Trainer::with_method(config, method)
            .with_identity("model", self.model.as_str())
            .with_identity("base_weights", start.stage.base_weights.as_str())
            .with_identity("chat_template", start.stage.template.clone())
            .with_identity(
                "adapter",
                self.adapter.as_ref().map(|path| path.display().to_string()),
            )
            .with_identity("eval_fraction", self.eval_fraction)
            .with_identity("eval_data", eval_data)
            .with_identity("full", self.full)
            .with_identity("base_format", self.base_format.map(PackedFormat::name))
            .with_identity("r", self.r);
        for (name, value) in identity {
            trainer = trainer.with_identity(name, value.clone());
        }
        Ok(trainer)
    }

    /// Writes the adapter or the model, and what it was trained from.
    pub(crate) fn save(
        &self,
        start: &Start,
        policy: &AutoCausalLm,
        stage: &StageManifest,
    ) -> Result<()> {
        let what = if self.full {
            policy.save_pretrained(&self.output, &SaveOptions::default())?;
            start.tokenizer.save_pretrained(&self.output)?;
            copy_generation_config(&start.folder, &self.output)?;
            stage.save_model(&self.output)?;
            "model"
        } else {
            save_adapter(policy, &self.output, stage, start.own_tokenizer(), &[])?;
            "adapter"
        };
        eprintln!("{what} saved to {}", self.output.display());
        Ok(())
    }

    /// What this stage trains from, and with which settings.
    pub(crate) fn manifest(
        &self,
        start: &Start,
        config: &TrainConfig,
        identity: &[(&str, Value)],
    ) -> StageManifest {
        let own = [
            ("learning_rate", json!(config.learning_rate)),
            ("epochs", json!(config.epochs)),
            ("max_steps", json!(config.max_steps)),
            (
                "gradient_accumulation_steps",
                json!(config.gradient_accumulation_steps),
            ),
            ("seed", json!(config.seed)),
            ("eval_fraction", json!(self.eval_fraction)),
            ("full", json!(self.full)),
            (
                "base_format",
                json!(self.base_format.map(PackedFormat::name)),
            ),
            ("adapter", json!(self.adapter)),
            (
                "r",
                json!((!self.full && self.adapter.is_none()).then_some(self.r)),
            ),
        ];
        let own = own.map(|(name, value)| (name.to_string(), value));
        let settings = identity
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()));
        let mut settings: Map<String, Value> = settings.chain(own).collect();
        let rows = settings.remove("rows");
        StageManifest {
            data: rows
                .and_then(|rows| Some(rows.as_str()?.to_string()))
                .unwrap_or_default(),
            settings,
            ..start.stage.clone()
        }
    }
}

/// Data that a part is held out of.
pub(crate) trait Split: Sized {
    /// Without the share, and the share.
    fn split(self, eval_fraction: f64, seed: u64) -> ft::data::Result<(Self, Self)>;
}

macro_rules! split {
    ($($dataset:ty),*) => {
        $(impl Split for $dataset {
            fn split(self, eval_fraction: f64, seed: u64) -> ft::data::Result<(Self, Self)> {
                self.split(eval_fraction, seed)
            }
        })*
    };
}

split!(
    PreferenceDataset,
    PromptDataset,
    SftDataset,
    UnpairedDataset
);

/// The usual learning rates of policies: of an adapter, and of all weights.
pub(crate) const POLICY_RATES: [f64; 2] = [5e-5, 1e-6];

/// A hash of the rows of a file, a folder or a glob.
fn rows_hash(path: &Path) -> Result<String> {
    let rows = read_rows(path)?;
    Ok(fnv1a(
        rows.iter().flat_map(|row| row.to_string().into_bytes()),
    ))
}

/// The name of a model, a file or a kind, and a hash of what it stands for, so that a resumed run has the same.
pub(crate) fn with_contents(name: Option<&str>) -> Result<Value> {
    let Some(name) = name else {
        return Ok(Value::Null);
    };
    let path = Path::new(name);
    let hash = if path.is_dir() || path.extension().is_some_and(|end| end == "gguf") {
        Some(weights_hash(path)?)
    } else if path.is_file() {
        Some(fnv1a(std::fs::read(path)?))
    } else {
        None
    };
    Ok(json!([name, hash]))
}

/// The reference policy by name: adapter-off, start, or a model folder.
pub(crate) fn reference(
    name: &str,
    policy: &AutoCausalLm,
    start: &Start,
) -> Result<Reference<AutoCausalLm>> {
    Ok(match name {
        "adapter-off" => Reference::AdaptersOff,
        "start" => Reference::start(policy),
        folder => {
            let folder = resolve(folder, &HubOptions::from_env()).with_context(|| {
                format!("--reference {folder} is neither adapter-off nor start nor a model")
            })?;
            let device = start.device.clone();
            let model = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored)?;
            Reference::start(&model)
        }
    })
}

/// The reference that is used if none is named.
pub(crate) fn usual_reference(common: &Common) -> &'static str {
    match common.full || common.adapter.is_some() {
        true => "start",
        false => "adapter-off",
    }
}

/// What an evaluation of pairs found.
pub(crate) fn pair_evaluation(evaluation: Option<&EvalMetrics>) -> Value {
    let Some(evaluation) = evaluation else {
        return Value::Null;
    };
    let metric = |name: &str| evaluation.metrics.get(name).copied();
    json!({
        "loss": evaluation.loss,
        "accuracy": metric("rewards/accuracies"),
        "margin": metric("rewards/margins"),
        "chosen": metric("rewards/chosen"),
        "rejected": metric("rewards/rejected"),
        "chosen_perplexity": metric("nll/chosen").map(f64::exp),
    })
}

/// The result of a training of pairs, for people and for `--json`.
pub(crate) fn report_pairs(common: &Common, report: &TrainReport) {
    let [before, after] = [report.eval_before(), report.eval_after()].map(pair_evaluation);
    if !after.is_null() {
        let change = |name: &str| {
            let number = |value: &Value| value[name].as_f64().unwrap_or(f64::NAN);
            format!("{name} {:.4} -> {:.4}", number(&before), number(&after))
        };
        let names = ["accuracy", "margin", "loss", "chosen_perplexity"];
        eprintln!("held out: {}", names.map(change).join(", "));
    }
    if common.json {
        let line = json!({
            "losses": report.train_losses,
            "eval_before": before,
            "eval_after": after,
            "steps": report.steps,
            "tokens_per_s": report.tokens_per_s,
            "peak_rss_mb": ft::peak_rss_mb(),
        });
        println!("{line}");
    }
}
