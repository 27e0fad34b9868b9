//! Rotary frequencies with the scalings that long-context models use.
//!
//! Plain: `θ_i = base^(−2i/d)` (Su et al., 2021, arXiv:2104.09864). Linear: positions divided by
//! the factor (Chen et al., 2023, arXiv:2306.15595). Llama 3: long wavelengths divided by the factor,
//! short ones kept, a smooth step in between (the Llama 3 report, arXiv:2407.21783, and transformers'
//! `llama3`). YaRN: the same idea by number of rotations, with attention scaled by
//! `0.1·ln(factor) + 1` (Peng et al., 2023, arXiv:2309.00071, equations 17 to 22). Dynamic: beyond the context of
//! pretraining the base grows with the length of the text, `base·(factor·length/context − (factor − 1))^(d/(d−2))`
//! (transformers' `dynamic`). LongRoPE: a divisor for each frequency, of one list within the context and of another
//! beyond it, and attention scaled by `√(1 + ln(factor)/ln(context))` (Ding et al., 2024, arXiv:2402.13753).

use std::borrow::Cow;
use std::f64::consts::PI;

use burn::tensor::{Device, Int, Tensor};

use crate::layers::rope_scaling::RopeScaling;

/// Frequencies of a model's rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Half as many angular frequencies as features rotate, radians a token.
    inv_freq: Vec<f32>,
    /// The frequencies of passes that go beyond the context of pretraining, where they differ.
    beyond: Option<Beyond>,
    /// Factor on both cosine and sine; 1 except for YaRN and LongRoPE.
    attention_factor: f64,
}

/// Frequencies that depend on the longest position of a pass.
#[derive(Clone, Debug, PartialEq)]
struct Beyond {
    /// Context of pretraining, in tokens.
    context: usize,
    frequencies: Frequencies,
}

#[derive(Clone, Debug, PartialEq)]
enum Frequencies {
    /// The same for every length.
    Long(Vec<f32>),
    /// Of a base that grows with the length.
    Dynamic { theta: f64, factor: f64 },
}

impl Rope {
    /// The frequencies of heads of which `rotated` features rotate.
    pub fn new(rotated: usize, theta: f64, scaling: &RopeScaling) -> Self {
        let plain = plain(rotated, theta);
        let mut attention_factor = 1.0;
        let mut beyond = None;
        let scaled: Vec<f64> = match scaling {
            RopeScaling::Default => plain,
            RopeScaling::Linear { factor } => plain.iter().map(|f| f / factor).collect(),
            RopeScaling::Dynamic {
                factor,
                original_max_position_embeddings,
            } => {
                beyond = Some(Beyond {
                    context: *original_max_position_embeddings,
                    frequencies: Frequencies::Dynamic {
                        theta,
                        factor: *factor,
                    },
                });
                plain
            }
            RopeScaling::LongRope {
                factor,
                original_max_position_embeddings,
                short_factor,
                long_factor,
                attention_factor: given,
            } => {
                let context = *original_max_position_embeddings;
                attention_factor = given.unwrap_or_else(|| match *factor > 1.0 {
                    true => (1.0 + factor.ln() / (context as f64).ln()).sqrt(),
                    false => 1.0,
                });
                let divided = |by: &[f64]| plain.iter().zip(by).map(|(f, by)| f / by).collect();
                beyond = Some(Beyond {
                    context,
                    frequencies: Frequencies::Long(narrowed(divided(long_factor))),
                });
                divided(short_factor)
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let context = *original_max_position_embeddings as f64;
                plain
                    .iter()
                    .map(|&f| {
                        let rotations = context * f / (2.0 * PI);
                        let smooth =
                            (rotations - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        let smooth = smooth.clamp(0.0, 1.0);
                        (1.0 - smooth) * f / factor + smooth * f
                    })
                    .collect()
            }
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                attention_factor: given,
                mscale,
                mscale_all_dim,
                truncate,
            } => {
                attention_factor =
                    given.unwrap_or_else(|| yarn_attention(*factor, *mscale, *mscale_all_dim));
                let context = *original_max_position_embeddings as f64;
                // The dimension at which a head turns `rotations` times over the context.
                let dimension = |rotations: f64| {
                    rotated as f64 * (context / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (dimension(*beta_fast), dimension(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let low = low.max(0.0);
                let mut high = high.min(rotated as f64 - 1.0);
                if low == high {
                    high += 0.001;
                }
                plain
                    .iter()
                    .enumerate()
                    .map(|(i, &f)| {
                        let interpolated = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                        interpolated * f / factor + (1.0 - interpolated) * f
                    })
                    .collect()
            }
        };
        Self {
            inv_freq: narrowed(scaled),
            beyond,
            attention_factor,
        }
    }

    /// The angles of each position, `[batch or 1, seq]`.
    ///
    /// Dynamic scaling and LongRoPE choose the frequencies by the longest position of all rows, as transformers does,
    /// and read it from the device for that. Keys in a cache stay as they were rotated.
    pub fn angles(&self, positions: Tensor<2, Int>) -> Angles {
        let [batch, seq] = positions.dims();
        let device: Device = positions.device();
        let inv_freq = match &self.beyond {
            Some(beyond) => {
                let longest = positions.clone().max().into_scalar::<i64>() + 1;
                self.frequencies(beyond, longest as usize)
            }
            None => Cow::Borrowed(self.inv_freq.as_slice()),
        };
        let inv_freq = Tensor::<1>::from_data(&*inv_freq, &device);
        let half = self.inv_freq.len();
        let angles =
            positions.float().reshape([batch, 1, seq, 1]) * inv_freq.reshape([1, 1, 1, half]);
        Angles {
            cos: angles.clone().cos() * self.attention_factor,
            sin: angles.sin() * self.attention_factor,
        }
    }

    /// The frequencies of a pass over `longest` tokens.
    fn frequencies(&self, beyond: &Beyond, longest: usize) -> Cow<'_, [f32]> {
        if longest <= beyond.context {
            return Cow::Borrowed(&self.inv_freq);
        }
        match &beyond.frequencies {
            Frequencies::Long(long) => Cow::Owned(long.clone()),
            Frequencies::Dynamic { theta, factor } => {
                let rotated = 2 * self.inv_freq.len();
                let times = longest as f64 / beyond.context as f64;
                let power = rotated as f64 / (rotated as f64 - 2.0);
                let theta = theta * (factor * times - (factor - 1.0)).powf(power);
                Cow::Owned(narrowed(plain(rotated, theta)))
            }
        }
    }
}

/// `θ^(−2i/d)`.
fn plain(rotated: usize, theta: f64) -> Vec<f64> {
    (0..rotated / 2)
        .map(|i| theta.powf(-(2.0 * i as f64) / rotated as f64))
        .collect()
}

fn narrowed(frequencies: Vec<f64>) -> Vec<f32> {
    frequencies.into_iter().map(|f| f as f32).collect()
}

/// Cosine and sine of each position's angles, `[batch or 1, 1, seq, half the rotated width]` each: what all layers of
/// a forward pass share.
#[derive(Clone, Debug)]
pub struct Angles {
    /// Cosines.
    pub cos: Tensor<4>,
    /// Sines.
    pub sin: Tensor<4>,
}

impl Angles {
    /// Rotates heads, `[batch, heads, seq, head_dim]`, by their positions. Where the angles are for fewer features than
    /// a head has, the rest of each head stays as it is.
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let (width, rotated) = (x.dims()[3], 2 * self.cos.dims()[3]);
        if rotated == width {
            return ft_kernels::apply_rotary(x, &self.cos, &self.sin);
        }
        let first = x.clone().narrow(3, 0, rotated);
        let rest = x.narrow(3, rotated, width - rotated);
        let first = ft_kernels::apply_rotary(first, &self.cos, &self.sin);
        Tensor::cat(vec![first, rest], 3)
    }
}

/// YaRN's scaling of the attention, as transformers computes it.
pub(crate) fn yarn_attention(factor: f64, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
    let scale = |mscale: f64| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * mscale * factor.ln() + 1.0
        }
    };
    match (mscale, mscale_all_dim) {
        (Some(a), Some(b)) if a != 0.0 && b != 0.0 => scale(a) / scale(b),
        _ => scale(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_frequencies_fall_from_one_by_powers_of_the_base() {
        let rope = Rope::new(4, 100.0, &RopeScaling::Default);
        // 100^0 and 100^(-2/4)
        assert_eq!(rope.inv_freq, vec![1.0, 0.1]);
    }

    #[test]
    fn linear_scaling_divides_every_frequency() {
        let rope = Rope::new(4, 100.0, &RopeScaling::Linear { factor: 4.0 });
        assert_eq!(rope.inv_freq, vec![0.25, 0.025]);
    }

    #[test]
    fn llama3_scaling_keeps_short_waves_and_divides_long_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        };
        let rope = Rope::new(4, 1e6, &scaling);
        // 64·1/2π = 10.2 rotations: kept; 64·0.001/2π = 0.01 rotations: divided by 8.
        assert_eq!(rope.inv_freq[0], 1.0);
        assert!((rope.inv_freq[1] - 0.001 / 8.0).abs() < 1e-9);
    }

    #[test]
    fn the_base_grows_with_the_pass_beyond_the_context_of_pretraining() {
        let scaling = RopeScaling::Dynamic {
            factor: 2.0,
            original_max_position_embeddings: 8,
        };
        let rope = Rope::new(4, 100.0, &scaling);
        let beyond = rope.beyond.as_ref().expect("depends on the length");
        assert_eq!(*rope.frequencies(beyond, 8), [1.0, 0.1]);
        // 100·(2·12/8 − 1)² = 400, and 400^(-1/2) = 0.05
        let found = rope.frequencies(beyond, 12);
        assert!((found[1] - 0.05).abs() < 1e-8, "{found:?}");
    }

    #[test]
    fn longrope_divides_by_the_list_for_the_length() {
        let scaling = RopeScaling::LongRope {
            factor: 4.0,
            original_max_position_embeddings: 16,
            short_factor: vec![1.0, 2.0],
            long_factor: vec![4.0, 5.0],
            attention_factor: None,
        };
        let rope = Rope::new(4, 100.0, &scaling);
        let beyond = rope.beyond.as_ref().expect("depends on the length");
        assert_eq!(*rope.frequencies(beyond, 16), [1.0, 0.05]);
        assert_eq!(*rope.frequencies(beyond, 17), [0.25, 0.02]);
        // √(1 + ln 4 / ln 16) = √1.5
        assert!((rope.attention_factor - 1.5f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn positions_turn_by_frequency() {
        let device = Device::default();
        let rope = Rope::new(2, 10.0, &RopeScaling::Default);
        let Angles { cos, sin } = rope.angles(Tensor::from_data([[0, 2]], &device));
        let cos = cos.into_data().try_to_vec::<f32>().expect("f32");
        let sin = sin.into_data().try_to_vec::<f32>().expect("f32");
        assert!((cos[0] - 1.0).abs() < 1e-6 && (cos[1] - 2f32.cos()).abs() < 1e-6);
        assert!(sin[0].abs() < 1e-6 && (sin[1] - 2f32.sin()).abs() < 1e-6);
    }
}
