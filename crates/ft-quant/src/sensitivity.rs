//! How much a model's hidden states change when one of its linear layers is rounded.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use ft_core::{AutoCausalLm, CausalLm, Parts};

use crate::calibrate::Blocks;
use crate::cholesky::numbers;
use crate::fold::{matrix, set_matrix};
use crate::importance::weighted_squares;
use crate::moments::{Order, tensor};
use crate::{Error, Importance, Result, Scheme, relative_error, round_to_nearest};

/// What tries a layer out: it is rounded to groups of 32 with so many bits, with fewer where those before change too little.
const BITS: [u32; 3] = [4, 3, 2];
/// The relative error below which fewer bits are tried: almost all groups of the weight lie on a grid of that many bits already.
const ENOUGH: f64 = 1e-2;
/// The least relative error from which a sensitivity is computed. Below it changes are those of products in `f32`.
const LEAST: f64 = 1e-4;

/// What matters of a model on a text: the columns of each linear layer, and the layers among themselves.
#[derive(Clone, Debug, Default)]
pub struct Sensitivity {
    /// The mean square of each input column of each layer.
    pub importance: Importance,
    /// For each layer, by the same path, the relative change of its block's output, `mean ‖Δh‖²/‖h‖²` over tokens, divided by the
    /// relative error of the layer's weight that caused it, `Σ a·(w − ŵ)² / Σ a·w²` with the importance `a` of columns.
    ///
    /// Both are squares, and small errors are proportional. So an error of the weight times this number is about the change of the
    /// hidden states.
    pub layers: BTreeMap<String, f64>,
}

impl Sensitivity {
    /// Runs a model on windows of a text, block by block. In each block every layer is rounded alone to 4 bits, and the block is
    /// run again on the first few windows. A weight that lies on a grid of 4 bits already is rounded to 3 bits, or to 2.
    /// `progress` is called after each block with how many are done, and how many there are.
    ///
    /// # Errors
    ///
    /// If there are no windows, they do not suit the model, the model carries adapters, a weight or an activation is not finite,
    /// or rounding changes a weight in none of these numbers of bits: each group of 32 has one number beside zero.
    pub fn measure(
        model: &mut AutoCausalLm,
        windows: &[Vec<u32>],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let total = model.dims().num_layers;
        let mut blocks = Blocks::new(model, windows)?;
        let mut all = Self::default();
        while let Some(block) = blocks.next() {
            let stages = blocks.stages();
            let hidden = blocks.first();
            let expected = blocks.output(blocks.model, hidden.clone());
            let mut trials = Vec::new();
            for path in stages.iter().flat_map(|stage| &stage.paths) {
                let mut trial = blocks.model.clone();
                let rounded = round_one(&mut trial, path)?;
                let found = blocks.output(&trial, hidden.clone());
                trials.push((path.clone(), rounded, change(found, expected.clone())));
            }
            let moments = blocks.moments(&stages, Order::Squares);
            for (stage, moments) in stages.iter().zip(moments) {
                if !moments.mean_squares.iter().all(|x| x.is_finite()) {
                    return Err(Error::NotFinite.in_layer(&stage.paths[0]));
                }
                for (path, [weight, rounded], change) in &trials {
                    if stage.paths.contains(path) {
                        let [error, size] =
                            weighted_squares(weight, rounded, Some(&moments.mean_squares));
                        let ratio = ratio(*change, error, size);
                        all.layers
                            .insert(path.clone(), ratio.map_err(|e| e.in_layer(path))?);
                    }
                }
                all.importance.insert(stage, moments);
            }
            progress(block + 1, total);
        }
        Ok(all)
    }
}

/// A change by the relative error that caused it, `error / size`.
fn ratio(change: f64, error: f64, size: f64) -> Result<f64> {
    if size == 0.0 {
        // The weight is zero, or all that it is multiplied with.
        return Ok(0.0);
    }
    if error < LEAST * LEAST * size {
        return Err(Error::Settings(
            "rounding the weight to 4, 3 or 2 bits changes nothing, so its sensitivity cannot be measured: give the model from which \
             this one was rounded, or write a mix, as Q4_K_M"
                .into(),
        ));
    }
    let ratio = change * size / error;
    match ratio.is_finite() {
        true => Ok(ratio),
        false => Err(Error::Settings(
            "the output of the block is not finite if this layer is rounded: an activation overflows".into(),
        )),
    }
}

/// Rounds the weight of a layer, and returns it before and after.
fn round_one(model: &mut AutoCausalLm, path: &str) -> Result<[Vec<f32>; 2]> {
    let mut found = Ok(Default::default());
    model.for_each_linear_mut(&mut |name, linear| {
        if name != path {
            return;
        }
        let weight = numbers(matrix(linear));
        let shape = [linear.out_features(), linear.in_features()];
        found = probe(&weight, shape).map(|rounded| {
            let device = linear.weight.lazy_device();
            set_matrix(linear, tensor(rounded.clone(), shape, &device));
            [weight, rounded]
        });
    });
    found.map_err(|error| error.in_layer(path))
}

/// A weight with the most bits that change enough of it.
fn probe(weight: &[f32], shape: [usize; 2]) -> Result<Vec<f32>> {
    let mut rounded = Vec::new();
    for bits in BITS {
        rounded = round_to_nearest(weight, shape, &Scheme::grouped(bits, 32))?.dequantize();
        if relative_error(weight, &rounded) >= ENOUGH {
            break;
        }
    }
    Ok(rounded)
}

/// `mean ‖found − expected‖²/‖expected‖²` over tokens.
fn change(found: Tensor<3>, expected: Tensor<3>) -> f64 {
    let squares = |x: Tensor<3>| (x.clone() * x).sum_dim(2);
    let changes =
        squares(found - expected.clone()) / squares(expected).clamp_min(f32::MIN_POSITIVE);
    changes.mean().into_scalar::<f64>()
}
