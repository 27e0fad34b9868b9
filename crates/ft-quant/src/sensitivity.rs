//! How much a model's hidden states change when one of its linear layers is rounded.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use ft_core::{AutoCausalLm, CausalLm, Parts};

use crate::calibrate::Blocks;
use crate::cholesky::numbers;
use crate::fold::{matrix, set_matrix};
use crate::importance::weighted_squares;
use crate::moments::{Order, tensor};
use crate::{Error, Importance, Result, Scheme, round_to_nearest};

/// What tries a layer out: it is rounded to groups of this.
fn probe() -> Scheme {
    Scheme::grouped(4, 32)
}

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
    /// run again on the first few windows. `progress` is called after each block with how many are done, and how many there are.
    ///
    /// # Errors
    ///
    /// If there are no windows, they do not suit the model, the model carries adapters, or a weight or an activation is not
    /// finite.
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
                        let ratio = if error > 0.0 {
                            change * size / error
                        } else {
                            0.0
                        };
                        all.layers.insert(path.clone(), ratio);
                    }
                }
                all.importance.insert(stage, moments);
            }
            progress(block + 1, total);
        }
        Ok(all)
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
        found = round_to_nearest(&weight, shape, &probe()).map(|rounded| {
            let rounded = rounded.dequantize();
            let device = linear.weight.lazy_device();
            set_matrix(linear, tensor(rounded.clone(), shape, &device));
            [weight, rounded]
        });
    });
    found.map_err(|error| error.in_layer(path))
}

/// `mean ‖found − expected‖²/‖expected‖²` over tokens.
fn change(found: Tensor<3>, expected: Tensor<3>) -> f64 {
    let squares = |x: Tensor<3>| (x.clone() * x).sum_dim(2);
    let changes =
        squares(found - expected.clone()) / squares(expected).clamp_min(f32::MIN_POSITIVE);
    changes.mean().into_scalar::<f64>()
}
