//! Adapters into weights: `W ← W + s·BA`, after which nothing of them is left.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use ft_core::{Layout, Linear, Linears};

use crate::{Error, Result};

/// Adds every active adapter to its weight and removes all adapters, also those that are switched
/// off. The result computes the same without them, up to rounding.
///
/// # Errors
///
/// [`Error::NotFinite`] if a merged weight would not be finite; the model is then lost to the
/// caller, who should keep a clone (which shares the parameters) if that matters.
pub fn merge_and_unload<M: Module + Linears>(model: M) -> Result<M> {
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
    let Some(last) = active.last() else {
        return Ok(());
    };
    let mut weight = linear.weight.val();
    for adapter in &active {
        let delta = match linear.layout() {
            Layout::OutIn => adapter.delta(),
            Layout::InOut => adapter.delta().transpose(),
        };
        weight = weight + delta;
    }
    let weight = weight.detach();
    if !weight.clone().is_finite().all().into_scalar::<bool>() {
        return Err(Error::NotFinite {
            adapter: last.name.clone(),
            layer: path.to_string(),
        });
    }
    linear.weight = with_value(&linear.weight, weight);
    Ok(())
}

/// The parameter with another value; whether it trains stays as it was.
fn with_value(param: &Param<Tensor<2>>, value: Tensor<2>) -> Param<Tensor<2>> {
    param.clone().transform_for_load(value, param.id)
}

/// Removes all adapters without merging them: the base model again.
pub fn unload<M: Module + Linears>(model: M) -> M {
    let mut model = model;
    model.for_each_linear_mut(&mut |_, linear| linear.adapters.clear());
    model
}
