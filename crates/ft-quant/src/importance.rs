//! How much each column of a matrix matters: the mean square of its input over a text.

use std::collections::BTreeMap;

use ft_core::{AutoCausalLm, CausalLm};

use crate::calibrate::{Blocks, Stage};
use crate::moments::{Moments, Order};
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
        let mut all = Self::default();
        while let Some(block) = blocks.next() {
            let stages = blocks.stages();
            let moments = blocks.moments(&stages, Order::Squares);
            for (stage, moments) in stages.iter().zip(moments) {
                if !moments.mean_squares.iter().all(|x| x.is_finite()) {
                    return Err(Error::NotFinite.in_layer(&stage.paths[0]));
                }
                all.insert(stage, moments);
            }
            progress(block + 1, total);
        }
        Ok(all)
    }

    /// That of the layers of a stage.
    pub(crate) fn insert(&mut self, stage: &Stage, moments: Moments) {
        let paths = stage.paths.iter().cloned();
        let squares = paths.map(|path| (path, moments.mean_squares.clone()));
        self.0.extend(squares);
    }

    /// That of a tensor with this name; none if it was not measured.
    pub(crate) fn of(&self, name: &str) -> Option<&[f32]> {
        let path = name.strip_suffix(".weight")?;
        self.0.get(path).map(Vec::as_slice)
    }
}

/// `Σ a·(w − ŵ)²` and `Σ a·w²` over rows, where `a` is the importance of a column, or 1.
pub(crate) fn weighted_squares(
    weight: &[f32],
    found: &[f32],
    importance: Option<&[f32]>,
) -> [f64; 2] {
    let weights = importance.unwrap_or(&[1.0]).iter().cycle();
    let pairs = weight.iter().zip(found).zip(weights);
    pairs.fold([0.0; 2], |[error, size], ((w, found), a)| {
        let (w, found, a) = (f64::from(*w), f64::from(*found), f64::from(*a));
        [error + a * (w - found).powi(2), size + a * w * w]
    })
}
