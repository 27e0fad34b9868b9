//! A causal language model whose linear layers are rounded to groups of integers, block by block.
//!
//! The embedding, the output layer and the norms stay. Beside the model there is one block in `f32`, and the hidden states of
//! the calibration text.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::tensor::Device;
use ft_core::layers::Layout;
use ft_core::{AutoCausalLm, CausalLm, Linear, Parts};

use crate::calibrate::{Blocks, Round, Stage};
use crate::cholesky::numbers;
use crate::fold::{Folds, fold, lying, matrix, set_matrix};
use crate::moments::{Moments, Order, tensor};
use crate::{
    Error, GptqConfig, Granularity, HqqConfig, Result, Rounded, Scheme, awq_clip, awq_scales, gptq,
    hqq, output_error, relative_error, round_to_nearest,
};

/// How a weight is rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// To nearest.
    Nearest,
    /// [`gptq`]. Layers of one input are rounded together, for the inputs that the rounded layers before them give.
    Gptq(GptqConfig),
    /// [`awq_scales`], and [`awq_clip`] except for queries and keys, for the inputs that the unrounded model gives. The scales
    /// go into the norm or the linear layer before; layers behind anything else are only clipped.
    Awq,
    /// [`hqq`].
    Hqq(HqqConfig),
}

impl Algorithm {
    /// Whether it reads a calibration text.
    pub fn needs_data(&self) -> bool {
        matches!(self, Self::Gptq(_) | Self::Awq)
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

    /// Bits for each number of the layers.
    pub fn bits_per_weight(&self) -> f64 {
        let (mut bits, mut count) = (0.0, 0.0);
        for layer in &self.layers {
            bits += layer.bits_per_weight * layer.numbers as f64;
            count += layer.numbers as f64;
        }
        bits / f64::max(count, 1.0)
    }
}

/// A rounded layer.
#[derive(Clone, Debug)]
pub struct QuantizedLayer {
    /// Its path.
    pub path: String,
    /// How many numbers it has.
    pub numbers: usize,
    /// Bits for each of them, with their share of scales and zero points.
    pub bits_per_weight: f64,
    /// `‖W − Ŵ‖ / ‖W‖`. With AWQ `W` has the scales in it.
    pub weight_error: f64,
    /// The relative error of its outputs on the calibration text, `√(tr(D·H·Dᵀ) / tr(W·H·Wᵀ))` with `D = Ŵ − W`.
    pub output_error: Option<f64>,
    /// The same if `W` were rounded to nearest.
    pub nearest_output_error: Option<f64>,
}

/// A layer, and the integers that take its place.
type Found = (QuantizedLayer, Rounded);

/// Rounds the linear layers of all blocks of a model, and puts the integers in their place: as blocks that products read, or in
/// `f32` where there is no [`format`](Rounded::format) for the groups.
///
/// `windows` are tokens of a calibration text, as [`calibration_windows`](crate::calibration_windows) cuts them; rounding to
/// nearest and HQQ do without, and then report no errors of outputs. `progress` is called after each block with how many are done,
/// and how many there are.
///
/// # Errors
///
/// If the bits are not from 2 to 8, groups do not divide the columns of a layer, the algorithm needs windows or does not go with
/// the scheme, a weight is not finite, or the model carries adapters.
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
    let Scheme {
        bits,
        granularity,
        symmetric,
    } = config.scheme;
    let mut wrong = Vec::new();
    if !(2..=8).contains(&bits) {
        wrong.push(format!("{bits} bits: give 2 to 8"));
    }
    if config.algorithm.needs_data() && !has_data {
        wrong.push("GPTQ and AWQ need a calibration text".to_string());
    }
    if symmetric && matches!(config.algorithm, Algorithm::Hqq(_)) {
        wrong.push("HQQ fits zero points, which a symmetric scheme does not have".into());
    }
    if granularity == Granularity::Tensor {
        wrong.push("weights are rounded in rows or groups, not as a whole".into());
    }
    if let Granularity::Group(size) = granularity {
        let mut layers: Vec<(String, usize)> = Vec::new();
        let output = model.output_layer();
        model.for_each_linear(&mut |path, linear| {
            let cols = linear.in_features();
            let known = layers.iter().any(|(_, known)| *known == cols);
            if path != output && (size == 0 || !cols.is_multiple_of(size)) && !known {
                layers.push((path.to_string(), cols));
            }
        });
        wrong.extend(layers.into_iter().map(|(path, cols)| {
            format!("groups of {size} do not divide the {cols} columns of {path}")
        }));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::Settings(wrong.join("; "))),
    }
}

fn without_data(
    model: &mut AutoCausalLm,
    config: &QuantizeConfig,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<QuantizedLayer>> {
    let output = model.output_layer();
    let mut paths = Vec::new();
    model.for_each_linear(&mut |path, _| {
        if path != output {
            paths.push(path.to_string());
        }
    });
    let mut layers = Vec::with_capacity(paths.len());
    for (done, path) in paths.iter().enumerate() {
        let weights = Weights::read(model, std::slice::from_ref(path));
        let weight = &weights.0[path];
        let rounded = weight.round(config)?;
        let found = weight.layer(path, rounded, None, config)?;
        layers.extend(put(model, vec![found]));
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
    let total = model.dims().num_layers;
    let mut blocks = Blocks::new(model, windows)?;
    let mut folds = Folds::default();
    let mut layers = Vec::new();
    while let Some(block) = blocks.next() {
        let stages = blocks.stages();
        let new = match config.algorithm {
            Algorithm::Awq => awq_block(&mut blocks, &stages, &mut folds, config)?,
            _ => sequential_block(&mut blocks, &stages, config)?,
        };
        layers.extend(put(blocks.model, new));
        progress(block + 1, total);
    }
    Ok(layers)
}

/// Each stage for the inputs that the rounded stages before it give.
fn sequential_block(
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
        let rounded = weights.round_stage(stage, &moments, &config)?;
        let numbers = rounded.iter().map(|(layer, rounded)| {
            let weight = &weights.0[&layer.path];
            let numbers = tensor(rounded.dequantize(), weight.shape, &weight.device);
            (layer.path.clone(), lying(weight.layout, numbers))
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

/// Scales of all stages, which change the layers before, then clipping and rounding.
fn awq_block(
    blocks: &mut Blocks<'_>,
    stages: &[Stage],
    folds: &mut Folds,
    config: &QuantizeConfig,
) -> Result<Vec<Found>> {
    let places = folds.of(blocks, stages);
    let mut moments = blocks.moments(stages, Order::Second);
    let model = &mut *blocks.model;
    for ((stage, place), moments) in stages.iter().zip(&places).zip(&mut moments) {
        let Some(place) = place else { continue };
        let (weight, shape) = Weights::read(model, &stage.paths).stacked(stage);
        let scales = awq_scales(
            &weight,
            &moments.hessian,
            &moments.mean_abs,
            shape,
            &config.scheme,
        );
        let scales = scales.map_err(|error| in_layer(&stage.paths[0], error))?;
        fold(model, place, &stage.paths, &scales);
        for (row, scale) in moments.hessian.chunks_exact_mut(stage.cols).zip(&scales) {
            for (h, other) in row.iter_mut().zip(&scales) {
                *h /= scale * other;
            }
        }
    }
    let mut layers = Vec::new();
    for (stage, moments) in stages.iter().zip(&moments) {
        let weights = Weights::read(model, &stage.paths);
        for path in &stage.paths {
            let weight = &weights.0[path];
            let round = || match computes_queries_or_keys(path) {
                true => weight.round(config),
                false => {
                    let Matrix { numbers, shape, .. } = weight;
                    let clipped = awq_clip(numbers, &moments.hessian, *shape, &config.scheme)?;
                    round_to_nearest(&clipped, *shape, &config.scheme)
                }
            };
            let rounded = round().map_err(|error| in_layer(path, error))?;
            layers.push(weight.layer(path, rounded, Some(moments), config)?);
        }
    }
    Ok(layers)
}

/// Whether a layer computes queries or keys, whose products are no sums of outputs: clipping them by the error of outputs hurts.
fn computes_queries_or_keys(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    ["q_proj", "k_proj", "qkv_proj", "query_key_value", "c_attn"].contains(&name)
}

/// Weights by path.
struct Weights(HashMap<String, Matrix>);

/// A weight in `f32`.
struct Matrix {
    numbers: Vec<f32>,
    /// `[out, in]`
    shape: [usize; 2],
    layout: Layout,
    device: Device,
}

impl Weights {
    fn read(model: &AutoCausalLm, paths: &[String]) -> Self {
        let mut weights = HashMap::new();
        model.for_each_linear(&mut |path, linear| {
            if paths.iter().any(|wanted| wanted == path) {
                let weight = Matrix {
                    numbers: numbers(matrix(linear)),
                    shape: [linear.out_features(), linear.in_features()],
                    layout: linear.layout(),
                    device: linear.weight.lazy_device(),
                };
                weights.insert(path.to_string(), weight);
            }
        });
        Self(weights)
    }

    /// The weights of a stage, one below the other.
    fn stacked(&self, stage: &Stage) -> (Vec<f32>, [usize; 2]) {
        let weights = stage.paths.iter().map(|path| &self.0[path]);
        let numbers: Vec<f32> = weights.flat_map(|weight| weight.numbers.clone()).collect();
        let rows = numbers.len() / stage.cols;
        (numbers, [rows, stage.cols])
    }

    fn round_stage(
        &self,
        stage: &Stage,
        moments: &Moments,
        config: &QuantizeConfig,
    ) -> Result<Vec<Found>> {
        let rounded: Vec<Rounded> = match &config.algorithm {
            Algorithm::Gptq(gptq_config) => {
                let (weight, shape) = self.stacked(stage);
                let found = gptq(
                    &weight,
                    &moments.hessian,
                    shape,
                    &config.scheme,
                    gptq_config,
                );
                let found = found.map_err(|error| in_layer(&stage.paths[0], error))?;
                let rows = stage.paths.iter().map(|path| self.0[path].shape[0]);
                split(&found, rows)
            }
            _ => {
                let each = stage.paths.iter().map(|path| {
                    let rounded = self.0[path].round(config);
                    rounded.map_err(|error| in_layer(path, error))
                });
                each.collect::<Result<_>>()?
            }
        };
        let layers = stage.paths.iter().zip(rounded).map(|(path, rounded)| {
            let weight = &self.0[path];
            weight.layer(path, rounded, Some(moments), config)
        });
        layers.collect()
    }
}

impl Matrix {
    /// Without data.
    fn round(&self, config: &QuantizeConfig) -> Result<Rounded> {
        match &config.algorithm {
            Algorithm::Hqq(hqq_config) => {
                hqq(&self.numbers, self.shape, &config.scheme, hqq_config)
            }
            _ => round_to_nearest(&self.numbers, self.shape, &config.scheme),
        }
    }

    /// The layer with its errors.
    fn layer(
        &self,
        path: &str,
        rounded: Rounded,
        moments: Option<&Moments>,
        config: &QuantizeConfig,
    ) -> Result<Found> {
        let found = rounded.dequantize();
        let error = |found: &[f32]| {
            moments.map(|moments| {
                output_error(&self.numbers, found, &moments.hessian, self.shape).sqrt()
            })
        };
        let output = error(&found);
        let nearest = match (moments, config.algorithm) {
            (None, _) => None,
            (Some(_), Algorithm::Nearest) => output,
            (Some(_), _) => {
                let nearest = round_to_nearest(&self.numbers, self.shape, &config.scheme);
                let nearest = nearest.map_err(|error| in_layer(path, error))?;
                error(&nearest.dequantize())
            }
        };
        let layer = QuantizedLayer {
            path: path.to_string(),
            numbers: self.numbers.len(),
            bits_per_weight: rounded.bits_per_weight(),
            weight_error: relative_error(&self.numbers, &found),
            output_error: output,
            nearest_output_error: nearest,
        };
        Ok((layer, rounded))
    }
}

/// Puts rounded weights in the place of the layers' own.
fn put(model: &mut AutoCausalLm, found: Vec<Found>) -> Vec<QuantizedLayer> {
    model.for_each_linear_mut(&mut |path, linear| {
        if let Some((_, rounded)) = found.iter().find(|(layer, _)| layer.path == path) {
            put_rounded(linear, rounded);
        }
    });
    found.into_iter().map(|(layer, _)| layer).collect()
}

/// Integers in the place of a layer's weight, as blocks if there is a format for them, else as the numbers that they are.
pub(crate) fn put_rounded(linear: &mut Linear, rounded: &Rounded) {
    let device = linear.weight.lazy_device();
    match rounded.packed(&device) {
        Some(packed) => linear.set_packed(&packed),
        None => set_matrix(linear, tensor(rounded.dequantize(), rounded.shape, &device)),
    }
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

fn in_layer(path: &str, error: Error) -> Error {
    Error::Settings(format!("{path}: {error}"))
}
