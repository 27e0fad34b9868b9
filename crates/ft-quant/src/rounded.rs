//! Rounding to nearest.

use ft_core::packed_folder::Rounded;
use rayon::prelude::*;

use crate::error::check_finite;
use crate::{Result, Scheme};

/// Zeros, whose grids are not set.
pub(crate) fn zeros(shape: [usize; 2], scheme: &Scheme) -> Rounded {
    Rounded::zeros(shape, scheme.bits, scheme.granularity.width(shape[1]))
}

/// Rounds every number to the nearest of its group's grid, which lies from the least to the greatest number.
///
/// `weight` is `[rows, cols]`.
///
/// # Errors
///
/// [`Error::Weight`](crate::Error::Weight) if a number is not finite.
///
/// # Panics
///
/// If the size does not match, or the bits are not from 1 to 8.
///
/// ```
/// use ft_quant::{Scheme, round_to_nearest};
///
/// let weight = [0.0, 1.0, 2.0, 3.0, -1.0, 0.4, 0.0, 2.0];
/// let rounded = round_to_nearest(&weight, [1, 8], &Scheme::grouped(2, 4))?;
/// assert_eq!(rounded.levels, [0, 1, 2, 3, 0, 1, 1, 3]);
/// assert_eq!(rounded.dequantize()[4..], [-1.0, 0.0, 0.0, 2.0]);
/// # Ok::<(), ft_quant::Error>(())
/// ```
pub fn round_to_nearest(weight: &[f32], shape: [usize; 2], scheme: &Scheme) -> Result<Rounded> {
    let [rows, cols] = shape;
    assert_eq!(weight.len(), rows * cols, "numbers of {shape:?}");
    check_finite(weight, cols)?;
    let mut rounded = zeros(shape, scheme);
    let groups = rounded.groups();
    if weight.is_empty() {
        return Ok(rounded);
    }
    let width = scheme.granularity.width(cols);
    let whole =
        matches!(scheme.granularity, crate::Granularity::Tensor).then(|| scheme.grid(weight));
    (weight.par_chunks_exact(cols))
        .zip(rounded.levels.par_chunks_exact_mut(cols))
        .zip(rounded.scales.par_chunks_exact_mut(groups))
        .zip(rounded.zero_points.par_chunks_exact_mut(groups))
        .for_each(|(((weight, levels), scales), zero_points)| {
            let parts = weight.chunks(width).zip(levels.chunks_mut(width));
            for ((weight, levels), (scale, zero_point)) in
                parts.zip(scales.iter_mut().zip(zero_points))
            {
                let grid = whole.unwrap_or_else(|| scheme.grid(weight));
                (*scale, *zero_point) = (grid.scale, grid.zero_point);
                for (level, weight) in levels.iter_mut().zip(weight) {
                    *level = grid.level(*weight) as u8;
                }
            }
        });
    Ok(rounded)
}

/// `‖found − weight‖ / ‖weight‖`, the relative error of a matrix.
pub fn relative_error(weight: &[f32], found: &[f32]) -> f64 {
    assert_eq!(weight.len(), found.len(), "matrices of the same size");
    let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
    let difference = squares(&mut weight.iter().zip(found).map(|(w, f)| f64::from(w - f)));
    let size = squares(&mut weight.iter().map(|w| f64::from(*w)));
    if size > 0.0 {
        (difference / size).sqrt()
    } else {
        difference.sqrt()
    }
}
