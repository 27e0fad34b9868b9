//! Another adapter in the place of one, while the model stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::Module;
use ft_core::Parts;
use ft_core::layers::Adapter;

use crate::adapter_files::{adapter_folder, load_adapter, stores_weights};
use crate::switch::{adapter_config, delete, set_active};
use crate::{Error, Result, read_config};

/// Puts the adapter that lies in `folder` into the place of the one called `name`, as if it had been loaded there: it is
/// active, and trains, if the old one did. Ranks, scales and other settings may differ; the method and the layers may not.
///
/// # Errors
///
/// As [`load_adapter`](crate::load_adapter), and if the method or the layers differ, or weights of the base lie beside the
/// adapter. Nothing is changed then.
pub fn hot_swap<M: Module + Parts>(model: &mut M, name: &str, folder: &Path) -> Result<()> {
    let old = adapter_config(model, name)?;
    let file = adapter_folder(folder, name);
    let new = read_config(&file)?;
    if new.peft_type() != old.peft_type() {
        return Err(Error::Settings(format!(
            "adapter {name:?} is {}, and that in {} is {}: delete the old one and load the new one",
            old.peft_type(),
            folder.display(),
            new.peft_type()
        )));
    }
    if stores_weights(model, &file)? {
        return Err(Error::Settings(format!(
            "weights of the base lie beside the adapter in {}, and those of the model would be lost: load it with \
             load_adapter on the base",
            folder.display()
        )));
    }
    let mut twin = model.clone();
    set_active(&mut twin, &[])?;
    delete(&mut twin, name)?;
    let twin = load_adapter(twin, folder, name, false)?;
    let mut loaded: BTreeMap<String, Vec<Adapter>> = of(&twin, name);
    let here = of(model, name);
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (here.keys().collect(), loaded.keys().collect());
    let list = |layers: Vec<&&String>| {
        let names = layers
            .iter()
            .take(6)
            .map(|layer| layer.as_str())
            .collect::<Vec<_>>();
        format!("{} ({})", names.join(", "), layers.len())
    };
    for (left, right, what) in [(&before, &after, "lacks"), (&after, &before, "has besides")] {
        let differ: Vec<_> = left.difference(right).collect();
        if !differ.is_empty() {
            return Err(Error::Settings(format!(
                "the adapter in {} {what} layers of the one that is called {name:?}: {}",
                folder.display(),
                list(differ)
            )));
        }
    }
    model.for_each_part_mut(&mut |path, mut part| {
        let Some(new) = loaded.remove(path) else {
            return;
        };
        let adapters = part.adapters();
        let Some(place) = adapters.iter().position(|adapter| adapter.name == name) else {
            return;
        };
        let old = &adapters[place];
        let (active, trains) = (
            old.active,
            old.tensors.iter().any(|tensor| tensor.is_trainable()),
        );
        adapters.retain(|adapter| adapter.name != name);
        for (i, mut adapter) in new.into_iter().enumerate() {
            adapter.active = active;
            adapter.set_trainable(trains);
            adapters.insert(place + i, adapter);
        }
    });
    Ok(())
}

/// What the adapter of a name has on each layer.
fn of(model: &impl Parts, name: &str) -> BTreeMap<String, Vec<Adapter>> {
    let mut found = BTreeMap::<String, Vec<Adapter>>::new();
    model.for_each_part(&mut |path, part| {
        for adapter in part
            .adapters()
            .iter()
            .filter(|adapter| adapter.name == name)
        {
            found
                .entry(path.to_string())
                .or_default()
                .push(adapter.clone());
        }
    });
    found
}
