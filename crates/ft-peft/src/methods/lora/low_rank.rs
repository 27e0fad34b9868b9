//! `s·B(Ax)` beside the product of a layer.

use burn::tensor::Tensor;
use ft_core::layers::{Adapter, AdapterKind, At, Dropout, LowRank, Merged, dropout_seed};

use super::lora_fa;

/// `[r, in_features]`.
pub(crate) const A: &str = "lora_A.weight";
/// `[out_features, r]`.
pub(crate) const B: &str = "lora_B.weight";
/// `[out_features]`, with `lora_bias`.
pub(super) const BIAS: &str = "lora_B.bias";
/// `A` as it began, where it was taken from the base weight.
pub(super) const START_A: &str = "start_A";
/// `−B` as it began.
pub(super) const START_B: &str = "start_B";

/// `s·B(Ax)`, added to the product.
///
/// Where the factors began as a part of the base weight, that part is subtracted: `s·(BA − B₀A₀)x`. So the base weight does
/// not change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lora {
    /// `s`.
    pub(super) scaling: f64,
}

impl Lora {
    /// The factors of all that the adapter adds to the weight: `A` and `B`, or `[A; A₀]` and `[B, −B₀]`.
    pub(super) fn factors(self, adapter: &Adapter) -> LowRank {
        let (mut a, mut b) = self.trained(adapter);
        if let Some((start_a, start_b)) = start(adapter) {
            a = Tensor::cat(vec![a, start_a], 0);
            b = Tensor::cat(vec![b, start_b], 1);
        }
        LowRank {
            a,
            b,
            scale: self.scaling,
            dropout: None,
        }
    }

    fn trained(self, adapter: &Adapter) -> (Tensor<2>, Tensor<2>) {
        let b = lora_fa::preconditioned(adapter, adapter.val2(B));
        (adapter.val2(A), b)
    }

    /// What the trained factors add for inputs `x`.
    pub(super) fn added(self, adapter: &Adapter, x: Tensor<2>) -> Tensor<2> {
        let (a, b) = self.trained(adapter);
        times(x, a, b) * self.scaling
    }

    /// `−s·B₀A₀x`, if a part is subtracted.
    pub(super) fn taken_off(self, adapter: &Adapter, x: Tensor<2>) -> Option<Tensor<2>> {
        start(adapter).map(|(a, b)| times(x, a, b) * self.scaling)
    }

    /// `s·b`, with [`LoraConfig::lora_bias`](super::LoraConfig::lora_bias).
    fn scaled_bias(self, at: &At<'_>) -> Option<Tensor<1>> {
        at.adapter.get(BIAS).map(|bias| bias.val1() * self.scaling)
    }

    /// What the adapter adds to the weight, `[out_features, in_features]`.
    pub(super) fn delta(self, adapter: &Adapter) -> Tensor<2> {
        let LowRank { a, b, scale, .. } = self.factors(adapter);
        b.matmul(a) * scale
    }
}

/// `A₀` and `−B₀`.
fn start(adapter: &Adapter) -> Option<(Tensor<2>, Tensor<2>)> {
    let value = |name| adapter.get(name).map(|tensor| tensor.val2());
    value(START_A).zip(value(START_B))
}

fn times(x: Tensor<2>, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    x.matmul(a.transpose()).matmul(b.transpose())
}

impl AdapterKind for Lora {
    fn low_rank(&self, at: &At<'_>, x: &Tensor<2>) -> Option<LowRank> {
        let drops_out = at.adapter.drops_out(x);
        if drops_out && start(at.adapter).is_some() {
            // Dropout does not act on the part that is subtracted.
            return None;
        }
        let dropout = drops_out.then(|| Dropout {
            probability: at.adapter.dropout.prob,
            seed: dropout_seed(&x.device()),
        });
        Some(LowRank {
            dropout,
            ..self.factors(at.adapter)
        })
    }

    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let mut y = y;
        if !at.fused {
            let dropped = at.adapter.dropout.forward(x.clone());
            y = y + self.added(at.adapter, dropped);
            if let Some(taken) = self.taken_off(at.adapter, x.clone()) {
                y = y + taken;
            }
        }
        y
    }

    // Not a part of the product, which others may scale.
    fn output(&self, at: &At<'_>, _: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        match self.scaled_bias(at) {
            Some(bias) => y + bias.unsqueeze(),
            None => y,
        }
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let bias = match (merged.bias, self.scaled_bias(at)) {
            (Some(base), Some(bias)) => Some(base + bias),
            (base, bias) => base.or(bias),
        };
        Some(Merged {
            weight: merged.weight + self.delta(at.adapter),
            bias,
            ..merged
        })
    }
}
