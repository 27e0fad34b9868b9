//! A tensor that is computed again only when one of its inputs has changed.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Tensor;

/// A vector and the matrices it was computed from, all outside any graph.
///
/// On devices other than Burn's CPU backend, where [`is_same`](ft_kernels::is_same) is always false, the vector is computed
/// every time.
#[derive(Default)]
pub(crate) struct Memo(Mutex<Option<(Vec<Tensor<2>>, Tensor<1>)>>);

impl Memo {
    /// The vector that `compute` makes of the matrices `of`.
    pub(crate) fn get(&self, of: &[Tensor<2>], compute: impl FnOnce() -> Tensor<1>) -> Tensor<1> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, vector)) = &*kept
            && from.len() == of.len()
            && from.iter().zip(of).all(|(a, b)| ft_kernels::is_same(a, b))
        {
            return vector.clone();
        }
        let vector = compute();
        *kept = ft_kernels::is_cpu(&vector.device()).then(|| (of.to_vec(), vector.clone()));
        vector
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn only_other_matrices_are_computed_again() {
        let device = Device::default();
        let a = Tensor::<2>::ones([2, 3], &device);
        let memo = Memo::default();
        let sums = |x: &Tensor<2>| x.clone().sum_dim(1).squeeze_dim(1);
        let first = memo.get(std::slice::from_ref(&a), || sums(&a)).into_data();
        let kept = memo.get(std::slice::from_ref(&a), || unreachable!("the same matrix"));
        assert_eq!(kept.into_data(), first);
        let other = a.clone() * 2.0;
        assert_ne!(
            memo.get(std::slice::from_ref(&other), || sums(&other))
                .into_data(),
            first
        );
        assert_eq!(
            memo.get(std::slice::from_ref(&a), || sums(&a)).into_data(),
            first
        );
    }

    /// A tensor is changed in place only if nothing else holds it, so a matrix that is kept is never changed.
    #[test]
    fn a_matrix_that_changed_in_place_is_another() {
        let mut a = Tensor::<2>::ones([2, 3], &Device::default());
        let memo = Memo::default();
        let sum = |memo: &Memo, a: &Tensor<2>| {
            let vector = memo.get(std::slice::from_ref(a), || {
                a.clone().sum_dim(1).squeeze_dim(1)
            });
            vector.into_data().iter::<f32>().collect::<Vec<_>>()
        };
        assert_eq!(sum(&memo, &a), [3.0, 3.0]);
        a = a.mul_scalar(2.0);
        assert_eq!(sum(&memo, &a), [6.0, 6.0]);
        a = a.slice_fill([0..1, 0..1], 5.0);
        assert_eq!(sum(&memo, &a), [9.0, 6.0]);
    }
}
