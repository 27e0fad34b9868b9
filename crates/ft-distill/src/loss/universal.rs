//! Distributions over different vocabularies.

use burn::tensor::{Tensor, activation};

/// `Σᵢ |p₍ᵢ₎ − q₍ᵢ₎|` of each row, with the probabilities of either side sorted from large to small and the shorter side
/// filled with zeros: the Wasserstein distance of distributions whose classes have nothing to do with each other.
///
/// Universal logit distillation, Boizard et al., 2024 (arXiv:2402.12030, equation 5). Texts that two tokenizers cut into
/// different numbers of tokens are the caller's matter: the paper compares position by position, up to the shorter length.
///
/// # Shapes
///
/// - `student`: `[rows, classes]`, `teacher`: `[rows, other classes]`, logits
/// - result: `[rows]`
///
/// # Panics
///
/// If the numbers of rows differ.
pub fn universal(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    let [rows, own] = student.dims();
    let [of_teacher, other] = teacher.dims();
    assert_eq!(rows, of_teacher, "the same number of rows");
    let sorted = |logits: Tensor<2>| activation::softmax(logits, 1).sort_descending(1);
    let (mut q, mut p) = (sorted(student), sorted(teacher.detach()));
    let zeros = |count: usize, like: &Tensor<2>| Tensor::zeros([rows, count], &like.device());
    if own < other {
        q = Tensor::cat(vec![q.clone(), zeros(other - own, &q)], 1);
    } else if other < own {
        p = Tensor::cat(vec![p.clone(), zeros(own - other, &p)], 1);
    }
    (q - p).abs().sum_dim(1).squeeze_dim(1)
}
