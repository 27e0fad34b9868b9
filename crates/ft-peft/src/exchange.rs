//! The adapter of a name exchanged for one that was made on a twin of the model.

use std::collections::BTreeMap;

use burn::module::Module;
use ft_core::Parts;
use ft_core::layers::Adapter;

use crate::switch::{delete, set_active};
use crate::{Error, Result};

/// What an adapter has on each layer.
pub(crate) type OnLayers = BTreeMap<String, Vec<Adapter>>;

/// The model without the adapter of a name and with all others switched off; parameters are shared.
///
/// # Errors
///
/// If there is no adapter of this name, or it acts on some rows of a batch only, which an exchange would lose.
pub(crate) fn twin_without<M: Module + Parts>(model: &M, name: &str) -> Result<M> {
    let mut by_row = false;
    model.for_each_part(&mut |_, part| {
        let mut adapters = part.adapters().iter();
        by_row |= adapters.any(|adapter| adapter.name == name && adapter.is_by_row());
    });
    if by_row {
        return Err(Error::Name(format!(
            "adapter {name:?} acts on some rows of a batch only: change the model that with_rows was called with"
        )));
    }
    let mut twin = model.clone();
    set_active(&mut twin, &[])?;
    delete(&mut twin, name)?;
    Ok(twin)
}

/// What the adapter of a name has on each layer.
pub(crate) fn on_layers(model: &impl Parts, name: &str) -> OnLayers {
    let mut found = OnLayers::new();
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

/// Replaces what the adapter of the name has with `new`; `adopt` copies to each what it keeps of the old one.
///
/// # Panics
///
/// If `new` has not as much on each layer.
pub(crate) fn exchange(
    model: &mut impl Parts,
    name: &str,
    mut new: OnLayers,
    adopt: impl Fn(&mut Adapter, Adapter),
) {
    model.for_each_part_mut(&mut |path, mut part| {
        let old = part
            .adapters()
            .iter_mut()
            .filter(|adapter| adapter.name == name);
        let mut new = new.remove(path).unwrap_or_default().into_iter();
        for place in old {
            let mut next = new
                .next()
                .expect("the new adapter has as much on each layer");
            next.active = place.active;
            adopt(&mut next, place.clone());
            *place = next;
        }
    });
}
