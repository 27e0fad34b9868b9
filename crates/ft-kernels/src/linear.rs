//! A linear layer with a low-rank adapter in one operation: `x·Wᵀ + s·(x·Aᵀ)·Bᵀ` (Hu et al., 2021,
//! arXiv:2106.09685, equation 3).
//!
//! The adapter acts on activations: there is no dense `W + s·BA`, and no gradient of a frozen `W`. A frozen `W` may be
//! stored in 16 bits, which halves its memory. It is widened during the product. Widening is exact, so results
//! differ only by the order of the sums. A [`Weight`] in blocks of few bits is a constant of the
//! graph. On the CPU its blocks are read where they are. On a device with autodiff their exact numbers are multiplied; on
//! others the input is rounded to 8 bits with a scale for every 32 numbers, as in llama.cpp. Products with
//! [`INT8`](crate::PackedFormat::INT8) always round input and gradient to 8 bits with a scale for each row, and keep outliers apart, as
//! LLM.int8 does for inputs. On other devices the matrix is decoded for the product, and again in the backward pass.

use burn::module::Param;
use burn::tensor::{Device, GradientCheckpointingStrategy, Tensor};

use crate::graph::{check_trainable, constant, in_type_of};
use crate::{Dropout, Input, Packed, Weight, recompute};

/// The factors of an adapter, and their scale.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[r, in]`
    pub a: Tensor<2>,
    /// `[out, r]`
    pub b: Tensor<2>,
    /// `alpha / r`, or `alpha / √r` with rsLoRA.
    pub scale: f64,
    /// Dropout of what `A` is applied to. Nothing of the input's size is stored for it.
    pub dropout: Option<Dropout>,
}

/// `x·Wᵀ`, plus the adapter's product.
///
/// # Shapes
///
/// - `x`: `[rows, in]`, a tensor or an [`Input`]
/// - `weight`: `[out, in]`, a tensor or [`Packed`](crate::Packed). The tensor may be a transposed view, and is in the type
///   of `x` or, if it is frozen, in `f16` or `bf16`
/// - output: `[rows, out]`
///
/// # Panics
///
/// If the shapes do not match, or a weight in 16 bits trains: its updates would be lost in rounding.
pub fn linear(
    x: impl Into<Input<2>>,
    weight: impl Into<Weight>,
    adapter: Option<LowRank>,
) -> Tensor<2> {
    let (x, weight) = (x.into(), weight.into());
    check_shapes(x.value.dims(), weight.dims(), adapter.as_ref());
    check_trainable(&weight, &x.value);
    #[cfg(feature = "cpu")]
    if crate::flex::takes(&x.value)
        && (adapter.as_ref()).is_none_or(|l| crate::flex::takes(&l.a) && crate::flex::takes(&l.b))
        && let Some(weight) = crate::flex::packed::Operand::new(&weight)
    {
        use crate::flex::linear::{Linear, Scaling};
        use burn::backend::Dispatch;
        let (recipe, x) = (x.recipe, x.value.into_dispatch());
        let y = match adapter {
            None => Dispatch::linear(x, weight, recipe),
            Some(LowRank {
                a,
                b,
                scale,
                dropout,
            }) => {
                let (a, b) = (a.into_dispatch(), b.into_dispatch());
                let scaling = Scaling {
                    scale: scale as f32,
                    mask: dropout.map(Dropout::mask),
                };
                Dispatch::linear_lora(x, weight, a, b, scaling, recipe)
            }
        };
        return Tensor::from_dispatch(y);
    }
    match weight {
        Weight::Dense(weight) => portable(x.value, weight, adapter),
        Weight::Packed(weight) => portable_packed(x.value, weight, adapter),
    }
}

/// The products of one input with several weights, `x·Wᵀ` each. On the CPU, for a row alone and weights outside any graph, all are
/// one piece of work.
///
/// # Shapes
///
/// - `x`: `[rows, in]`, a tensor or an [`Input`]
/// - `weights`: `[out, in]`, as those of [`linear`]
/// - outputs: `[rows, out]`
///
/// # Panics
///
/// As [`linear`].
pub fn linears<const N: usize>(x: impl Into<Input<2>>, weights: [Weight; N]) -> [Tensor<2>; N] {
    let x = x.into();
    #[cfg(feature = "cpu")]
    if let Some(products) = products_of_a_row(&x.value, &weights) {
        return products;
    }
    weights.map(|weight| linear(x.clone(), weight, None))
}

#[cfg(feature = "cpu")]
fn products_of_a_row<const N: usize>(
    x: &Tensor<2>,
    weights: &[Weight; N],
) -> Option<[Tensor<2>; N]> {
    use crate::flex::{one_row, packed::Held, takes, takes_operand};
    use burn::tensor::{DType, TensorData};
    let device = x.device();
    let alone = x.dims()[0] == 1 && takes(x) && !device.is_autodiff();
    let constant = |weight: &Weight| match weight {
        Weight::Dense(weight) => !weight.device().is_autodiff(),
        Weight::Packed(_) => true,
    };
    if !alone
        || !weights
            .iter()
            .all(|weight| takes_operand(weight) && constant(weight))
    {
        return None;
    }
    let held = weights.clone().map(Held::outside);
    let x = x.clone().try_into_primitive::<burn::backend::Flex>().ok()?;
    let products = one_row::products(x, &held)?;
    let tensors = products.into_iter().map(|product| {
        let shape = [1, product.len()];
        Tensor::from_data(TensorData::new(product, shape), (&device, DType::F32))
    });
    tensors.collect::<Vec<_>>().try_into().ok()
}

/// Whether [`linear`] and the losses read a frozen weight in 16 bits directly on this device. On other devices they
/// widen the whole weight at every use, so that 16 bits save no memory.
pub fn takes_16_bits(device: &Device) -> bool {
    #[cfg(feature = "cpu")]
    return crate::flex::is_flex(device);
    #[cfg(not(feature = "cpu"))]
    {
        let _ = device;
        false
    }
}

fn check_shapes(x: [usize; 2], weight: [usize; 2], adapter: Option<&LowRank>) {
    assert_eq!(x[1], weight[1], "the input has the weight's features");
    if let Some(LowRank { a, b, .. }) = adapter {
        assert_eq!(
            a.dims()[1],
            weight[1],
            "the adapter's A takes the weight's features"
        );
        assert_eq!(
            b.dims()[0],
            weight[0],
            "the adapter's B gives the weight's features"
        );
        assert_eq!(a.dims()[0], b.dims()[1], "A and B have the same rank");
    }
}

/// [`linear`] with Burn's operations.
pub fn portable(x: Tensor<2>, weight: Tensor<2>, adapter: Option<LowRank>) -> Tensor<2> {
    let weight = in_type_of(weight, &x);
    let y = x.clone().matmul(weight.transpose());
    plus_adapter(y, x, adapter)
}

/// [`linear`] with Burn's operations and blocks. No decoded matrix waits for the backward pass, which decodes it again; where
/// the backward pass runs whole blocks of the model again, that is so already.
pub(crate) fn portable_packed(x: Tensor<2>, weight: Packed, adapter: Option<LowRank>) -> Tensor<2> {
    let product = move |x: Tensor<3>| {
        let weight = in_type_of(constant(weight.dequantize(), &x), &x);
        x.matmul(weight.transpose().unsqueeze())
    };
    let rows = x.clone().unsqueeze::<3>();
    let again = x.device().gradient_checkpointing_strategy()
        != Some(GradientCheckpointingStrategy::Balanced);
    let y = match again {
        true => recompute(&Vec::<Param<Tensor<1>>>::new(), rows, move |_, x| {
            product(x)
        }),
        false => product(rows),
    };
    plus_adapter(y.squeeze_dim(0), x, adapter)
}

fn plus_adapter(y: Tensor<2>, x: Tensor<2>, adapter: Option<LowRank>) -> Tensor<2> {
    match adapter {
        None => y,
        Some(LowRank {
            a,
            b,
            scale,
            dropout,
        }) => {
            let x = match dropout {
                Some(dropout) => dropout.apply(x),
                None => x,
            };
            y + x.matmul(a.transpose()).matmul(b.transpose()) * scale
        }
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;
    use crate::PackedFormat;
    use burn::tensor::{Bytes, Tolerance};

    /// Weights of all kinds as one piece of work give what they give alone.
    #[test]
    fn several_products_are_those_of_each() {
        let device = Device::default();
        let noise = |rows: usize, cols: usize| {
            let place = Tensor::<1, burn::tensor::Int>::arange(0..(rows * cols) as i64, &device);
            (place.float() * 0.7).sin().reshape([rows, cols])
        };
        let packed = |format: PackedFormat, rows: usize| {
            let bytes = (0..rows * format.bytes_of(256)).map(|i| (i * 37 % 60) as u8);
            let bytes = Bytes::from_bytes_vec(bytes.collect());
            Weight::from(Packed::from_bytes(format, bytes, [rows, 256], &device))
        };
        let weights = || {
            [
                packed(PackedFormat::Q4_0, 301),
                packed(PackedFormat::Q4_K, 5),
                packed(PackedFormat::NF4, 7),
                packed(PackedFormat::INT8, 301),
                noise(130, 256).into(),
                noise(3, 256).cast(burn::tensor::DType::F16).into(),
                noise(256, 6).transpose().into(),
            ]
        };
        for rows in [1, 2] {
            let x = noise(rows, 256);
            let check = |found: &[Tensor<2>], weights: &[Weight]| {
                for (found, weight) in found.iter().zip(weights) {
                    let expected = linear(x.clone(), weight.clone(), None);
                    assert_eq!(found.dims(), [rows, weight.rows()]);
                    found
                        .to_data()
                        .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::relative(1e-5));
                }
            };
            let [a, b, c, d, e, f, g] = weights();
            let by_row = [a, b, c, d, e, f];
            check(&linears(x.clone(), by_row.clone()), &by_row);
            check(&linears(x.clone(), [g]), &weights()[6..]);
            check(&linears(x.clone(), weights()), &weights());
        }
    }

    /// Blocks that are decoded twice give what the decoded matrix gives, with gradients of input and adapter.
    #[test]
    fn decoding_again_in_the_backward_pass_changes_nothing() {
        let format = PackedFormat::Q4_0;
        let bytes = (0..6 * format.bytes_of(64)).map(|i| (i * 37 % 60) as u8);
        let bytes = Bytes::from_bytes_vec(bytes.collect());
        let plain = Device::default().autodiff();
        for device in [plain.clone(), plain.gradient_checkpointing()] {
            let packed = Packed::from_bytes(format, bytes.clone(), [6, 64], &device);
            let noise = |rows: usize, cols: usize| {
                let place =
                    Tensor::<1, burn::tensor::Int>::arange(0..(rows * cols) as i64, &device);
                let x = (place.float() * 0.7).sin().reshape([rows, cols]);
                x.detach().require_grad()
            };
            let run = |blocks: bool| {
                let (x, a, b) = (noise(5, 64), noise(2, 64), noise(6, 2));
                let adapter = LowRank {
                    a: a.clone(),
                    b: b.clone(),
                    scale: 0.5,
                    dropout: None,
                };
                let y = match blocks {
                    true => portable_packed(x.clone(), packed.clone(), Some(adapter)),
                    false => {
                        let weight = constant(packed.dequantize(), &x);
                        portable(x.clone(), weight, Some(adapter))
                    }
                };
                let gradients = y.clone().powi_scalar(2).sum().backward();
                let mut all = vec![y.into_data()];
                all.extend([x, a, b].map(|x| x.grad(&gradients).expect("trains").into_data()));
                all
            };
            for (found, expected) in run(true).iter().zip(run(false)) {
                found.assert_approx_eq::<f32>(&expected, Tolerance::relative(1e-5));
            }
        }
    }
}
