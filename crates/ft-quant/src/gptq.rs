//! GPTQ: columns are rounded one after another, and the error of each is spread over those that follow (Frantar et al.,
//! 2022, arXiv:2210.17323, algorithm 1).
//!
//! With `H = mean x·xᵀ` of the layer's inputs the error of its outputs is `tr(D·H·Dᵀ)` for a change `D` of the weight. After
//! column `j` is rounded with the error `e`, the best change of the columns behind it is `−e/U[j, j]·U[j, j+1..]`, where
//! `H⁻¹ = UᵀU`. Rows do not depend on each other, so projections of one input can be stacked.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::cholesky::{inverse_factor, numbers};
use crate::error::check_finite;
use crate::rounded::zeros;
use crate::{Error, Granularity, Grid, Rounded, Scheme};

/// Columns whose errors are collected before they change the columns behind.
const BLOCK: usize = 128;

/// Settings of [`gptq`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GptqConfig {
    /// What is added to the diagonal of `H`, as a share of its mean. If the matrix is not positive definite, the share
    /// increases by 0.01 up to 1.
    pub damp: f64,
    /// Columns go by descending diagonal of `H`: those that matter most have the others to spread their errors over.
    pub act_order: bool,
    /// Grids of groups are read from the weight as it was, and groups are neighbouring columns. Otherwise a grid is read
    /// when its first column is rounded, and with `act_order` a group is columns that follow in that order, so that a
    /// stored model needs the group of each column (`g_idx`).
    pub static_groups: bool,
}

impl Default for GptqConfig {
    /// 1% of damping, in the order of columns.
    fn default() -> Self {
        Self {
            damp: 0.01,
            act_order: false,
            static_groups: false,
        }
    }
}

/// Rounds a weight `[rows, cols]` so that outputs for inputs with the second moments `hessian` change little.
///
/// `hessian` is `mean x·xᵀ` of the inputs, `[cols, cols]`. Columns whose input is always zero become zero.
///
/// # Errors
///
/// If the second moments are not finite, or are not positive definite with any damping.
///
/// # Panics
///
/// If sizes do not match, or the bits are not from 1 to 8.
pub fn gptq(
    weight: &[f32],
    hessian: &[f32],
    shape: [usize; 2],
    scheme: &Scheme,
    config: &GptqConfig,
) -> Result<Rounded, Error> {
    let [rows, cols] = shape;
    assert_eq!(weight.len(), rows * cols, "numbers of {shape:?}");
    assert_eq!(
        hessian.len(),
        cols * cols,
        "second moments of {cols} columns"
    );
    check_finite(weight, cols)?;
    let mut rounded = zeros(shape, scheme);
    if weight.is_empty() {
        return Ok(rounded);
    }
    if !hessian.iter().all(|h| h.is_finite()) {
        return Err(Error::NotFinite);
    }
    let order = order(hessian, cols, config.act_order);
    let factor = damped_factor(hessian, &order, config.damp)?;
    let dead: Vec<bool> = order
        .iter()
        .map(|col| hessian[col * cols + col] == 0.0)
        .collect();
    let mut left: Vec<f32> = (weight.par_chunks_exact(cols))
        .flat_map_iter(|row| {
            order
                .iter()
                .zip(&dead)
                .map(|(col, dead)| if *dead { 0.0 } else { row[*col] })
        })
        .collect();

    let width = scheme.granularity.width(cols);
    let groups = rounded.groups();
    if !config.static_groups {
        for (place, col) in order.iter().enumerate() {
            rounded.group_of[*col] = place / width;
        }
    }
    let whole = matches!(scheme.granularity, Granularity::Tensor).then(|| scheme.grid(weight));
    // Grids that do not depend on what is rounded before.
    let mut grids: Vec<Grid> = vec![scheme.grid(&[]); rows * groups];
    if config.static_groups || whole.is_some() {
        for (row, grids) in weight
            .chunks_exact(cols)
            .zip(grids.chunks_exact_mut(groups))
        {
            for (part, grid) in row.chunks(width).zip(grids) {
                *grid = whole.unwrap_or_else(|| scheme.grid(part));
            }
        }
    }
    let dynamic = !config.static_groups && whole.is_none();
    let group_at: Vec<usize> = order.iter().map(|col| rounded.group_of[*col]).collect();

    let device = Device::default();
    let mut levels = vec![0u8; rows * cols];
    let mut end = 0;
    while end < cols {
        let start = end;
        // A group begins where a block does, so that its grid is that of columns with the errors of all before.
        let size = match width {
            width if width <= BLOCK => BLOCK / width * width,
            _ => BLOCK.min(width - start % width),
        };
        end = (start + size).min(cols);
        let mut errors = vec![0.0f32; rows * (end - start)];
        (left.par_chunks_exact_mut(cols))
            .zip(levels.par_chunks_exact_mut(cols))
            .zip(grids.par_chunks_exact_mut(groups))
            .zip(errors.par_chunks_exact_mut(end - start))
            .for_each(|(((row, levels), grids), errors)| {
                for i in start..end {
                    let group = group_at[i];
                    if dynamic && i % width == 0 {
                        grids[group] = scheme.grid(&row[i..(i + width).min(cols)]);
                    }
                    let grid = &grids[group];
                    let level = grid.level(row[i]);
                    levels[i] = level as u8;
                    let from = &factor[i * cols..][..end];
                    let error = (row[i] - grid.number(level)) / from[i];
                    errors[i - start] = error;
                    for (w, u) in row[i + 1..end].iter_mut().zip(&from[i + 1..]) {
                        *w -= error * u;
                    }
                }
            });
        let rest = cols - end;
        if rest > 0 {
            let behind: Vec<f32> = (start..end)
                .flat_map(|i| factor[i * cols + end..(i + 1) * cols].to_vec())
                .collect();
            let tensor = |data: Vec<f32>, shape: [usize; 2]| {
                Tensor::<2>::from_data(TensorData::new(data, shape), &device)
            };
            let errors = tensor(errors, [rows, end - start]);
            let change = numbers(errors.matmul(tensor(behind, [end - start, rest])));
            (left.par_chunks_exact_mut(cols))
                .zip(change.par_chunks_exact(rest))
                .for_each(|(row, change)| {
                    for (w, change) in row[end..].iter_mut().zip(change) {
                        *w -= change;
                    }
                });
        }
    }
    for ((scale, zero_point), grid) in rounded
        .scales
        .iter_mut()
        .zip(&mut rounded.zero_points)
        .zip(grids)
    {
        (*scale, *zero_point) = (grid.scale, grid.zero_point);
    }
    let rows = rounded
        .levels
        .chunks_exact_mut(cols)
        .zip(levels.chunks_exact(cols));
    for (out, levels) in rows {
        for (col, level) in order.iter().zip(levels) {
            out[*col] = *level;
        }
    }
    Ok(rounded)
}

/// The order in which columns are rounded.
fn order(hessian: &[f32], cols: usize, act_order: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cols).collect();
    if act_order {
        let diagonal = |col: &usize| hessian[col * cols + col];
        order.sort_by(|a, b| diagonal(b).total_cmp(&diagonal(a)));
    }
    order
}

/// `U` of the damped `H` in an order.
fn damped_factor(hessian: &[f32], order: &[usize], damp: f64) -> Result<Vec<f32>, Error> {
    let cols = order.len();
    let mut ordered: Vec<f32> = (order.par_iter())
        .flat_map_iter(|i| order.iter().map(move |j| hessian[i * cols + j]))
        .collect();
    for i in 0..cols {
        let diagonal = &mut ordered[i * cols + i];
        if *diagonal == 0.0 {
            *diagonal = 1.0;
        }
    }
    let diagonal: Vec<f32> = (0..cols).map(|i| ordered[i * cols + i]).collect();
    let mean = diagonal.iter().map(|d| f64::from(*d)).sum::<f64>() / cols as f64;
    let mut damp = damp;
    while damp <= 1.0 {
        for (i, d) in diagonal.iter().enumerate() {
            ordered[i * cols + i] = d + (damp * mean) as f32;
        }
        if let Some(factor) = inverse_factor(&ordered, cols, &Device::default()) {
            return Ok(factor);
        }
        damp += 0.01;
    }
    Err(Error::NotPositiveDefinite { cols })
}

/// The error `tr(D·H·Dᵀ)` of a layer's outputs, relative to `tr(W·H·Wᵀ)`, where `D` is the change of the weight. If all outputs
/// were zero, it is `tr(D·H·Dᵀ)`.
///
/// `weight` and `found` are `[rows, cols]`, `hessian` is `mean x·xᵀ` of the inputs.
///
/// # Panics
///
/// If sizes do not match.
pub fn output_error(weight: &[f32], found: &[f32], hessian: &[f32], shape: [usize; 2]) -> f64 {
    let [rows, cols] = shape;
    assert_eq!(
        (weight.len(), found.len()),
        (rows * cols, rows * cols),
        "numbers of {shape:?}"
    );
    assert_eq!(
        hessian.len(),
        cols * cols,
        "second moments of {cols} columns"
    );
    let change = weight.iter().zip(found).map(|(w, f)| f - w).collect();
    let error = crate::awq::energy(change, hessian, shape);
    match crate::awq::energy(weight.to_vec(), hessian, shape) {
        size if size > 0.0 => error / size,
        _ => error,
    }
}
