//! Adapters into weights, after which nothing of them is left.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use ft_core::layers::{Adapters, At, Embedding, Merged};
use ft_core::{Layout, Linear, PartMut, Parts};

use crate::switch::{active_adapters, adapter_names};
use crate::{Error, Result};

/// Merges every active adapter into its layer and removes all adapters, also those that are switched
/// off. The result computes the same without them, up to rounding.
///
/// What was frozen stays frozen: call `unfreeze` to train all of the merged model, or
/// [`attach`](crate::attach) for the next stage. On failure the model is lost to the caller, who
/// should keep a clone (which shares the parameters) if that matters.
///
/// # Errors
///
/// If there are adapters but all are switched off, which would lose them; if an adapter is no change of a weight; or
/// [`Error::NotFinite`] if a merged weight would not be finite.
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
    model.for_each_part_mut(&mut |path, mut part| {
        if failure.is_none() {
            failure = merge(path, &mut part).err();
        }
        part.adapters().clear();
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

fn merge(path: &str, part: &mut PartMut<'_>) -> Result<()> {
    if part.as_part().adapters().active().next().is_none() {
        return Ok(());
    }
    match part {
        PartMut::Linear(linear) => merge_linear(path, linear),
        PartMut::Residual(residual) => Err(Error::NotMergeable {
            layer: path.to_string(),
            adapter: (residual.adapters.active().next())
                .map_or_else(String::new, |adapter| adapter.name.clone()),
        }),
        PartMut::Embedding(table) => merge_table(path, table),
        PartMut::RmsNorm(norm) => {
            replace_vectors(path, &norm.adapters.clone(), &mut norm.weight, None)
        }
        PartMut::LayerNorm(norm) => replace_vectors(
            path,
            &norm.adapters.clone(),
            &mut norm.weight,
            Some(&mut norm.bias),
        ),
        _ => Ok(()),
    }
}

fn merge_linear(path: &str, linear: &mut Linear) -> Result<()> {
    // Held in 16 bits, the sum would lose what small adapters add.
    let base = linear.matrix().cast(DType::F32).detach();
    let mut merged = Merged {
        base: base.clone(),
        weight: base,
        bias: linear.bias_vector(),
    };
    let mut active: Vec<_> = linear.adapters.active().collect();
    active.sort_by_key(|adapter| adapter.kind().stage());
    for adapter in &active {
        let at = At {
            layer: linear,
            adapter,
            alone: active.len() == 1,
            fused: false,
        };
        let name = || format!("adapter {:?}", adapter.name);
        if adapter.kind().weight(adapter).is_none() && adapter.kind().bias(adapter).is_none() {
            merged = (adapter.kind().merge(&at, merged)).ok_or_else(|| Error::NotMergeable {
                layer: path.to_string(),
                adapter: adapter.name.clone(),
            })?;
        }
        let bias = merged.bias.clone();
        if !is_finite(merged.weight.clone()) || bias.is_some_and(|bias| !is_finite(bias)) {
            let culprit = match is_finite(linear.matrix()) {
                true => name(),
                false => "the base weight".to_string(),
            };
            return Err(Error::NotFinite {
                layer: path.to_string(),
                culprit,
            });
        }
    }
    let weight = match linear.layout() {
        Layout::OutIn => merged.weight,
        Layout::InOut => merged.weight.transpose(),
    };
    replace(&mut linear.weight, weight);
    match (&mut linear.bias, merged.bias) {
        (Some(bias), Some(merged)) => replace(bias, merged),
        (None, Some(merged)) => {
            linear.bias = Some(Param::from_tensor(merged.detach()).set_require_grad(false));
        }
        (_, None) => {}
    }
    Ok(())
}

fn merge_table(path: &str, table: &mut Embedding) -> Result<()> {
    let mut merged = table.table().cast(DType::F32).detach();
    for adapter in table.adapters.active() {
        if adapter.kind().weight(adapter).is_some() {
            continue;
        }
        merged =
            (adapter.kind().merge_table(adapter, merged)).ok_or_else(|| Error::NotMergeable {
                layer: path.to_string(),
                adapter: adapter.name.clone(),
            })?;
        check(path, &adapter.name, merged.clone())?;
    }
    replace(&mut table.weight, merged);
    Ok(())
}

fn replace_vectors(
    path: &str,
    adapters: &Adapters,
    weight: &mut Param<Tensor<1>>,
    bias: Option<&mut Param<Tensor<1>>>,
) -> Result<()> {
    for adapter in adapters.active() {
        if let Some(own) = adapter.kind().norm_weight(adapter) {
            check(path, &adapter.name, own.clone())?;
            replace(weight, own);
        }
    }
    if let Some(bias) = bias {
        for adapter in adapters.active() {
            if let Some(own) = adapter.kind().bias(adapter) {
                check(path, &adapter.name, own.clone())?;
                replace(bias, own);
            }
        }
    }
    Ok(())
}

/// Another value for a parameter, which keeps its identity and whether it trains.
fn replace<const D: usize>(param: &mut Param<Tensor<D>>, value: Tensor<D>) {
    let id = param.id;
    *param = param.clone().transform_for_load(value.detach(), id);
}

fn check<const D: usize>(path: &str, adapter: &str, tensor: Tensor<D>) -> Result<()> {
    match is_finite(tensor) {
        true => Ok(()),
        false => Err(Error::NotFinite {
            layer: path.to_string(),
            culprit: format!("adapter {adapter:?}"),
        }),
    }
}

fn is_finite<const D: usize>(tensor: Tensor<D>) -> bool {
    tensor.is_finite().all().into_scalar::<bool>()
}

/// Removes all adapters without merging them: the base model again.
pub fn unload<M: Module + Parts>(model: M) -> M {
    let mut model = model;
    model.for_each_part_mut(&mut |_, mut part| part.adapters().clear());
    model
}
