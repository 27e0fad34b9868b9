//! `Σ x²` on a slice, in pieces of fixed size that are added in their order.

use burn::backend::Flex;
use burn::tensor::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::{contiguous, slice};

/// Numbers a piece.
const PIECE: usize = 1 << 15;

pub(crate) fn sum_of_squares<const D: usize>(x: Tensor<D>) -> f64 {
    let x = contiguous(x.try_into_primitive::<Flex>().expect("on Flex"));
    let pieces = slice(&x).par_chunks(PIECE);
    if pieces.len() == 1 {
        return of_piece(slice(&x));
    }
    let sums: Vec<f64> = pieces.map(of_piece).collect();
    sums.into_iter().sum()
}

/// In 32 lanes, whatever SIMD has, so that every processor adds in the same order.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn of_piece(x: &[f32]) -> f64 {
    let mut sums = [0.0f64; 32];
    let (lanes, rest) = x.as_chunks::<32>();
    for x in lanes {
        for (sum, x) in sums.iter_mut().zip(x) {
            let x = f64::from(*x);
            *sum += x * x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        let x = f64::from(*x);
        *sum += x * x;
    }
    sums.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    /// `Σ i²` for `i` below `n` is `(n − 1)·n·(2n − 1)/6`, of whole numbers without rounding.
    #[test]
    fn pieces_and_rests_are_all_counted() {
        for n in [0, 1, 31, 33, PIECE, PIECE + 1, 3 * PIECE + 45] {
            let numbers: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let x = Tensor::<1>::from_data(TensorData::new(numbers, [n]), &Device::default());
            let m = n as f64;
            let expected = ((m - 1.0) * m * (2.0 * m - 1.0) / 6.0).max(0.0);
            assert_eq!(sum_of_squares(x), expected, "{n}");
        }
    }
}
