//! Rotations of blocks of features: `x·diag(R₁, …, R_n)`, and Cayley's rotations.

use burn::tensor::{Device, Tensor};

use super::inverse::inverse;

/// `x·diag(R₁, …, R_n)`, without the diagonal matrix. One block alone turns all blocks of `x`.
///
/// # Shapes
///
/// - `x`: `[rows, features]`
/// - `blocks`: `[n, b, b]`, with `n·b` features, or `[1, b, b]`
/// - output: as `x`
pub(super) fn rotate(x: Tensor<2>, blocks: Tensor<3>) -> Tensor<2> {
    let [rows, features] = x.dims();
    let [n, b, _] = blocks.dims();
    if n == 1 {
        let parts = x.reshape([rows * (features / b), b]);
        return parts
            .matmul(blocks.squeeze_dim(0))
            .reshape([rows, features]);
    }
    let parts = x.reshape([rows, n, b]).swap_dims(0, 1);
    parts
        .matmul(blocks)
        .swap_dims(0, 1)
        .reshape([rows, features])
}

/// Cayley's rotations of skew matrices: `(I − Q)(I + Q)⁻¹`, as `2(I + Q)⁻¹ − I`.
///
/// # Shapes
///
/// - `q`: `[n, b, b]`
/// - output: the same
pub(super) fn cayley(q: Tensor<3>) -> Tensor<3> {
    let eye = identity(q.dims()[1], &q.device());
    inverse(q + eye.clone()) * 2.0 - eye
}

/// `[1, b, b]`
pub(super) fn identity(b: usize, device: &Device) -> Tensor<3> {
    Tensor::<2>::eye(b, device).unsqueeze()
}
