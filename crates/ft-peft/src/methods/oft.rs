//! OFT: Controlling Text-to-Image Diffusion by Orthogonal Finetuning (Qiu et al., 2023, arXiv:2306.07280), equation 3,
//! turned around to act on the input (Qiu et al., 2025, arXiv:2506.19847, section 4): `y = W·diag(R₁, …, R_n)ᵀ·x + b`.
//!
//! A rotation `R` is made of a skew matrix `Q`, by the first terms of the Cayley-Neumann series,
//! `I + 2Q + 2Q² + … + Q^k ≈ (I + Q)(I − Q)⁻¹`, with PEFT's coefficients (the last one is 1, which is why its rotations
//! are less exact with an odd number of terms); or exactly as `(I − Q)(I + Q)⁻¹`, which turns the other way. So an adapter
//! that was trained with one is of no use with the other.
//!
//! COFT holds each `Q` within a small ball. PEFT projects the stored numbers in each forward pass. Here the projection is
//! a part of the function, and its gradient passes unchanged, so outputs and gradients of the same numbers are PEFT's. What is
//! stored is not projected: from the second step on, training differs from PEFT's where a `Q` has left the ball.

use burn::tensor::{Int, Tensor, TensorData};
use ft_core::layers::{AdapterKind, AdapterTensor, At, Merged, Stage};
use serde::{Deserialize, Serialize};

use super::block_rotation::{cayley, identity, rotate};
use crate::adapter_config::json_settings;
use crate::method::{Draw, Method, NewAdapter, Origin, QUERIES_AND_VALUES, Site, method};
use crate::{Common, Error, Result};

/// Settings of an OFT adapter (Qiu et al., 2023, arXiv:2306.07280).
///
/// The defaults are PEFT's; without `target_modules` it is put on queries and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OftConfig {
    /// The number of blocks, if `oft_block_size` is 0.
    pub r: usize,
    /// Features of a block, if `r` is 0. Where it does not divide the features of a layer, the nearest divisor is taken,
    /// and `r` likewise.
    pub oft_block_size: usize,
    /// A setting of PEFT that PEFT does not use. It must be 0 in new adapters.
    pub module_dropout: f64,
    /// Whether rotations stay near the identity.
    pub coft: bool,
    /// How near: the norm of each `Q` is at most `eps / √blocks`.
    pub eps: f64,
    /// Whether all blocks of a layer share one rotation.
    pub block_share: bool,
    /// Whether rotations are computed by a series, in place of an inverse.
    pub use_cayley_neumann: bool,
    /// How many terms the series has.
    pub num_cayley_neumann_terms: usize,
    /// Whether the rotations begin as the identity.
    pub init_weights: bool,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for OftConfig {
    fn default() -> Self {
        Self {
            r: 0,
            oft_block_size: 32,
            module_dropout: 0.0,
            coft: false,
            eps: 6e-5,
            block_share: false,
            use_cayley_neumann: true,
            num_cayley_neumann_terms: 5,
            init_weights: true,
            common: Common::default(),
        }
    }
}

json_settings!(OftConfig);

impl OftConfig {
    /// The features of a block of a layer.
    fn block_of(&self, features: usize, path: &str) -> Result<usize> {
        let (setting, wanted) = match self.r {
            0 => ("oft_block_size", self.oft_block_size),
            r => ("r", r),
        };
        let taken = nearest_divisor(features, wanted);
        if taken != wanted {
            tracing::warn!(
                "{path} has {features} input features, which {setting} = {wanted} does not divide: {taken} is taken"
            );
        }
        let block = match self.r {
            0 => taken,
            _ => features / taken,
        };
        match block {
            1 => Err(Error::Settings(format!(
                "{setting} = {wanted} makes blocks of one feature of the {features} of {path}, which cannot turn: choose \
                 a number that leaves larger blocks, or exclude the layer"
            ))),
            block => Ok(block),
        }
    }
}

/// The divisor of `features` that is nearest to `wanted`; of two the smaller one.
fn nearest_divisor(features: usize, wanted: usize) -> usize {
    let divides = |n: &usize| features.is_multiple_of(*n);
    let above = (wanted..features).find(divides).unwrap_or(features);
    let below = (1..=wanted.min(features)).rev().find(divides).unwrap_or(1);
    match wanted.abs_diff(below) <= above.abs_diff(wanted) {
        true => below,
        false => above,
    }
}

impl Method for OftConfig {
    method!("OFT");

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        match (self.r, self.oft_block_size) {
            (0, 0) => mistakes.push("one of r and oft_block_size must be above 0".to_string()),
            (1.., 1..) => mistakes.push(format!(
                "r = {} and oft_block_size = {} are both above 0: set one of them to 0",
                self.r, self.oft_block_size
            )),
            _ => {}
        }
        if !(0.0..1.0).contains(&self.module_dropout) {
            let dropout = self.module_dropout;
            mistakes.push(format!(
                "module_dropout must be at least 0 and below 1, not {dropout}"
            ));
        }
        if self.coft && !(self.eps.is_finite() && self.eps > 0.0) {
            mistakes.push(format!("eps must be above 0, not {}", self.eps));
        }
        if self.use_cayley_neumann && self.num_cayley_neumann_terms < 2 {
            mistakes.push(format!(
                "num_cayley_neumann_terms must be at least 2, not {}: the first term is the identity",
                self.num_cayley_neumann_terms
            ));
        }
        mistakes
    }

    fn refuses(&self, origin: Origin) -> Option<String> {
        let unused = origin == Origin::New && self.module_dropout != 0.0;
        unused.then(|| "module_dropout has no effect on OFT: leave it out".into())
    }

    fn tells_layout(&self) -> bool {
        true
    }

    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        &QUERIES_AND_VALUES
    }

    fn bias_only(&self) -> Option<&'static str> {
        Some("oft_only")
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let features = site.linear()?.in_features();
        let block = self.block_of(features, site.path)?;
        let blocks = match self.block_share {
            true => 1,
            false => features / block,
        };
        let shape = [blocks, block * (block - 1) / 2];
        let upper = match self.init_weights {
            true => draw.zeros(shape),
            false => draw.normal(shape, 0.1),
        };
        let kind = Oft {
            block,
            ball: self.coft.then(|| self.eps / (blocks as f64).sqrt()),
            terms: self
                .use_cayley_neumann
                .then_some(self.num_cayley_neumann_terms),
        };
        Ok(NewAdapter::new(kind, vec![AdapterTensor::new(R, upper)]))
    }
}

/// The upper triangles of the skew matrices, row by row: `[blocks, b(b − 1)/2]`.
const R: &str = "oft_R.weight";

/// A rotation of each block of the input.
#[derive(Clone, Copy, Debug)]
struct Oft {
    /// Features of a block.
    block: usize,
    /// The largest norm of a skew matrix.
    ball: Option<f64>,
    /// Terms of the series; none for the exact rotation.
    terms: Option<usize>,
}

impl Oft {
    /// `[blocks, b, b]`
    fn rotations(&self, upper: Tensor<2>) -> Tensor<3> {
        let upper = match self.ball {
            Some(ball) => project(upper, ball),
            None => upper,
        };
        let q = skew(upper, self.block);
        match self.terms {
            Some(terms) => series(q, terms),
            None => cayley(q),
        }
    }
}

/// Skew matrices `[blocks, b, b]` of their upper triangles.
fn skew(upper: Tensor<2>, b: usize) -> Tensor<3> {
    let (blocks, device) = (upper.dims()[0], upper.device());
    let place = |i: usize, j: usize| i * b - i * (i + 1) / 2 + j - i - 1;
    let cells = (0..b * b).map(|cell| match (cell / b, cell % b) {
        (i, j) if i < j => (place(i, j) as i64, 1.0),
        (i, j) if i > j => (place(j, i) as i64, -1.0),
        _ => (0, 0.0),
    });
    let (places, signs): (Vec<i64>, Vec<f32>) = cells.unzip();
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [b * b]), &device);
    let signs = Tensor::<2>::from_data(TensorData::new(signs, [1, b * b]), &device);
    (upper.select(1, places) * signs).reshape([blocks, b, b])
}

/// `I + 2Q + 2Q² + … + 2Q^(k−2) + Q^(k−1)` with `k` terms, as PEFT adds them: with 2 terms `I + 2Q`, with 3 the same as
/// with 4.
fn series(q: Tensor<3>, terms: usize) -> Tensor<3> {
    let sum = identity(q.dims()[1], &q.device()) + q.clone() * 2.0;
    if terms == 2 {
        return sum;
    }
    let mut power = q.clone().matmul(q.clone());
    let mut sum = sum + power.clone() * 2.0;
    for _ in 3..terms - 1 {
        power = power.matmul(q.clone());
        sum = sum + power.clone() * 2.0;
    }
    sum + power.matmul(q)
}

/// The nearest skew matrices of norm `ball` or less, by their upper triangles. The gradient passes unchanged.
fn project(upper: Tensor<2>, ball: f64) -> Tensor<2> {
    let fixed = upper.clone().detach();
    let norm = (fixed.clone().square().sum_dim(1) * 2.0).sqrt();
    let shrink = (norm.clamp_min(ball).recip()) * ball;
    fixed.clone() * shrink + (upper - fixed)
}

impl AdapterKind for Oft {
    fn input(&self, at: &At<'_>, x: &Tensor<2>) -> Option<Tensor<2>> {
        Some(rotate(x.clone(), self.rotations(at.adapter.val2(R))))
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let back = self.rotations(at.adapter.val2(R)).transpose();
        Some(Merged {
            weight: rotate(merged.weight, back),
            ..merged
        })
    }

    fn stage(&self) -> Stage {
        Stage::Input
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_size_moves_to_the_nearest_divisor() {
        for (features, wanted, taken) in [
            (576, 32, 32),
            (40, 32, 40),
            (48, 32, 24),
            (24, 7, 6),
            (24, 32, 24),
            (7, 3, 1),
        ] {
            assert_eq!(
                nearest_divisor(features, wanted),
                taken,
                "{features} {wanted}"
            );
        }
    }

    fn upper(device: &Device) -> Tensor<2> {
        Tensor::from_data([[0.1, -0.2, 0.05], [0.0, 0.3, -0.1]], device)
    }

    /// `Q` of (0.1, −0.2, 0.05), and the two rotations undo each other: `(I + Q)(I − Q)⁻¹·(I − Q)(I + Q)⁻¹ = I`.
    #[test]
    fn the_series_turns_back_what_the_exact_rotation_turns() {
        let device = Device::default();
        let q = skew(upper(&device), 3);
        let expected = [[0.0f32, 0.1, -0.2], [-0.1, 0.0, 0.05], [0.2, -0.05, 0.0]];
        let first = q.clone().narrow(0, 0, 1).squeeze_dim::<2>(0);
        first
            .into_data()
            .assert_eq(&TensorData::from(expected), true);
        let both = series(q.clone(), 40).matmul(cayley(q));
        let off = (both - identity(3, &device))
            .abs()
            .max()
            .into_scalar::<f32>();
        assert!(off < 1e-5, "{off}");
    }

    /// With `‖Q‖ = √2·‖upper‖`: of norm 0.324 the first shrinks to 0.1, of norm 0.447 the second.
    #[test]
    fn the_projection_shrinks_to_the_ball_and_leaves_the_gradient() {
        let device = Device::default().autodiff();
        let upper = upper(&device).require_grad();
        let inside = project(upper.clone(), 1.0);
        inside.to_data().assert_eq(&upper.to_data(), true);
        let projected = project(upper.clone(), 0.1);
        let norms = (projected.clone().square().sum_dim(1) * 2.0)
            .sqrt()
            .into_data();
        for norm in norms.iter::<f32>() {
            assert!((norm - 0.1).abs() < 1e-6, "{norm}");
        }
        let gradient = upper.grad(&projected.sum().backward()).expect("a gradient");
        gradient.into_data().assert_eq(
            &Tensor::<2>::ones([2, 3], &Device::default()).into_data(),
            true,
        );
    }

    #[test]
    fn contradictions_are_reported() {
        let config = OftConfig {
            r: 4,
            num_cayley_neumann_terms: 1,
            ..OftConfig::default()
        };
        let message = config.validate().expect_err("wrong").to_string();
        assert!(
            message.contains("oft_block_size = 32") && message.contains("terms"),
            "{message}"
        );
    }
}
