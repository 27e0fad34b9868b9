//! What a program trains: an adapter with its settings, the whole model, or a part of it.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use clap::Args;
use ft::core::AutoCausalLm;
use ft::peft::Method;
use ft::train::{Selection, train_only};
use serde_json::{Map, Value};

/// Options of what trains.
#[derive(Args, Clone)]
pub(crate) struct TrainsOptions {
    /// What trains: an adapter (lora, dora, ia3, ...), full, or freeze:N, the last N blocks.
    #[arg(long, default_value = "lora")]
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
    /// Dropout on what the adapter reads.
    #[arg(long)]
    pub(crate) dropout: Option<f64>,
    /// Scale by alpha / √r instead of alpha / r.
    #[arg(long)]
    pub(crate) rslora: bool,
    /// Layers to adapt: names separated by commas, or all-linear, which is the default of LoRA.
    #[arg(long)]
    pub(crate) target_modules: Option<String>,
}

/// What trains.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trains {
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
    pub(crate) fn learning_rate(&self) -> f64 {
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

impl TrainsOptions {
    /// The model with what trains, and its settings as part of the run's identity.
    pub(crate) fn prepare(
        &self,
        model: AutoCausalLm,
        base: &str,
        seed: u64,
        steps: usize,
    ) -> Result<(AutoCausalLm, Value)> {
        let only = match &self.method {
            Trains::Adapter(name) => {
                let method = self.adapter(name, base, steps)?;
                let identity = ft::peft::to_json(&*method, false);
                let model = ft::peft::attach(model, &*method, "default", seed)?;
                return Ok((model, identity));
            }
            Trains::Full => Selection::All,
            Trains::Freeze(blocks) => Selection::Top(*blocks),
        };
        ensure!(
            self.settings.is_empty()
                && self.r.is_none()
                && self.alpha.is_none()
                && self.dropout.is_none(),
            "--set, --r, --alpha and --dropout are settings of adapters, and --method trains the model"
        );
        let identity = only.to_string().into();
        Ok((train_only(model, &[only])?, identity))
    }

    /// The settings of the adapter: those of the options, and those of `--set`.
    fn adapter(&self, name: &str, base: &str, steps: usize) -> Result<Box<dyn Method>> {
        let mut settings = Map::new();
        if is_adalora(name) {
            settings.insert("total_step".into(), steps.into());
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
            (
                "--dropout",
                self.dropout.map(Value::from),
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
        settings.insert("base_model_name_or_path".into(), base.into());
        if let Some(targets) = &self.target_modules {
            let targets = match targets.as_str() {
                "all-linear" => targets.as_str().into(),
                names => names.split(',').map(str::trim).collect::<Vec<_>>().into(),
            };
            settings.insert("target_modules".into(), targets);
        }
        settings.extend(self.settings.iter().cloned());
        Ok(ft::peft::method(name, &settings)?)
    }
}

pub(crate) fn is_adalora(name: &str) -> bool {
    name.eq_ignore_ascii_case("adalora")
}

/// `NAME=JSON`; what is not JSON is a text.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=JSON")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_string(), value))
}
