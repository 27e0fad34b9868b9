//! AWQ and SmoothQuant of a block: scales of all stages, which change the layers before, then rounding.

use std::collections::HashMap;

use super::weights::Weights;
use super::{Algorithm, Found, QuantizeConfig};
use crate::calibrate::{Blocks, Stage};
use crate::fold::{Folds, fold};
use crate::moments::{Moments, Order};
use crate::{Result, awq_clip, awq_scales, round_to_nearest, smooth_scales};

/// The windows are then behind the block as it was.
pub(super) fn round(
    blocks: &mut Blocks<'_>,
    stages: &[Stage],
    folds: &mut Folds,
    config: &QuantizeConfig,
) -> Result<Vec<Found>> {
    let scheme = &config.scheme;
    let mut places = folds.of(blocks, stages);
    let mut moments = blocks.moments(stages, Order::Second);
    // Before any scales: those of a stage change the rows of the layer before, too.
    let mut nearest = HashMap::new();
    for (stage, moments) in stages.iter().zip(&moments) {
        let weights = Weights::read(blocks.model, &stage.paths);
        for path in &stage.paths {
            let error = weights.of(path).nearest_error(path, moments, scheme)?;
            nearest.insert(path.as_str(), error);
        }
    }
    scale(blocks, stages, &mut places, &mut moments, config)?;
    let mut layers = Vec::new();
    for ((stage, place), moments) in stages.iter().zip(&places).zip(&moments) {
        let weights = Weights::read(blocks.model, &stage.paths);
        for path in &stage.paths {
            let weight = weights.of(path);
            let clipped = config.algorithm == Algorithm::Awq && !computes_queries_or_keys(path);
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

/// Multiplies the columns of each stage that has a place for the inverse, which is put there. The second moments are then those of
/// the scaled inputs, and stages with scales of 1 have no place.
fn scale(
    blocks: &mut Blocks<'_>,
    stages: &[Stage],
    places: &mut [Option<String>],
    moments: &mut [Moments],
    config: &QuantizeConfig,
) -> Result<()> {
    let model = &mut *blocks.model;
    for ((stage, place), moments) in stages.iter().zip(places).zip(moments) {
        let Some(before) = place else { continue };
        let (weight, shape) = Weights::read(model, &stage.paths).stacked(stage);
        let Moments {
            hessian, mean_abs, ..
        } = &*moments;
        let scales = match config.algorithm {
            Algorithm::SmoothQuant { alpha } => {
                smooth_scales(&weight, &moments.max_abs, shape, alpha)
            }
            _ => awq_scales(&weight, hessian, mean_abs, shape, &config.scheme),
        };
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
    Ok(())
}

/// Whether a layer computes queries or keys, whose products are no sums of outputs: clipping them by the error of outputs hurts.
fn computes_queries_or_keys(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    ["q_proj", "k_proj", "qkv_proj", "query_key_value", "c_attn"].contains(&name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::{Device, Int, Tensor};
    use ft_core::{AutoCausalLm, CausalLm, TokenBatch, Weights};

    use super::*;
    use crate::Scheme;

    /// Logits of a few tokens, and their largest magnitude.
    fn logits(model: &AutoCausalLm) -> (Tensor<3>, f32) {
        let ids = Tensor::<1, Int>::arange_step(0..40, 3, &Device::default()).unsqueeze::<2>();
        let logits = model.logits(&TokenBatch::new(ids), None);
        let most = logits.clone().abs().max().into_scalar::<f32>();
        (logits, most)
    }

    /// Before anything is rounded, scales change the weights and not what the model computes.
    #[test]
    fn scales_alone_change_no_logits() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../ft-core/tests/golden");
        let windows: Vec<Vec<u32>> = (0..4)
            .map(|window| (0..16).map(|i| (window * 31 + i * 17) % 50).collect())
            .collect();
        for family in ["llama", "gpt2", "gemma", "phi3", "falcon_7b"] {
            let folder = Path::new(golden).join(family);
            let device = Device::default();
            let mut model =
                AutoCausalLm::from_pretrained_with(&folder, &device, Weights::F32).expect("loads");
            let (expected, most) = logits(&model);
            let config = QuantizeConfig {
                algorithm: Algorithm::SmoothQuant { alpha: 0.5 },
                scheme: Scheme::rows(8),
            };
            let mut blocks = Blocks::new(&mut model, &windows).expect("windows");
            let (mut folds, mut scaled) = (Folds::default(), 0);
            while blocks.next().is_some() {
                let stages = blocks.stages();
                let mut places = folds.of(&blocks, &stages);
                let mut moments = blocks.moments(&stages, Order::Second);
                scale(&mut blocks, &stages, &mut places, &mut moments, &config).expect("finite");
                scaled += places.iter().flatten().count();
            }
            drop(blocks);
            assert!(scaled >= 2, "{family}: {scaled} stages");
            let change = (logits(&model).0 - expected)
                .abs()
                .max()
                .into_scalar::<f32>();
            assert!(change < 1e-4 * most, "{family}: {change} of {most}");
        }
    }
}
