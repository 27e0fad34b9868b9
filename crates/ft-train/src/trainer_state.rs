//! Where a run stands, as a checkpoint keeps it, and whether a checkpoint belongs to a run.

use std::collections::BTreeMap;
use std::path::Path;

use ft_kernels::{Precision, precision};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::metric::nan_if_null;
use crate::window_plan::Position;
use crate::{Evaluation, Finding, Metrics, Optim, ParamGroup, Schedule, TrainConfig};

/// The layout of `trainer_state.json`.
const VERSION: u32 = 1;

/// Settings and other facts by name.
pub(crate) type Settings = Map<String, Value>;

/// Everything of a run but parameters and optimizer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TrainerState {
    version: u32,
    pub(crate) step: usize,
    pub(crate) position: Position,
    pub(crate) epoch: f64,
    pub(crate) tokens: usize,
    pub(crate) elapsed_s: f64,
    pub(crate) settings: Settings,
    pub(crate) train_losses: Vec<f64>,
    #[serde(default)]
    pub(crate) grad_norms: Vec<f64>,
    #[serde(default, deserialize_with = "read_metrics")]
    pub(crate) train_metrics: Vec<Metrics>,
    pub(crate) evaluations: Vec<Evaluation>,
    #[serde(default)]
    pub(crate) findings: Vec<Finding>,
    /// States of callbacks by name.
    #[serde(default)]
    pub(crate) callbacks: BTreeMap<String, Value>,
}

impl TrainerState {
    /// A run that has not begun.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            version: VERSION,
            step: 0,
            position: Position::default(),
            epoch: 0.0,
            tokens: 0,
            elapsed_s: 0.0,
            settings,
            train_losses: Vec::new(),
            grad_norms: Vec::new(),
            train_metrics: Vec::new(),
            evaluations: Vec::new(),
            findings: Vec::new(),
            callbacks: BTreeMap::new(),
        }
    }

    /// Reads `trainer_state.json`; the error is the reason only.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        let state: Self =
            serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
        if state.version != VERSION {
            return Err(format!(
                "{name} has version {}, and this version of ft reads {VERSION}",
                state.version
            ));
        }
        Ok(state)
    }

    /// How the settings of this checkpoint differ from those of a run.
    pub(crate) fn differences(&self, settings: &Settings) -> Vec<String> {
        let mut names: Vec<_> = self.settings.keys().chain(settings.keys()).collect();
        names.sort();
        names.dedup();
        let shown =
            |value: Option<Value>| value.map_or("absent".to_string(), |value| value.to_string());
        names
            .into_iter()
            // What an older checkpoint does not know has no value there.
            .map(|name| {
                let of = |settings: &Settings| {
                    settings.get(name).filter(|value| !value.is_null()).cloned()
                };
                (name, of(&self.settings), of(settings))
            })
            .filter(|(_, saved, now)| saved != now)
            .map(|(name, saved, now)| {
                format!(
                    "{name}: {} in the checkpoint, {} now",
                    shown(saved),
                    shown(now)
                )
            })
            .collect()
    }
}

fn read_metrics<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Metrics>, D::Error> {
    #[derive(Deserialize)]
    struct Step(#[serde(deserialize_with = "nan_if_null")] Metrics);
    let steps = Vec::<Step>::deserialize(deserializer)?;
    Ok(steps.into_iter().map(|step| step.0).collect())
}

/// What the parameters after a step depend on, besides data, model and step function.
pub(crate) fn settings(
    config: &TrainConfig,
    optim: Option<Optim>,
    groups: &[ParamGroup],
    total_steps: usize,
    batches_in_epoch: usize,
    identity: &Settings,
) -> Settings {
    let mut settings = Settings::new();
    let mut set = |name: &str, value: Value| settings.insert(name.to_string(), value);
    set("learning_rate", config.learning_rate.into());
    set("schedule", json!(config.schedule));
    set("warmup_steps", config.warmup_of(total_steps).into());
    // A rate that does not depend on where the run ends lets it end later.
    if config.schedule.has_end() {
        set("total_steps", total_steps.into());
    }
    if let Schedule::ReduceLrOnPlateau { .. } = config.schedule {
        set("eval_every", json!(config.eval_every));
        set("eval_at_start", config.eval_at_start.into());
    }
    // Without it the best parameters are not kept.
    if config.load_best_model_at_end {
        set("load_best_model_at_end", true.into());
    }
    let accumulation = config.gradient_accumulation_steps;
    set("gradient_accumulation_steps", accumulation.into());
    set("max_grad_norm", json!(config.max_grad_norm));
    if let Some(optim) = optim {
        set("optim", json!(optim));
    }
    set("weight_decay", config.weight_decay.into());
    if !groups.is_empty() {
        set("param_groups", json!(groups));
    }
    set("betas", json!(config.betas));
    set("eps", config.eps.into());
    set("seed", config.seed.into());
    set("batches_in_epoch", batches_in_epoch.into());
    // Without it products are those of `f32`, as in checkpoints of earlier versions.
    if precision() != Precision::F32 {
        set("precision", precision().to_string().into());
    }
    for (name, value) in identity {
        set(name, value.clone());
    }
    settings
}
