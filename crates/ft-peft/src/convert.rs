//! Any change of weights as LoRA: the nearest matrices of a rank (Eckart and Young, 1936).

use burn::module::Module;
use burn::tensor::Tensor;
use ft_core::layers::Adapter;
use ft_core::{Part, Parts};
use serde::Serialize;

use crate::added::{add_lora, same_rank};
use crate::combine::{Scaled, plain};
use crate::merge::change;
use crate::rounding::norm;
use crate::switch::{adapter_config, check_known, check_name};
use crate::truncated_svd::truncated_svd;
use crate::{Error, Result};

/// What a conversion to LoRA loses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conversion {
    /// Each layer.
    pub layers: Vec<LayerConversion>,
    /// `‖Δ − BA‖ / ‖Δ‖` of all layers together.
    pub error: f64,
}

/// What a conversion to LoRA loses on one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerConversion {
    /// The path of the layer.
    pub layer: String,
    /// `‖Δ‖`.
    pub change: f64,
    /// `‖Δ − BA‖ / ‖Δ‖`; zero if there is no change.
    pub error: f64,
}

/// Adds a LoRA adapter called `new_name` whose changes `BA` of the weights are the nearest ones of rank `rank` to those of
/// the adapter called `name`, and returns how near they are. It is switched off and frozen. The scale is 1, as in PEFT's
/// `convert_to_lora`.
///
/// The changes are those that merging makes, so any method can be converted that changes the weights of linear layers alone.
///
/// # Errors
///
/// If a name is missing or taken, the rank is 0, or the adapter changes more than weights of linear layers: biases,
/// embeddings, norms, or nothing that can be merged.
pub fn convert_to_lora<M: Module + Parts>(
    model: M,
    name: &str,
    rank: usize,
    new_name: &str,
) -> Result<(M, Conversion)> {
    check_known(&model, &[name])?;
    check_name(&model, new_name)?;
    if rank == 0 {
        return Err(Error::Settings("the rank must be at least 1".into()));
    }
    let base = adapter_config(&model, name)?
        .common()
        .base_model_name_or_path
        .clone();
    let (mut layers, mut factors) = (Vec::new(), Vec::new());
    let mut failure = None;
    plain(&model, [name])?.for_each_part(&mut |path, part| {
        let adapters: Vec<&Adapter> = part
            .adapters()
            .iter()
            .filter(|adapter| adapter.name == name)
            .collect();
        if failure.is_some() || adapters.is_empty() {
            return;
        }
        match layer(path, part, &adapters, rank) {
            Ok((pair, loss)) => {
                factors.push((path.to_string(), ["lora_A.weight", "lora_B.weight"], pair));
                layers.push(loss);
            }
            Err(error) => failure = Some(error),
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let square =
        |of: fn(&LayerConversion) -> f64| layers.iter().map(|layer| of(layer).powi(2)).sum::<f64>();
    let all = square(|layer| layer.change);
    let error = match all > 0.0 {
        true => (square(|layer| layer.error * layer.change) / all).sqrt(),
        false => 0.0,
    };
    let model = add_lora(model, new_name, base, same_rank(factors))?;
    Ok((model, Conversion { layers, error }))
}

/// `A` and `B` of a layer, and what they lose.
fn layer(
    path: &str,
    part: Part<'_>,
    adapters: &[&Adapter],
    rank: usize,
) -> Result<([Tensor<2>; 2], LayerConversion)> {
    let wrong = |mistake: String| Error::Settings(format!("{path}: {mistake}"));
    let (Part::Linear(linear), [adapter]) = (part, adapters) else {
        return Err(wrong(
            "an adapter of more than weights of linear layers has no equal among plain LoRA adapters".into(),
        ));
    };
    let delta = match Scaled::of(path, adapter, 1.0) {
        Ok(factors) => factors.product(),
        Err(_) => change(path, linear, adapter)?,
    };
    let [a, b] = truncated_svd(delta.clone(), rank).map_err(wrong)?.factors();
    let change = norm(delta.clone());
    let error = match change > 0.0 {
        true => norm(delta - b.clone().matmul(a.clone())) / change,
        false => 0.0,
    };
    let loss = LayerConversion {
        layer: path.to_string(),
        change,
        error,
    };
    Ok(([a, b], loss))
}
