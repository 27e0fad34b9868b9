//! Quantization-aware training: weights are rounded in the forward pass, and the gradient goes through as if they were not
//! (Bengio et al., 2013, arXiv:1308.3432, section 2.3: the straight-through estimator), with step sizes that are learned (LSQ;
//! Esser et al., 2020, arXiv:1902.08153, equations 1 to 3).
//!
//! Adam takes steps of one size, so what trains are logarithms of step sizes relative to the first ones, `s = s₀·eᵗ`, which
//! stay positive. Zero points, which are integers in every file, move as `z = round(z₀ + (2ᵇ − 1)·u)`. Gradients of `t` and `u`
//! are multiplied by LSQ's factor `1/√(n·(2ᵇ − 1))` for groups of `n` (section 2.2), since they are sums over a group: without it
//! they would be most of the norm by which gradients are clipped.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, Layout};
use ft_core::{AutoCausalLm, Parts};
use ft_kernels::constant;

use crate::cholesky::numbers;
use crate::fold::{in_layout, matrix};
use crate::model::mistakes;
use crate::moments::tensor;
use crate::{Error, Result, Rounded, Scheme, round_to_nearest};

/// `s·(clamp(round(w/s) + z, 0, 2ᵇ − 1) − z)` with gradients of `w`, `s` and `z`.
///
/// Rounding counts as identity: with `q = round(w/s) + z` between the bounds, `∂ŵ/∂w = 1`, `∂ŵ/∂s = round(w/s) − w/s` and
/// `∂ŵ/∂z = 0`; beyond a bound `B` they are 0, `B − z` and `−s`. LSQ's factor of the gradient of `s` is not in it.
///
/// # Shapes
///
/// - `weight` and output: `[rows, cols]`; `scale` and `zero_point`, which are integers: `[rows, groups]`
///
/// # Panics
///
/// If groups do not divide columns, or the bits are not from 1 to 8.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use ft_quant::fake_quantize;
///
/// let device = Device::default();
/// let row = |x: [f32; 4]| Tensor::<2>::from_data([x], &device);
/// let one = |x: f32| Tensor::<2>::from_data([[x]], &device);
/// // Steps of 0.5 from −1: −1, −0.5, 0, 0.5
/// let rounded = fake_quantize(row([-0.8, 0.1, 0.4, 2.0]), one(0.5), one(2.0), 2);
/// assert_eq!(rounded.into_data().try_to_vec::<f32>().unwrap(), [-1.0, 0.0, 0.5, 0.5]);
/// ```
pub fn fake_quantize(
    weight: Tensor<2>,
    scale: Tensor<2>,
    zero_point: Tensor<2>,
    bits: u32,
) -> Tensor<2> {
    let ([rows, cols], [_, groups]) = (weight.dims(), scale.dims());
    assert_eq!(
        scale.dims(),
        zero_point.dims(),
        "a zero point of each scale"
    );
    assert!(
        groups > 0 && cols.is_multiple_of(groups),
        "{groups} groups do not divide {cols} columns"
    );
    let top = crate::Levels::unsigned(bits).highest as f64;
    let by_group = |x: Tensor<2>| x.reshape([rows, groups, 1]);
    let (scale, zero_point) = (by_group(scale), by_group(zero_point));
    let steps = weight.reshape([rows, groups, cols / groups]) / scale.clone();
    let levels = (straight_through(steps) + zero_point.clone()).clamp(0.0, top);
    ((levels - zero_point) * scale).reshape([rows, cols])
}

/// The nearest integers, whose gradient is that of `x`.
fn straight_through<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let error = x.clone().inner().round() - x.clone().inner();
    // Exact: the error of rounding is a number of f32, and so is its sum with x.
    x.clone() + constant(error, &x)
}

/// `x`, whose gradient is multiplied by `factor`.
fn with_less_gradient(x: Tensor<2>, factor: f64) -> Tensor<2> {
    let rest = x.clone().inner() * (1.0 - factor);
    constant(rest, &x) + x * factor
}

/// The name of the adapters that round.
const ADAPTER: &str = "fake_quantizer";
const WEIGHT: &str = "weight";
const STEPS: &str = "log_scale";
const SHIFTS: &str = "shift";
const FIRST_STEPS: &str = "first_scale";
const FIRST_ZEROS: &str = "first_zero_point";

/// The adapter of a linear layer that rounds its weight in the forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FakeQuantizer {
    bits: u32,
    symmetric: bool,
    layout: Layout,
}

impl FakeQuantizer {
    fn weight(adapter: &Adapter) -> Tensor<2> {
        adapter.val2(WEIGHT)
    }

    /// `1/√(n·(2ᵇ − 1))`.
    fn factor(&self, adapter: &Adapter) -> f64 {
        let [_, cols] = adapter.val2(WEIGHT).dims();
        let [_, groups] = adapter.val2(FIRST_STEPS).dims();
        let top = crate::Levels::unsigned(self.bits).highest as f64;
        1.0 / ((cols / groups) as f64 * top).sqrt()
    }

    fn scale(&self, adapter: &Adapter) -> Tensor<2> {
        let steps = with_less_gradient(adapter.val2(STEPS), self.factor(adapter));
        adapter.val2(FIRST_STEPS) * steps.exp()
    }

    fn zero_point(&self, adapter: &Adapter) -> Tensor<2> {
        let first = adapter.val2(FIRST_ZEROS);
        if self.symmetric {
            return first;
        }
        let top = crate::Levels::unsigned(self.bits).highest as f64;
        let shifts = with_less_gradient(adapter.val2(SHIFTS), self.factor(adapter));
        straight_through(first + shifts * top).clamp(0.0, top)
    }
}

impl AdapterKind for FakeQuantizer {
    fn weight(&self, adapter: &Adapter) -> Option<Tensor<2>> {
        let (scale, zero_point) = (self.scale(adapter), self.zero_point(adapter));
        let weight = fake_quantize(Self::weight(adapter), scale, zero_point, self.bits);
        Some(in_layout(self.layout, weight))
    }
}

/// Puts a copy of its weight that trains, with the grids of [`round_to_nearest`], on every linear layer but the output layer.
/// The weights below them are frozen.
///
/// # Errors
///
/// If the bits are not from 2 to 8, groups do not divide the columns of a layer or are whole tensors, a weight is not finite, or a
/// layer carries adapters.
pub fn attach_fake_quantizers(mut model: AutoCausalLm, scheme: &Scheme) -> Result<AutoCausalLm> {
    let output = model.output_layer();
    let mut wrong = mistakes(&model, scheme);
    model.for_each_linear(&mut |path, linear| {
        if path != output && !linear.adapters.is_empty() {
            wrong.push(format!("{path} carries an adapter: merge it first"));
        }
    });
    if !wrong.is_empty() {
        return Err(Error::Settings(wrong.join("; ")));
    }
    let mut failure = None;
    model.for_each_linear_mut(&mut |path, linear| {
        let shape = [linear.out_features(), linear.in_features()];
        if path == output || failure.is_some() {
            return;
        }
        let device = linear.weight.lazy_device();
        let weight = matrix(linear);
        let rounded = match round_to_nearest(&numbers(weight.clone().inner()), shape, scheme) {
            Ok(rounded) => rounded,
            Err(error) => {
                failure = Some(error.in_layer(path));
                return;
            }
        };
        let grids = [shape[0], rounded.groups()];
        let zeros = || Tensor::<2>::zeros(grids, &device);
        let trained = |name, tensor: Tensor<2>| AdapterTensor::new(name, tensor);
        let mut tensors = vec![
            trained(WEIGHT, weight.detach()),
            trained(STEPS, zeros()),
            trained(FIRST_STEPS, tensor(rounded.scales, grids, &device)).frozen(),
            trained(FIRST_ZEROS, tensor(rounded.zero_points, grids, &device)).frozen(),
        ];
        if !scheme.symmetric {
            tensors.push(trained(SHIFTS, zeros()));
        }
        let kind = FakeQuantizer {
            bits: scheme.bits,
            symmetric: scheme.symmetric,
            layout: linear.layout(),
        };
        linear.adapters.push(Adapter::new(
            ADAPTER,
            Arc::new(kind),
            tensors,
            0.0,
            Arc::new(kind),
        ));
        if let Some(param) = linear.weight.dense() {
            linear.weight = param.clone().set_require_grad(false).into();
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

/// Puts the integers of fake quantizers in the place of the weights, as [`quantize_model`](crate::quantize_model) does, and removes
/// the quantizers. The model gives the same logits, up to the rounding of products. Returns how many layers there were.
///
/// # Errors
///
/// If a layer carries other adapters, or a trained number is not finite.
pub fn round_fake_quantized(model: &mut AutoCausalLm) -> Result<usize> {
    let mut count = 0;
    let mut failure = None;
    model.for_each_linear_mut(&mut |path, linear| {
        let Some(adapter) = linear
            .adapters
            .iter()
            .find(|adapter| adapter.name == ADAPTER)
        else {
            return;
        };
        let Some(kind) = adapter.settings.downcast_ref::<FakeQuantizer>() else {
            return;
        };
        if linear.adapters.len() > 1 {
            failure = Some(Error::Settings(format!(
                "{path} carries another adapter: merge it first"
            )));
            return;
        }
        let weight = FakeQuantizer::weight(adapter).inner().cast(DType::F32);
        let (scale, zero_point) = (kind.scale(adapter), kind.zero_point(adapter));
        let (scale, zero_point) = (scale.inner(), zero_point.inner());
        let (shape, [_, groups]) = (weight.dims(), scale.dims());
        let [rows, cols] = shape;
        let by_group = |x: &Tensor<2>| x.clone().reshape([rows, groups, 1]);
        let top = crate::Levels::unsigned(kind.bits).highest as f64;
        let steps = weight.reshape([rows, groups, cols / groups]) / by_group(&scale);
        let levels = (steps.round() + by_group(&zero_point)).clamp(0.0, top);
        let levels = numbers(levels.reshape(shape));
        if !levels
            .iter()
            .chain(&numbers(scale.clone()))
            .all(|x| x.is_finite())
        {
            failure = Some(Error::Settings(format!(
                "{path} has trained to numbers that are not finite: use a smaller learning rate"
            )));
            return;
        }
        let width = cols / groups;
        let rounded = Rounded {
            shape,
            bits: kind.bits,
            levels: levels.into_iter().map(|level| level as u8).collect(),
            scales: numbers(scale),
            zero_points: numbers(zero_point),
            group_of: (0..cols).map(|col| col / width).collect(),
        };
        linear.adapters.clear();
        crate::model::put_rounded(linear, &rounded);
        count += 1;
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_gradient_is_multiplied_and_the_number_stays() {
        let device = Device::default().autodiff();
        let x = Tensor::<2>::from_data([[0.5f32, -3.0]], &device).require_grad();
        let y = with_less_gradient(x.clone(), 0.25);
        assert_eq!(numbers(y.clone().inner()), [0.5, -3.0]);
        let gradients = y.powi_scalar(2).sum().backward();
        // 2·y·0.25
        let gradient = x.grad(&gradients).expect("has a gradient");
        assert_eq!(numbers(gradient), [0.25, -1.5]);
    }
}
