//! SmoothQuant: columns of a weight are multiplied by a scale and their inputs divided by it, so that inputs with few large columns
//! can be rounded to 8 bits, too (Xiao et al., 2022, arXiv:2211.10438, section 4).
//!
//! As in [AWQ](crate::awq_scales) the inverse scale goes into what computes the input.

use crate::error::check_finite;
use crate::{Error, Result};

/// The least scale, that of the authors' code.
const LEAST: f32 = 1e-5;

/// The scale `[cols]` of a weight's columns, `max|X_j|ᵅ / max|W_j|¹⁻ᵅ` (equation 4). The weight is multiplied by it, its input
/// divided (equation 3).
///
/// With `alpha` 0 the inputs get all of the difference between columns of the weight, with 1 the weight gets all of that of the
/// inputs, and with 0.5 a column has the same largest magnitude in both. Columns that are zero in one of them keep a scale of 1, and
/// so do those whose scale is too large for `f32`.
///
/// # Shapes
///
/// - `weight`: `[rows, cols]`, possibly projections of one input, stacked
/// - `max_abs`: the largest magnitude of each column of the input, `[cols]`
///
/// # Errors
///
/// If a number is not finite, or `alpha` is not from 0 to 1.
///
/// # Panics
///
/// If sizes do not match.
///
/// ```
/// use ft_quant::smooth_scales;
///
/// // The second column of the input has 16 where the others have 1.
/// let (weight, max_abs) = ([1.0, 0.5, 0.25, -1.0, 1.0, 0.0], [1.0, 16.0, 1.0]);
/// let scales = smooth_scales(&weight, &max_abs, [2, 3], 0.5)?;
/// // √1/√1, √16/√1, √1/√0.25
/// assert_eq!(scales, [1.0, 4.0, 2.0]);
/// # Ok::<(), ft_quant::Error>(())
/// ```
pub fn smooth_scales(
    weight: &[f32],
    max_abs: &[f32],
    shape: [usize; 2],
    alpha: f32,
) -> Result<Vec<f32>> {
    let [rows, cols] = shape;
    assert_eq!(weight.len(), rows * cols, "numbers of {shape:?}");
    assert_eq!(max_abs.len(), cols, "a magnitude of each column");
    check_alpha(alpha).map_err(Error::Settings)?;
    check_finite(weight, cols)?;
    if !max_abs.iter().all(|x| x.is_finite()) {
        return Err(Error::NotFinite);
    }
    let mut most = vec![0.0f32; cols];
    for row in weight.chunks_exact(cols.max(1)) {
        for (most, w) in most.iter_mut().zip(row) {
            *most = most.max(w.abs());
        }
    }
    let scale = |(x, w): (&f32, f32)| {
        let scale = x.powf(alpha) / w.powf(1.0 - alpha);
        match *x > 0.0 && w > 0.0 && scale.is_finite() {
            true => scale.max(LEAST),
            false => 1.0,
        }
    };
    Ok(max_abs.iter().zip(most).map(scale).collect())
}

/// What is wrong with a share.
pub(crate) fn check_alpha(alpha: f32) -> Result<(), String> {
    match (0.0..=1.0).contains(&alpha) {
        true => Ok(()),
        false => Err(format!(
            "alpha {alpha}: give a number from 0 to 1; 0.5 is usual"
        )),
    }
}
