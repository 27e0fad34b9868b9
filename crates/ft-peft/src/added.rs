//! New adapters whose tensors are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use ft_core::Parts;

use crate::attach::{Numbers, put};
use crate::targets::{Chosen, Layers, kinds};
use crate::task_type::set_task;
use crate::{Common, LoraConfig, Method, Result, TargetModules};

/// Tensors by name, by layer.
pub(crate) type NewTensors = BTreeMap<String, Vec<(String, TensorData)>>;

/// Adds an adapter with these tensors, switched off and frozen.
///
/// # Panics
///
/// If the method puts other tensors on the layers.
pub(crate) fn add<M: Module + Parts>(
    model: M,
    config: impl Method,
    name: &str,
    tensors: &NewTensors,
) -> Result<M> {
    let (mut model, mut config) = (model, config);
    set_task(&mut config, &model);
    let chosen: Chosen = tensors.keys().cloned().collect();
    let numbers = Numbers::Stored { most: usize::MAX };
    put(&mut model, Arc::new(config), &chosen, name, numbers)?;
    model.for_each_part_mut(&mut |path, mut part| {
        for adapter in part
            .adapters()
            .iter_mut()
            .filter(|adapter| adapter.name == name)
        {
            for (tensor, data) in tensors.get(path).into_iter().flatten() {
                let mut found = adapter.tensors.iter_mut();
                let found = found.find(|own| own.name() == tensor);
                found.expect("the method has this tensor").set(data.clone());
            }
            adapter.active = false;
            adapter.set_trainable(false);
        }
    });
    Ok(model)
}

/// `A` and `B` of a layer, with their names.
pub(crate) type Factors = (String, [&'static str; 2], [Tensor<2>; 2]);

/// Factors of the same rank on every layer: with zeros where there were fewer.
pub(crate) fn same_rank(layers: Vec<Factors>) -> Vec<Factors> {
    let rank = |a: &Tensor<2>| a.dims()[0];
    let largest = layers
        .iter()
        .map(|(_, _, [a, _])| rank(a))
        .max()
        .unwrap_or(0);
    let padded = layers.into_iter().map(|(layer, names, [a, b])| {
        let missing = largest - rank(&a);
        let ([_, inputs], [outputs, _]) = (a.dims(), b.dims());
        let zeros = |shape| Tensor::zeros(shape, &a.device());
        let factors = match missing {
            0 => [a, b],
            _ => {
                let (more_a, more_b) = (zeros([missing, inputs]), zeros([outputs, missing]));
                [
                    Tensor::cat(vec![a, more_a], 0),
                    Tensor::cat(vec![b, more_b], 1),
                ]
            }
        };
        (layer, names, factors)
    });
    padded.collect()
}

/// Adds a LoRA adapter with these factors, all of the same rank, and scale 1; switched off and frozen.
pub(crate) fn add_lora<M: Module + Parts>(
    model: M,
    name: &str,
    base_model: Option<String>,
    layers: Vec<Factors>,
) -> Result<M> {
    let rank = layers.first().map_or(1, |(_, _, [a, _])| a.dims()[0]);
    let tensors = layers.into_iter().map(|(layer, names, factors)| {
        let named = names.into_iter().zip(factors);
        let named = named.map(|(name, factor)| (name.to_string(), factor.into_data()));
        (layer, named.collect())
    });
    let tensors: NewTensors = tensors.collect();
    let config = LoraConfig {
        r: rank,
        lora_alpha: rank as f64,
        common: Common {
            base_model_name_or_path: base_model,
            ..Common::default()
        },
        ..LoraConfig::default()
    };
    let targets = targets_for(&model, &config, tensors.keys());
    add(model, config.with_targets(targets), name, &tensors)
}

/// Settings that choose exactly these layers: the last parts of their names if that is enough, else the names.
pub(crate) fn targets_for<'a>(
    model: &impl Parts,
    method: &dyn Method,
    layers: impl Iterator<Item = &'a String>,
) -> TargetModules {
    let wanted: Chosen = layers.cloned().collect();
    let short = Common {
        target_modules: Some(TargetModules::Names(kinds(&wanted))),
        ..Common::default()
    };
    match Layers::of(model, method).select(&short) {
        Ok(chosen) if chosen == wanted => TargetModules::Names(kinds(&wanted)),
        _ => TargetModules::Names(wanted.into_iter().collect()),
    }
}
