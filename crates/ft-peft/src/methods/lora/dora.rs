//! DoRA: Weight-Decomposed Low-Rank Adaptation (Liu et al., 2024, arXiv:2402.09353), equation 5: the weight becomes
//! `m ⊙ V/‖V‖`, with `V = W + s·BA`, the norm that of each row. In gradients the norm is a constant (section 4.3).
//!
//! It acts on activations: `y = m/‖V‖ ⊙ (Wx + s·B(Ax)) + b`. Of `V` only the norms are needed, and they are
//! `‖V_i‖² = ‖W_i‖² + 2s·W_i·(BA)_i + s²·‖(BA)_i‖²`, which takes products as small as the factors.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use ft_core::Linear;
use ft_core::layers::{Adapter, AdapterKind, At, LowRank, Merged};
use ft_kernels::Weight;

use super::low_rank::{A, B, Lora, START_A, START_B};
use crate::memo::Memo;

/// `m`, `[out_features]`.
pub(super) const MAGNITUDE: &str = "lora_magnitude_vector";

/// `m/‖V‖ ⊙ (y + s·B(Ax))`.
///
/// Dropout acts as in PEFT: the layer's own product is computed from `x`, and all that the adapter changes of it from `x`
/// after dropout.
#[derive(Clone, Debug)]
pub(super) struct Dora {
    lora: Lora,
    /// `‖W_i‖²`.
    squares: Arc<Memo>,
    /// `‖V_i‖`.
    norms: Arc<Memo>,
}

impl Dora {
    pub(super) fn new(lora: Lora) -> Self {
        Self {
            lora,
            squares: Arc::default(),
            norms: Arc::default(),
        }
    }

    /// `‖V_i‖`, outside any graph.
    fn norms(&self, layer: &Linear, adapter: &Adapter) -> Tensor<1> {
        let weight = match layer.product_weight() {
            Weight::Dense(weight) => weight.inner().into(),
            packed => packed,
        };
        let factors = [A, B, START_A, START_B].map(|name| adapter.get(name));
        let mut of = vec![weight.clone()];
        of.extend(
            factors
                .into_iter()
                .flatten()
                .map(|tensor| Weight::from(tensor.val2().inner())),
        );
        self.norms.get(&of, || {
            let squares = (self.squares).get(std::slice::from_ref(&weight), || squares(&weight));
            row_norms(weight, squares, self.lora.factors(adapter))
        })
    }

    /// `m/‖V‖`, `[out_features]`.
    fn scale(&self, at: &At<'_>) -> Tensor<1> {
        let magnitude = at.adapter.val1(MAGNITUDE);
        let norms = ft_kernels::constant(self.norms(at.layer, at.adapter), &magnitude);
        magnitude / norms
    }
}

/// Numbers of blocks that are decoded at once.
const PANEL: usize = 1 << 22;

/// `‖W_i‖²` of a matrix that may have 16 bits or blocks, of which a few rows are decoded at once.
fn squares(weight: &Weight) -> Tensor<1> {
    let of = |weight: Tensor<2>| weight.cast(DType::F32).square().sum_dim(1).squeeze_dim(1);
    match weight {
        Weight::Dense(weight) => of(weight.clone()),
        Weight::Packed(packed) => {
            let [rows, columns] = packed.dims();
            let device = packed.device().inner();
            let panel = (PANEL / columns.max(1)).max(1);
            let parts = (0..rows).step_by(panel).map(|start| {
                let ids = start as i64..(start + panel).min(rows) as i64;
                of(packed.rows(Tensor::arange(ids, &device)))
            });
            Tensor::cat(parts.collect(), 0)
        }
    }
}

/// `‖W_i + s·(BA)_i‖`, given `‖W_i‖²`.
fn row_norms(weight: Weight, squares: Tensor<1>, factors: LowRank) -> Tensor<1> {
    let LowRank { a, b, scale, .. } = factors;
    let (a, b) = (a.inner(), b.inner());
    let sum = |x: Tensor<2>| x.sum_dim(1).squeeze_dim::<1>(1);
    // Outside a graph, products with blocks would round `A`.
    let along = ft_kernels::exact(|| ft_kernels::linear(a.clone(), weight, None)).transpose();
    let across = b.clone().matmul(a.clone().matmul(a.transpose()));
    let squares =
        squares + sum(along * b.clone()) * (2.0 * scale) + sum(across * b) * scale.powi(2);
    // A row of zeros stays zero, since 0/0 is not a number.
    squares.clamp_min(f32::MIN_POSITIVE).sqrt()
}

/// `‖V_i‖`, with which `m` begins; without factors `V` is the weight.
pub(super) fn magnitude(weight: Tensor<2>, factors: Option<LowRank>) -> Tensor<1> {
    let weight = Weight::from(weight.inner());
    let squares = squares(&weight);
    match factors {
        Some(factors) => row_norms(weight, squares, factors),
        None => squares.sqrt(),
    }
}

impl AdapterKind for Dora {
    fn low_rank(&self, at: &At<'_>, x: &Tensor<2>) -> Option<LowRank> {
        // With dropout the base's product needs the dropped-out input too.
        match at.adapter.drops_out(x) {
            true => None,
            false => self.lora.low_rank(at, x),
        }
    }

    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let scale = self.scale(at);
        if !at.adapter.drops_out(x) {
            return ft_kernels::scale_features(self.lora.product(at, x, y), scale);
        }
        let taken_off =
            |x: &Tensor<2>, y: Tensor<2>| match self.lora.taken_off(at.adapter, x.clone()) {
                Some(taken) => y + taken,
                None => y,
            };
        let dropped = at.adapter.dropout.forward(x.clone());
        let base = ft_kernels::linear(dropped.clone(), at.layer.product_weight(), None);
        let base = taken_off(&dropped, base);
        let added = self.lora.added(at.adapter, dropped);
        let changed = ft_kernels::scale_features(base, scale.clone() - 1.0);
        taken_off(x, y) + changed + ft_kernels::scale_features(added, scale)
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let delta = self.lora.delta(at.adapter);
        let scale = self.scale(at).unsqueeze_dim(1);
        Some(Merged {
            weight: (merged.weight + delta) * scale,
            ..merged
        })
    }
}
