//! The operations that models share, fused, each with a handwritten gradient.
//!
//! On the CPU (feature `cpu`, tensors of `f32` on Burn's Flex backend) a function runs on the slices of its
//! tensors, forward and backward. In all other cases it consists of Burn's own operations, in [`portable`], which
//! work on every backend and are the reference of the tests.
//!
//! [`adamw`] is the step of the optimizer, and [`SumOfSquares`] what clips its gradient; both have no gradient.
//!
//! With `FT_KERNELS=portable` in the environment a program uses only [`portable`] operations. This shows whether a
//! kernel causes a wrong result.
//!
//! The number of threads affects results only through the rounding of matrix products. [`set_precision`] makes these faster and less exact.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//!
//! let device = Device::default();
//! let x = Tensor::<1>::from_data([3.0, 4.0], &device);
//! let y = ft_kernels::rms_norm(x, Tensor::ones([2], &device), 0.0);
//! // 3 and 4 over √((9 + 16) / 2)
//! assert!((y.into_data().try_to_vec::<f32>().unwrap()[0] - 0.848_53).abs() < 1e-5);
//! ```

mod adamw;
mod attention;
mod blockwise;
mod cross_entropy;
mod distillation;
mod dropout;
mod exact;
#[cfg(feature = "cpu")]
mod flex;
mod gated_mlp;
mod graph;
mod input;
mod linear;
mod logit_options;
mod norm;
mod packed;
mod precision;
mod recompute;
mod rotary;
mod same;
mod scale_features;
mod score_tokens;
mod sum_of_squares;
mod token_logps;

pub use adamw::{AdamWStep, adamw, adamw_8bit};
pub use attention::{AttentionMask, EVERY_SEGMENT, Scores, attention, branch};
pub use blockwise::{BLOCK, Blockwise, DynamicMap};
pub use cross_entropy::{LossOptions, cross_entropy_sum};
pub use distillation::{DistillationOptions, Distilled, Divergence, Teacher, distillation_sum};
pub use dropout::Dropout;
pub use exact::exact;
pub use gated_mlp::{Activation, gated_mlp};
pub use graph::constant;
pub use input::Input;
pub use linear::{LowRank, linear, linears, takes_16_bits};
pub use logit_options::LogitOptions;
pub use norm::{layer_norm, rms_norm};
pub use packed::{EncodeError, Packed, PackedFormat, Weight};
pub use precision::{Precision, in_f32, precision, set_precision};
pub use recompute::recompute;
pub use rotary::apply_rotary;
pub use same::is_same;
pub use scale_features::scale_features;
pub use score_tokens::{TokenScore, score_logits, score_tokens};
pub use sum_of_squares::SumOfSquares;
pub use token_logps::{token_logps, token_logps_and_entropy};

/// Whether the tensors of a device lie in memory that the program reads without a copy to it: Burn's Flex backend, unless
/// `FT_KERNELS=portable`.
pub fn is_cpu(device: &burn::tensor::Device) -> bool {
    #[cfg(feature = "cpu")]
    return flex::is_flex(device);
    #[cfg(not(feature = "cpu"))]
    {
        let _ = device;
        false
    }
}

/// The same operations with Burn's own: for every backend, and as a reference.
pub mod portable {
    pub use crate::adamw::{portable as adamw, portable_8bit as adamw_8bit};
    pub use crate::attention::portable as attention;
    pub use crate::cross_entropy::portable as cross_entropy_sum;
    pub use crate::distillation::portable as distillation_sum;
    pub use crate::gated_mlp::portable as gated_mlp;
    pub use crate::linear::portable as linear;
    pub use crate::norm::portable_layer_norm as layer_norm;
    pub use crate::norm::portable_rms_norm as rms_norm;
    pub use crate::rotary::portable as apply_rotary;
    pub use crate::scale_features::portable as scale_features;
    pub use crate::score_tokens::portable as score_tokens;
    pub use crate::token_logps::{
        portable as token_logps, portable_with_entropy as token_logps_and_entropy,
    };
}
