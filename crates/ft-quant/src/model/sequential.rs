//! A block whose stages are rounded one after the other, each for the inputs that the rounded stages before it give.

use std::sync::{Arc, Mutex, PoisonError};

use super::weights::Weights;
use super::{Algorithm, Found, QuantizeConfig};
use crate::calibrate::{Blocks, Round, Stage};
use crate::fold::in_layout;
use crate::moments::{Moments, tensor};
use crate::{Result, Rounded, gptq};

/// The windows are then behind the rounded block.
pub(super) fn round(
    blocks: &mut Blocks<'_>,
    stages: &[Stage],
    config: &QuantizeConfig,
) -> Result<Vec<Found>> {
    let paths: Vec<String> = stages
        .iter()
        .flat_map(|stage| stage.paths.clone())
        .collect();
    let weights = Weights::read(blocks.model, &paths);
    let layers = Arc::new(Mutex::new(Vec::new()));
    let (config, found) = (*config, layers.clone());
    let round: Round = Box::new(move |stage, moments| {
        let rounded = round_stage(&weights, stage, &moments, &config)?;
        let numbers = rounded.iter().map(|(layer, rounded)| {
            let weight = weights.of(&layer.path);
            let numbers = tensor(rounded.dequantize(), weight.shape, &weight.device);
            (layer.path.clone(), in_layout(weight.layout, numbers))
        });
        let numbers = numbers.collect();
        found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(rounded);
        Ok(numbers)
    });
    blocks.round(stages, round)?;
    let mut layers = layers.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *layers))
}

fn round_stage(
    weights: &Weights,
    stage: &Stage,
    moments: &Moments,
    config: &QuantizeConfig,
) -> Result<Vec<Found>> {
    let rounded: Vec<Rounded> = match &config.algorithm {
        Algorithm::Gptq(gptq_config) => {
            let (weight, shape) = weights.stacked(stage);
            let found = gptq(
                &weight,
                &moments.hessian,
                shape,
                &config.scheme,
                gptq_config,
            );
            let found = found.map_err(|error| error.in_layer(&stage.paths[0]))?;
            let rows = stage.paths.iter().map(|path| weights.of(path).shape[0]);
            split(&found, rows)
        }
        _ => {
            let each = stage.paths.iter();
            let each = each.map(|path| weights.of(path).round(path, config));
            each.collect::<Result<_>>()?
        }
    };
    let layers = stage.paths.iter().zip(rounded).map(|(path, rounded)| {
        let weight = weights.of(path);
        let (mut layer, rounded) = weight.layer(path, rounded, Some(moments));
        layer.nearest_output_error = match config.algorithm {
            Algorithm::Nearest => layer.output_error,
            _ => Some(weight.nearest_error(path, moments, &config.scheme)?),
        };
        Ok((layer, rounded))
    });
    layers.collect()
}

/// Parts of so many rows each, from the first.
fn split(rounded: &Rounded, rows: impl Iterator<Item = usize>) -> Vec<Rounded> {
    let (cols, groups) = (rounded.shape[1], rounded.groups());
    let mut first = 0;
    let parts = rows.map(|rows| {
        let from = first;
        first += rows;
        Rounded {
            shape: [rows, cols],
            bits: rounded.bits,
            levels: rounded.levels[from * cols..first * cols].to_vec(),
            scales: rounded.scales[from * groups..first * groups].to_vec(),
            zero_points: rounded.zero_points[from * groups..first * groups].to_vec(),
            group_of: rounded.group_of.clone(),
        }
    });
    parts.collect()
}
