//! Attention rows.

use burn::tensor::{Tensor, activation};

use super::divergence::kl;

fn check(student: &Tensor<2>, teacher: &Tensor<2>) {
    assert_eq!(student.dims(), teacher.dims(), "scores of the same shape");
}

/// Scores at most this count as masked.
const MASKED: f64 = -100.0;

/// The mean over keys of `(s_s − s_t)²` of each row of scores, where masked scores (−100 or less) count as 0: TinyBERT's loss of
/// attention (Jiao et al., 2020, arXiv:1909.10351, equation 7). Scores are those before the softmax.
///
/// # Shapes
///
/// - `student`, `teacher`: `[rows, keys]`, with a row for every head and query
/// - result: `[rows]`
///
/// # Panics
///
/// If the shapes differ.
pub fn attention_mse(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    check(&student, &teacher);
    let visible = |scores: Tensor<2>| {
        let masked = scores.clone().lower_equal_elem(MASKED);
        scores.mask_fill(masked, 0.0)
    };
    (visible(student) - visible(teacher.detach()))
        .square()
        .mean_dim(1)
        .squeeze_dim(1)
}

/// `KL(softmax(teacher)‖softmax(student))` of each row of scores: MiniLM's loss of attention (Wang et al., 2020,
/// arXiv:2002.10957, equation 4).
///
/// # Shapes
///
/// As [`attention_mse`]. Masked keys have a large negative score on both sides.
///
/// # Panics
///
/// If the shapes differ.
pub fn attention_kl(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    check(&student, &teacher);
    let student = activation::log_softmax(student, 1);
    kl(activation::log_softmax(teacher.detach(), 1), student)
}
