//! What merging loses where the merged weights are held or saved in 16 bits.

use burn::tensor::{FloatDType, Tensor};
use ft_core::Parts;
use serde::Serialize;

use crate::Result;
use crate::merge::{MergedPart, merged};

/// How much of the merged change is lost when merged weights are rounded to a type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MergeReport {
    /// Each merged layer.
    pub layers: Vec<LayerRounding>,
    /// `‖round(W+Δ) − (W+Δ)‖ / ‖Δ‖` of all layers together: how much of the change is noise. Zero in `f32`.
    pub error: f64,
}

/// What rounding does to one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerRounding {
    /// The path of the layer.
    pub layer: String,
    /// `‖Δ‖`.
    pub change: f64,
    /// `‖round(W+Δ) − (W+Δ)‖`.
    pub rounding: f64,
    /// `rounding / change`; infinite if nothing but rounding changes the weight.
    pub error: f64,
}

/// What merging the active adapters loses if the merged weights are held or saved as `dtype`. The model stays as it is.
///
/// Small changes of large weights are the ones that 16 bits lose: an error of 1 is as large as the change.
///
/// # Errors
///
/// As [`merge_and_unload`](crate::merge_and_unload).
pub fn merge_report(model: &impl Parts, dtype: FloatDType) -> Result<MergeReport> {
    let mut layers = Vec::new();
    let mut failure = None;
    model.for_each_part(&mut |path, part| {
        if failure.is_some() {
            return;
        }
        match merged(path, part) {
            Ok(Some(MergedPart::Matrix { base, weight, .. })) => {
                layers.push(LayerRounding::of(path, base, weight, dtype));
            }
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let norm = |of: fn(&LayerRounding) -> f64| {
        layers
            .iter()
            .map(|layer| of(layer).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let error = ratio(norm(|layer| layer.rounding), norm(|layer| layer.change));
    Ok(MergeReport { layers, error })
}

impl LayerRounding {
    fn of(path: &str, base: Tensor<2>, weight: Tensor<2>, dtype: FloatDType) -> Self {
        let rounded = weight.clone().cast(dtype).cast(FloatDType::F32);
        let (change, rounding) = (norm(weight.clone() - base), norm(rounded - weight));
        Self {
            layer: path.to_string(),
            change,
            rounding,
            error: ratio(rounding, change),
        }
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    match part == 0.0 {
        true => 0.0,
        false => part / whole,
    }
}

/// The square root of the sum of squares.
pub(crate) fn norm<const D: usize>(tensor: Tensor<D>) -> f64 {
    f64::from(tensor.square().sum().into_scalar::<f32>()).sqrt()
}
