//! Products with a part of the rows of a dropped-out input at a time, so that no dropped-out input of all rows exists.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use gemm::Parallelism;
use multiversion::multiversion;
use rayon::prelude::*;

use super::product::{Matrix, Output, product};
use super::rms_norm::rows_a_piece;
use super::{contiguous, matrix, slice, tensor};
use crate::dropout::Mask;

/// `drop(x)·Aᵀ`, `[rows, rank]`.
pub(super) fn times_transposed(x: &FlexTensor, a: &FlexTensor, mask: Mask) -> FlexTensor {
    let x = contiguous(x.clone());
    let [rows, features] = x.shape().dims();
    let rank = a.shape()[0];
    let piece = rows_a_piece(features.max(1));
    let mut y = vec![0.0; rows * rank];
    if features > 0 {
        let pieces = y
            .par_chunks_mut(piece * rank)
            .zip(slice(&x).par_chunks(piece * features));
        pieces.enumerate().for_each(|(i, (y, x))| {
            let dropped = dropped(x, i * piece * features, mask);
            let dropped = Matrix::new(&dropped, x.len() / features, features);
            product(
                dropped,
                matrix(a).t(),
                1.0,
                y,
                Output::Overwrite,
                Parallelism::None,
            );
        });
    }
    tensor(y, [rows, rank])
}

/// `drᵀ·drop(x)`, `[rank, features]`: the gradient of `A`, given that of the product with it.
pub(super) fn gradient_of_a(d_reduced: Matrix<'_>, x: &FlexTensor, mask: Mask) -> FlexTensor {
    let x = contiguous(x.clone());
    let [rows, features] = x.shape().dims();
    let rank = d_reduced.cols();
    let piece = rows_a_piece(features.max(1));
    let starts: Vec<usize> = (0..rows).step_by(piece).collect();
    let parts: Vec<Vec<f32>> = starts
        .into_par_iter()
        .map(|start| {
            let end = (start + piece).min(rows);
            let dropped = dropped(
                &slice(&x)[start * features..end * features],
                start * features,
                mask,
            );
            let dropped = Matrix::new(&dropped, end - start, features);
            let mut part = vec![0.0; rank * features];
            let d_reduced = d_reduced.t().columns(start..end);
            product(
                d_reduced,
                dropped,
                1.0,
                &mut part,
                Output::Overwrite,
                Parallelism::None,
            );
            part
        })
        .collect();
    let mut sum = vec![0.0; rank * features];
    for part in parts {
        sum.iter_mut()
            .zip(part)
            .for_each(|(sum, part)| *sum += part);
    }
    tensor(sum, [rank, features])
}

/// Adds `drop(dr·A)` to the gradient of the input.
pub(super) fn add_gradient_of_input(
    d_reduced: Matrix<'_>,
    a: &FlexTensor,
    mask: Mask,
    dx: &mut [f32],
) {
    let features = a.shape()[1];
    let piece = rows_a_piece(features.max(1));
    dx.par_chunks_mut((piece * features).max(1))
        .enumerate()
        .for_each(|(i, dx)| {
            let start = i * piece;
            let rows = dx.len() / features;
            let d_reduced = d_reduced.t().columns(start..start + rows).t();
            let mut part = vec![0.0; dx.len()];
            product(
                d_reduced,
                matrix(a),
                1.0,
                &mut part,
                Output::Overwrite,
                Parallelism::None,
            );
            add_kept(&part, start * features, mask, dx);
        });
}

fn dropped(x: &[f32], start: usize, mask: Mask) -> Vec<f32> {
    let mut dropped = vec![0.0; x.len()];
    add_kept(x, start, mask, &mut dropped);
    dropped
}

/// `out += drop(x)`, where `x` begins at the place `start`.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn add_kept(x: &[f32], start: usize, mask: Mask, out: &mut [f32]) {
    for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
        let place = (start as u32).wrapping_add(i as u32);
        *out += if mask.keeps(place) {
            x * mask.scale
        } else {
            0.0
        };
    }
}
