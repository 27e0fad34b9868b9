//! Weights of layers in `f32`, and the integers that take their place.

use std::collections::HashMap;

use burn::tensor::Device;
use ft_core::layers::Layout;
use ft_core::{AutoCausalLm, Linear, Parts};

use super::{Algorithm, Found, QuantizeConfig, QuantizedLayer};
use crate::calibrate::Stage;
use crate::cholesky::numbers;
use crate::fold::{matrix, set_matrix};
use crate::moments::{Moments, tensor};
use crate::{Result, Rounded, Scheme, hqq, output_error, relative_error, round_to_nearest};

/// Weights by path.
pub(super) struct Weights(HashMap<String, Matrix>);

/// A weight in `f32`.
pub(super) struct Matrix {
    pub(super) numbers: Vec<f32>,
    /// `[out, in]`
    pub(super) shape: [usize; 2],
    pub(super) layout: Layout,
    pub(super) device: Device,
}

impl Weights {
    /// The weights of these layers.
    pub(super) fn read(model: &AutoCausalLm, paths: &[String]) -> Self {
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

    /// That of a layer that was read.
    pub(super) fn of(&self, path: &str) -> &Matrix {
        &self.0[path]
    }

    /// The weights of a stage, one below the other.
    pub(super) fn stacked(&self, stage: &Stage) -> (Vec<f32>, [usize; 2]) {
        let weights = stage.paths.iter().map(|path| self.of(path));
        let numbers: Vec<f32> = weights.flat_map(|weight| weight.numbers.clone()).collect();
        let rows = numbers.len() / stage.cols;
        (numbers, [rows, stage.cols])
    }
}

impl Matrix {
    /// Without data.
    pub(super) fn round(&self, path: &str, config: &QuantizeConfig) -> Result<Rounded> {
        let rounded = match &config.algorithm {
            Algorithm::Hqq(hqq_config) => {
                hqq(&self.numbers, self.shape, &config.scheme, hqq_config)
            }
            _ => round_to_nearest(&self.numbers, self.shape, &config.scheme),
        };
        rounded.map_err(|error| error.in_layer(path))
    }

    /// The error of outputs if it were rounded to nearest.
    pub(super) fn nearest_error(
        &self,
        path: &str,
        moments: &Moments,
        scheme: &Scheme,
    ) -> Result<f64> {
        let nearest = round_to_nearest(&self.numbers, self.shape, scheme);
        let nearest = nearest.map_err(|error| error.in_layer(path))?;
        Ok(self.error(&nearest.dequantize(), moments))
    }

    /// The relative error of outputs with other numbers.
    fn error(&self, found: &[f32], moments: &Moments) -> f64 {
        output_error(&self.numbers, found, &moments.hessian, self.shape).sqrt()
    }

    /// The layer with the integers as it holds them, and their errors.
    pub(super) fn layer(&self, path: &str, rounded: Rounded, moments: Option<&Moments>) -> Found {
        let rounded = rounded.as_held();
        let found = rounded.dequantize();
        let layer = QuantizedLayer {
            path: path.to_string(),
            numbers: self.numbers.len(),
            bits_per_weight: rounded.bits_per_weight(),
            held_bits: rounded.held_bits(),
            weight_error: relative_error(&self.numbers, &found),
            output_error: moments.map(|moments| self.error(&found, moments)),
            nearest_output_error: None,
            scaled_into: None,
            clipped: false,
        };
        (layer, rounded)
    }
}

/// Puts rounded weights in the place of the layers' own.
pub(super) fn put(
    model: &mut AutoCausalLm,
    mut found: Vec<Found>,
    config: &QuantizeConfig,
) -> Vec<QuantizedLayer> {
    let rounds_inputs = matches!(config.algorithm, Algorithm::SmoothQuant { .. });
    model.for_each_linear_mut(&mut |path, linear| {
        let Some((layer, rounded)) = found.iter_mut().find(|(layer, _)| layer.path == path) else {
            return;
        };
        let rows = rounds_inputs.then(|| rounded.row_bytes());
        match rows.flatten() {
            Some(rows) => {
                layer.held_bits = rows.bytes.len() as f64 * 8.0 / layer.numbers as f64;
                linear.set_packed(&rows.on(&linear.weight.lazy_device()));
            }
            None => put_rounded(linear, rounded),
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
