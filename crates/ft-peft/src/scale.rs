//! How much an adapter changes its layers.

use burn::module::Module;
use ft_core::Parts;

use crate::attach::{Numbers, put};
use crate::exchange::{exchange, on_layers, twin_without};
use crate::methods::{precondition, preconditions};
use crate::switch::adapter_config;
use crate::targets::Layers;
use crate::{Error, Result};

/// Multiplies what the adapter called `name` adds to its layers by `factor`. `lora_alpha` in its settings is multiplied too,
/// so that a saved adapter computes the same.
///
/// # Errors
///
/// If there is no adapter of this name, its method has no scale, or the factor is not above 0. Nothing is changed then.
pub fn scale_adapter<M: Module + Parts>(model: &mut M, name: &str, factor: f64) -> Result<()> {
    if !(factor > 0.0 && factor.is_finite()) {
        return Err(Error::Settings(format!(
            "the factor must be above 0, not {factor}; set_active switches an adapter off"
        )));
    }
    let method = adapter_config(model, name)?;
    let scaled = method.scaled(factor).ok_or_else(|| {
        Error::Settings(format!(
            "adapter {name:?} of {} has no scale; convert_to_lora makes LoRA of it, which has one",
            method.peft_type()
        ))
    })?;
    let lora_fa = preconditions(model, name);
    let mut twin = twin_without(model, name)?;
    let chosen = Layers::of(&twin, &*scaled).select(scaled.common())?;
    let numbers = Numbers::Stored { most: usize::MAX };
    put(&mut twin, scaled.into(), &chosen, name, numbers)?;
    let new = on_layers(&twin, name);
    exchange(model, name, new, |new, old| {
        new.tensors = old.tensors;
        new.dropout = old.dropout;
    });
    match lora_fa {
        true => precondition(model, name),
        false => Ok(()),
    }
}
