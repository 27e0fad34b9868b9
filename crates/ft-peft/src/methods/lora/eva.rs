//! EVA: Explained Variance Adaptation (Paischer et al., 2024, arXiv:2410.07170). `A` begins as the principal components of a
//! layer's inputs, and layers whose components explain more of them get higher ranks.

use std::sync::Arc;

use burn::module::Module;
use ft_core::{Parts, TokenBatch};
use serde::{Deserialize, Serialize};

use super::eva_layers::{components, find_components, record};
use super::low_rank::A;
use super::{InitLoraWeights, LoraConfig};
use crate::attach::{Numbers, put};
use crate::beside;
use crate::freeze::freeze_all;
use crate::method::{check_common, validate};
use crate::switch::{check_new, without_adapters};
use crate::targets::{Chosen, Layers};
use crate::task_type::set_task;
use crate::{Error, Method, Result, TargetModules};

/// Settings of [`eva_initialise`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaConfig {
    /// A layer has at most this many times its rank; 1 leaves all ranks as they are.
    pub rho: f64,
    /// A component has converged when a batch turns it by an angle whose cosine is at least this.
    pub tau: f64,
    /// Count only tokens whose label is not `label_mask_value`. Without it all tokens count but those of segment 0, which are
    /// padding: batches without `segment_ids` must not be padded then.
    pub use_label_mask: bool,
    /// The label of tokens that do not count.
    pub label_mask_value: i64,
    /// Divide components by the roots of their singular values.
    pub whiten: bool,
    /// Change alpha in proportion to the rank of a layer, so that its scale stays the same.
    pub adjust_scaling_factors: bool,
}

impl Default for EvaConfig {
    fn default() -> Self {
        Self {
            rho: 2.0,
            tau: 0.99,
            use_label_mask: true,
            label_mask_value: -100,
            whiten: false,
            adjust_scaling_factors: true,
        }
    }
}

impl EvaConfig {
    pub(super) fn mistake(&self) -> Option<String> {
        let wrong = !(self.rho >= 1.0 && self.rho.is_finite() && (0.0..=1.0).contains(&self.tau));
        wrong.then(|| "eva_config: rho must be at least 1, and tau from 0 to 1".to_string())
    }
}

/// Attaches a new LoRA adapter called `name` as [`attach`](crate::attach) does, whose `A` holds the principal components of
/// the layers' inputs on `batches` (EVA; Paischer et al., 2024, arXiv:2410.07170).
///
/// `run` computes the model on a batch. Each batch has its tokens and their labels, row after row; by the labels
/// [`EvaConfig`] selects the tokens that count. The batches are repeated until the components have converged. Then the sum
/// of all ranks is distributed to the layers whose components explain most. The settings that are kept in the model have the
/// `rank_pattern`, `alpha_pattern` and `target_modules` that were found.
///
/// ```no_run
/// use ft_core::{AutoCausalLm, CausalLm, TokenBatch};
/// use ft_peft::{LoraConfig, eva_initialise};
///
/// # fn demo(model: AutoCausalLm, batches: Vec<(TokenBatch, Vec<i64>)>) -> ft_peft::Result<()> {
/// let config = LoraConfig { r: 16, lora_alpha: 16.0, ..LoraConfig::default() };
/// let model = eva_initialise(model, &config, "default", 0, &batches, |model, tokens| {
///     let _ = model.hidden_states(tokens, None);
/// })?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`attach`](crate::attach), and [`Error::Settings`](crate::Error::Settings) if there is too little data for the
/// components to converge.
pub fn eva_initialise<M: Module + Parts>(
    model: M,
    config: &LoraConfig,
    name: &str,
    seed: u64,
    batches: &[(TokenBatch, Vec<i64>)],
    run: impl Fn(&M, &TokenBatch),
) -> Result<M> {
    let mut config = config.clone();
    config.init_lora_weights = InitLoraWeights::Eva;
    let eva = config.eva_config.get_or_insert_default().clone();
    validate(&config)?;
    check_common(&config.common)?;
    if let Some(mistake) = config.bias_mistake() {
        return Err(Error::Settings(mistake));
    }
    check_new(&model, name)?;
    config.fit(&model)?;
    set_task(&mut config, &model);
    let chosen = Layers::of(&model, &config).select_strictly(&mut config)?;
    beside::check(&model, &mut config, &chosen)?;
    let mut recording = freeze_all(without_adapters(&model));
    let mut layers = record(&mut recording, &chosen, &config, eva.rho);
    if let Some(other) = chosen
        .iter()
        .find(|path| layers.iter().all(|layer| layer.path != **path))
    {
        return Err(Error::Settings(format!(
            "init_lora_weights = eva is for linear layers, which have inputs, and {other} is an embedding: leave it out of \
             target_modules"
        )));
    }
    let run = |tokens: &TokenBatch| run(&recording, tokens);
    find_components(&mut layers, &eva, batches, run)?;

    let mut factors = Vec::new();
    let mut patterns = (Vec::new(), Vec::new());
    for (number, layer) in layers
        .iter()
        .enumerate()
        .filter(|(_, layer)| layer.rank > 0)
    {
        let scale = match eva.adjust_scaling_factors {
            true => layer.rank as f64 / layer.wanted as f64,
            false => 1.0,
        };
        let alpha = config.alpha_of(&layer.path) * scale;
        if layer.rank != config.r {
            patterns.0.push((layer.path.clone(), layer.rank));
        }
        if alpha != config.lora_alpha {
            patterns.1.push((layer.path.clone(), alpha));
        }
        factors.push((layer.path.clone(), components(&layers, number, eva.whiten)));
    }
    (config.rank_pattern, config.alpha_pattern) = patterns;
    let paths = factors.iter().map(|(path, _)| path.clone());
    let chosen: Chosen = paths.clone().collect();
    config.common.target_modules = Some(TargetModules::names(paths));

    let mut model = freeze_all(model);
    put(
        &mut model,
        Arc::new(config) as Arc<dyn Method>,
        &chosen,
        name,
        Numbers::Drawn(seed),
    )?;
    model.for_each_linear_mut(&mut |path, linear| {
        let found = factors.iter().find(|(layer, _)| layer == path);
        let adapters = linear
            .adapters
            .iter_mut()
            .filter(|adapter| adapter.name == name);
        let tensors = adapters.flat_map(|adapter| &mut adapter.tensors);
        for (tensor, (_, a)) in tensors.filter(|tensor| tensor.name() == A).zip(found) {
            tensor.set(a.clone());
        }
    });
    Ok(model)
}
