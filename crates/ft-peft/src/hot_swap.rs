//! An adapter replaced with another one, on the same model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::{Module, Param, ParamId};
use burn::tensor::Tensor;
use ft_core::Parts;
use ft_core::module_path::{PathVisitor, visit_params};

use crate::adapter_files::{adapter_folder, load_adapter};
use crate::exchange::{OnLayers, exchange, on_layers, twin_without};
use crate::methods::{precondition, preconditions};
use crate::switch::adapter_config;
use crate::{Error, Result, read_config};

/// Replaces the adapter called `name` with the one that is saved in `folder`. The new one is active if the old one was, and
/// trains if the old one did, as LoRA-FA if the old one did so. Ranks, scales and other settings may differ; the method and the
/// layers may not.
///
/// # Errors
///
/// As [`load_adapter`](crate::load_adapter), and if the method or the layers differ, or the adapter's file has weights that
/// take the place of the base's. Nothing is changed then.
pub fn hot_swap<M: Module + Parts>(model: &mut M, name: &str, folder: &Path) -> Result<()> {
    let old = adapter_config(model, name)?;
    let wrong = |what: String| {
        let folder = folder.display();
        Error::Settings(format!(
            "the adapter in {folder} cannot take the place of {name:?}: {what}"
        ))
    };
    let new = read_config(&adapter_folder(folder, name))?;
    if new.peft_type() != old.peft_type() {
        let (old, new) = (old.peft_type(), new.peft_type());
        return Err(wrong(format!(
            "it is {new}, and {name:?} is {old}. Delete the old one and load the new one"
        )));
    }
    let twin = load_adapter(twin_without(model, name)?, folder, name, false)?;
    if base_parameters(&twin) != base_parameters(model) {
        return Err(wrong(
            "its file has weights of the base, and those of the model would be lost. Load it on the base".into(),
        ));
    }
    let lora_fa = preconditions(model, name);
    let (before, after) = (on_layers(model, name), on_layers(&twin, name));
    if let Some(difference) = difference(&before, &after) {
        return Err(wrong(difference));
    }
    exchange(model, name, after, |new, old| {
        let trains = old.tensors.iter().any(|tensor| tensor.is_trainable());
        new.set_trainable(trains);
    });
    match lora_fa {
        true => precondition(model, name),
        false => Ok(()),
    }
}

/// Layers that one of two adapters lacks.
fn difference(before: &OnLayers, after: &OnLayers) -> Option<String> {
    let layers = |adapter: &OnLayers| -> BTreeSet<String> {
        let named = adapter.iter().flat_map(|(layer, here)| {
            here.iter().map(move |one| match one.tensors.first() {
                Some(tensor) if here.len() > 1 => format!("{layer} ({})", tensor.name()),
                _ => layer.clone(),
            })
        });
        named.collect()
    };
    let (before, after) = (layers(before), layers(after));
    let list = |layers: Vec<&String>| {
        let shown: Vec<&str> = layers.iter().take(6).map(|layer| layer.as_str()).collect();
        format!("{} ({} in all)", shown.join(", "), layers.len())
    };
    let lacking: Vec<_> = before.difference(&after).collect();
    let further: Vec<_> = after.difference(&before).collect();
    match (lacking.is_empty(), further.is_empty()) {
        (true, true) => None,
        (false, _) => Some(format!("it lacks layers: {}", list(lacking))),
        (true, false) => Some(format!("it has further layers: {}", list(further))),
    }
}

/// The identities of the parameters of the base.
fn base_parameters(model: &impl Module) -> BTreeMap<String, ParamId> {
    struct Collect(BTreeMap<String, ParamId>);
    impl PathVisitor for Collect {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if !path.contains(".adapters.") {
                self.0.insert(path.to_string(), param.id);
            }
        }
    }
    let mut collect = Collect(BTreeMap::new());
    visit_params(model, &mut collect);
    collect.0
}
