//! A tensor that is computed again only when one of its inputs has changed.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Tensor;
use ft_kernels::Weight;

/// A vector and the matrices it was computed from, all outside any graph. Blocks of few bits are kept as they are.
///
/// On devices other than Burn's CPU backend, where [`is_same`](ft_kernels::is_same) is always false, the vector is computed
/// every time.
#[derive(Default)]
pub(crate) struct Memo(Mutex<Option<(Vec<Weight>, Tensor<1>)>>);

impl Memo {
    /// The vector that `compute` makes of the matrices `of`.
    pub(crate) fn get(&self, of: &[Weight], compute: impl FnOnce() -> Tensor<1>) -> Tensor<1> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, vector)) = &*kept
            && from.len() == of.len()
            && from.iter().zip(of).all(|(a, b)| is_same(a, b))
        {
            return vector.clone();
        }
        let vector = compute();
        *kept = ft_kernels::is_cpu(&vector.device()).then(|| (of.to_vec(), vector.clone()));
        vector
    }
}

fn is_same(a: &Weight, b: &Weight) -> bool {
    match (a, b) {
        (Weight::Dense(a), Weight::Dense(b)) => ft_kernels::is_same(a, b),
        (Weight::Packed(a), Weight::Packed(b)) => a.is_same(b),
        _ => false,
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bytes, Device, Tensor};
    use ft_kernels::{Packed, PackedFormat};

    use super::*;

    fn memo_of(memo: &Memo, x: &Tensor<2>, compute: impl FnOnce() -> Tensor<1>) -> Vec<f32> {
        let vector = memo.get(&[x.clone().into()], compute);
        vector.into_data().iter::<f32>().collect()
    }

    #[test]
    fn only_other_matrices_are_computed_again() {
        let device = Device::default();
        let a = Tensor::<2>::ones([2, 3], &device);
        let memo = Memo::default();
        let sums = |x: &Tensor<2>| x.clone().sum_dim(1).squeeze_dim(1);
        let first = memo_of(&memo, &a, || sums(&a));
        let kept = memo_of(&memo, &a, || unreachable!("the same matrix"));
        assert_eq!(kept, first);
        let other = a.clone() * 2.0;
        assert_ne!(memo_of(&memo, &other, || sums(&other)), first);
        assert_eq!(memo_of(&memo, &a, || sums(&a)), first);
    }

    #[test]
    fn blocks_are_known_by_their_words() {
        let device = Device::default();
        let packed = |byte: u8| {
            let bytes = Bytes::from_bytes_vec(vec![byte; 36]);
            Packed::from_bytes(PackedFormat::Q4_0, bytes, [2, 32], &device)
        };
        let (blocks, others) = (packed(1), packed(1));
        let memo = Memo::default();
        let get = |blocks: &Packed, compute: &dyn Fn() -> Tensor<1>| {
            memo.get(&[blocks.clone().into()], compute).dims()
        };
        assert_eq!(get(&blocks, &|| Tensor::ones([2], &device)), [2]);
        // Two handles of the same words, as each forward pass makes them.
        assert_eq!(get(&blocks, &|| unreachable!("the same blocks")), [2]);
        assert_eq!(get(&others, &|| Tensor::ones([3], &device)), [3]);
    }

    /// A tensor is changed in place only if nothing else holds it, so a matrix that is kept is never changed.
    #[test]
    fn a_matrix_that_changed_in_place_is_another() {
        let mut a = Tensor::<2>::ones([2, 3], &Device::default());
        let memo = Memo::default();
        let sum =
            |memo: &Memo, a: &Tensor<2>| memo_of(memo, a, || a.clone().sum_dim(1).squeeze_dim(1));
        assert_eq!(sum(&memo, &a), [3.0, 3.0]);
        a = a.mul_scalar(2.0);
        assert_eq!(sum(&memo, &a), [6.0, 6.0]);
        a = a.slice_fill([0..1, 0..1], 5.0);
        assert_eq!(sum(&memo, &a), [9.0, 6.0]);
    }
}
