//! Masks of completions.

use burn::tensor::{Tensor, TensorData};

/// The mask without the rows whose completion was cut off before its end: 0 in the whole row.
///
/// The overlong filtering of section 3.4 of Yu et al., 2025 (DAPO, arXiv:2503.14476). Rewards of such rows still count
/// in
/// their group's baseline.
///
/// # Shapes
///
/// - `mask` and result: `[rows, tokens]`
/// - `truncated`: one flag per row
///
/// # Panics
///
/// If there are not as many flags as rows.
pub fn without_truncated(mask: Tensor<2>, truncated: &[bool]) -> Tensor<2> {
    let [rows, _] = mask.dims();
    assert_eq!(
        rows,
        truncated.len(),
        "{rows} rows and {} flags",
        truncated.len()
    );
    let kept: Vec<f32> = truncated
        .iter()
        .map(|&cut| f32::from(u8::from(!cut)))
        .collect();
    let kept = Tensor::<2>::from_data(TensorData::new(kept, [rows, 1]), &mask.device());
    mask * kept
}
