//! The norm of the whole gradient, and how far it has to shrink.
//!
//! On the difficulty of training recurrent neural networks (Pascanu, Mikolov and Bengio, 2013,
//! arXiv:1211.5063), algorithm 1: `g ← g · min(1, c / ‖g‖)`, with one norm over all parameters. Burn's
//! own clipping takes a norm for each tensor, which changes the direction of the step.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use ft_kernels::SumOfSquares;

/// `√(Σ g²)` over the gradients of all parameters of `model`; read from the device once.
///
/// On the CPU it has the same bits in every run: see [`SumOfSquares`].
pub fn global_norm<M: Module>(model: &M, gradients: &GradientsParams) -> f64 {
    struct Squares<'a> {
        gradients: &'a GradientsParams,
        squares: SumOfSquares,
    }
    impl ModuleVisitor for Squares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.get::<D>(param.id) {
                self.squares.add(gradient);
            }
        }
    }
    let mut visitor = Squares {
        gradients,
        squares: SumOfSquares::default(),
    };
    model.visit(&mut visitor);
    visitor.squares.total().sqrt()
}

/// The factor that brings a gradient of norm `norm` down to `max_norm`: `min(1, c / (‖g‖ + 10⁻⁶))`,
/// the small term as in PyTorch.
///
/// ```
/// assert_eq!(ft_train::clip_factor(0.5, 1.0), 1.0);
/// assert!((ft_train::clip_factor(5.0, 1.0) - 0.2).abs() < 1e-6);
/// assert!(ft_train::clip_factor(f64::NAN, 1.0).is_nan());
/// ```
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    let factor = max_norm / (norm + 1e-6);
    // Not `min`, which would make 1 of NaN.
    if factor > 1.0 { 1.0 } else { factor }
}
