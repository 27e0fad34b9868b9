//! What merging loses where the merged weights are held or saved in 16 bits.

use burn::module::Param;
use burn::tensor::{DType, FloatDType, Tensor};
use ft_core::{Part, Parts};
use serde::Serialize;

use crate::Result;
use crate::merge::{MergedPart, merged};

/// How much of the merged change is lost when merged weights are rounded to a type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MergeReport {
    /// Each layer that merging changes: linear layers, embeddings and norms, with their biases.
    pub layers: Vec<LayerRounding>,
    /// `‖round(W+Δ) − (W+Δ)‖ / ‖Δ‖` of all layers together: how much of the change is noise. Zero in `f32`.
    pub error: f64,
}

/// What rounding does to one layer. A weight or bias that merging does not change does not count.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerRounding {
    /// The path of the layer.
    pub layer: String,
    /// `‖Δ‖`.
    pub change: f64,
    /// `‖round(W+Δ) − (W+Δ)‖`.
    pub rounding: f64,
    /// `rounding / change`.
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
            Ok(Some(merged)) => layers.extend(of_part(path, part, merged, dtype)),
            Ok(None) => {}
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

/// What rounding does to a merged part; none if merging does not change it.
fn of_part(
    path: &str,
    part: Part<'_>,
    merged: MergedPart,
    dtype: FloatDType,
) -> Option<LayerRounding> {
    let value = |param: &Param<Tensor<1>>| param.val().detach();
    let (matrix, vectors) = match (part, merged) {
        (Part::Linear(linear), MergedPart::Matrix { base, weight, bias }) => {
            let own = linear.bias.as_ref().map(value);
            (Some((base, weight)), vec![(own, bias)])
        }
        (_, MergedPart::Matrix { base, weight, .. }) => (Some((base, weight)), Vec::new()),
        (Part::RmsNorm(norm), MergedPart::Vectors { weight, .. }) => {
            (None, vec![(Some(value(&norm.weight)), weight)])
        }
        (Part::LayerNorm(norm), MergedPart::Vectors { weight, bias }) => {
            let own = [&norm.weight, &norm.bias].map(|param| Some(value(param)));
            (None, own.into_iter().zip([weight, bias]).collect())
        }
        _ => (None, Vec::new()),
    };
    let matrix = matrix.map(|(base, weight)| change_and_rounding(base, weight, dtype));
    let vectors = vectors.into_iter().filter_map(|(own, new)| {
        let new = new?;
        let own = own.unwrap_or_else(|| new.zeros_like());
        Some(change_and_rounding(own, new, dtype))
    });
    // Rounding what did not change loses nothing of the change.
    let changed = matrix
        .into_iter()
        .chain(vectors)
        .filter(|(change, _)| *change > 0.0);
    let squares = changed.fold([0.0; 2], |[changes, roundings], (change, rounding)| {
        [changes + change.powi(2), roundings + rounding.powi(2)]
    });
    let [change, rounding] = squares.map(f64::sqrt);
    (change > 0.0).then(|| LayerRounding {
        layer: path.to_string(),
        change,
        rounding,
        error: rounding / change,
    })
}

/// `‖Δ‖`, and `‖round(W+Δ) − (W+Δ)‖`.
fn change_and_rounding<const D: usize>(
    base: Tensor<D>,
    merged: Tensor<D>,
    dtype: FloatDType,
) -> (f64, f64) {
    let [base, merged] = [base, merged].map(|tensor| tensor.cast(DType::F32));
    let rounded = merged.clone().cast(dtype).cast(FloatDType::F32);
    (norm(merged.clone() - base), norm(rounded - merged))
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
