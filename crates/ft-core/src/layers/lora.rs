//! A low-rank adapter on a [`Linear`](crate::Linear), applied to activations.
//!
//! LoRA: Low-Rank Adaptation of Large Language Models (Hu et al., 2021, arXiv:2106.09685),
//! equation 3: `h = W₀x + s·B(Ax)`, with `s = α/r`, or `α/√r` for rank-stabilised LoRA
//! (Kalajdzievski, 2023, arXiv:2312.03732). Unlike Burn's own reparameterization neither the sum
//! `W₀ + sBA` nor its gradient, both the size of `W₀`, exists while training.
//!
//! This is only the plug in the linear layer. Which layers get one, its files and its merging are
//! the business of `ft-peft`.

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::Tensor;
use ft_kernels::LowRank;

/// The factors of one named adapter.
#[derive(Module, Debug)]
pub struct Lora {
    /// Down-projection `A`, `[r, in_features]`.
    pub lora_a: Param<Tensor<2>>,
    /// Up-projection `B`, `[out_features, r]`.
    pub lora_b: Param<Tensor<2>>,
    /// Dropout on the adapter's input, active while training only.
    pub dropout: Dropout,
    /// `α/r`, or `α/√r` when rank-stabilised.
    pub scaling: f64,
    /// The adapter's name; PEFT's first adapter is called `default`.
    #[module(skip)]
    pub name: String,
    /// Whether the adapter takes part in the forward pass.
    #[module(skip)]
    pub active: bool,
}

impl Lora {
    /// An active adapter from its factors: `a` is `[r, in_features]`, `b` is `[out_features, r]`.
    ///
    /// # Panics
    ///
    /// If the ranks of `a` and `b` differ, or `dropout` is outside `[0, 1)`.
    pub fn new(name: &str, a: Tensor<2>, b: Tensor<2>, scaling: f64, dropout: f64) -> Self {
        assert_eq!(
            a.dims()[0],
            b.dims()[1],
            "lora_A is [r, in] and lora_B is [out, r]: their ranks differ"
        );
        Self {
            lora_a: Param::from_tensor(a),
            lora_b: Param::from_tensor(b),
            dropout: DropoutConfig::new(dropout).init(),
            scaling,
            name: name.to_string(),
            active: true,
        }
    }

    /// The rank `r`.
    pub fn rank(&self) -> usize {
        self.lora_a.dims()[0]
    }

    /// `s·B(Ax)`: what the adapter adds to the layer's output.
    ///
    /// # Shapes
    ///
    /// - `x`: `[tokens, in_features]`
    /// - output: `[tokens, out_features]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let low = self
            .dropout
            .forward(x)
            .matmul(self.lora_a.val().transpose());
        low.matmul(self.lora_b.val().transpose()) * self.scaling
    }

    /// Whether the adapter sees another input than the layer: dropout, while training.
    pub(crate) fn drops_out(&self, x: &Tensor<2>) -> bool {
        self.dropout.prob > 0.0 && x.device().is_autodiff()
    }

    pub(crate) fn low_rank(&self) -> LowRank {
        LowRank {
            a: self.lora_a.val(),
            b: self.lora_b.val(),
            scale: self.scaling,
        }
    }

    /// `s·BA`, the change of the weight that the adapter stands for: `[out_features, in_features]`.
    pub fn delta(&self) -> Tensor<2> {
        self.lora_b.val().matmul(self.lora_a.val()) * self.scaling
    }
}
