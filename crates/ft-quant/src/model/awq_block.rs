//! AWQ of a block: scales of all stages, which change the layers before, then clipping and rounding.

use std::collections::HashMap;

use super::Found;
use super::weights::Weights;
use crate::calibrate::{Blocks, Stage};
use crate::fold::{Folds, fold};
use crate::moments::Order;
use crate::{Result, Scheme, awq_clip, awq_scales, round_to_nearest};

/// The windows are then behind the block as it was.
pub(super) fn round(
    blocks: &mut Blocks<'_>,
    stages: &[Stage],
    folds: &mut Folds,
    scheme: &Scheme,
) -> Result<Vec<Found>> {
    let mut places = folds.of(blocks, stages);
    let mut moments = blocks.moments(stages, Order::Second);
    let model = &mut *blocks.model;
    // Before any scales: those of a stage change the rows of the layer before, too.
    let mut nearest = HashMap::new();
    for (stage, moments) in stages.iter().zip(&moments) {
        let weights = Weights::read(model, &stage.paths);
        for path in &stage.paths {
            let error = weights.of(path).nearest_error(path, moments, scheme)?;
            nearest.insert(path.as_str(), error);
        }
    }
    for ((stage, place), moments) in stages.iter().zip(&mut places).zip(&mut moments) {
        let Some(before) = place else { continue };
        let (weight, shape) = Weights::read(model, &stage.paths).stacked(stage);
        let scales = awq_scales(&weight, &moments.hessian, &moments.mean_abs, shape, scheme);
        let scales = scales.map_err(|error| error.in_layer(&stage.paths[0]))?;
        if scales.iter().all(|scale| *scale == 1.0) {
            *place = None;
            continue;
        }
        fold(model, before, &stage.paths, &scales);
        for (row, scale) in moments.hessian.chunks_exact_mut(stage.cols).zip(&scales) {
            for (h, other) in row.iter_mut().zip(&scales) {
                *h /= scale * other;
            }
        }
    }
    let mut layers = Vec::new();
    for ((stage, place), moments) in stages.iter().zip(&places).zip(&moments) {
        let weights = Weights::read(model, &stage.paths);
        for path in &stage.paths {
            let weight = weights.of(path);
            let clipped = !computes_queries_or_keys(path);
            let round = || match clipped {
                true => {
                    let clipped =
                        awq_clip(&weight.numbers, &moments.hessian, weight.shape, scheme)?;
                    round_to_nearest(&clipped, weight.shape, scheme)
                }
                false => round_to_nearest(&weight.numbers, weight.shape, scheme),
            };
            let rounded = round().map_err(|error| error.in_layer(path))?;
            let (mut layer, rounded) = weight.layer(path, rounded, Some(moments));
            layer.nearest_output_error = nearest.get(path.as_str()).copied();
            layer.scaled_into.clone_from(place);
            layer.clipped = clipped;
            layers.push((layer, rounded));
        }
    }
    Ok(layers)
}

/// Whether a layer computes queries or keys, whose products are no sums of outputs: clipping them by the error of outputs hurts.
fn computes_queries_or_keys(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    ["q_proj", "k_proj", "qkv_proj", "query_key_value", "c_attn"].contains(&name)
}
