//! Attention on slices, a tile of queries and keys at a time (Dao, 2023, arXiv:2307.08691, algorithms 1 and 2). The
//! softmax is updated along the keys, and the backward pass computes the probabilities again, so memory is linear in
//! the length of the sequence.
//!
//! Keys that no query of a tile may attend to, by the mask or by where the segments of its queries begin and end, are
//! skipped.

mod one_query;
mod rule;

use std::ops::Range;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use gemm::Parallelism;
use multiversion::multiversion;
use rayon::prelude::*;

use super::exp::{exp, exp_shifted, max, sum_of_pairs, tanh};
use super::pieces::{each, zeros};
use super::product::{Matrix, Output, product};
use super::tensor;
use rule::{KEYS, QUERIES, tiles};
pub(crate) use rule::{Rule, Segments};

/// With fewer multiplications than this, the heads of a tile are computed on one thread.
const FEW: usize = 1 << 16;

#[backend_extension(Flex, Autodiff)]
pub(crate) trait Attention: Backend {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        rule: Rule,
    ) -> FloatTensor<Self>;
}

impl Attention for Flex {
    fn attention(q: FlexTensor, k: FlexTensor, v: FlexTensor, rule: Rule) -> FlexTensor {
        forward(&q, &k, &v, &rule).0
    }
}

impl<C: CheckpointStrategy> Attention for Autodiff<Flex, C> {
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        rule: Rule,
    ) -> FloatTensor<Self> {
        let (q, q_node) = q.into_parts();
        let (k, k_node) = k.into_parts();
        let (v, v_node) = v.into_parts();
        let (out, log_sums) = forward(&q, &k, &v, &rule);
        match Gradient
            .prepare::<C>([q_node, k_node, v_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                prep.finish(([q, k, v, out.clone()], log_sums.into(), rule), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}

#[derive(Debug)]
struct Gradient;

impl Backward<Flex, 3> for Gradient {
    type State = ([FlexTensor; 4], Arc<[f32]>, Rule);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let d_out = grads.consume::<Flex>(&ops.node);
        let ([q, k, v, out], log_sums, rule) = ops.state;
        let gradients = backward(&q, &k, &v, &out, &log_sums, &d_out, &rule);
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

/// `[batch, heads, seq, width]` in any memory layout whose last stride is 1.
struct Heads<'a> {
    data: &'a [f32],
    by_batch: usize,
    by_head: usize,
    by_position: usize,
    width: usize,
}

impl<'a> Heads<'a> {
    fn new(tensor: &'a FlexTensor) -> Self {
        let strides = tensor.layout().strides();
        Self {
            data: &tensor.storage::<f32>()[tensor.layout().start_offset()..],
            by_batch: strides[0] as usize,
            by_head: strides[1] as usize,
            by_position: strides[2] as usize,
            width: tensor.shape()[3],
        }
    }

    /// One position of one head.
    fn row(&self, batch: usize, head: usize, position: usize) -> &'a [f32] {
        let start = batch * self.by_batch + head * self.by_head + position * self.by_position;
        &self.data[start..][..self.width]
    }

    /// Positions `range` of one head as a matrix, `[range, width]`.
    fn rows(&self, batch: usize, head: usize, range: Range<usize>) -> Matrix<'a> {
        let start = batch * self.by_batch + head * self.by_head + range.start * self.by_position;
        let data = &self.data[start..];
        Matrix::strided(data, range.len(), self.width, self.by_position, 1)
    }
}

/// Last stride 1, none negative.
fn readable(tensor: &FlexTensor) -> FlexTensor {
    let strides = tensor.layout().strides();
    if strides[3] == 1 && strides.iter().all(|&stride| stride >= 0) {
        tensor.clone()
    } else {
        tensor.to_contiguous()
    }
}

/// The output, `[batch, heads, queries, width]`, and the logarithm of each row's sum of exponentials,
/// `[batch, queries, heads]`.
///
/// The memory layout of the output is `[batch, queries, heads, width]`, which the following projection needs: there is no
/// copy between them, and the graph keeps one tensor for both.
fn forward(q: &FlexTensor, k: &FlexTensor, v: &FlexTensor, rule: &Rule) -> (FlexTensor, Vec<f32>) {
    let (q, k, v) = (readable(q), readable(k), readable(v));
    let [batch, heads, queries, width] = q.shape().dims();
    if q.shape().num_elements() == 0 {
        return (tensor(Vec::new(), q.shape().clone()), Vec::new());
    }
    let [_, kv_heads, keys, _] = k.shape().dims();
    let group = heads / kv_heads;
    let (q, k, v) = (Heads::new(&q), Heads::new(&k), Heads::new(&v));
    let mut out = zeros(batch * heads * queries * width);
    let mut log_sums = vec![0.0; batch * heads * queries];
    // One task for each tile of queries, and within it one for each head.
    let mut tasks = Vec::new();
    let (mut out_rest, mut sums_rest) = (&mut out[..], &mut log_sums[..]);
    for batch in 0..batch {
        for range in rule.query_tiles(batch, queries, keys) {
            let (out, sums);
            (out, out_rest) = out_rest.split_at_mut(range.len() * heads * width);
            (sums, sums_rest) = sums_rest.split_at_mut(range.len() * heads);
            tasks.push((batch, range, out, sums));
        }
    }
    let scratch = || vec![0.0; QUERIES.min(queries) * KEYS.min(keys)];
    each(tasks.into_par_iter(), |(batch, range, out, sums)| {
        let of_head = |scores: &mut Vec<f32>, head: usize| {
            let rows = q.rows(batch, head, range.clone());
            let of_keys = |tile: &Range<usize>| {
                let head = head / group;
                (
                    k.rows(batch, head, tile.clone()),
                    v.rows(batch, head, tile.clone()),
                )
            };
            let place = (batch, &range, keys);
            forward_tile(rows, of_keys, rule, place, scores)
        };
        let parts: Vec<_> = if range.len() * heads * keys * width < FEW {
            let mut scores = scratch();
            (0..heads).map(|head| of_head(&mut scores, head)).collect()
        } else {
            let heads = (0..heads).into_par_iter();
            heads.map_init(scratch, of_head).collect()
        };
        for (row, (out, sums)) in out
            .chunks_exact_mut(heads * width)
            .zip(sums.chunks_exact_mut(heads))
            .enumerate()
        {
            for (head, (part, log_sums)) in parts.iter().enumerate() {
                let here = &part[row * width..][..width];
                out[head * width..][..width].copy_from_slice(here);
                sums[head] = log_sums[row];
            }
        }
    });
    (in_rows(out, [batch, queries, heads, width]), log_sums)
}

/// A tensor `[batch, heads, seq, width]` of numbers in the layout `[batch, seq, heads, width]`.
fn in_rows(data: Vec<f32>, shape: [usize; 4]) -> FlexTensor {
    let tensor = tensor(data, shape);
    let layout = tensor.layout().transpose(1, 2);
    tensor.with_layout(layout)
}

/// The output of a tile of queries of one head, and the logarithms of their sums of exponentials.
fn forward_tile<'a>(
    queries: Matrix<'_>,
    keys_and_values: impl Fn(&Range<usize>) -> (Matrix<'a>, Matrix<'a>),
    rule: &Rule,
    (batch, range, all_keys): (usize, &Range<usize>, usize),
    scores: &mut [f32],
) -> (Vec<f32>, Vec<f32>) {
    let (rows, width) = (queries.rows(), queries.cols());
    let mut out = vec![0.0; rows * width];
    let mut sums = vec![0.0; rows];
    let mut most = vec![f32::NEG_INFINITY; rows];
    for tile in tiles(rule.keys_of(range, batch, all_keys), KEYS) {
        if rule.keeps_apart(range, &tile, batch, all_keys) {
            continue;
        }
        let scores = &mut scores[..rows * tile.len()];
        let (keys, values) = keys_and_values(&tile);
        let (scale, none) = (rule.scale, Parallelism::None);
        let alone = match rows {
            1 => queries.row(0),
            _ => None,
        };
        match alone {
            Some(query) => one_query::scores(query, keys, scale, scores),
            None => product(queries, keys.t(), scale, scores, Output::Overwrite, none),
        }
        if let Some(cap) = rule.softcap {
            soften(scores, cap);
        }
        if !rule.allows_all(range, &tile, batch, all_keys) {
            rule.forbid(scores, range, &tile, batch, all_keys);
        }
        accumulate_softmax(scores, tile.len(), &mut most, &mut sums, &mut out, width);
        match alone {
            Some(_) => one_query::add_values(scores, values, &mut out),
            None => {
                let probabilities = Matrix::new(scores, rows, tile.len());
                product(probabilities, values, 1.0, &mut out, Output::Add, none);
            }
        }
    }
    for ((sum, most), out) in sums.iter_mut().zip(&most).zip(out.chunks_exact_mut(width)) {
        let scale = 1.0 / *sum;
        out.iter_mut().for_each(|x| *x *= scale);
        *sum = sum.ln() + most;
    }
    (out, sums)
}

/// `cap·tanh(s/cap)`
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn soften(scores: &mut [f32], cap: f32) {
    for score in scores {
        *score = cap * tanh(*score / cap);
    }
}

/// Converts scores to `e^(score − maximum so far)`, and adapts the earlier sums to the same shift.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn accumulate_softmax(
    scores: &mut [f32],
    keys: usize,
    most: &mut [f32],
    sums: &mut [f32],
    out: &mut [f32],
    width: usize,
) {
    let rows = scores
        .chunks_exact_mut(keys)
        .zip(out.chunks_exact_mut(width));
    for ((scores, out), (most, sum)) in rows.zip(most.iter_mut().zip(sums)) {
        let new = most.max(max(scores));
        if new == f32::NEG_INFINITY {
            // There was no allowed key so far.
            scores.fill(0.0);
            continue;
        }
        let old = exp(*most - new);
        if old != 1.0 {
            out.iter_mut().for_each(|x| *x *= old);
        }
        *sum = *sum * old + exp_shifted(scores, new);
        *most = new;
    }
}

/// The gradients of q, k and v.
fn backward(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    out: &FlexTensor,
    log_sums: &[f32],
    d_out: &FlexTensor,
    rule: &Rule,
) -> [FlexTensor; 3] {
    if q.shape().num_elements() == 0 {
        // The output is empty: keys and values have no part in it.
        let zeros = |x: &FlexTensor| tensor(vec![0.0; x.shape().num_elements()], x.shape().clone());
        return [q, k, v].map(zeros);
    }
    let (q, k, v) = (readable(q), readable(k), readable(v));
    let [batch, heads, queries, width] = q.shape().dims();
    let [_, kv_heads, keys, _] = k.shape().dims();
    let group = heads / kv_heads;
    let (out, d_out) = (readable(out), readable(d_out));
    let (q, k, v) = (Heads::new(&q), Heads::new(&k), Heads::new(&v));
    let (out, d_out) = (Heads::new(&out), Heads::new(&d_out));
    let mut dq = zeros(batch * heads * queries * width);
    // For each query head; the heads that share keys are added below.
    let mut dk = zeros(batch * heads * keys * width);
    let mut dv = zeros(dk.len());
    let outputs = dk
        .par_chunks_mut((keys * width).max(1))
        .zip(dv.par_chunks_mut((keys * width).max(1)));
    let outputs = outputs.zip(dq.par_chunks_mut((queries * width).max(1)));
    outputs.enumerate().for_each_init(
        || (Vec::new(), Vec::new()),
        |(p, dp), (index, ((dk, dv), dq))| {
            let (batch, head) = (index / heads, index % heads);
            for range in rule.query_tiles(batch, queries, keys) {
                let query_rows = q.rows(batch, head, range.clone());
                let d_out_rows = d_out.rows(batch, head, range.clone());
                let along = rows_dot(&out, &d_out, batch, head, range.clone());
                let log_sums: Vec<f32> = (range.clone())
                    .map(|query| log_sums[(batch * queries + query) * heads + head])
                    .collect();
                let dq = &mut dq[range.start * width..range.end * width];
                for tile in tiles(rule.keys_of(&range, batch, keys), KEYS) {
                    if rule.keeps_apart(&range, &tile, batch, keys) {
                        continue;
                    }
                    let size = range.len() * tile.len();
                    p.resize(size, 0.0);
                    dp.resize(size, 0.0);
                    let key_rows = k.rows(batch, head / group, tile.clone());
                    let value_rows = v.rows(batch, head / group, tile.clone());
                    let flat = tile.start * width..tile.end * width;
                    product(
                        query_rows,
                        key_rows.t(),
                        rule.scale,
                        p,
                        Output::Overwrite,
                        Parallelism::None,
                    );
                    if let Some(cap) = rule.softcap {
                        soften(p, cap);
                    }
                    if !rule.allows_all(&range, &tile, batch, keys) {
                        rule.forbid(p, &range, &tile, batch, keys);
                    }
                    product(
                        d_out_rows,
                        value_rows.t(),
                        1.0,
                        dp,
                        Output::Overwrite,
                        Parallelism::None,
                    );
                    score_gradient(p, dp, tile.len(), &log_sums, &along, rule.softcap);
                    let p = Matrix::new(p, range.len(), tile.len());
                    let ds = Matrix::new(dp, range.len(), tile.len());
                    product(
                        p.t(),
                        d_out_rows,
                        1.0,
                        &mut dv[flat.clone()],
                        Output::Add,
                        Parallelism::None,
                    );
                    product(
                        ds.t(),
                        query_rows,
                        rule.scale,
                        &mut dk[flat],
                        Output::Add,
                        Parallelism::None,
                    );
                    product(ds, key_rows, rule.scale, dq, Output::Add, Parallelism::None);
                }
            }
        },
    );
    let shared = |by_head: Vec<f32>| {
        let shape = [batch, kv_heads, keys, width];
        if group == 1 {
            return tensor(by_head, shape);
        }
        let mut sum = zeros(by_head.len() / group);
        sum.par_chunks_mut((keys * width).max(1))
            .zip(by_head.par_chunks((group * keys * width).max(1)))
            .for_each(|(sum, parts)| {
                for part in parts.chunks_exact(keys * width) {
                    sum.iter_mut()
                        .zip(part)
                        .for_each(|(sum, part)| *sum += part);
                }
            });
        tensor(sum, shape)
    };
    [
        tensor(dq, [batch, heads, queries, width]),
        shared(dk),
        shared(dv),
    ]
}

/// `⟨aᵢ, bᵢ⟩` over these positions of a head.
fn rows_dot(
    a: &Heads<'_>,
    b: &Heads<'_>,
    batch: usize,
    head: usize,
    range: Range<usize>,
) -> Vec<f32> {
    range
        .map(|position| {
            let (a, b) = (a.row(batch, head, position), b.row(batch, head, position));
            sum_of_pairs(a, b, |a, b| a * b)
        })
        .collect()
}

/// From scores to probabilities in `p`, and from their gradient to that of the scores in `dp`:
/// `p = e^(s − log Σeˢ)`, `ds = p·(dp − ⟨out, d_out⟩)`, through the cap by `1 − (s/cap)²`.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn score_gradient(
    p: &mut [f32],
    dp: &mut [f32],
    keys: usize,
    log_sums: &[f32],
    along: &[f32],
    softcap: Option<f32>,
) {
    let rows = p.chunks_exact_mut(keys).zip(dp.chunks_exact_mut(keys));
    for ((p, dp), (log_sum, along)) in rows.zip(log_sums.iter().zip(along)) {
        if let Some(cap) = softcap {
            for (score, dp) in p.iter().zip(dp.iter_mut()) {
                // A forbidden score is −∞ and its probability zero.
                let part = score.max(-cap) / cap;
                let slope = 1.0 - part * part;
                *dp = exp(score - log_sum) * (*dp - along) * slope;
            }
            for p in p.iter_mut() {
                *p = exp(*p - log_sum);
            }
            continue;
        }
        for (p, dp) in p.iter_mut().zip(dp) {
            *p = exp(*p - log_sum);
            *dp = *p * (*dp - along);
        }
    }
}
