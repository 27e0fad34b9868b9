//! Adapters into weights: `W ← W + s·BA`, after which nothing of them is left.

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use ft_core::{Layout, Linear, Parts};

use crate::switch::{active_adapters, adapter_names};
use crate::{Error, Result};

/// Adds every active adapter to its weight and removes all adapters, also those that are switched
/// off. The result computes the same without them, up to rounding.
///
/// What was frozen stays frozen: call `unfreeze` to train all of the merged model, or
/// [`attach`](crate::attach) for the next stage. On failure the model is lost to the caller, who
/// should keep a clone (which shares the parameters) if that matters.
///
/// # Errors
///
/// If there are adapters but all are switched off, which would lose them, or [`Error::NotFinite`] if
/// a merged weight would not be finite.
pub fn merge_and_unload<M: Module + Parts>(model: M) -> Result<M> {
    let names = adapter_names(&model);
    if !names.is_empty() && active_adapters(&model).is_empty() {
        return Err(Error::Name(format!(
            "nothing to merge, since every adapter is switched off ({}): switch on with set_active \
             what is to be merged, or call unload for the base model",
            names.join(", ")
        )));
    }
    let mut model = model;
    let mut failure = None;
    model.for_each_linear_mut(&mut |path, linear| {
        if failure.is_none() {
            failure = merge(path, linear).err();
        }
        linear.adapters.clear();
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

fn merge(path: &str, linear: &mut Linear) -> Result<()> {
    let active: Vec<_> = linear.adapters.iter().filter(|a| a.active).collect();
    if active.is_empty() {
        return Ok(());
    }
    // Held in 16 bits, the sum would lose what small adapters add.
    let mut weight = linear.weight.val().cast(DType::F32);
    for adapter in &active {
        let delta = match linear.layout() {
            Layout::OutIn => adapter.delta(),
            Layout::InOut => adapter.delta().transpose(),
        };
        weight = weight + delta;
    }
    let weight = weight.detach();
    if !is_finite(weight.clone()) {
        let broken = active.iter().find(|adapter| !is_finite(adapter.delta()));
        let culprit = match broken {
            Some(adapter) => format!("adapter {:?}", adapter.name),
            None if !is_finite(linear.weight.val()) => "the base weight".to_string(),
            None => "the sum".to_string(),
        };
        return Err(Error::NotFinite {
            layer: path.to_string(),
            culprit,
        });
    }
    // Keeps the parameter's identity and whether it trains.
    let id = linear.weight.id;
    linear.weight = linear.weight.clone().transform_for_load(weight, id);
    Ok(())
}

fn is_finite(tensor: Tensor<2>) -> bool {
    tensor.is_finite().all().into_scalar::<bool>()
}

/// Removes all adapters without merging them: the base model again.
pub fn unload<M: Module + Parts>(model: M) -> M {
    let mut model = model;
    model.for_each_linear_mut(&mut |_, linear| linear.adapters.clear());
    model
}
