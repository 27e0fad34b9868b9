//! Whether two tensors are the same numbers in the same memory.

use burn::tensor::Tensor;

/// Whether `a` and `b` are the same view of the same memory.
///
/// While a clone of a tensor exists, nobody writes into its memory, since operations in place need a tensor that they own
/// alone. So a result can be kept beside clones of the tensors it was computed from: it is up to date as long as they are
/// the same as the present ones.
///
/// Always false on devices other than Burn's CPU backend.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use ft_kernels::is_same;
///
/// let a = Tensor::<1>::from_data([1.0, 2.0], &Device::default());
/// assert!(is_same(&a, &a.clone()));
/// assert!(!is_same(&a, &(a.clone() * 1.0)));
/// ```
pub fn is_same<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> bool {
    #[cfg(feature = "cpu")]
    return crate::flex::is_same(a, b);
    #[cfg(not(feature = "cpu"))]
    {
        let (_, _) = (a, b);
        false
    }
}
