//! One step of AdamW in one pass over parameter, gradient and both moments (Loshchilov and Hutter, 2017,
//! arXiv:1711.05101, algorithm 2).
//!
//! With the gradient `g`, multiplied by `scale` on the way, in the order of `torch.optim.AdamW`:
//!
//! ```text
//! p ← p − η·λ·p
//! m ← β₁·m + (1 − β₁)·g            v ← β₂·v + (1 − β₂)·g²
//! p ← p − η · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)
//! ```
//!
//! Moments are `f32` for every type of parameter: in 16 bits `v` would not change, since the amount that a step adds
//! to it is lost in rounding. Alternatively they are stored in 8 bits ([`Blockwise`]; Dettmers et al., 2021,
//! arXiv:2110.02861, section 2): dequantized, updated in `f32` and quantized again, a block at a time.
//!
//! One thing differs from bitsandbytes: a second moment above 0 is not rounded to 0, but to the lowest code above
//! it. With 0, `m / (√v + ε)` is thousands of times the learning rate in blocks with gradients of very different
//! sizes (Li et al., 2023, arXiv:2309.01507, section 4.1).
//!
//! The operations are not part of a graph: tensors are detached.

use burn::tensor::{DType, Tensor};

use crate::blockwise::{Blockwise, DynamicMap};

/// The settings of one step of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// The number of the step, from 1.
    pub number: usize,
    /// η
    pub learning_rate: f64,
    /// β₁ and β₂
    pub betas: (f64, f64),
    /// ε
    pub eps: f64,
    /// λ
    pub weight_decay: f64,
    /// A factor of the gradient, applied first.
    pub scale: f64,
}

/// The numbers of the formulas, precomputed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factors {
    pub(crate) scale: f32,
    /// `1 − η·λ`
    pub(crate) kept: f32,
    /// `β` and `1 − β`
    pub(crate) first: (f32, f32),
    pub(crate) second: (f32, f32),
    /// `η / (1 − β₁ᵗ)`
    pub(crate) rate: f32,
    /// `1 / √(1 − β₂ᵗ)`
    pub(crate) root: f32,
    pub(crate) eps: f32,
}

impl From<&AdamWStep> for Factors {
    fn from(step: &AdamWStep) -> Self {
        let number = step.number as f64;
        let (beta_1, beta_2) = step.betas;
        Self {
            scale: step.scale as f32,
            kept: (1.0 - step.learning_rate * step.weight_decay) as f32,
            first: (beta_1 as f32, (1.0 - beta_1) as f32),
            second: (beta_2 as f32, (1.0 - beta_2) as f32),
            rate: (step.learning_rate / (1.0 - beta_1.powf(number))) as f32,
            root: (1.0 / (1.0 - beta_2.powf(number)).sqrt()) as f32,
            eps: step.eps as f32,
        }
    }
}

/// One step: returns the parameter and its moments, which are initially zero.
///
/// On the CPU they are updated in place if their storage is not shared.
///
/// # Shapes
///
/// - all: `[...]`, the same
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use ft_kernels::{AdamWStep, adamw};
///
/// let device = Device::default();
/// let step = AdamWStep {
///     number: 1,
///     learning_rate: 0.1,
///     betas: (0.9, 0.999),
///     eps: 1e-8,
///     weight_decay: 0.0,
///     scale: 1.0,
/// };
/// let zeros = || Tensor::<1>::zeros([2], &device);
/// let (param, gradient) = (Tensor::from_data([1.0, 1.0], &device), Tensor::from_data([5.0, -0.2], &device));
/// let (param, _) = adamw(param, gradient, [zeros(), zeros()], &step);
/// // The size of the first step is the learning rate, whatever the gradient.
/// let param = param.into_data().try_to_vec::<f32>().unwrap();
/// assert!((param[0] - 0.9).abs() < 1e-6 && (param[1] - 1.1).abs() < 1e-6);
/// ```
pub fn adamw<const D: usize>(
    param: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: &AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    #[cfg(feature = "cpu")]
    if [&param, &gradient, &moments[0], &moments[1]]
        .into_iter()
        .all(crate::flex::takes)
    {
        return crate::flex::adamw::adamw(param, gradient, moments, &step.into());
    }
    portable(param, gradient, moments, step)
}

/// [`adamw`] with Burn's operations.
pub fn portable<const D: usize>(
    param: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    step: &AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let f = Factors::from(step);
    let dtype = param.dtype();
    let param = param.inner().cast(DType::F32);
    let gradient = gradient.inner().cast(DType::F32) * f.scale;
    let first = first.inner() * f.first.0 + gradient.clone() * f.first.1;
    let second = second.inner() * f.second.0 + gradient.square() * f.second.1;
    let change = first.clone() * f.rate / (second.clone().sqrt() * f.root + f.eps);
    let param = param * f.kept - change;
    (param.cast(dtype), [first, second])
}

/// [`adamw`] with moments in 8 bits: the first signed, the second unsigned.
///
/// # Shapes
///
/// - `param`, `gradient`: `[...]`, the same; moments with the same number of elements
pub fn adamw_8bit<const D: usize>(
    param: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Blockwise; 2],
    step: &AdamWStep,
) -> (Tensor<D>, [Blockwise; 2]) {
    #[cfg(feature = "cpu")]
    if [&param, &gradient].into_iter().all(crate::flex::takes)
        && (moments.iter()).all(crate::flex::adamw::takes)
    {
        return crate::flex::adamw::adamw_8bit(param, gradient, moments, &step.into());
    }
    portable_8bit(param, gradient, moments, step)
}

/// [`adamw_8bit`] with Burn's operations.
pub fn portable_8bit<const D: usize>(
    param: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Blockwise; 2],
    step: &AdamWStep,
) -> (Tensor<D>, [Blockwise; 2]) {
    let shape = param.shape();
    let first = first.dequantize(DynamicMap::Signed).reshape(shape.clone());
    let second = second.dequantize(DynamicMap::Unsigned).reshape(shape);
    let (param, [first, second]) = portable(param, gradient, [first, second], step);
    let first = Blockwise::quantize(first.flatten(0, D - 1), DynamicMap::Signed);
    let second = second.flatten::<1>(0, D - 1);
    let above_zero = second.clone().greater_elem(0.0).int();
    let mut second = Blockwise::quantize(second, DynamicMap::Unsigned);
    let codes = second.codes.cast(DType::I32);
    let codes = codes.max_pair(above_zero.cast(DType::I32));
    second.codes = codes.cast(DType::U8);
    (param, [first, second])
}
