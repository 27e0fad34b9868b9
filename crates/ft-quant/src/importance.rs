//! How much each column of a matrix matters: the mean square of its input over a text.

use std::collections::BTreeMap;

/// The mean square of each input column of each linear layer, by Hugging Face's path without `.weight`.
///
/// llama.cpp calls it an importance matrix. Rounding a row then keeps the sum of `importance·(w − ŵ)²` small instead of the sum of
/// `(w − ŵ)²`.
#[derive(Clone, Debug, Default)]
pub struct Importance(pub BTreeMap<String, Vec<f32>>);

impl Importance {
    /// That of a tensor with this name; none if the text said nothing of it.
    pub(crate) fn of(&self, name: &str) -> Option<&[f32]> {
        let path = name.strip_suffix(".weight")?;
        self.0.get(path).map(Vec::as_slice)
    }
}
