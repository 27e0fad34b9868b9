//! Attention with linear biases (Press et al., 2022, arXiv:2108.12409), as Falcon-RW has them.
//!
//! A head adds `m·j/√d` to every score of the key at position `j`. That is one feature more a head: the query has one,
//! the key `m·j`, the value zero. So attention, its cache and its gradients stay as they are.

use burn::tensor::{Int, Tensor, TensorData};
use half::bf16;

/// The biases of a forward pass, `[batch or 1, heads, seq, 1]`, before their division by `√d`.
#[derive(Clone, Debug)]
pub struct Alibi(Tensor<4>);

impl Alibi {
    /// The biases of `heads` heads for keys at these positions, `[batch or 1, seq]`.
    ///
    /// Slopes and products are rounded to `bf16`, as in transformers and in the pretraining of Falcon-RW. Positions are
    /// read from the device for that.
    pub fn new(positions: &Tensor<2, Int>, heads: usize) -> Self {
        let [batch, seq] = positions.dims();
        let device = positions.device();
        let positions = positions.clone().into_data().convert::<i64>();
        let positions = positions.try_to_vec::<i64>().expect("converted to i64");
        let slopes: Vec<f32> = slopes(heads)
            .into_iter()
            .map(|slope| bf16::from_f64(slope).to_f32())
            .collect();
        let mut biases = Vec::with_capacity(batch * heads * seq);
        for row in positions.chunks(seq.max(1)) {
            for slope in &slopes {
                let bias = |position: &i64| {
                    let position = bf16::from_f32(*position as f32).to_f32();
                    bf16::from_f32(slope * position).to_f32()
                };
                biases.extend(row.iter().map(bias));
            }
        }
        let biases = TensorData::new(biases, [batch, heads, seq, 1]);
        Self(Tensor::from_data(biases, &device))
    }

    /// Queries, keys and values, `[batch, heads, seq, head_dim]` each, with the feature that adds the biases.
    pub fn add(&self, [q, k, v]: [Tensor<4>; 3]) -> [Tensor<4>; 3] {
        let [batch, heads, seq, _] = k.dims();
        let shape = [batch, heads, seq, 1];
        let device = k.device();
        let extend = |x, feature| Tensor::cat(vec![x, feature], 3);
        [
            extend(q, Tensor::ones(shape, &device)),
            extend(k, self.0.clone().expand(shape)),
            extend(v, Tensor::zeros(shape, &device)),
        ]
    }
}

/// `2^(−8i/n)` for `n` heads, a power of two; for other numbers those of the power below, and in between every other
/// of twice as many.
fn slopes(heads: usize) -> Vec<f64> {
    let power = |n: usize, i: usize| 2f64.powf(-8.0 * i as f64 / n as f64);
    let below = 1 << heads.max(1).ilog2();
    let first = (1..=below).map(|i| power(below, i));
    let between = (0..heads - below).map(|i| power(2 * below, 2 * i + 1));
    first.chain(between).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// As in PyTorch, where a 16-bit slope times a whole number is in 16 bits: position 257 is 256 there.
    /// 2^(-0.25) = 0.8409 is 0.83984 in bf16; times 256 it is 215.
    #[test]
    fn positions_round_before_the_product() {
        let alibi = Alibi::new(&Tensor::from_data([[257]], &Device::default()), 32);
        let biases = alibi.0.into_data().convert::<f32>();
        assert_eq!(biases.as_slice::<f32>().expect("f32")[0], 215.0);
    }

    #[test]
    fn slopes_fall_by_powers_of_two() {
        assert_eq!(slopes(4), [0.25, 0.0625, 0.015625, 0.00390625]);
        // Of eight heads the first and third.
        assert_eq!(slopes(6)[4..], [0.5, 0.125]);
    }
}
