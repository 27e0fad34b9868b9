//! Relations of tokens within a layer.

use burn::tensor::{Tensor, activation};

/// `KL` of the relations of every token, `softmax(X Xᵀ / √d)` of teacher and student, one number for each head and token.
///
/// With the values of the last layer it is MiniLM's loss of value relations (Wang et al., 2020, arXiv:2002.10957, equation 5);
/// with queries, keys and values in as many heads as one likes ([`split_heads`]) it is MiniLMv2's (arXiv:2012.15828, equation 5).
/// Widths of a head may differ.
///
/// # Shapes
///
/// - `student`: `[heads, tokens, width]`, `teacher`: `[heads, tokens, other width]`
/// - `mask`: `[tokens]`, 1 for tokens and 0 for padding, which no token is related to
/// - result: `[heads · tokens]`, 0 for padding: the mean over tokens is the sum divided by `heads · Σ mask`
///
/// # Panics
///
/// If the numbers of heads or tokens differ.
pub fn relation_kl(student: Tensor<3>, teacher: Tensor<3>, mask: &Tensor<1>) -> Tensor<1> {
    let [heads, tokens, _] = student.dims();
    let shapes = (teacher.dims()[..2].to_vec(), mask.dims());
    assert_eq!(
        shapes,
        (vec![heads, tokens], [tokens]),
        "the same heads and tokens"
    );
    let hidden = mask.clone().equal_elem(0.0).reshape([1, 1, tokens]);
    let hidden = hidden.expand([heads, tokens, tokens]);
    let relations = |x: Tensor<3>| {
        let width = x.dims()[2] as f64;
        let scores = x.clone().matmul(x.transpose()) / width.sqrt();
        activation::log_softmax(scores.mask_fill(hidden.clone(), -1e9), 2)
    };
    let (q, p) = (relations(student), relations(teacher.detach()));
    let kl = (p.clone().exp() * (p - q)).sum_dim(2).squeeze_dim::<2>(2);
    (kl * mask.clone().unsqueeze()).flatten(0, 1)
}

/// Cuts vectors anew into heads: `[tokens, width]` to `[heads, tokens, width / heads]`.
///
/// # Panics
///
/// If the width is no multiple of the number of heads.
pub fn split_heads(vectors: Tensor<2>, heads: usize) -> Tensor<3> {
    let [tokens, width] = vectors.dims();
    assert!(
        width.is_multiple_of(heads.max(1)),
        "a width of {width} in {heads} heads"
    );
    vectors
        .reshape([tokens, heads, width / heads])
        .swap_dims(0, 1)
}
