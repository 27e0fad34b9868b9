//! AWQ: columns of a weight that meet large inputs are multiplied by a scale before rounding, and their inputs divided by it
//! (Lin et al., 2023, arXiv:2306.00978, sections 3.2 and A).
//!
//! The error of a layer's outputs is `tr(D·H·Dᵀ)`, where `D` is the change of the weight and `H = mean x·xᵀ`, so the search
//! does not run the layer. The inverse scale goes into what computes the input: a norm, or the rows of a linear layer.

use std::cmp::Ordering;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::cholesky::numbers;
use crate::error::check_finite;
use crate::ranges::min_max;
use crate::{Error, Granularity, Result, Scheme, round_to_nearest};

/// Scales that [`awq_scales`] tries.
const STEPS: usize = 20;

/// The scale `[cols]` of a weight's columns with the least error of the layer's outputs, among ones and `x̄ʳ / (w̄¹⁻ʳ + 10⁻⁴)`
/// for `r = 0, 1/20, ..., 19/20`. `x̄` is the mean magnitude of a column's input, `w̄` the mean of a column's magnitudes, relative to
/// the largest of their groups.
///
/// The weight is multiplied by it, its input divided.
///
/// # Shapes
///
/// - `weight`: `[rows, cols]`, possibly projections of one input, stacked
/// - `hessian`: `mean x·xᵀ` of the inputs, `[cols, cols]`; `mean_abs`: `mean |x|`, `[cols]`
///
/// # Errors
///
/// If a number is not finite.
///
/// # Panics
///
/// If sizes do not match.
pub fn awq_scales(
    weight: &[f32],
    hessian: &[f32],
    mean_abs: &[f32],
    shape: [usize; 2],
    scheme: &Scheme,
) -> Result<Vec<f32>> {
    let [rows, cols] = shape;
    assert_eq!(weight.len(), rows * cols, "numbers of {shape:?}");
    assert_eq!(mean_abs.len(), cols, "a mean of each column");
    check_finite(weight, cols)?;
    if !hessian.iter().chain(mean_abs).all(|x| x.is_finite()) {
        return Err(Error::NotFinite);
    }
    let moments = Moments::new(hessian, cols);
    let shares = mean_shares(weight, cols, scheme.granularity.width(cols));
    let error = |scales: &[f32]| -> f64 {
        let change = change_of_rounding(weight, scales, shape, scheme);
        moments.energies(change, rows).into_iter().sum()
    };
    let ones = vec![1.0; cols];
    let mut best = (error(&ones), ones);
    for step in 0..STEPS {
        let ratio = step as f32 / STEPS as f32;
        let scales = mean_abs.iter().zip(&shares);
        let scales: Vec<f32> = scales
            .map(|(x, w)| (x.powf(ratio) / (w.powf(1.0 - ratio) + 1e-4)).max(1e-4))
            .collect();
        let (min, max) = min_max(&scales);
        let middle = (min * max).sqrt();
        let scales: Vec<f32> = scales.iter().map(|scale| scale / middle).collect();
        let error = error(&scales);
        if error < best.0 {
            best = (error, scales);
        }
    }
    Ok(best.1)
}

/// The mean over rows of `|w|` relative to the largest of its group.
fn mean_shares(weight: &[f32], cols: usize, width: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; cols];
    for row in weight.chunks_exact(cols) {
        for (part, sums) in row.chunks(width).zip(sums.chunks_mut(width)) {
            let most = part.iter().fold(0.0f32, |most, w| most.max(w.abs())) + 1e-6;
            for (sum, w) in sums.iter_mut().zip(part) {
                *sum += f64::from(w.abs() / most);
            }
        }
    }
    let rows = (weight.len() / cols.max(1)).max(1) as f64;
    sums.into_iter().map(|sum| (sum / rows) as f32).collect()
}

/// The weight with the numbers of each group clipped at 1, 0.95, ..., 0.55 of their largest magnitude: where the output's error of
/// that group alone is least.
///
/// # Shapes
///
/// - `weight`: `[rows, cols]`, `hessian`: `mean x·xᵀ` of its inputs, `[cols, cols]`
///
/// # Errors
///
/// If a number is not finite.
///
/// # Panics
///
/// If sizes do not match, or all rows share a grid.
pub fn awq_clip(
    weight: &[f32],
    hessian: &[f32],
    shape: [usize; 2],
    scheme: &Scheme,
) -> Result<Vec<f32>> {
    let [rows, cols] = shape;
    assert_eq!(weight.len(), rows * cols, "numbers of {shape:?}");
    assert!(
        scheme.granularity != Granularity::Tensor,
        "rows are clipped one by one"
    );
    check_finite(weight, cols)?;
    if !hessian.iter().all(|x| x.is_finite()) {
        return Err(Error::NotFinite);
    }
    let mut out = weight.to_vec();
    let width = scheme.granularity.width(cols);
    for first in (0..cols).step_by(width) {
        let size = width.min(cols - first);
        let part: Vec<f32> = (weight.chunks_exact(cols))
            .flat_map(|row| row[first..first + size].to_vec())
            .collect();
        let part_of_hessian: Vec<f32> = (first..first + size)
            .flat_map(|i| hessian[i * cols + first..][..size].to_vec())
            .collect();
        let moments = Moments::new(&part_of_hessian, size);
        let bounds: Vec<f32> = (part.chunks_exact(size))
            .map(|row| row.iter().fold(0.0f32, |most, w| most.max(w.abs())))
            .collect();
        let mut least = vec![f64::INFINITY; rows];
        for step in 0..10 {
            let share = 1.0 - step as f32 / 20.0;
            let clipped: Vec<f32> = (part.chunks_exact(size).zip(&bounds))
                .flat_map(|(row, bound)| {
                    row.iter()
                        .map(move |w| w.clamp(-bound * share, bound * share))
                })
                .collect();
            let mut change = round_to_nearest(&clipped, [rows, size], scheme)?.dequantize();
            change
                .iter_mut()
                .zip(&part)
                .for_each(|(change, w)| *change -= w);
            let errors = moments.energies(change, rows);
            for (row, (error, least)) in errors.into_iter().zip(&mut least).enumerate() {
                if error < *least {
                    *least = error;
                    let to = &mut out[row * cols + first..][..size];
                    to.copy_from_slice(&clipped[row * size..][..size]);
                }
            }
        }
    }
    Ok(out)
}

/// What rounding `w·s`, divided by `s`, changes of a weight `[rows, cols]`.
fn change_of_rounding(
    weight: &[f32],
    scales: &[f32],
    shape: [usize; 2],
    scheme: &Scheme,
) -> Vec<f32> {
    let cols = shape[1].max(1);
    let width = scheme.granularity.width(cols);
    let scaled = |row: &[f32], out: &mut [f32]| {
        for ((out, w), scale) in out.iter_mut().zip(row).zip(scales) {
            *out = w * scale;
        }
    };
    let mut change = vec![0.0; weight.len()];
    let rows = || weight.par_chunks_exact(cols);
    (rows().zip(change.par_chunks_exact_mut(cols))).for_each(|(row, out)| scaled(row, out));
    let whole = matches!(scheme.granularity, Granularity::Tensor).then(|| scheme.grid(&change));
    (rows().zip(change.par_chunks_exact_mut(cols))).for_each(|(row, out)| {
        for out in out.chunks_mut(width) {
            let grid = whole.unwrap_or_else(|| scheme.grid(out));
            out.iter_mut().for_each(|x| *x = grid.round(*x));
        }
        for ((out, w), scale) in out.iter_mut().zip(row).zip(scales) {
            *out = *out / scale - w;
        }
    });
    change
}

/// `tr(D·H·Dᵀ)` for a change `D` `[rows, cols]`.
pub(crate) fn energy(change: Vec<f32>, hessian: &[f32], [rows, cols]: [usize; 2]) -> f64 {
    Moments::new(hessian, cols)
        .energies(change, rows)
        .into_iter()
        .sum()
}

/// Columns of `H` that are multiplied at the same time.
const BLOCK: usize = 192;

/// `H` `[cols, cols]`, symmetric, as its columns down to the diagonal: `d·H·d` is twice the sum over that part, less the sum
/// over the diagonal.
struct Moments {
    /// `[end of the block, size of the block]` for each block of columns.
    blocks: Vec<Tensor<2>>,
    cols: usize,
    device: Device,
}

impl Moments {
    fn new(hessian: &[f32], cols: usize) -> Self {
        let device = Device::default();
        let blocks = (0..cols).step_by(BLOCK).map(|start| {
            let end = (start + BLOCK).min(cols);
            let numbers = (0..end).flat_map(|row| {
                (start..end).map(move |col| match row.cmp(&col) {
                    Ordering::Less => 2.0 * hessian[row * cols + col],
                    Ordering::Equal => hessian[row * cols + col],
                    Ordering::Greater => 0.0,
                })
            });
            let data = TensorData::new(numbers.collect::<Vec<f32>>(), [end, end - start]);
            Tensor::from_data(data, &device)
        });
        Self {
            blocks: blocks.collect(),
            cols,
            device,
        }
    }

    /// The diagonal of `D·H·Dᵀ`, `[rows]`.
    fn energies(&self, change: Vec<f32>, rows: usize) -> Vec<f64> {
        let mut energies = vec![0.0; rows];
        let change =
            Tensor::<2>::from_data(TensorData::new(change, [rows, self.cols]), &self.device);
        let mut start = 0;
        for block in &self.blocks {
            let [end, size] = block.dims();
            let times = numbers(change.clone().narrow(1, 0, end).matmul(block.clone()));
            let part = numbers(change.clone().narrow(1, start, size));
            (energies.par_iter_mut().with_min_len(16))
                .zip(times.par_chunks_exact(size))
                .zip(part.par_chunks_exact(size))
                .for_each(|((energy, a), b)| {
                    *energy += a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                });
            start = end;
        }
        energies
    }
}
