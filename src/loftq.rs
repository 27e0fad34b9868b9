//! LoftQ (Li et al., 2023, arXiv:2310.08659), algorithm 1: the base in few bits and the factors of LoRA, found together, so
//! that `Q + s·BA` is nearer to the weight `W` than `Q` alone.
//!
//! With `B₀A₀ = 0`, in turn: `Q = round(W − s·BA)`, and `s·BA` the nearest matrix of rank `r` to `W − Q`. It is the place where
//! packed weights, which know no adapters, and adapters, which know no formats, meet.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use ft_core::layers::{Adapter, Linear};
use ft_core::{Layout, Parts};
use ft_kernels::PackedFormat;
use ft_peft::{InitLoraWeights, LoraConfig, attach, low_rank_factors};
use ft_quant::pack_model;

/// What can go wrong with LoftQ.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoftqError {
    /// The settings, or those of the adapter.
    #[error(transparent)]
    Adapter(#[from] ft_peft::Error),
    /// The weights cannot be put into blocks.
    #[error(transparent)]
    Quantization(#[from] ft_quant::Error),
}

/// What LoftQ did to a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LoftqLayer {
    /// The path of the layer.
    pub path: String,
    /// `‖W − round(W)‖ / ‖W‖`: the error without LoftQ.
    pub rounding: f64,
    /// `‖W − (Q + s·BA)‖ / ‖W‖`.
    pub error: f64,
}

/// Puts blocks of `format` in the place of the weights, as [`pack_model`](ft_quant::pack_model) does, and attaches a LoRA
/// adapter called `name` that begins as what the blocks lose. The paper takes 1 to 5 `iterations`.
///
/// The adapter belongs to this base, `Q`, and not to `W`: save both. Layers that stay dense, such as the output layer, get
/// factors as with [`attach`]. The settings that are kept have `init_lora_weights: true`, so that PEFT takes the factors as
/// they are.
///
/// # Errors
///
/// As [`pack_model`](ft_quant::pack_model) and [`attach`]; if `iterations` is 0, `r` is more than a layer has, `use_dora` is set,
/// or `init_lora_weights` is not `true` or `loftq`.
pub fn loftq_initialise<M: Module + Parts>(
    model: M,
    format: PackedFormat,
    config: &LoraConfig,
    name: &str,
    iterations: usize,
    seed: u64,
) -> Result<(M, Vec<LoftqLayer>), LoftqError> {
    if let Some(mistake) = mistake(config, iterations) {
        return Err(ft_peft::Error::Settings(mistake).into());
    }
    let mut config = config.clone();
    config.init_lora_weights = InitLoraWeights::Kaiming;
    let mut dense: BTreeMap<String, Linear> = BTreeMap::new();
    model.for_each_linear(&mut |path, linear| {
        dense.insert(path.to_string(), linear.clone());
    });
    let mut model = model;
    let rounded = pack_model(&mut model, format)?;
    let mut model = attach(model, &config, name, seed)?;
    let (mut layers, mut failure) = (Vec::new(), None);
    model.for_each_linear_mut(&mut |path, linear| {
        let rounded = rounded.iter().find(|layer| layer.path == path);
        let (Some(rounded), Some(own), None) = (rounded, dense.get(path), &failure) else {
            return;
        };
        let scale = config.scaling_of(path);
        let Some(adapter) = factors_of(linear, name) else {
            return;
        };
        let r = adapter.val2(A).dims()[0];
        match alternate(own, format, r, scale, iterations) {
            Ok((packed, factors, error)) => {
                linear.weight = packed.weight;
                set_factors(linear, name, factors);
                layers.push(LoftqLayer {
                    path: path.to_string(),
                    rounding: rounded.error,
                    error,
                });
            }
            Err(error) => failure = Some(error),
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok((model, layers)),
    }
}

const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";

fn mistake(config: &LoraConfig, iterations: usize) -> Option<String> {
    let begins = [InitLoraWeights::Kaiming, InitLoraWeights::Loftq];
    if iterations == 0 {
        Some("LoftQ needs at least 1 iteration".into())
    } else if !begins.contains(&config.init_lora_weights) {
        Some("LoftQ sets the factors: leave init_lora_weights out, or set it to loftq".into())
    } else if config.use_dora {
        Some("use_dora and LoftQ exclude each other".into())
    } else {
        None
    }
}

/// The adapter of this name that has factors.
fn factors_of<'a>(linear: &'a Linear, name: &str) -> Option<&'a Adapter> {
    let mut adapters = linear.adapters.iter();
    adapters.find(|adapter| adapter.name == name && adapter.get(A).is_some())
}

fn set_factors(linear: &mut Linear, name: &str, [a, b]: [Tensor<2>; 2]) {
    for adapter in linear.adapters.iter_mut().filter(|a| a.name == name) {
        for tensor in &mut adapter.tensors {
            match tensor.name() {
                A => tensor.set(a.to_data()),
                B => tensor.set(b.to_data()),
                _ => {}
            }
        }
    }
}

/// The layer in blocks, `A` and `B`, and `‖W − (Q + s·BA)‖ / ‖W‖`: those of the iteration with the smallest error.
fn alternate(
    own: &Linear,
    format: PackedFormat,
    r: usize,
    scale: f64,
    iterations: usize,
) -> Result<(Linear, [Tensor<2>; 2], f64), LoftqError> {
    let weight = matrix(own);
    let (size, root) = (norm(weight.clone()).max(f64::MIN_POSITIVE), scale.sqrt());
    let round = |rest: Tensor<2>| -> Result<_, LoftqError> {
        let layer = packed(own, rest, format)?;
        let lost = weight.clone() - matrix(&layer);
        let [a, b] = low_rank_factors(lost.clone(), r)?;
        let product = b.clone().matmul(a.clone());
        let error = norm(lost - product.clone()) / size;
        Ok(((layer, [a / root, b / root], error), product))
    };
    let (mut best, mut product) = round(weight.clone())?;
    for _ in 1..iterations {
        let (found, next) = round(weight.clone() - product)?;
        product = next;
        if found.2 < best.2 {
            best = found;
        }
    }
    Ok(best)
}

/// A layer with `weight`, `[out, in]`, in blocks.
fn packed(own: &Linear, weight: Tensor<2>, format: PackedFormat) -> Result<Linear, LoftqError> {
    let mut layer = own.clone();
    let weight = match own.layout() {
        Layout::OutIn => weight,
        Layout::InOut => weight.transpose(),
    };
    let id = layer.weight.id();
    layer.weight.replace(weight, id);
    pack_model(&mut layer, format)?;
    Ok(layer)
}

/// The weight of a layer without adapters, `[out, in]`.
fn matrix(linear: &Linear) -> Tensor<2> {
    linear.matrix().detach().cast(DType::F32)
}

fn norm(x: Tensor<2>) -> f64 {
    f64::from(x.square().sum().into_scalar::<f32>()).sqrt()
}
