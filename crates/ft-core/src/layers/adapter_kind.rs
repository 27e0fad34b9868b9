//! What an adapter does to the layer it is on. `ft-peft` has the kinds: LoRA, IA3, OFT and others.

use std::fmt::Debug;

use burn::tensor::{Int, Tensor};
use ft_kernels::LowRank;

use crate::layers::adapter::Adapter;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::Linear;
use crate::layers::virtual_tokens::VirtualTokens;

/// The mathematics of an adapter. Each method has a default that changes nothing.
///
/// A linear layer with active adapters computes `y = output(product(W·input(x)) + b)`: every adapter sees what the
/// others made of `x` and `y`. Adapters act in the order of their [`Stage`]s, those of one stage as they were attached. The
/// input is changed the other way round, by the last one first. So merging the adapters one after the other gives the same
/// function.
///
/// Rows of tokens are flat: `x` is `[tokens, in_features]`, `y` is `[tokens, out_features]`.
pub trait AdapterKind: Debug + Send + Sync + 'static {
    /// The layer's input in place of `x`.
    fn input(&self, at: &At<'_>, x: &Tensor<2>) -> Option<Tensor<2>> {
        let (_, _) = (at, x);
        None
    }

    /// Factors that the product takes along at no extra memory. They are asked for once a layer: the first adapter that
    /// has some gets [`At::fused`].
    fn low_rank(&self, at: &At<'_>, x: &Tensor<2>) -> Option<LowRank> {
        let (_, _) = (at, x);
        None
    }

    /// The product in place of `y`, which is `W·x` and what other adapters made of it, without the bias.
    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let (_, _) = (at, x);
        y
    }

    /// The layer's output in place of `y`, which has the bias.
    fn output(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let (_, _) = (at, x);
        y
    }

    /// The weight of the layer and its bias after merging; none if the adapter is no change of the weight.
    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let (_, _) = (at, merged);
        None
    }

    /// When this kind acts and merges, where layers have adapters of several kinds.
    fn stage(&self) -> Stage {
        Stage::Product
    }

    /// What a sublayer made of the stream `x`, in place of `o`, before both are added. With `norm`, that of the model, the
    /// sum is normed.
    fn sublayer(
        &self,
        adapter: &Adapter,
        x: &Tensor<3>,
        o: Tensor<3>,
        norm: Option<&LayerNorm>,
    ) -> Tensor<3> {
        let (_, _, _) = (adapter, x, norm);
        o
    }

    /// Rows of an embedding in place of `rows`, `[batch, seq, width]`.
    fn rows(&self, adapter: &Adapter, ids: &Tensor<2, Int>, rows: Tensor<3>) -> Tensor<3> {
        let (_, _) = (adapter, ids);
        rows
    }

    /// How many virtual tokens an adapter on the embedding of tokens has.
    fn num_virtual_tokens(&self) -> usize {
        0
    }

    /// The virtual tokens of an adapter on the embedding of tokens.
    fn virtual_tokens(&self, adapter: &Adapter) -> Option<VirtualTokens> {
        let _ = adapter;
        None
    }

    /// Rows of an embedding that have other values, where the embedding serves as the output layer too: their numbers, and
    /// the values, `[numbers, width]`.
    fn other_rows(&self, adapter: &Adapter) -> Option<(Tensor<1, Int>, Tensor<2>)> {
        let _ = adapter;
        None
    }

    /// The table of an embedding after merging; none if the adapter is no change of the table.
    fn merge_table(&self, adapter: &Adapter, table: Tensor<2>) -> Option<Tensor<2>> {
        let (_, _) = (adapter, table);
        None
    }

    /// The matrix of a linear layer (as the layer holds it) or an embedding, in place of its own.
    fn weight(&self, adapter: &Adapter) -> Option<Tensor<2>> {
        let _ = adapter;
        None
    }

    /// The weight of a norm in place of its own.
    fn norm_weight(&self, adapter: &Adapter) -> Option<Tensor<1>> {
        let _ = adapter;
        None
    }

    /// The bias of a linear layer or a norm in place of its own.
    fn bias(&self, adapter: &Adapter) -> Option<Tensor<1>> {
        let _ = adapter;
        None
    }
}

/// Where an adapter acts.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The layer.
    pub layer: &'a Linear,
    /// The adapter, with its tensors.
    pub adapter: &'a Adapter,
    /// Whether the product took along the adapter's factors.
    pub fused: bool,
}

/// A weight and a bias that adapters are merged into.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The weight without adapters, `[out_features, in_features]`.
    pub base: Tensor<2>,
    /// `[out_features, in_features]`.
    pub weight: Tensor<2>,
    /// `[out_features]`.
    pub bias: Option<Tensor<1>>,
}

/// When a kind of adapter acts and merges. All adapters of one stage do before those of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It changes the product.
    Product,
    /// It replaces numbers of the product, whatever others added to them.
    Replacement,
    /// It changes the input, or scales the product.
    Input,
    /// It changes the output.
    Output,
}
