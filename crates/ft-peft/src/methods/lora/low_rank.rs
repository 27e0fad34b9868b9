//! `s·B(Ax)` beside the product of a layer.

use burn::tensor::Tensor;
use ft_core::layers::{AdapterKind, At, Dropout, LowRank, Merged, dropout_seed};

/// `[r, in_features]`.
pub(crate) const A: &str = "lora_A.weight";
/// `[out_features, r]`.
pub(crate) const B: &str = "lora_B.weight";

/// `s·B(Ax)`, added to the product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lora {
    /// `s`.
    pub(super) scaling: f64,
}

impl AdapterKind for Lora {
    fn low_rank(&self, at: &At<'_>, x: &Tensor<2>) -> Option<LowRank> {
        let dropout = at.adapter.drops_out(x).then(|| Dropout {
            probability: at.adapter.dropout.prob,
            seed: dropout_seed(&x.device()),
        });
        Some(LowRank {
            a: at.adapter.val2(A),
            b: at.adapter.val2(B),
            scale: self.scaling,
            dropout,
        })
    }

    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        if at.fused {
            return y;
        }
        let x = at.adapter.dropout.forward(x.clone());
        let low = x.matmul(at.adapter.val2(A).transpose());
        y + low.matmul(at.adapter.val2(B).transpose()) * self.scaling
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let delta = at.adapter.val2(B).matmul(at.adapter.val2(A)) * self.scaling;
        Some(Merged {
            weight: merged.weight + delta,
            ..merged
        })
    }
}
