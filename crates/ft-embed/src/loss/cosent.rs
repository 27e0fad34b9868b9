//! The order of similarities: CoSENT (Huang et al., 2024, doi:10.1109/TASLP.2024.3402087) and AnglE (Li and Li, 2023,
//! arXiv:2309.12871, equations 8 to 10).

use burn::tensor::Tensor;

use crate::loss::similarity::{angle_similarity, check_labels, mask, pairwise_cosine};

/// `ln(1 + Σ exp(s·(cosⱼ − cosᵢ)))` over all pairs `i`, `j` of rows with `yᵢ > yⱼ`: one number for the batch.
///
/// # Shapes
///
/// - `a`, `b`: `[n, dims]`; `labels`: `n` similarities, of which the order counts
/// - output: `[1]`
///
/// # Panics
///
/// If there are not as many labels as rows.
pub fn cosent(a: Tensor<2>, b: Tensor<2>, labels: &[f32], scale: f64) -> Tensor<1> {
    check_labels(labels.len(), a.dims()[0]);
    in_order(pairwise_cosine(a, b) * scale, labels)
}

/// [`cosent`] with [`angle_similarity`] in place of the cosine, whose gradient does not vanish where it is near ±1.
///
/// # Shapes
///
/// - `a`, `b`: `[n, dims]`; `labels`: `n` similarities, of which the order counts
/// - output: `[1]`
///
/// # Panics
///
/// If there are not as many labels as rows.
pub fn angle(a: Tensor<2>, b: Tensor<2>, labels: &[f32], scale: f64) -> Tensor<1> {
    check_labels(labels.len(), a.dims()[0]);
    in_order(angle_similarity(a, b) * scale, labels)
}

fn in_order(scores: Tensor<1>, labels: &[f32]) -> Tensor<1> {
    let rows = labels.len();
    let device = scores.device();
    let shape = [rows, rows];
    // [i, j]: scoreⱼ − scoreᵢ
    let of_j = scores.clone().unsqueeze_dim::<2>(0).expand(shape);
    let of_i = scores.unsqueeze_dim::<2>(1).expand(shape);
    let out = mask(shape, &device, |i, j| labels[i] <= labels[j]);
    let differences = (of_j - of_i).mask_fill(out, f32::NEG_INFINITY);
    let differences: Tensor<1> = differences.reshape([rows * rows]);
    let all = Tensor::cat(vec![Tensor::zeros([1], &device), differences], 0);
    super::similarity::log_sum_exp(all.unsqueeze_dim(0))
}
