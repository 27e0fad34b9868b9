//! Losses of a cross-encoder's scores of lists: the documents of one query each.
//!
//! LambdaLoss (Wang et al., 2018, doi:10.1145/3269206.3271784, equation 18 with the weights of section 6.3), RankNet (Burges
//! et al., 2005), ListNet (Cao et al., 2007), ListMLE (Xia et al., 2008) and its form with weights of positions (Lan et al.,
//! 2014).

use std::cmp::Ordering;

use burn::tensor::{Tensor, TensorData, activation::log_softmax, activation::softplus};

use crate::loss::similarity::{check_labels, log_sum_exp, mask, numbers, vector};

/// How much LambdaLoss weighs the part of NDCGLoss2 (μ).
const NDCG_LOSS_2: f64 = 10.0;

/// The mean over all pairs of documents of a list with `yᵢ > yⱼ`, over all lists, of `−w·log₂ σ(sᵢ − sⱼ)`, with the weights of
/// NDCGLoss2++: `w = (10·δ(|i − j|) + |1/Dᵢ − 1/Dⱼ|)·|Gᵢ − Gⱼ|`, `i` and `j` being ranks by score, `D_r = log₂(1 + r)`,
/// `δ(m) = |1/D_m − 1/D_{m+1}|`, and `G` the gain `2^y − 1` over the DCG of the best order.
///
/// # Shapes
///
/// - `lists`: scores of each list, `[documents]`, and as many labels
/// - output: `[1]`
///
/// # Panics
///
/// If a list has another number of labels, or there are no lists.
pub fn lambda(lists: &[(Tensor<1>, &[f32])]) -> Tensor<1> {
    pairs(lists, |scores, labels| {
        let ranks = ranks(scores);
        let discount = |rank: usize| 1.0 / ((1 + rank) as f64).log2();
        let mut best: Vec<f64> = labels.iter().map(|&y| gain(y)).collect();
        best.sort_by(|a, b| b.total_cmp(a));
        let ideal: f64 = best
            .iter()
            .enumerate()
            .map(|(i, gain)| gain * discount(i + 1))
            .sum();
        let ideal = ideal.max(1e-10);
        let gains: Vec<f64> = labels.iter().map(|&y| gain(y) / ideal).collect();
        Box::new(move |i, j| {
            let (a, b) = (ranks[i], ranks[j]);
            let apart = a.abs_diff(b);
            let delta = (discount(apart) - discount(apart + 1)).abs();
            let swap = (discount(a) - discount(b)).abs();
            (NDCG_LOSS_2 * delta + swap) * (gains[i] - gains[j]).abs()
        })
    })
}

/// [`lambda`] with a weight of 1 for every pair.
///
/// # Shapes
///
/// As [`lambda`].
///
/// # Panics
///
/// As [`lambda`].
pub fn rank_net(lists: &[(Tensor<1>, &[f32])]) -> Tensor<1> {
    pairs(lists, |_, _| Box::new(|_, _| 1.0))
}

/// The weight of a pair of documents.
type Weight = Box<dyn Fn(usize, usize) -> f64>;

fn pairs(lists: &[(Tensor<1>, &[f32])], weights: impl Fn(&[f32], &[f32]) -> Weight) -> Tensor<1> {
    let mut count = 0;
    let mut terms = Vec::new();
    for (scores, labels) in lists {
        let documents = scores.dims()[0];
        check_labels(labels.len(), documents);
        let device = scores.device();
        let weight = weights(&numbers(scores), labels);
        let ordered = |i: usize, j: usize| labels[i] > labels[j];
        let own: Vec<f32> = (0..documents)
            .flat_map(|i| (0..documents).map(move |j| (i, j)))
            .map(|(i, j)| match ordered(i, j) {
                true => weight(i, j) as f32,
                false => 0.0,
            })
            .collect();
        count += (0..documents)
            .flat_map(|i| (0..documents).map(move |j| (i, j)))
            .filter(|&(i, j)| ordered(i, j))
            .count();
        let shape = [documents, documents];
        let of_i = scores.clone().unsqueeze_dim::<2>(1).expand(shape);
        let of_j = scores.clone().unsqueeze_dim::<2>(0).expand(shape);
        let own = Tensor::<2>::from_data(TensorData::new(own, shape), &device);
        // −ln σ(x) = softplus(−x)
        terms.push((softplus(of_j - of_i, 1.0) * own).sum());
    }
    let sum = terms
        .into_iter()
        .reduce(|a, b| a + b)
        .expect("there are no lists");
    sum / (count.max(1) as f64 * std::f64::consts::LN_2)
}

fn gain(label: f32) -> f64 {
    f64::from(label).exp2() - 1.0
}

/// The rank of each document by its score, from 1.
fn ranks(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal));
    let mut ranks = vec![0; scores.len()];
    for (rank, document) in order.into_iter().enumerate() {
        ranks[document] = rank + 1;
    }
    ranks
}

/// `−Σ softmax(y)ᵢ · ln softmax(s)ᵢ` of each list.
///
/// # Shapes
///
/// - `lists`: scores of each list, `[documents]`, and as many labels
/// - output: `[lists]`
///
/// # Panics
///
/// If a list has another number of labels, or there are no lists.
pub fn list_net(lists: &[(Tensor<1>, &[f32])]) -> Tensor<1> {
    each(lists, |scores, labels| {
        let most = labels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f32> = labels.iter().map(|y| (y - most).exp()).collect();
        let sum: f32 = exps.iter().sum();
        let target: Vec<f32> = exps.iter().map(|x| x / sum).collect();
        let target = vector(&target, &scores.device());
        (log_softmax(scores, 0) * target).sum().neg()
    })
}

/// `−Σᵢ (sᵢ − ln Σ_{j ≥ i} exp sⱼ)` of each list, whose documents are given from the best to the worst.
///
/// # Shapes
///
/// - `lists`: scores of each list, `[documents]`; labels are not looked at
/// - output: `[lists]`
///
/// # Panics
///
/// If there are no lists.
pub fn list_mle(lists: &[(Tensor<1>, &[f32])]) -> Tensor<1> {
    each(lists, |scores, _| {
        let count = scores.dims()[0];
        likelihood(scores, &vec![1.0; count])
    })
}

/// [`list_mle`] with the weight `2^(n − i) − 1` for place `i` of `n`, from 1, divided by their sum.
///
/// # Shapes
///
/// As [`list_mle`].
///
/// # Panics
///
/// If there are no lists.
pub fn position_list_mle(lists: &[(Tensor<1>, &[f32])]) -> Tensor<1> {
    each(lists, |scores, _| {
        let count = scores.dims()[0];
        let weights: Vec<f64> = (1..=count)
            .map(|i| ((count - i) as f64).exp2() - 1.0)
            .collect();
        let sum: f64 = weights.iter().sum::<f64>().max(1e-10);
        let weights: Vec<f32> = weights.iter().map(|w| (w / sum) as f32).collect();
        likelihood(scores, &weights)
    })
}

fn likelihood(scores: Tensor<1>, weights: &[f32]) -> Tensor<1> {
    let count = scores.dims()[0];
    let device = scores.device();
    let rows = scores.clone().unsqueeze_dim::<2>(0).expand([count, count]);
    let before = mask([count, count], &device, |i, j| j < i);
    let rest = log_sum_exp(rows.mask_fill(before, f32::NEG_INFINITY));
    ((rest - scores) * vector(weights, &device)).sum()
}

fn each(
    lists: &[(Tensor<1>, &[f32])],
    mut loss: impl FnMut(Tensor<1>, &[f32]) -> Tensor<1>,
) -> Tensor<1> {
    let losses = lists.iter().map(|(scores, labels)| {
        check_labels(labels.len(), scores.dims()[0]);
        loss(scores.clone(), labels)
    });
    Tensor::cat(losses.collect(), 0)
}
