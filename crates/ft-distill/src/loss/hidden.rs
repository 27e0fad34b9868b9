//! Hidden states.

use burn::tensor::Tensor;

/// `1 − cos(h_s, h_t)` of each row, the loss of DistilBERT's hidden states (Sanh et al., 2019, arXiv:1910.01108, section 3).
///
/// # Shapes
///
/// - `student`, `teacher`: `[rows, width]`
/// - result: `[rows]`
///
/// # Panics
///
/// If the shapes differ.
pub fn cosine(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    assert_eq!(student.dims(), teacher.dims(), "states of the same shape");
    let teacher = teacher.detach();
    let dot = |a: &Tensor<2>, b: &Tensor<2>| (a.clone() * b.clone()).sum_dim(1);
    // The slope of a root at 0 is infinite.
    let length = |x: &Tensor<2>| dot(x, x).clamp_min(1e-16).sqrt();
    let cosine = dot(&student, &teacher) / (length(&student) * length(&teacher));
    (-cosine + 1.0).squeeze_dim(1)
}

/// The mean over the width of `(W h_s − h_t)²` of each row, where the projection `W` trains with the student: TinyBERT's
/// loss of hidden states and embeddings (Jiao et al., 2020, arXiv:1909.10351, equation 8).
///
/// Without a projection both have the same width.
///
/// # Shapes
///
/// - `student`: `[rows, width of the student]`, `teacher`: `[rows, width of the teacher]`
/// - `projection`: `[width of the teacher, width of the student]`
/// - result: `[rows]`
///
/// # Panics
///
/// If the shapes do not fit.
pub fn hidden_mse(
    student: Tensor<2>,
    teacher: Tensor<2>,
    projection: Option<Tensor<2>>,
) -> Tensor<1> {
    let student = match projection {
        Some(projection) => student.matmul(projection.transpose()),
        None => student,
    };
    assert_eq!(student.dims(), teacher.dims(), "states of the same shape");
    (student - teacher.detach())
        .square()
        .mean_dim(1)
        .squeeze_dim(1)
}
