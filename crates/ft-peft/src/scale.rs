//! How much an adapter changes its layers.

use std::sync::Arc;

use ft_core::Parts;
use ft_core::layers::{AdapterKind, Settings};

use crate::switch::{adapter_config, settings_of};
use crate::{Error, Method, Result};

/// Multiplies what the adapter called `name` adds to its layers by `factor`. Its settings change with it, so the adapter is
/// saved as it is: `lora_alpha` is multiplied.
///
/// # Errors
///
/// If there is no adapter of this name, its method has no scale, or the factor is not above 0. Nothing is changed then.
pub fn scale_adapter(model: &mut impl Parts, name: &str, factor: f64) -> Result<()> {
    if !(factor > 0.0 && factor.is_finite()) {
        return Err(Error::Settings(format!(
            "a factor of a scale is above 0, not {factor}; set_active switches an adapter off"
        )));
    }
    let method = adapter_config(model, name)?;
    let no_scale = || {
        Error::Settings(format!(
            "adapter {name:?} of {} has no scale; convert_to_lora makes LoRA of it, which has one",
            method.peft_type()
        ))
    };
    let scaled: Arc<dyn Method> = method.scaled(factor).ok_or_else(no_scale)?.into();
    let settings: Settings = Arc::new(scaled);
    let mut kinds: Vec<Option<Arc<dyn AdapterKind>>> = Vec::new();
    let mut all = true;
    model.for_each_part(&mut |_, part| {
        for adapter in part
            .adapters()
            .iter()
            .filter(|adapter| adapter.name == name)
        {
            let kind = adapter.kind().scaled(factor);
            all &= kind.is_some();
            kinds.push(kind);
        }
    });
    if !all {
        return Err(no_scale());
    }
    let mut kinds = kinds.into_iter();
    model.for_each_part_mut(&mut |_, mut part| {
        for adapter in part
            .adapters()
            .iter_mut()
            .filter(|adapter| adapter.name == name)
        {
            if let Some(kind) = kinds.next().flatten() {
                adapter.set_kind(kind);
            }
            if settings_of(adapter).is_some() {
                adapter.settings = settings.clone();
            }
        }
    });
    Ok(())
}
