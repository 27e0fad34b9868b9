//! A linear layer with a low-rank adapter in one operation: `x·Wᵀ + s·(x·Aᵀ)·Bᵀ` (Hu et al., 2021,
//! arXiv:2106.09685, equation 3).
//!
//! The adapter acts on activations: there is no dense `W + s·BA`, and no gradient of a frozen `W`. A frozen `W` may be
//! stored in 16 bits, which halves its memory. It is widened during the product. Widening is exact, so results
//! differ only by the order of the sums. A [`Weight`] in blocks of few bits is a constant of the
//! graph. On the CPU its blocks are read where they are. On a device with autodiff their exact numbers are multiplied; on
//! others the input is rounded to 8 bits with a scale for every 32 numbers, as in llama.cpp.

use burn::tensor::{Device, Tensor};

use crate::graph::{check_trainable, in_type_of};
use crate::{Dropout, Input, Weight};

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
    let weight = weight.dense(&x.value);
    portable(x.value, weight, adapter)
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
