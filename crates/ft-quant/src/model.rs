//! A causal language model whose linear layers are rounded to groups of integers, block by block.
//!
//! The embedding, the output layer and the norms stay. Beside the model there is one block in `f32`, and the hidden states of
//! the calibration text.

mod scaled_block;
mod scheme;
mod sequential;
mod weights;

use std::time::Instant;

use ft_core::{AutoCausalLm, Parts};

use crate::calibrate::{Blocks, check_adapters};
use crate::fold::Folds;
use crate::smooth::check_alpha;
use crate::{Error, GptqConfig, HqqConfig, Result, Rounded, Scheme};
use weights::{Weights, put};

pub(crate) use scheme::mistakes;
pub(crate) use weights::put_rounded;

/// How a weight is rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// To nearest.
    Nearest,
    /// [`gptq`](fn@crate::gptq). Layers of one input are rounded together, for the inputs that the rounded layers before them give.
    Gptq(GptqConfig),
    /// [`awq_scales`](crate::awq_scales), and [`awq_clip`](crate::awq_clip) except for queries and keys, for the inputs that the
    /// unrounded model gives. The scales go into the norm or the linear layer before; layers behind anything else are only
    /// clipped. [`QuantizedLayer::scaled_into`] and [`QuantizedLayer::clipped`] are what was done.
    Awq,
    /// [`hqq`](fn@crate::hqq).
    Hqq(HqqConfig),
    /// [`smooth_scales`](crate::smooth_scales), folded as those of AWQ, and rows of 8 bits ([`Scheme::rows`]) as
    /// [`PackedFormat::INT8`](ft_kernels::PackedFormat::INT8): their products round inputs to 8 bits, too, with a scale for each
    /// token.
    SmoothQuant {
        /// How much of the difference between columns goes into the weight, from 0 to 1.
        alpha: f32,
    },
}

impl Algorithm {
    /// Whether it reads a calibration text.
    pub fn needs_data(&self) -> bool {
        matches!(self, Self::Gptq(_) | Self::Awq | Self::SmoothQuant { .. })
    }
}

/// How a model is rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizeConfig {
    /// How a weight is rounded.
    pub algorithm: Algorithm,
    /// Bits, groups and whether grids are symmetric.
    pub scheme: Scheme,
}

/// A model's rounded layers, in the order of its blocks.
#[derive(Clone, Debug)]
pub struct QuantizedModel {
    /// The layers.
    pub layers: Vec<QuantizedLayer>,
    /// How long it took.
    pub seconds: f64,
}

impl QuantizedModel {
    /// The mean of the layers' relative errors of outputs if there was a calibration text, else of weights.
    pub fn mean_error(&self) -> f64 {
        let errors = self.layers.iter();
        let errors = errors.map(|layer| layer.output_error.unwrap_or(layer.weight_error));
        errors.sum::<f64>() / self.layers.len().max(1) as f64
    }

    /// Bits for each number of the layers in a file, [`Rounded::bits_per_weight`].
    pub fn bits_per_weight(&self) -> f64 {
        self.mean(|layer| layer.bits_per_weight)
    }

    /// Bits for each number of the layers in memory, [`Rounded::held_bits`].
    pub fn held_bits(&self) -> f64 {
        self.mean(|layer| layer.held_bits)
    }

    /// The mean over all numbers.
    fn mean(&self, of: impl Fn(&QuantizedLayer) -> f64) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for layer in &self.layers {
            sum += of(layer) * layer.numbers as f64;
            count += layer.numbers as f64;
        }
        sum / f64::max(count, 1.0)
    }
}

/// A rounded layer. Errors are those of the numbers that the model holds.
#[derive(Clone, Debug)]
pub struct QuantizedLayer {
    /// Its path.
    pub path: String,
    /// How many numbers it has.
    pub numbers: usize,
    /// Bits for each of them in a file, with their share of scales and zero points.
    pub bits_per_weight: f64,
    /// The same in memory.
    pub held_bits: f64,
    /// `‖W − Ŵ‖ / ‖W‖`. With AWQ and SmoothQuant `W` has the scales in it.
    pub weight_error: f64,
    /// The relative error of its outputs on the calibration text, `√(tr(D·H·Dᵀ) / tr(W·H·Wᵀ))` with `D = Ŵ − W`. With AWQ and
    /// SmoothQuant outputs that a following layer's scales went into are divided by them. What rounding inputs adds is not in it.
    pub output_error: Option<f64>,
    /// The same if the weight, without scales, were rounded to nearest.
    pub nearest_output_error: Option<f64>,
    /// The norm or linear layer that AWQ's or SmoothQuant's scales of its input went into; none if its columns were not scaled.
    pub scaled_into: Option<String>,
    /// Whether AWQ clipped its weight.
    pub clipped: bool,
}

/// A layer, and the integers that take its place.
type Found = (QuantizedLayer, Rounded);

/// Rounds the linear layers of all blocks of a model, and puts the integers in their place: as blocks that products read, or in
/// `f32` where there is no [`format`](Rounded::format) for the groups.
///
/// `windows` are tokens of a calibration text, as [`calibration_windows`](crate::calibration_windows) cuts them; rounding to
/// nearest and HQQ do without, and then report no errors of outputs. `progress` gets how many layers are rounded, and how many
/// there are: after each layer without windows, and after each block with them.
///
/// # Errors
///
/// If the bits are not from 2 to 8, groups do not divide the columns of a layer, the algorithm needs windows or does not go with
/// the scheme, a weight is not finite, or the model carries adapters. Layers that were rounded before an error stay rounded.
pub fn quantize_model(
    model: &mut AutoCausalLm,
    config: &QuantizeConfig,
    windows: Option<&[Vec<u32>]>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<QuantizedModel> {
    let start = Instant::now();
    check(model, config, windows.is_some())?;
    let layers = match windows {
        Some(windows) => with_data(model, config, windows, progress)?,
        None => without_data(model, config, progress)?,
    };
    Ok(QuantizedModel {
        layers,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn check(model: &AutoCausalLm, config: &QuantizeConfig, has_data: bool) -> Result<()> {
    let mut wrong = mistakes(model, &config.scheme);
    if config.algorithm.needs_data() && !has_data {
        wrong.push("GPTQ, AWQ and SmoothQuant need a calibration text".to_string());
    }
    if let Algorithm::SmoothQuant { alpha } = config.algorithm {
        wrong.extend(check_alpha(alpha).err());
        if config.scheme != Scheme::rows(8) {
            wrong.push("SmoothQuant has 8 bits and a symmetric grid for each row: give Scheme::rows(8), w8-sym in short".into());
        }
    }
    if config.scheme.symmetric && matches!(config.algorithm, Algorithm::Hqq(_)) {
        wrong.push("HQQ fits zero points, which a symmetric scheme does not have".into());
    }
    match wrong.is_empty() {
        true => check_adapters(model),
        false => Err(Error::Settings(wrong.join("; "))),
    }
}

/// The paths of the layers that are rounded.
fn paths(model: &AutoCausalLm) -> Vec<String> {
    let output = model.output_layer();
    let mut paths = Vec::new();
    model.for_each_linear(&mut |path, _| {
        if path != output {
            paths.push(path.to_string());
        }
    });
    paths
}

fn without_data(
    model: &mut AutoCausalLm,
    config: &QuantizeConfig,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<QuantizedLayer>> {
    let paths = paths(model);
    let mut layers = Vec::with_capacity(paths.len());
    for (done, path) in paths.iter().enumerate() {
        let weights = Weights::read(model, std::slice::from_ref(path));
        let weight = weights.of(path);
        let rounded = weight.round(path, config)?;
        let found = weight.layer(path, rounded, None);
        layers.extend(put(model, vec![found], config));
        progress(done + 1, paths.len());
    }
    Ok(layers)
}

fn with_data(
    model: &mut AutoCausalLm,
    config: &QuantizeConfig,
    windows: &[Vec<u32>],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<QuantizedLayer>> {
    let total = paths(model).len();
    let mut blocks = Blocks::new(model, windows)?;
    let mut folds = Folds::default();
    let mut layers = Vec::new();
    while blocks.next().is_some() {
        let stages = blocks.stages();
        let new = match config.algorithm {
            Algorithm::Awq | Algorithm::SmoothQuant { .. } => {
                scaled_block::round(&mut blocks, &stages, &mut folds, config)?
            }
            _ => sequential::round(&mut blocks, &stages, config)?,
        };
        layers.extend(put(blocks.model, new, config));
        progress(layers.len(), total);
    }
    Ok(layers)
}
