//! Divergences of the student's distribution from the teacher's.

use burn::tensor::{Tensor, activation};
use ft_kernels::Divergence;

/// The divergence of `q = softmax(student)` from `p = softmax(teacher)`, one number a row.
///
/// [`Divergence::JensenShannon`] is equation 1 of Agarwal et al., 2024 (GKD, arXiv:2306.13649), as TRL's `GKDTrainer` has it.
///
/// # Shapes
///
/// - `student`, `teacher`: logits, `[rows, classes]`
/// - result: `[rows]`
///
/// # Panics
///
/// If the shapes differ, or β is not between 0 and 1.
pub fn divergence(student: Tensor<2>, teacher: Tensor<2>, kind: Divergence) -> Tensor<1> {
    assert_eq!(student.dims(), teacher.dims(), "logits of the same shape");
    let student = activation::log_softmax(student, 1);
    let teacher = activation::log_softmax(teacher.detach(), 1);
    match kind {
        Divergence::Forward => kl(teacher, student),
        Divergence::Reverse => kl(student, teacher),
        Divergence::JensenShannon(beta) => {
            assert!(beta > 0.0 && beta < 1.0, "a beta of {beta}");
            let mixture = log_mixture(teacher.clone(), student.clone(), beta);
            kl(teacher, mixture.clone()) * beta + kl(student, mixture) * (1.0 - beta)
        }
    }
}

/// `Σ p (ln p − ln q)` of each row.
pub(super) fn kl(p: Tensor<2>, q: Tensor<2>) -> Tensor<1> {
    (p.clone().exp() * (p - q)).sum_dim(1).squeeze_dim(1)
}

/// `ln(β p + (1 − β) q)`, without underflow.
fn log_mixture(p: Tensor<2>, q: Tensor<2>, beta: f64) -> Tensor<2> {
    let (p, q) = (p + beta.ln(), q + (1.0 - beta).ln());
    let most = p.clone().max_pair(q.clone()).detach();
    ((p - most.clone()).exp() + (q - most.clone()).exp()).log() + most
}
