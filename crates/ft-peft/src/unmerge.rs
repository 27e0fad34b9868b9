//! Merging that can be undone: merged weights beside the base's own.
//!
//! The merged weights are one more adapter, whose tensors replace the layers' own. The base and the merged adapters stay,
//! switched off, so undoing gives the same bits.

use std::sync::Arc;

use burn::module::Module;
use ft_core::Parts;
use ft_core::layers::{Adapter, AdapterTensor, Settings};

use crate::copies::Copies;
use crate::merge::{MergedPart, changes_only_bias, merged};
use crate::switch::{active_adapters, check_name, set_active};
use crate::vocabulary::check_tied_merge;
use crate::{Error, Result};

/// The name of the adapter that holds merged weights.
const MERGED: &str = "merged";
const WEIGHT: &str = "weight";
const BIAS: &str = "bias";

/// The adapters that were merged.
struct MergedFrom(Vec<String>);

/// Merges the active adapters, so that the model computes as fast as without them. The base weights and the adapters are
/// kept for [`unmerge_adapters`], so the weights of merged layers take memory twice.
///
/// The merged weights are an adapter called `merged`: switching another one on in its place gives the base with that one.
/// [`merge_and_unload`](crate::merge_and_unload) keeps nothing.
///
/// # Errors
///
/// If no adapter is active, adapters are merged already, one is no change of a weight or changes an embedding that is the
/// output layer too, or a merged weight would not be finite. Nothing is changed then.
pub fn merge_adapters<M: Module + Parts>(model: &mut M) -> Result<()> {
    let names = active_adapters(model);
    if merged_from(model).is_some() {
        return Err(Error::Name(
            "adapters are merged already: call unmerge_adapters first".into(),
        ));
    }
    check_name(model, MERGED)?;
    if names.is_empty() {
        return Err(Error::Name(
            "no adapter is active: set_active switches on what is to be merged".into(),
        ));
    }
    check_tied_merge(model)?;
    let settings: Settings = Arc::new(MergedFrom(names));
    let mut found = Vec::new();
    let mut failure = None;
    model.for_each_part(&mut |path, part| {
        if failure.is_some() {
            return;
        }
        match merged(path, part) {
            Ok(merged) => found.push(merged),
            Err(error) => failure = Some(error),
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let mut found = found.into_iter();
    let mut decoded = 0;
    model.for_each_part_mut(&mut |_, mut part| {
        let Some(merged) = found.next().flatten() else {
            return;
        };
        let packed = part
            .weight()
            .is_some_and(|weight| weight.packed().is_some());
        // Blocks serve as they are if only the bias changes.
        let stays = packed && part.adapters().active().all(changes_only_bias);
        decoded += usize::from(packed && !stays);
        let adapters = part.adapters();
        for adapter in adapters.iter_mut() {
            adapter.active = false;
        }
        let held = |tensor: AdapterTensor| tensor.frozen().unsaved();
        let tensors: Vec<AdapterTensor> = match merged {
            MergedPart::Matrix { weight, bias, .. } => {
                let bias = bias.map(|bias| AdapterTensor::new(BIAS, bias));
                let weight = (!stays).then(|| AdapterTensor::new(WEIGHT, weight));
                weight.into_iter().chain(bias).map(held).collect()
            }
            MergedPart::Vectors { weight, bias } => {
                let weight = weight.map(|weight| AdapterTensor::new(WEIGHT, weight));
                let bias = bias.map(|bias| AdapterTensor::new(BIAS, bias));
                weight.into_iter().chain(bias).map(held).collect()
            }
        };
        let kind = Copies {
            weight: Some(WEIGHT),
            bias: Some(BIAS),
        };
        adapters.push(Adapter::new(
            MERGED,
            Arc::new(kind),
            tensors,
            0.0,
            settings.clone(),
        ));
    });
    if decoded > 0 {
        tracing::warn!(
            "{decoded} weights are in blocks of few bits, which cannot hold what the adapters add: f32 copies of them are merged"
        );
    }
    Ok(())
}

/// Undoes [`merge_adapters`]: the base weights are those of before, to the bit, and the adapters are switched on again.
///
/// # Errors
///
/// If no adapters are merged, or one of them was deleted since. Nothing is changed then.
pub fn unmerge_adapters<M: Module + Parts>(model: &mut M) -> Result<()> {
    let Some(names) = merged_from(model) else {
        return Err(Error::Name(
            "no adapters are merged: merge_adapters merges the active ones".into(),
        ));
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    set_active(model, &names)?;
    model.for_each_part_mut(&mut |_, mut part| {
        part.adapters().retain(|adapter| adapter.name != MERGED);
    });
    Ok(())
}

/// The names of the adapters that are merged.
fn merged_from(model: &impl Parts) -> Option<Vec<String>> {
    let mut found = None;
    model.for_each_part(&mut |_, part| {
        for adapter in part
            .adapters()
            .iter()
            .filter(|adapter| adapter.name == MERGED)
        {
            let from = adapter.settings.downcast_ref::<MergedFrom>();
            found = found.take().or_else(|| from.map(|from| from.0.clone()));
        }
    });
    found
}
