//! Adapters by name: which there are, switched on and off, removed.

use burn::module::Module;
use ft_core::Linears;

use crate::{Error, Result};

/// Names of all adapters, in the order of attachment.
pub fn adapter_names(model: &impl Linears) -> Vec<String> {
    names(model, |_| true)
}

/// Names of the adapters that take part in the forward pass.
pub(crate) fn active_adapters(model: &impl Linears) -> Vec<String> {
    names(model, |active| active)
}

fn names(model: &impl Linears, wanted: impl Fn(bool) -> bool) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    model.for_each_linear(&mut |_, linear| {
        for adapter in linear.adapters.iter().filter(|a| wanted(a.active)) {
            if !names.contains(&adapter.name) {
                names.push(adapter.name.clone());
            }
        }
    });
    names
}

/// Switches on exactly the adapters of these names; their outputs add up. None of them: the base.
///
/// # Errors
///
/// If there is no adapter of one of the names.
pub fn set_active(model: &mut impl Linears, names: &[&str]) -> Result<()> {
    let known = adapter_names(model);
    if let Some(unknown) = names.iter().find(|name| !known.iter().any(|k| k == *name)) {
        return Err(no_such(unknown, &known));
    }
    model.for_each_linear_mut(&mut |_, linear| {
        for adapter in &mut linear.adapters {
            adapter.active = names.contains(&adapter.name.as_str());
        }
    });
    Ok(())
}

/// The base model: the same parameters, not copied, with every adapter switched off.
///
/// This is the reference policy of preference methods, at no cost in memory.
pub fn without_adapters<M: Module + Linears>(model: &M) -> M {
    let mut base = model.clone();
    base.for_each_linear_mut(&mut |_, linear| {
        for adapter in &mut linear.adapters {
            adapter.active = false;
        }
    });
    base
}

/// Removes an adapter.
///
/// # Errors
///
/// If there is none of this name.
pub fn delete(model: &mut impl Linears, name: &str) -> Result<()> {
    let known = adapter_names(model);
    if !known.iter().any(|k| k == name) {
        return Err(no_such(name, &known));
    }
    model.for_each_linear_mut(&mut |_, linear| {
        linear.adapters.retain(|adapter| adapter.name != name);
    });
    Ok(())
}

pub(crate) fn no_such(name: &str, known: &[String]) -> Error {
    let known = if known.is_empty() {
        "there is none".to_string()
    } else {
        format!("there are {}", known.join(", "))
    };
    Error::Name(format!("no adapter is called {name:?}; {known}"))
}
