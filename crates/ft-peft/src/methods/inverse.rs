//! Inverses of many small matrices, with their gradient.

use burn::tensor::{Tensor, TensorData};

/// The inverse of each matrix.
///
/// It is found on the host in `f64`, outside the graph. One step of Newton's method, `N(2I − AN) = 2N − NAN` (Schulz,
/// 1933), then corrects the rounding to `f32` and has the derivative of the inverse, `−N·dA·N`.
///
/// Elimination takes the pivots as they come. The matrices must be triangular, or their symmetric part positive
/// definite, as of `I + Q` with a skew `Q`: the pivots are then not small.
///
/// # Shapes
///
/// - `a`: `[matrices, n, n]`
/// - output: the same
pub(crate) fn inverse(a: Tensor<3>) -> Tensor<3> {
    let [_, n, _] = a.dims();
    let mut numbers: Vec<f64> = a.to_data().iter::<f64>().collect();
    for matrix in numbers.chunks_exact_mut(n * n) {
        invert(matrix, n);
    }
    let numbers: Vec<f32> = numbers.into_iter().map(|x| x as f32).collect();
    let near = Tensor::from_data(TensorData::new(numbers, a.dims()), &a.device());
    near.clone() * 2.0 - near.clone().matmul(a).matmul(near)
}

/// Gauss and Jordan's elimination in place.
fn invert(matrix: &mut [f64], n: usize) {
    for k in 0..n {
        let pivot = 1.0 / matrix[k * n + k];
        matrix[k * n + k] = 1.0;
        matrix[k * n..(k + 1) * n]
            .iter_mut()
            .for_each(|x| *x *= pivot);
        let (above, rest) = matrix.split_at_mut(k * n);
        let (row, below) = rest.split_at_mut(n);
        for other in above.chunks_exact_mut(n).chain(below.chunks_exact_mut(n)) {
            let factor = std::mem::take(&mut other[k]);
            for (x, y) in other.iter_mut().zip(&*row) {
                *x -= factor * y;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// `[[1, 2], [-2, 1]]⁻¹ = [[1, -2], [2, 1]] / 5`, and `Σ A⁻¹` has the gradient `−A⁻ᵀ·1·A⁻ᵀ`.
    #[test]
    fn value_and_gradient_are_those_of_the_inverse() {
        let device = Device::default().autodiff();
        let a = Tensor::<3>::from_data(
            [[[1.0, 2.0], [-2.0, 1.0]], [[0.5, 3.0], [0.0, 0.5]]],
            &device,
        );
        let a = a.require_grad();
        let inverted = inverse(a.clone());
        let expected = [[[0.2, -0.4], [0.4, 0.2]], [[2.0, -12.0], [0.0, 2.0]]];
        let expected = Tensor::<3>::from_data(expected, &device);
        let off = (inverted.clone() - expected.clone())
            .abs()
            .max()
            .into_scalar::<f32>();
        assert!(off < 1e-5, "{off}");
        let gradients = inverted.sum().backward();
        let gradient = a.grad(&gradients).expect("a gradient");
        let turned = expected.inner().transpose();
        let ones = Tensor::<3>::ones([2, 2, 2], &Device::default());
        let wanted = -(turned.clone().matmul(ones).matmul(turned));
        let off = (gradient - wanted).abs().max().into_scalar::<f32>();
        assert!(off < 1e-4, "{off}");
    }
}
