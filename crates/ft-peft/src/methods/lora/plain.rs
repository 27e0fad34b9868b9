//! LoRA that began as a part of the base weight, as plain LoRA: `BA − B₀A₀ = [B, −B₀][A; A₀]`.

use std::any::Any;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use ft_core::Parts;
use ft_core::layers::{Adapter, AdapterTensor, AnyParam, Settings};

use super::low_rank::{A, B, START_A, START_B};
use super::{InitLoraWeights, LoraConfig, lora_fa};
use crate::switch::adapter_config;
use crate::{Error, Method, Result};

/// Makes the LoRA adapter called `name` independent of how it began, so that its file can be used with the base alone, in
/// any program: PiSSA and OLoRA become plain LoRA of twice the rank, which computes the same.
///
/// Rank and alpha double (with rsLoRA alpha grows by √2, which keeps the scale), and `init_lora_weights` becomes `true`. It
/// is active and trains if it did before, but all factors train, and [`lora_fa`](crate::lora_fa) has to be called again. An
/// adapter that did not take its factors from the base weight is not changed.
///
/// # Errors
///
/// If there is no adapter of this name, or it is not LoRA.
pub fn into_plain_lora<M: Module + Parts>(model: M, name: &str) -> Result<M> {
    let config = adapter_config(&model, name)?;
    let settings: &dyn Any = &*config;
    let Some(config) = settings.downcast_ref::<LoraConfig>() else {
        return Err(Error::Name(format!("adapter {name:?} is not LoRA")));
    };
    let mut any = false;
    model.for_each_part(&mut |_, part| {
        let mut adapters = part
            .adapters()
            .iter()
            .filter(|adapter| adapter.name == name);
        any |= adapters.any(|adapter| adapter.get(START_A).is_some());
    });
    if !any {
        return Ok(model);
    }
    let config: Arc<dyn Method> = Arc::new(doubled(config));
    let settings: Settings = Arc::new(config);
    let mut model = model;
    model.for_each_part_mut(&mut |_, mut part| {
        for adapter in part
            .adapters()
            .iter_mut()
            .filter(|adapter| adapter.name == name)
        {
            if adapter.get(START_A).is_some() {
                join(adapter);
            }
            adapter.settings = settings.clone();
        }
    });
    Ok(model)
}

/// Whether the file of such an adapter has to be that of plain LoRA.
pub(crate) fn saved_as_plain(method: &dyn Method) -> bool {
    let method: &dyn Any = method;
    (method.downcast_ref::<LoraConfig>())
        .is_some_and(|config| config.init_lora_weights.is_random_part())
}

fn doubled(config: &LoraConfig) -> LoraConfig {
    let factor = match config.use_rslora {
        true => std::f64::consts::SQRT_2,
        false => 2.0,
    };
    let mut config = config.clone();
    config.init_lora_weights = InitLoraWeights::Kaiming;
    config.r *= 2;
    config.lora_alpha *= factor;
    config.rank_pattern.iter_mut().for_each(|(_, r)| *r *= 2);
    config
        .alpha_pattern
        .iter_mut()
        .for_each(|(_, alpha)| *alpha *= factor);
    config
}

/// Puts the two pairs of factors together.
fn join(adapter: &mut Adapter) {
    let trains = adapter.tensors.iter().any(|tensor| match tensor.param() {
        AnyParam::D2(param) => param.is_require_grad(),
        _ => false,
    });
    let both = |name, start, dim| {
        let tensors = [name, start].map(|name| adapter.val2(name));
        AdapterTensor::new(name, Tensor::cat(tensors.to_vec(), dim).detach())
    };
    let joined = [both(A, START_A, 0), both(B, START_B, 1)];
    let replaced = [A, B, START_A, START_B, lora_fa::PRECONDITIONER];
    adapter
        .tensors
        .retain(|tensor| !replaced.contains(&tensor.name()));
    adapter.tensors.splice(0..0, joined);
    adapter.set_trainable(trains);
}
