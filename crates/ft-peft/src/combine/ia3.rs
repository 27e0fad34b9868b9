//! `Σ wᵢlᵢ` of the vectors of IA3 adapters.

use burn::module::Module;
use burn::tensor::Tensor;
use ft_core::Parts;
use ft_core::layers::Adapter;

use crate::added::{NewTensors, add, targets_for};
use crate::switch::adapter_config;
use crate::targets::kinds;
use crate::{Error, Ia3Config, Result, TargetModules};

const L: &str = "ia3_l";

/// Adds the adapter whose vectors are the weighted sums. Where an adapter has no vector, its factor is one.
pub(super) fn combine<M: Module + Parts>(
    model: M,
    adapters: &[(&str, f64)],
    name: &str,
) -> Result<M> {
    let all: f64 = adapters.iter().map(|(_, weight)| weight).sum();
    let mut sums = NewTensors::new();
    let (mut lost, mut feedforward) = (None, Vec::new());
    model.for_each_part(&mut |path, part| {
        let here = adapters.iter().flat_map(|(name, weight)| {
            let found = part.adapters().iter().filter(|adapter| adapter.name == *name);
            found.map(|adapter| (adapter, *weight))
        });
        let here: Vec<(&Adapter, f64)> = here.collect();
        let vectors = here.iter().filter_map(|(adapter, weight)| {
            let alone = adapter.tensors.len() == 1;
            let vector = adapter.get(L).filter(|_| alone)?.val2().detach().inner();
            Some((vector, *weight))
        });
        let vectors: Vec<(Tensor<2>, f64)> = vectors.collect();
        let Some(shape) = vectors.first().map(|(vector, _)| vector.dims()) else {
            if let Some((adapter, _)) = here.first() {
                lost.get_or_insert(format!("adapter {:?} has what is no vector of IA3 on {path}", adapter.name));
            }
            return;
        };
        if vectors.len() < here.len() || vectors.iter().any(|(vector, _)| vector.dims() != shape) {
            lost.get_or_insert(format!(
                "the adapters do not scale the same on {path}: some the input, some the output, or other tensors"
            ));
            return;
        }
        if shape[0] == 1 {
            feedforward.push(path.to_string());
        }
        let missing = all - vectors.iter().map(|(_, weight)| weight).sum::<f64>();
        let weighted = vectors.into_iter().map(|(vector, weight)| vector * weight);
        let sum = weighted.reduce(Tensor::add).map(|sum| sum + missing);
        let sum = sum.map(|sum| (L.to_string(), sum.into_data()));
        sums.insert(path.to_string(), sum.into_iter().collect());
    });
    if let Some(lost) = lost {
        return Err(Error::Settings(lost));
    }
    let mut config = Ia3Config::default();
    let (inputs, outputs): (Vec<String>, Vec<String>) =
        (sums.keys().cloned()).partition(|path| feedforward.contains(path));
    let targets = targets_for(&model, &config, sums.keys());
    // PEFT requires that the same names are among both. The last part of a path is one where all such layers scale alike.
    let short = kinds(&inputs);
    let (targets, feedforward) = match &targets {
        TargetModules::Names(names)
            if short
                .iter()
                .all(|name| names.contains(name) && !kinds(&outputs).contains(name)) =>
        {
            (targets, short)
        }
        _ => (TargetModules::Names(sums.keys().cloned().collect()), inputs),
    };
    config.common.target_modules = Some(targets);
    config.feedforward_modules = Some(TargetModules::Names(feedforward));
    let first = adapter_config(&model, adapters[0].0)?;
    config.common.base_model_name_or_path = first.common().base_model_name_or_path.clone();
    add(model, config, name, &sums)
}
