//! What a program trains: an adapter with its settings, the whole model, or a part of it.

use std::any::Any;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ft::burn::tensor::{Device, Int, Tensor, TensorData};
use ft::core::{AutoCausalLm, CausalLm, TokenBatch, Tokenizer};
use ft::data::{Batch, Batches, SftBatches};
use ft::kernels::PackedFormat;
use ft::peft::{
    InitLoraWeights, LoraConfig, Method, PromptTuningConfig, PromptTuningInit, method_names,
    peft_type_of,
};
use ft::train::{ParamGroup, Selection, lora_plus, train_only};
use serde_json::{Map, Value};

/// Options of what trains.
#[derive(Args, Clone)]
pub(crate) struct TrainsOptions {
    #[arg(long, default_value = "lora", help = method_help())]
    pub(crate) method: Trains,
    /// A setting of the adapter in PEFT's name, as NAME=JSON: --set use_rslora=true. May be given several times.
    #[arg(long = "set", value_name = "NAME=JSON", value_parser = setting)]
    pub(crate) settings: Vec<(String, Value)>,
    /// Rank of the factors; 16 for LoRA.
    #[arg(long)]
    pub(crate) r: Option<usize>,
    /// The adapter's output is scaled by alpha / r; 32 for LoRA.
    #[arg(long)]
    pub(crate) alpha: Option<f64>,
    /// The dropout of the adapter: of LoRA and others on what it reads, of BOFT a share of its blocks.
    #[arg(long)]
    pub(crate) dropout: Option<f64>,
    /// Scale by alpha / √r instead of alpha / r.
    #[arg(long)]
    pub(crate) rslora: bool,
    /// Layers to adapt: names separated by commas, or all-linear, which is the default of LoRA.
    #[arg(long)]
    pub(crate) target_modules: Option<String>,
    /// LoRA+: B learns so many times as fast as A; 16 is usual.
    #[arg(long, value_name = "RATIO")]
    pub(crate) lora_plus: Option<f64>,
    /// LoRA-FA: A stays as it is.
    #[arg(long)]
    pub(crate) lora_fa: bool,
    /// LoftQ: round the base and take LoRA's factors from what is lost, in so many iterations; 1 to 5 are usual. Needs
    /// --base-format. The rounded base, to which the adapter belongs, is written to OUTPUT/base.
    #[arg(long, value_name = "ITERATIONS")]
    pub(crate) loftq: Option<usize>,
}

/// What trains.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trains {
    /// An adapter of this method.
    Adapter(String),
    /// Weights of the model.
    Weights(Selection),
}

/// The names of what trains and is no adapter.
const WEIGHTS: &str = "full, head, top:N, bottom:N";

fn method_help() -> String {
    format!(
        "What trains. An adapter: {}. Or weights of the model: full (all), head (the output layer), top:N or freeze:N (the \
         last N blocks), bottom:N (the first N)",
        method_names().join(", ")
    )
}

impl FromStr for Trains {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (name, blocks) = match lower.split_once(':') {
            Some((name, blocks)) => (name, Some(blocks)),
            None => (lower.as_str(), None),
        };
        let count = blocks.and_then(|blocks| blocks.parse().ok());
        match (name, count.filter(|count| *count > 0)) {
            ("top" | "freeze", Some(blocks)) => Ok(Self::Weights(Selection::Top(blocks))),
            ("bottom", Some(blocks)) => Ok(Self::Weights(Selection::Bottom(blocks))),
            ("top" | "freeze", None) => {
                Err(format!("{name}:N trains the last N blocks: N is 1 or more"))
            }
            ("bottom", None) => Err("bottom:N trains the first N blocks: N is 1 or more".into()),
            _ if blocks.is_some() => Err(format!("{name} takes no number; top:N and bottom:N do")),
            ("full", _) => Ok(Self::Weights(Selection::All)),
            ("head", _) => Ok(Self::Weights(Selection::Head)),
            _ => match peft_type_of(text) {
                Ok(_) => Ok(Self::Adapter(text.to_string())),
                Err(error) => Err(format!("{error}, and {WEIGHTS}")),
            },
        }
    }
}

impl Trains {
    /// A learning rate that usually serves.
    pub(crate) fn learning_rate(&self) -> f64 {
        match self {
            Self::Weights(_) => 2e-5,
            Self::Adapter(method) => match peft_type_of(method).unwrap_or_default() {
                "IA3" | "PREFIX_TUNING" => 3e-3,
                "VERA" => 4e-3,
                "PROMPT_TUNING" | "P_TUNING" | "FOURIERFT" => 3e-2,
                "BITFIT" | "LN_TUNING" => 1e-3,
                _ => 2e-4,
            },
        }
    }
}

/// What an adapter may begin from.
pub(crate) struct Start<'a> {
    /// The base model, for programs that load the adapter.
    pub(crate) base: &'a str,
    pub(crate) tokenizer: &'a Tokenizer,
    /// The rows to learn from, if they are all known.
    pub(crate) batches: Option<&'a SftBatches>,
    /// The format of blocks of the base, which LoftQ rounds.
    pub(crate) base_format: Option<PackedFormat>,
    pub(crate) device: &'a Device,
    pub(crate) seed: u64,
    /// How many steps the run has.
    pub(crate) steps: usize,
}

/// A model that is ready to train.
pub(crate) struct Prepared {
    pub(crate) model: AutoCausalLm,
    /// What trains, as part of the run's identity.
    pub(crate) identity: Value,
    /// Whether ranks are distributed while it trains: AdaLoRA.
    pub(crate) allocates: bool,
}

impl TrainsOptions {
    /// The model with what trains.
    pub(crate) fn prepare(&self, model: AutoCausalLm, start: &Start<'_>) -> Result<Prepared> {
        let rule = match &self.method {
            Trains::Adapter(name) => return self.with_adapter(name, model, start),
            Trains::Weights(rule) => rule,
        };
        let given = [
            ("--set", !self.settings.is_empty()),
            ("--r", self.r.is_some()),
            ("--alpha", self.alpha.is_some()),
            ("--dropout", self.dropout.is_some()),
            ("--rslora", self.rslora),
            ("--target-modules", self.target_modules.is_some()),
            ("--lora-plus", self.lora_plus.is_some()),
            ("--lora-fa", self.lora_fa),
            ("--loftq", self.loftq.is_some()),
        ];
        let given: Vec<&str> = given
            .iter()
            .filter(|(_, is)| *is)
            .map(|(name, _)| *name)
            .collect();
        ensure!(
            given.is_empty(),
            "{}: settings of adapters, and --method trains weights of the model: leave them out",
            given.join(", ")
        );
        Ok(Prepared {
            identity: rule.to_string().into(),
            model: train_only(model, std::slice::from_ref(rule))?,
            allocates: false,
        })
    }

    /// Groups of parameters with a learning rate of their own, beside that of the run.
    pub(crate) fn groups(&self, learning_rate: f64) -> Vec<ParamGroup> {
        let ratio = self.lora_plus.into_iter();
        ratio.map(|ratio| lora_plus(learning_rate, ratio)).collect()
    }

    fn with_adapter(&self, name: &str, model: AutoCausalLm, start: &Start<'_>) -> Result<Prepared> {
        let method = self.adapter(name, start)?;
        let mut identity = ft::peft::to_json(&*method, false);
        for (key, value) in [
            ("lora_plus", self.lora_plus.map(Value::from)),
            ("lora_fa", self.lora_fa.then(|| true.into())),
            ("loftq", self.loftq.map(Value::from)),
        ] {
            if let Some(value) = value {
                identity[key] = value;
            }
        }
        let lora = (&*method as &dyn Any).downcast_ref::<LoraConfig>();
        let init = lora.map(|lora| lora.init_lora_weights);
        let model = match (lora, self.loftq) {
            (None, Some(_)) => bail!("--loftq is for LoRA, and not for {name}"),
            (Some(lora), Some(iterations)) => {
                let format = start
                    .base_format
                    .context("--loftq needs --base-format: nf4 is usual")?;
                let (model, layers) =
                    ft::loftq_initialise(model, format, lora, "default", iterations, start.seed)?;
                let mean = |of: fn(&ft::LoftqLayer) -> f64| {
                    layers.iter().map(of).sum::<f64>() / layers.len() as f64
                };
                eprintln!(
                    "LoftQ: {} layers in {format}, mean error {:.5} in place of {:.5}",
                    layers.len(),
                    mean(|layer| layer.error),
                    mean(|layer| layer.rounding)
                );
                model
            }
            _ if init == Some(InitLoraWeights::Loftq) => {
                bail!("init_lora_weights = loftq: give --loftq ITERATIONS and --base-format")
            }
            (Some(lora), None) if init == Some(InitLoraWeights::Eva) => eva(model, lora, start)?,
            _ => ft::peft::attach(model, &*method, "default", start.seed)?,
        };
        Ok(Prepared {
            model: match self.lora_fa {
                true => ft::peft::lora_fa(model, "default")?,
                false => model,
            },
            identity,
            allocates: method.peft_type() == "ADALORA",
        })
    }

    /// The settings of the adapter: those of the options, and those of `--set`.
    fn adapter(&self, name: &str, start: &Start<'_>) -> Result<Box<dyn Method>> {
        let mut settings: Map<String, Value> = self.settings.iter().cloned().collect();
        if peft_type_of(name)? == "ADALORA" {
            settings.entry("total_step").or_insert(start.steps.into());
        }
        let own = ft::peft::method(name, &settings)?.own();
        let (mut r, mut alpha) = (self.r.map(Value::from), self.alpha.map(Value::from));
        if own.contains_key("lora_alpha") && own.contains_key("r") {
            r = r.or(Some(16.into()));
            alpha = alpha.or(Some(32.0.into()));
        }
        let rslora = self.rslora.then(|| Value::from(true));
        for (option, value, names) in [
            ("--r", r, &["r"][..]),
            ("--alpha", alpha, &["lora_alpha", "alpha"]),
            ("--rslora", rslora, &["use_rslora"]),
        ] {
            let Some(value) = value else { continue };
            let key = names.iter().find(|key| own.contains_key(**key));
            let key = key.with_context(|| format!("{option} is not a setting of {name}"))?;
            settings.entry(*key).or_insert(value);
        }
        if let Some(dropout) = self.dropout {
            let all: Vec<&String> = own.keys().filter(|key| key.contains("dropout")).collect();
            let key = match &all[..] {
                [] => bail!("--dropout is not a setting of {name}"),
                [key] => (*key).clone(),
                _ => bail!(
                    "{name} has several dropouts: give one of them by --set, {}",
                    all.iter()
                        .map(|key| format!("{key}=..."))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            settings.entry(key).or_insert(dropout.into());
        }
        settings
            .entry("base_model_name_or_path")
            .or_insert(start.base.into());
        if let Some(targets) = &self.target_modules {
            let targets: Value = match targets.as_str() {
                "all-linear" => targets.as_str().into(),
                names => names.split(',').map(str::trim).collect::<Vec<_>>().into(),
            };
            settings.entry("target_modules").or_insert(targets);
        }
        from_text(ft::peft::method(name, &settings)?, start)
    }
}

/// A prompt that begins as a text, with the tokens of that text.
fn from_text(method: Box<dyn Method>, start: &Start<'_>) -> Result<Box<dyn Method>> {
    let prompt = (&*method as &dyn Any).downcast_ref::<PromptTuningConfig>();
    let Some(prompt) = prompt.filter(|prompt| prompt.prompt_tuning_init == PromptTuningInit::Text)
    else {
        return Ok(method);
    };
    let text = prompt.prompt_tuning_init_text.as_deref();
    let text =
        text.context("prompt_tuning_init is TEXT: give --set prompt_tuning_init_text=TEXT too")?;
    let of = prompt
        .tokenizer_name_or_path
        .as_deref()
        .unwrap_or(start.base);
    let made = PromptTuningConfig::from_text(prompt.num_virtual_tokens, text, start.tokenizer, of)?;
    Ok(Box::new(PromptTuningConfig {
        common: prompt.common.clone(),
        sizes: prompt.sizes.clone(),
        ..made
    }))
}

/// The most batches that EVA looks at.
const EVA_BATCHES: usize = 256;

/// An adapter whose factors are the principal components of what layers read of the rows to learn from.
fn eva(model: AutoCausalLm, config: &LoraConfig, start: &Start<'_>) -> Result<AutoCausalLm> {
    let all = start.batches.context(
        "init_lora_weights = eva needs the rows before the training: leave out --stream, --estimate and --batch-size auto",
    )?;
    let count = all.len(0).min(EVA_BATCHES);
    let batches: Vec<_> = (0..count)
        .map(|index| {
            let batch = all.batch(0, index);
            (with_segments(&batch, start.device), batch.labels)
        })
        .collect();
    let run = |model: &AutoCausalLm, tokens: &TokenBatch| {
        let _ = model.hidden_states(tokens, None);
    };
    Ok(ft::peft::eva_initialise(
        model, config, "default", start.seed, &batches, run,
    )?)
}

/// The tokens of a batch, with segments that tell its padding.
fn with_segments(batch: &Batch, device: &Device) -> TokenBatch {
    let mut tokens = batch.tokens(device);
    if tokens.segment_ids.is_none() {
        let rows = batch.lengths.iter();
        let segments = rows.flat_map(|length| (0..batch.seq).map(|at| i64::from(at < *length)));
        let segments = TensorData::new(segments.collect::<Vec<_>>(), [batch.batch, batch.seq]);
        tokens.segment_ids = Some(Tensor::<2, Int>::from_data(segments, device));
    }
    tokens
}

/// `NAME=JSON`; what is not JSON is a text.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=JSON")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_string(), value))
}
