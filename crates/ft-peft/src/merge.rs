//! Adapters merged into weights, and removed.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use ft_core::layers::{Adapter, Adapters, At, Embedding, Merged, WeightParam};
use ft_core::{Layout, Linear, Part, PartMut, Parts};

use crate::switch::{active_adapters, adapter_names};
use crate::vocabulary::check_tied_merge;
use crate::{Error, Result};

/// Merges every active adapter into its layer and removes all adapters, also those that are switched
/// off. The result computes the same without them, up to rounding.
///
/// A weight in blocks of few bits cannot hold the sum: it is decoded, and the merged weight has `f32`. A warning says how many
/// there were. Quantize the merged model again if it is to be small.
///
/// What was frozen stays frozen: call `unfreeze` to train all of the merged model, or [`attach`](crate::attach) for the next
/// stage. On failure the model is dropped: keep a clone, which shares the parameters, if it is still needed.
///
/// # Errors
///
/// If there are adapters but all are switched off, which would lose them; if an adapter is no change of a weight;
/// [`Error::TiedMerge`] if it changes an embedding and not the output layer, which are one; or [`Error::NotFinite`] if a merged weight would not be finite.
pub fn merge_and_unload<M: Module + Parts>(model: M) -> Result<M> {
    let names = adapter_names(&model);
    if !names.is_empty() && active_adapters(&model).is_empty() {
        return Err(Error::Name(format!(
            "nothing to merge, since every adapter is switched off ({}): switch on with set_active \
             what is to be merged, or call unload for the base model",
            names.join(", ")
        )));
    }
    check_tied_merge(&model)?;
    let mut model = model;
    let (mut failure, mut decoded) = (None, 0);
    model.for_each_part_mut(&mut |path, mut part| {
        if failure.is_none() {
            let weight = part.weight();
            let packed = weight.is_some_and(|weight| weight.packed().is_some());
            // Blocks stay if only the bias changes.
            let stays = packed && part.adapters().active().all(changes_only_bias);
            match merged(path, part.as_part()) {
                Ok(None) => {}
                Ok(Some(merged)) => {
                    decoded += usize::from(packed && !stays);
                    put_in(&mut part, merged, stays);
                }
                Err(error) => failure = Some(error),
            }
        }
        part.adapters().clear();
    });
    if let Some(error) = failure {
        return Err(error);
    }
    if decoded > 0 {
        tracing::warn!(
            "{decoded} weights were in blocks of few bits, which cannot hold what the adapters add: they are f32 now"
        );
    }
    Ok(model)
}

/// What a part is once its active adapters are merged.
pub(crate) enum MergedPart {
    /// Of a linear layer, in its layout, or an embedding.
    Matrix {
        /// The weight without adapters.
        base: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
    },
    /// Of a norm; none stays as it is.
    Vectors {
        weight: Option<Tensor<1>>,
        bias: Option<Tensor<1>>,
    },
}

/// Merges the active adapters of a part, which stays as it is. None if there are none.
pub(crate) fn merged(path: &str, part: Part<'_>) -> Result<Option<MergedPart>> {
    let mut active = part.adapters().active();
    if let Some(adapter) = active.clone().find(|adapter| adapter.is_by_row()) {
        return Err(Error::Name(format!(
            "adapter {:?} acts on some rows of a batch only, and a weight acts on all: merge the model that with_rows was \
             called with",
            adapter.name
        )));
    }
    if active.next().is_none() {
        return Ok(None);
    }
    match part {
        Part::Linear(linear) => merge_linear(path, linear).map(Some),
        Part::Embedding(table) => merge_table(path, table).map(Some),
        Part::RmsNorm(norm) => merge_vectors(path, &norm.adapters).map(Some),
        Part::LayerNorm(norm) => merge_vectors(path, &norm.adapters).map(Some),
        Part::Residual(residual) => match residual.adapters.active().next() {
            Some(adapter) => Err(Error::NotMergeable {
                layer: path.to_string(),
                adapter: adapter.name.clone(),
            }),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// How one adapter changes the weight of a layer, `[out, in]`, on its own.
///
/// # Errors
///
/// If it changes the bias too, is no change of the weight, or not finite.
pub(crate) fn change(path: &str, linear: &Linear, adapter: &Adapter) -> Result<Tensor<2>> {
    let mut alone = linear.clone();
    alone.adapters.retain(|other| other.name == adapter.name);
    for adapter in alone.adapters.iter_mut() {
        adapter.active = true;
    }
    let MergedPart::Matrix { base, weight, bias } = merge_linear(path, &alone)? else {
        unreachable!("a linear layer has a matrix");
    };
    let before = linear.bias.as_ref().map(|bias| bias.val().into_data());
    if bias.map(|bias| bias.into_data()) != before {
        return Err(Error::Settings(format!(
            "adapter {:?} changes the bias of {path}, and not only the weight",
            adapter.name
        )));
    }
    let delta = weight - base;
    Ok(match linear.layout() {
        Layout::OutIn => delta,
        Layout::InOut => delta.transpose(),
    }
    .inner())
}

fn merge_linear(path: &str, linear: &Linear) -> Result<MergedPart> {
    let own = linear.weight.val().detach();
    // Held in 16 bits, the sum would lose what small adapters add.
    let replaced = linear
        .adapters
        .active()
        .any(|adapter| adapter.kind().weight(adapter).is_some());
    let matrix = match linear.layout() {
        // The weight of an adapter.
        _ if replaced => linear.matrix(),
        // Blocks are decoded once.
        Layout::OutIn => own.clone(),
        Layout::InOut => own.clone().transpose(),
    };
    let base = matrix.cast(DType::F32).detach();
    let mut merged = Merged {
        base: base.clone(),
        weight: base,
        bias: linear.bias_vector().map(Tensor::detach),
    };
    let mut active: Vec<_> = linear.adapters.active().collect();
    active.sort_by_key(|adapter| adapter.kind().stage());
    for adapter in &active {
        let at = At {
            layer: linear,
            adapter,
            fused: false,
        };
        let own_weight = adapter.kind().weight(adapter);
        let own_bias = adapter.kind().bias(adapter);
        if own_weight.is_none() && own_bias.is_none() {
            merged = (adapter.kind().merge(&at, merged)).ok_or_else(|| Error::NotMergeable {
                layer: path.to_string(),
                adapter: adapter.name.clone(),
            })?;
        }
        let finite = own_weight.is_none_or(is_finite) && own_bias.is_none_or(is_finite);
        let sum = is_finite(merged.weight.clone()) && merged.bias.clone().is_none_or(is_finite);
        if !finite || !sum {
            let base = is_finite(own.clone());
            return Err(Error::NotFinite {
                layer: path.to_string(),
                culprit: match !finite || base {
                    true => format!("adapter {:?}", adapter.name),
                    false => "the base weight".to_string(),
                },
            });
        }
    }
    let weight = merged.weight.detach();
    Ok(MergedPart::Matrix {
        base: own.cast(DType::F32),
        weight: match linear.layout() {
            Layout::OutIn => weight,
            Layout::InOut => weight.transpose(),
        },
        bias: merged.bias.map(Tensor::detach),
    })
}

fn merge_table(path: &str, table: &Embedding) -> Result<MergedPart> {
    let mut merged = table.table().cast(DType::F32).detach();
    for adapter in table.adapters.active() {
        if adapter.kind().weight(adapter).is_none() {
            let sum = adapter.kind().merge_table(adapter, merged);
            merged = sum.ok_or_else(|| Error::NotMergeable {
                layer: path.to_string(),
                adapter: adapter.name.clone(),
            })?;
        }
        check(path, &adapter.name, merged.clone())?;
    }
    Ok(MergedPart::Matrix {
        base: table.weight.val().cast(DType::F32).detach(),
        weight: merged.detach(),
        bias: None,
    })
}

fn merge_vectors(path: &str, adapters: &Adapters) -> Result<MergedPart> {
    let (mut weight, mut bias) = (None, None);
    for adapter in adapters.active() {
        let own = [
            adapter.kind().norm_weight(adapter),
            adapter.kind().bias(adapter),
        ];
        for vector in own.iter().flatten() {
            check(path, &adapter.name, vector.clone())?;
        }
        let [own_weight, own_bias] = own.map(|vector| vector.map(Tensor::detach));
        weight = own_weight.or(weight);
        bias = own_bias.or(bias);
    }
    Ok(MergedPart::Vectors { weight, bias })
}

pub(crate) fn changes_only_bias(adapter: &Adapter) -> bool {
    adapter.kind().weight(adapter).is_none() && adapter.kind().bias(adapter).is_some()
}

/// Puts merged tensors in the place of a part's own. The matrix may stay.
fn put_in(part: &mut PartMut<'_>, merged: MergedPart, matrix_stays: bool) {
    match (part, merged) {
        (PartMut::Linear(linear), MergedPart::Matrix { weight, bias, .. }) => {
            if !matrix_stays {
                replace_matrix(&mut linear.weight, weight);
            }
            match (&mut linear.bias, bias) {
                (Some(own), Some(bias)) => replace(own, bias),
                (own @ None, Some(bias)) => {
                    *own = Some(Param::from_tensor(bias).set_require_grad(false));
                }
                (_, None) => {}
            }
        }
        (PartMut::Embedding(table), MergedPart::Matrix { weight, .. }) => {
            replace_matrix(&mut table.weight, weight);
        }
        (PartMut::RmsNorm(norm), MergedPart::Vectors { weight, .. }) => {
            replace_some(&mut norm.weight, weight);
        }
        (PartMut::LayerNorm(norm), MergedPart::Vectors { weight, bias }) => {
            replace_some(&mut norm.weight, weight);
            replace_some(&mut norm.bias, bias);
        }
        _ => unreachable!("a part is merged as what it is"),
    }
}

fn replace_some(param: &mut Param<Tensor<1>>, value: Option<Tensor<1>>) {
    if let Some(value) = value {
        replace(param, value);
    }
}

fn replace_matrix(param: &mut WeightParam, weight: Tensor<2>) {
    let id = param.id();
    param.replace(weight, id);
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
