//! Factors of the nearest matrix of a rank, cut where they are largest.

use burn::tensor::{Tensor, TensorData};

/// Factors without the numbers beyond ± the quantile `clamp` of both.
pub(super) fn clamped(factors: [Tensor<2>; 2], clamp: Option<f64>) -> [Tensor<2>; 2] {
    let Some(clamp) = clamp else {
        return factors;
    };
    let numbers = factors.iter().flat_map(|factor| host(factor.to_data()));
    let bound = quantile(numbers.collect(), clamp);
    // A quantile of mostly negative numbers is negative; as in PyTorch, all numbers are the upper bound then.
    factors.map(|factor| factor.clamp_min(-bound).clamp_max(bound))
}

fn host(data: TensorData) -> Vec<f32> {
    data.try_to_vec().expect("decompositions are f32")
}

/// The number below which a share of the numbers lies, with linear interpolation.
fn quantile(mut numbers: Vec<f32>, share: f64) -> f32 {
    numbers.sort_by(f32::total_cmp);
    let place = share * (numbers.len() - 1) as f64;
    let (below, above) = (
        numbers[place.floor() as usize],
        numbers[place.ceil() as usize],
    );
    below + (above - below) * place.fract() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        let numbers = vec![4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(numbers.clone(), 1.0), 4.0);
        // 0.5 · 3 = 1.5: between the second and the third
        assert_eq!(quantile(numbers, 0.5), 2.5);
    }
}
