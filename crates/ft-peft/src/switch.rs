//! Adapters by name: which there are, switched on and off, removed.

use std::sync::Arc;

use burn::module::Module;
use ft_core::Parts;
use ft_core::layers::Adapter;

use crate::{Error, Method, Result};

/// Names of all adapters, in the order of attachment.
pub fn adapter_names(model: &impl Parts) -> Vec<String> {
    names(model, |_| true)
}

/// Names of the adapters that take part in the forward pass.
pub fn active_adapters(model: &impl Parts) -> Vec<String> {
    names(model, |active| active)
}

fn names(model: &impl Parts, wanted: impl Fn(bool) -> bool) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    model.for_each_part(&mut |_, part| {
        for adapter in part.adapters().iter().filter(|a| wanted(a.active)) {
            if !names.contains(&adapter.name) {
                names.push(adapter.name.clone());
            }
        }
    });
    names
}

/// The settings of an adapter.
///
/// # Errors
///
/// If there is no adapter of this name, or it was not attached by this crate.
pub fn adapter_config(model: &impl Parts, name: &str) -> Result<Arc<dyn Method>> {
    check_known(model, &[name])?;
    let mut found = None;
    model.for_each_part(&mut |_, part| {
        for adapter in part.adapters().iter().filter(|a| a.name == name) {
            found = found.take().or_else(|| method_of(adapter).cloned());
        }
    });
    found.ok_or_else(|| Error::Name(format!("adapter {name:?} was not attached by ft-peft")))
}

fn method_of(adapter: &Adapter) -> Option<&Arc<dyn Method>> {
    adapter.settings.downcast_ref()
}

/// The settings of an adapter that this crate attached.
pub(crate) fn settings_of(adapter: &Adapter) -> Option<&dyn Method> {
    method_of(adapter).map(|method| &**method)
}

/// Makes exactly the adapters of these names active; their outputs are added. With no names the model is the base.
///
/// # Errors
///
/// If there is no adapter of one of the names, or two of them have virtual tokens.
pub fn set_active(model: &mut impl Parts, names: &[&str]) -> Result<()> {
    check_known(model, names)?;
    check_prompts(model, names)?;
    model.for_each_part_mut(&mut |_, mut part| {
        for adapter in part.adapters().iter_mut() {
            adapter.active = names.contains(&adapter.name.as_str());
        }
    });
    Ok(())
}

/// The base model: the same parameters, not copied, with every adapter switched off.
///
/// This is the reference policy of preference methods, at no cost in memory.
pub fn without_adapters<M: Module + Parts>(model: &M) -> M {
    let mut base = model.clone();
    base.for_each_part_mut(&mut |_, mut part| {
        for adapter in part.adapters().iter_mut() {
            adapter.active = false;
        }
    });
    base
}

/// Removes an adapter.
///
/// # Errors
///
/// If there is no adapter of this name.
pub fn delete(model: &mut impl Parts, name: &str) -> Result<()> {
    check_known(model, &[name])?;
    model.for_each_part_mut(&mut |_, mut part| {
        part.adapters().retain(|adapter| adapter.name != name);
    });
    Ok(())
}

/// Checks that not more than one of these adapters has virtual tokens.
fn check_prompts(model: &impl Parts, names: &[&str]) -> Result<()> {
    let mut prompts = Vec::new();
    model.for_each_part(&mut |_, part| {
        let chosen = part
            .adapters()
            .iter()
            .filter(|adapter| names.contains(&adapter.name.as_str()));
        let chosen = chosen.filter(|adapter| adapter.kind().num_virtual_tokens() > 0);
        prompts.extend(chosen.map(|adapter| adapter.name.clone()));
    });
    match &prompts[..] {
        [] | [_] => Ok(()),
        several => Err(Error::Name(format!(
            "the adapters {} all have virtual tokens: only one of them can be active",
            several.join(", ")
        ))),
    }
}

/// Checks that there are adapters of all these names.
pub(crate) fn check_known(model: &impl Parts, names: &[&str]) -> Result<()> {
    let known = adapter_names(model);
    let Some(unknown) = names.iter().find(|name| !known.iter().any(|k| k == *name)) else {
        return Ok(());
    };
    let known = if known.is_empty() {
        "there is none".to_string()
    } else {
        format!("there are {}", known.join(", "))
    };
    Err(Error::Name(format!(
        "no adapter is called {unknown:?}; {known}"
    )))
}

/// Checks that an adapter called `name` can be added: the name is valid and not in use, and no other adapter is
/// active.
pub(crate) fn check_new(model: &impl Parts, name: &str) -> Result<()> {
    check_name(model, name)?;
    match active_adapters(model).into_iter().next() {
        Some(active) => Err(Error::Stacked(active)),
        None => Ok(()),
    }
}

/// Checks that an adapter can have this name: it is valid and not in use.
pub(crate) fn check_name(model: &impl Parts, name: &str) -> Result<()> {
    if name.is_empty() || name.contains(['.', '/', '\\']) {
        return Err(Error::Name(format!(
            "an adapter cannot be called {name:?}: a name is not empty and has no dots and slashes"
        )));
    }
    if adapter_names(model).iter().any(|taken| taken == name) {
        return Err(Error::Name(format!(
            "an adapter called {name:?} is attached already: choose another name, or delete it"
        )));
    }
    Ok(())
}
