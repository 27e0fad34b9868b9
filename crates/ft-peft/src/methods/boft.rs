//! BOFT: Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization (Liu et al., 2023, arXiv:2311.06243),
//! equation 4, with PEFT's scales: `y = s ⊙ (W·(B_m ⋯ B₁)ᵀ·x) + b`.
//!
//! A factor is `Bᵢ = Pᵢ·diag(R_i1, …, R_in)·Pᵢᵀ`, with a permutation `Pᵢ` that brings features of ever more distant
//! blocks together, and Cayley's rotations `R = (I − Q)(I + Q)⁻¹` of `Q = (D − Dᵀ)/2`. The factors act on activations
//! one after another: no matrix of the size of the layer's input squared is made.
//!
//! Without its CUDA extension PEFT makes one factor, whatever `boft_n_butterfly_factor` is. Here it is the number of
//! factors, and a file with another number is an error.

use burn::tensor::{Distribution, Int, Tensor, TensorData};
use ft_core::layers::{AdapterKind, AdapterTensor, At, Merged, Stage};
use serde::{Deserialize, Serialize};

use super::block_rotation::{cayley, identity, rotate};
use crate::adapter_config::json_settings;
use crate::method::{Draw, Method, NewAdapter, QUERIES_AND_VALUES, Site, method};
use crate::{Common, Error, Result};

/// Settings of a BOFT adapter (Liu et al., 2023, arXiv:2311.06243).
///
/// The defaults are PEFT's; without `target_modules` it is put on queries and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoftConfig {
    /// Features of a block, if `boft_block_num` is 0. It must divide the features of every layer.
    pub boft_block_size: usize,
    /// The number of blocks, if `boft_block_size` is 0.
    pub boft_block_num: usize,
    /// How many factors there are: each mixes twice as many features as the one before.
    pub boft_n_butterfly_factor: usize,
    /// The share of the blocks, of one factor, that do not turn in a step of training.
    pub boft_dropout: f64,
    /// Whether the rotations begin as the identity and the scales as one.
    pub init_weights: bool,
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

impl Default for BoftConfig {
    fn default() -> Self {
        Self {
            boft_block_size: 4,
            boft_block_num: 0,
            boft_n_butterfly_factor: 1,
            boft_dropout: 0.0,
            init_weights: true,
            common: Common::default(),
        }
    }
}

json_settings!(BoftConfig);

impl BoftConfig {
    /// The features of a block of a layer.
    fn block_of(&self, features: usize, path: &str) -> Result<usize> {
        let (setting, wanted) = match self.boft_block_num {
            0 => ("boft_block_size", self.boft_block_size),
            number => ("boft_block_num", number),
        };
        let refused = |reason: String| {
            Err(Error::Settings(format!(
                "{path} has {features} input features: {reason}; choose other numbers, or exclude the layer"
            )))
        };
        if !features.is_multiple_of(wanted) {
            return refused(format!("{setting} = {wanted} does not divide them"));
        }
        let block = match self.boft_block_num {
            0 => wanted,
            number => features / number,
        };
        if block < 2 {
            return refused(format!(
                "{setting} = {wanted} makes blocks of one, which cannot turn"
            ));
        }
        let factors = self.boft_n_butterfly_factor;
        if factors > 1 {
            let together = 1usize
                .checked_shl(factors as u32 - 1)
                .and_then(|blocks| blocks.checked_mul(block));
            if block % 2 != 0 || together.is_none_or(|together| !features.is_multiple_of(together))
            {
                return refused(format!(
                    "boft_n_butterfly_factor = {factors} needs blocks of an even size, and a number of blocks that \
                     2^{} divides, not {} blocks of {block}",
                    factors - 1,
                    features / block
                ));
            }
        }
        Ok(block)
    }
}

impl Method for BoftConfig {
    method!("BOFT");

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        match (self.boft_block_num, self.boft_block_size) {
            (0, 0) => mistakes.push("one of boft_block_size and boft_block_num must be above 0".to_string()),
            (1.., 1..) => mistakes.push(format!(
                "boft_block_num = {} and boft_block_size = {} are both above 0: set one of them to 0",
                self.boft_block_num, self.boft_block_size
            )),
            _ => {}
        }
        if self.boft_n_butterfly_factor == 0 {
            mistakes.push("boft_n_butterfly_factor must be at least 1".to_string());
        }
        if !(0.0..1.0).contains(&self.boft_dropout) {
            let dropout = self.boft_dropout;
            mistakes.push(format!(
                "boft_dropout must be at least 0 and below 1, not {dropout}"
            ));
        }
        mistakes
    }

    fn tells_layout(&self) -> bool {
        true
    }

    fn default_targets(&self) -> &'static [&'static [&'static str]] {
        &QUERIES_AND_VALUES
    }

    fn bias_only(&self) -> Option<&'static str> {
        Some("boft_only")
    }

    fn on(&self, site: &Site<'_>, draw: &mut Draw<'_>) -> Result<NewAdapter> {
        let linear = site.linear()?;
        let features = linear.in_features();
        let block = self.block_of(features, site.path)?;
        let shape = [self.boft_n_butterfly_factor, features / block, block, block];
        let scales = draw.ones([linear.out_features(), 1]);
        let (rotations, scales) = match self.init_weights {
            true => (draw.zeros(shape), scales),
            false => {
                let noise = draw.normal([linear.out_features(), 1], 0.1);
                (draw.normal(shape, 0.1), scales + noise)
            }
        };
        let tensors = vec![
            AdapterTensor::new(R, rotations),
            AdapterTensor::new(S, scales),
        ];
        Ok(NewAdapter {
            dropout: self.boft_dropout,
            ..NewAdapter::new(Boft, tensors)
        })
    }
}

/// `D`, `[factors, blocks, b, b]`.
const R: &str = "boft_R";
/// `[out_features, 1]`.
const S: &str = "boft_s";

/// Rotations of ever wider groups of features of the input, and a scale of each feature of the output.
#[derive(Clone, Copy, Debug)]
struct Boft;

impl Boft {
    /// `[factors, blocks, b, b]`
    fn rotations(at: &At<'_>) -> Tensor<4> {
        let d = at.adapter.val4(R);
        let [factors, blocks, b, _] = d.dims();
        let q = (d.clone() - d.transpose()) * 0.5;
        cayley(q.reshape([factors * blocks, b, b])).reshape([factors, blocks, b, b])
    }

    /// `x·B`, of the factor of this number and its rotations.
    fn turn(x: Tensor<2>, factor: usize, rotations: Tensor<4>) -> Tensor<2> {
        let [factors, _, b, _] = rotations.dims();
        let blocks = rotations.narrow(0, factor, 1).squeeze_dim(0);
        if factors == 1 {
            return rotate(x, blocks);
        }
        let order = butterfly(x.dims()[1], b, factor);
        let mut back = vec![0; order.len()];
        (order.iter().enumerate()).for_each(|(place, from)| back[*from as usize] = place as i64);
        let [back, order] = [back, order].map(|places| {
            let count = places.len();
            Tensor::<1, Int>::from_data(TensorData::new(places, [count]), &x.device())
        });
        rotate(x.select(1, back), blocks).select(1, order)
    }
}

/// The feature that stands at each place before a factor turns: in groups of `b·2^factor` features, half blocks at even
/// places come before those at odd places.
fn butterfly(features: usize, b: usize, factor: usize) -> Vec<i64> {
    let half = b / 2;
    let halves = 2 << factor;
    let order = (0..halves).step_by(2).chain((1..halves).step_by(2));
    let group: Vec<usize> = order
        .flat_map(|place| place * half..(place + 1) * half)
        .collect();
    let starts = (0..features).step_by(group.len());
    starts
        .flat_map(|start| group.iter().map(move |place| (start + place) as i64))
        .collect()
}

/// Some rotations replaced with the identity: a share `p` of the blocks of one factor.
fn drop_out(rotations: Tensor<4>, p: f64) -> Tensor<4> {
    let [factors, blocks, b, _] = rotations.dims();
    let device = rotations.device();
    let count = (p * blocks as f64) as i64;
    let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Default, &device);
    let draws = random([factors, 1]);
    let factor = draws.clone().equal(draws.max_dim(0)).float();
    let block = random([1, blocks])
        .argsort(1)
        .argsort(1)
        .lower_scalar(count)
        .float();
    let dropped = factor.matmul(block).reshape([factors, blocks, 1, 1]);
    let identity = identity(b, &device).unsqueeze::<4>();
    rotations * (-dropped.clone() + 1.0) + identity * dropped
}

impl AdapterKind for Boft {
    fn input(&self, at: &At<'_>, x: &Tensor<2>) -> Option<Tensor<2>> {
        let mut rotations = Self::rotations(at);
        if at.adapter.drops_out(x) {
            rotations = drop_out(rotations, at.adapter.dropout.prob);
        }
        let factors = 0..rotations.dims()[0];
        Some(factors.rev().fold(x.clone(), |x, factor| {
            Self::turn(x, factor, rotations.clone())
        }))
    }

    fn product(&self, at: &At<'_>, _: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        y * at.adapter.val2(S).transpose()
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        let back = Self::rotations(at).transpose();
        let factors = 0..back.dims()[0];
        let turned = factors.fold(merged.weight, |w, factor| {
            Self::turn(w, factor, back.clone())
        });
        Some(Merged {
            weight: turned * at.adapter.val2(S),
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

    /// Blocks of 4: the first factor leaves the features as they are, the second pairs halves of two blocks, the third of
    /// four.
    #[test]
    fn a_factor_brings_halves_of_distant_blocks_together() {
        assert_eq!(butterfly(8, 4, 0), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(butterfly(8, 4, 1), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(butterfly(8, 2, 2), [0, 2, 4, 6, 1, 3, 5, 7]);
    }

    #[test]
    fn dropout_leaves_the_identity_in_blocks_of_one_factor() {
        let device = Device::default();
        let ones = Tensor::<4>::ones([3, 5, 2, 2], &device);
        let dropped = drop_out(ones, 0.5).into_data();
        let numbers: Vec<f32> = dropped.iter().collect();
        let identity = |block: &&[f32]| **block == [1.0, 0.0, 0.0, 1.0];
        let counts = numbers
            .chunks(20)
            .map(|factor| factor.chunks(4).filter(identity).count());
        let mut counts: Vec<usize> = counts.collect();
        counts.sort();
        assert_eq!(counts, [0, 0, 2]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_explained() {
        let config = |size, number, factors| BoftConfig {
            boft_block_size: size,
            boft_block_num: number,
            boft_n_butterfly_factor: factors,
            ..BoftConfig::default()
        };
        assert_eq!(config(4, 0, 2).block_of(24, "q").expect("fits"), 4);
        assert_eq!(config(0, 4, 1).block_of(24, "q").expect("fits"), 6);
        for (config, reason) in [
            (config(5, 0, 1), "does not divide"),
            (config(4, 0, 3), "2^2"),
            (config(3, 0, 2), "even"),
            (config(4, 0, 100), "2^99"),
            (config(1, 0, 1), "cannot turn"),
        ] {
            let message = config.block_of(24, "q").expect_err("wrong").to_string();
            assert!(message.contains(reason), "{message}");
        }
        assert!(config(4, 4, 1).validate().is_err());
        assert!(config(0, 0, 1).validate().is_err());
    }
}
