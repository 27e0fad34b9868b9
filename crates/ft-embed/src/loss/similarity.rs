//! Similarities of rows, and numerically safe sums of exponentials.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::unit;

/// `cos(aᵢ, bⱼ)`.
///
/// # Shapes
///
/// - `a`: `[n, dims]`, `b`: `[m, dims]`
/// - output: `[n, m]`
pub fn cosine_matrix(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    unit(a).matmul(unit(b).transpose())
}

/// `cos(aᵢ, bᵢ)`.
///
/// # Shapes
///
/// - `a`, `b`: `[n, dims]`
/// - output: `[n]`
pub fn pairwise_cosine(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    pairwise_dot(unit(a), unit(b))
}

/// `⟨aᵢ, bᵢ⟩`, `[n]`.
pub(crate) fn pairwise_dot(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    (a * b).sum_dim(1).squeeze_dim(1)
}

/// `|Re(x·ȳ) + Im(x·ȳ)|` of rows as complex numbers of length 1, whose real parts are the first half of the features
/// (Li and Li, 2023, arXiv:2309.12871, equation 6, without the division by the magnitudes that is 1 here).
///
/// # Shapes
///
/// - `x`, `y`: `[n, dims]`
/// - output: `[n]`
pub fn angle_similarity(x: Tensor<2>, y: Tensor<2>) -> Tensor<1> {
    let (x, y) = (unit(even(x)), unit(even(y)));
    let half = x.dims()[1] / 2;
    let parts = |z: &Tensor<2>| {
        (
            z.clone().narrow(1, 0, half),
            z.clone().narrow(1, half, half),
        )
    };
    let ((x1, x2), (y1, y2)) = (parts(&x), parts(&y));
    let sines = pairwise_dot(x2, y1) - pairwise_dot(x1, y2);
    (pairwise_dot(x, y) + sines).abs()
}

/// With a feature of zeros if their number is odd.
fn even(x: Tensor<2>) -> Tensor<2> {
    let [rows, dims] = x.dims();
    match dims % 2 {
        0 => x,
        _ => {
            let zeros = Tensor::zeros([rows, 1], &x.device());
            Tensor::cat(vec![x, zeros], 1)
        }
    }
}

/// `ln Σⱼ exp(xᵢⱼ)`, `[n]`. Entries may be −∞, whole rows may not.
pub(crate) fn log_sum_exp(x: Tensor<2>) -> Tensor<1> {
    let most = x.clone().max_dim(1).detach();
    let shape = x.dims();
    let sums = (x - most.clone().expand(shape)).exp().sum_dim(1).log();
    (sums + most).squeeze_dim(1)
}

/// The diagonal of the first columns, `[n]`.
pub(crate) fn diagonal(x: Tensor<2>) -> Tensor<1> {
    let rows = x.dims()[0];
    let own = Tensor::<1, Int>::arange(0..rows as i64, &x.device());
    x.gather(1, own.unsqueeze_dim(1)).squeeze_dim(1)
}

/// True where `f(row, column)`: `[rows, columns]`.
pub(crate) fn mask(
    [rows, columns]: [usize; 2],
    device: &Device,
    f: impl Fn(usize, usize) -> bool,
) -> Tensor<2, Bool> {
    let values: Vec<bool> = (0..rows)
        .flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(row, column)| f(row, column))
        .collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// Numbers as a tensor, `[numbers]`.
pub(crate) fn vector(numbers: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(numbers.to_vec(), [numbers.len()]), device)
}

/// The numbers of a tensor outside of its graph.
pub(crate) fn numbers<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    let data = x.clone().into_data().convert::<f32>();
    data.try_to_vec::<f32>().expect("converted to f32")
}

/// Checks that labels and rows are as many.
pub(crate) fn check_labels(labels: usize, rows: usize) {
    assert_eq!(labels, rows, "a label a row");
}
