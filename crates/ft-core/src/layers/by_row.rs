//! Adapters by row: one batch in which each row has an adapter of its own.

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor};

use crate::layers::parts::{PartMut, Parts};
use crate::{Error, Result};

/// The model for batches whose row `i` has the adapter called `rows[i]` and no other; rows without a name have none.
///
/// Parameters are shared, not copied. Each row gets what it would get alone with its adapter; the products with the base
/// weights are those of the whole batch. It is for batches as they are: losses that cut them into pieces panic where the
/// output layer has such an adapter.
///
/// # Errors
///
/// If there are no rows, there is no adapter of one of the names, or one that some of the rows have has virtual tokens, which
/// all rows of a batch need.
pub fn with_rows<M: Module + Parts>(model: &M, rows: &[Option<&str>]) -> Result<M> {
    if rows.is_empty() {
        return Err(Error::Settings("a batch has at least one row".into()));
    }
    let mut known = Vec::new();
    model.for_each_part(&mut |_, part| {
        known.extend(part.adapters().iter().map(|adapter| adapter.name.clone()));
    });
    known.sort();
    known.dedup();
    let unknown = rows
        .iter()
        .flatten()
        .find(|name| !known.iter().any(|known| known == *name));
    if let Some(unknown) = unknown {
        return Err(Error::Settings(format!(
            "no adapter is called {unknown:?}; there are: {}",
            known.join(", ")
        )));
    }
    let differ = rows.iter().any(|row| *row != rows[0]);
    let mut prompt = None;
    model.for_each_part(&mut |_, part| {
        let adapters = part.adapters().iter();
        let named = adapters.filter(|adapter| rows.contains(&Some(&adapter.name[..])));
        let mut prompts = named.filter(|adapter| adapter.kind().num_virtual_tokens() > 0);
        prompt = (prompt.take()).or_else(|| prompts.next().map(|adapter| adapter.name.clone()));
    });
    if let Some(name) = prompt.filter(|_| differ) {
        return Err(Error::Settings(format!(
            "adapter {name:?} has virtual tokens, which are those of all rows of a batch: give its rows a batch of their own"
        )));
    }
    let mut model = model.clone();
    model.for_each_part_mut(&mut |_, mut part| {
        let device = device_of(&part);
        for adapter in part.adapters().iter_mut() {
            let acts: Vec<bool> = rows
                .iter()
                .map(|row| *row == Some(&adapter.name[..]))
                .collect();
            adapter.active = acts.contains(&true);
            let everywhere = !acts.contains(&false);
            adapter.rows = (!everywhere).then(|| Tensor::<1, Bool>::from_data(&acts[..], &device));
        }
    });
    Ok(model)
}

/// Where the masks of a part lie.
fn device_of(part: &PartMut<'_>) -> Device {
    match part {
        PartMut::Linear(part) => part.weight.lazy_device(),
        PartMut::Embedding(part) => part.weight.lazy_device(),
        PartMut::RmsNorm(part) => part.weight.lazy_device(),
        PartMut::LayerNorm(part) => part.weight.lazy_device(),
        // It has no numbers but those of its adapters.
        PartMut::Residual(part) => {
            let devices = part.adapters.devices();
            devices.into_iter().next().unwrap_or_default()
        }
    }
}
