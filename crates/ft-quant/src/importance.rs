//! How much each column of a matrix matters: the mean square of its input over a text.

use std::collections::BTreeMap;

use ft_core::{AutoCausalLm, CausalLm};

use crate::calibrate::Blocks;
use crate::moments::Order;
use crate::{Error, Result};

/// The mean square of each input column of each linear layer, by Hugging Face's path without `.weight`.
///
/// llama.cpp calls it an importance matrix. Rounding a row then keeps the sum of `importance·(w − ŵ)²` small instead of the sum of
/// `(w − ŵ)²`.
#[derive(Clone, Debug, Default)]
pub struct Importance(pub BTreeMap<String, Vec<f32>>);

impl Importance {
    /// Runs a model on windows of a text, block by block. `progress` is called after each block with how many are done, and how
    /// many there are.
    ///
    /// # Errors
    ///
    /// If there are no windows, they do not suit the model, the model carries adapters, or an activation is not finite.
    pub fn measure(
        model: &mut AutoCausalLm,
        windows: &[Vec<u32>],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let total = model.dims().num_layers;
        let mut blocks = Blocks::new(model, windows)?;
        let mut all = BTreeMap::new();
        while let Some(block) = blocks.next() {
            let stages = blocks.stages();
            let moments = blocks.moments(&stages, Order::Squares);
            for (stage, moments) in stages.iter().zip(moments) {
                if !moments.mean_squares.iter().all(|x| x.is_finite()) {
                    return Err(Error::NotFinite.in_layer(&stage.paths[0]));
                }
                let paths = stage.paths.iter().cloned();
                all.extend(paths.map(|path| (path, moments.mean_squares.clone())));
            }
            progress(block + 1, total);
        }
        Ok(Self(all))
    }

    /// That of a tensor with this name; none if it was not measured.
    pub(crate) fn of(&self, name: &str) -> Option<&[f32]> {
        let path = name.strip_suffix(".weight")?;
        self.0.get(path).map(Vec::as_slice)
    }
}
