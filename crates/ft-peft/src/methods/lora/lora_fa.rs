//! LoRA-FA (Zhang et al., 2023, arXiv:2308.03303): `A` is frozen, and the gradient `g` of `B` becomes
//! `s⁻²·g·(AAᵀ + δI)⁻¹`, with which a step of `B` comes nearest to that of the whole weight.
//!
//! The factor is part of the graph, so any optimizer trains with it: `B` is used through a function whose value is `B` and
//! whose derivative is the factor. PEFT has this method as an optimizer of its own.

use burn::module::Module;
use burn::tensor::Tensor;
use ft_core::Parts;
use ft_core::layers::{Adapter, AdapterTensor};

use super::LoraConfig;
use super::low_rank::A;
use crate::linalg::inverse;
use crate::switch::adapter_config;
use crate::{Error, Result};

/// `s⁻²·(AAᵀ + δI)⁻¹`, `[r, r]`.
pub(super) const PRECONDITIONER: &str = "lora_fa";
/// `δ`.
const DELTA: f64 = 1e-8;

/// Trains the LoRA adapter called `name` as LoRA-FA does (Zhang et al., 2023, arXiv:2308.03303): `A` stays as it is, which
/// saves the inputs of the layers in the backward pass, and the gradient of `B` is multiplied by `s⁻²·(AAᵀ + 1e-8·I)⁻¹`.
///
/// The adapter's file is that of LoRA. A loaded adapter trains like this again after another call.
///
/// # Errors
///
/// If there is no adapter of this name, or it is not LoRA.
pub fn lora_fa<M: Module + Parts>(model: M, name: &str) -> Result<M> {
    let mut model = model;
    precondition(&mut model, name)?;
    Ok(model)
}

/// Whether an adapter trains as LoRA-FA does.
pub(crate) fn preconditions(model: &impl Parts, name: &str) -> bool {
    let mut found = false;
    model.for_each_part(&mut |_, part| {
        let mut adapters = part.adapters().iter();
        found |=
            adapters.any(|adapter| adapter.name == name && adapter.get(PRECONDITIONER).is_some());
    });
    found
}

/// [`lora_fa`] of a model in place. What there was is made again, which a new scale or a new `A` needs.
pub(crate) fn precondition(model: &mut impl Parts, name: &str) -> Result<()> {
    let config = adapter_config(model, name)?;
    let config: &dyn std::any::Any = &*config;
    let Some(config) = config.downcast_ref::<LoraConfig>() else {
        return Err(Error::Name(format!(
            "adapter {name:?} is not LoRA, whose A LoRA-FA freezes"
        )));
    };
    model.for_each_linear_mut(&mut |path, linear| {
        for adapter in linear.adapters.iter_mut().filter(|a| a.name == name) {
            freeze(adapter, config.scaling_of(path));
        }
    });
    Ok(())
}

fn freeze(adapter: &mut Adapter, scaling: f64) {
    adapter
        .tensors
        .retain(|tensor| tensor.name() != PRECONDITIONER);
    let mut factor = None;
    for tensor in adapter
        .tensors
        .iter_mut()
        .filter(|tensor| tensor.name() == A)
    {
        let a = tensor.val2();
        factor = Some(preconditioner(a, scaling));
        *tensor = tensor.clone().frozen();
    }
    let factor = factor.map(|factor| {
        AdapterTensor::new(PRECONDITIONER, factor)
            .frozen()
            .unsaved()
    });
    adapter.tensors.extend(factor);
}

fn preconditioner(a: Tensor<2>, scaling: f64) -> Tensor<2> {
    let device = a.device();
    let [r, _] = a.dims();
    let a = crate::linalg::Matrix::of(a);
    let mut gram = a.times_transposed(&a);
    for i in 0..r {
        gram[(i, i)] += DELTA;
    }
    inverse(gram).scaled(scaling.powi(-2)).tensor(&device)
}

/// `b`, whose gradient is multiplied by the preconditioner if the adapter has one.
pub(super) fn preconditioned(adapter: &Adapter, b: Tensor<2>) -> Tensor<2> {
    match adapter.get(PRECONDITIONER) {
        Some(factor) => {
            let value = b.clone().detach();
            // zeros, with the gradient of `b`
            let along = b - value.clone();
            value + along.matmul(factor.val2())
        }
        None => b,
    }
}
