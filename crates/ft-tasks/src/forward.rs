//! Texts through a model, outside of any graph, in batches of texts of similar length.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ft_data::{TextBatch, TextLayout, TextTokens, by_length};

use crate::{Error, Result};

/// A batch of a prediction has about so many tokens.
const BATCH_TOKENS: usize = 2048;

/// The model outside of any graph, and its device.
pub(crate) fn inference<M: Module>(model: &M) -> (M, Device) {
    let device = |model: &M| model.devices().first().cloned().unwrap_or_default();
    let model = match device(model).is_autodiff() {
        true => model.valid(),
        false => model.clone(),
    };
    let device = device(&model);
    (model, device)
}

/// Runs all texts. `run` returns what was found for each text of a batch; the results are in the order of the texts.
pub(crate) fn in_batches<T: Clone + Default>(
    texts: &[TextTokens],
    layout: TextLayout,
    mut run: impl FnMut(&TextBatch) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let mut all = vec![T::default(); texts.len()];
    for batch in by_length(texts, BATCH_TOKENS, layout == TextLayout::Packed) {
        let rows: Vec<&TextTokens> = batch.iter().map(|&text| &texts[text]).collect();
        for (found, &text) in run(&layout.batch(&rows))?.into_iter().zip(&batch) {
            all[text] = found;
        }
    }
    Ok(all)
}

/// The numbers of a tensor.
///
/// # Errors
///
/// If one is not finite.
pub(crate) fn finite<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.into_data().convert::<f32>();
    let numbers = data
        .try_to_vec::<f32>()
        .map_err(|error| Error::Input(format!("the scores cannot be read: {error:?}")))?;
    match numbers.iter().find(|x| !x.is_finite()) {
        Some(bad) => Err(Error::Input(format!(
            "the model gives a score of {bad}: its weights are damaged, or it was trained with too high a learning rate"
        ))),
        None => Ok(numbers),
    }
}

/// `softmax(x)`, in place.
pub(crate) fn softmax(x: &mut [f32]) {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = (*x - most).exp());
    let sum: f32 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}

/// The place of the largest number, the first of several.
pub(crate) fn argmax(x: &[f32]) -> usize {
    let mut best = 0;
    for (place, value) in x.iter().enumerate() {
        if *value > x[best] {
            best = place;
        }
    }
    best
}
