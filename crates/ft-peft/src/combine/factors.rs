//! The factors of LoRA adapters, layer by layer.

use std::any::Any;
use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;
use ft_core::Parts;
use ft_core::layers::Adapter;

use crate::switch::{adapter_config, settings_of};
use crate::{Error, LoraConfig, Result, into_plain_lora};

/// The names of `A` and `B` on linear layers and on embeddings.
const PAIRS: [[&str; 2]; 2] = [
    ["lora_A.weight", "lora_B.weight"],
    ["lora_embedding_A", "lora_embedding_B"],
];

/// The factors of one adapter on one layer.
#[derive(Clone, Debug)]
pub(crate) struct Scaled {
    /// The names of `a` and `b`.
    pub(crate) names: [&'static str; 2],
    /// `[r, in]`.
    pub(crate) a: Tensor<2>,
    /// `[out, r]`.
    pub(crate) b: Tensor<2>,
    /// The scale of the adapter.
    pub(crate) scaling: f64,
    /// The weight of the adapter.
    pub(crate) weight: f64,
}

impl Scaled {
    /// The factors of an adapter whose change of a layer is `s·BA` and nothing else; the model is [`plain`].
    ///
    /// # Errors
    ///
    /// The name of a tensor that is no factor.
    pub(crate) fn of(layer: &str, adapter: &Adapter, weight: f64) -> Result<Self, String> {
        let found = PAIRS
            .into_iter()
            .find(|pair| adapter.get(pair[0]).is_some());
        let mut saved = adapter.tensors.iter().filter(|tensor| tensor.is_saved());
        let other = saved.find(|tensor| !found.is_some_and(|pair| pair.contains(&tensor.name())));
        if let Some(other) = other {
            return Err(other.name().to_string());
        }
        let settings = settings_of(adapter);
        let config = settings.and_then(|method| (method as &dyn Any).downcast_ref::<LoraConfig>());
        let (Some(names), Some(config)) = (found, config) else {
            return Err("what is not LoRA".to_string());
        };
        let value = |name| adapter.val2(name).detach().inner();
        Ok(Self {
            names,
            a: value(names[0]),
            b: value(names[1]),
            scaling: config.scaling_of(layer),
            weight,
        })
    }

    /// `w·s`.
    pub(crate) fn sigma(&self) -> f64 {
        self.weight * self.scaling
    }

    pub(crate) fn rank(&self) -> usize {
        self.a.dims()[0]
    }

    /// `s·BA`, `[out, in]`.
    pub(crate) fn product(&self) -> Tensor<2> {
        self.b.clone().matmul(self.a.clone()) * self.scaling
    }
}

/// The model with its LoRA adapters of these names as plain LoRA: those that began as a part of the base weight get further
/// factors.
pub(crate) fn plain<'a, M: Module + Parts>(
    model: &M,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<M> {
    names.into_iter().try_fold(model.clone(), |model, name| {
        let method = adapter_config(&model, name)?;
        match (&*method as &dyn Any).is::<LoraConfig>() {
            true => into_plain_lora(model, name),
            false => Ok(model),
        }
    })
}

/// The factors of the adapters of these names, by layer.
///
/// # Errors
///
/// If an adapter has a tensor that is no factor.
pub(super) fn find(
    model: &impl Parts,
    adapters: &[(&str, f64)],
) -> Result<BTreeMap<String, Vec<Scaled>>> {
    let mut found = BTreeMap::<String, Vec<Scaled>>::new();
    let mut lost = None;
    model.for_each_part(&mut |path, part| {
        for (name, weight) in adapters {
            for adapter in part.adapters().iter().filter(|adapter| adapter.name == *name) {
                match Scaled::of(path, adapter, *weight) {
                    Ok(scaled) => found.entry(path.to_string()).or_default().push(scaled),
                    Err(tensor) => {
                        lost.get_or_insert(format!(
                            "adapter {name:?} has {tensor} on {path}, which a combination would lose: make plain LoRA \
                             of it with convert_to_lora, if it changes weights of linear layers only"
                        ));
                    }
                }
            }
        }
    });
    match lost {
        Some(lost) => Err(Error::Settings(lost)),
        None => Ok(found),
    }
}
