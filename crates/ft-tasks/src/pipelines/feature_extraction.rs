//! The hidden states of texts.

use std::path::Path;

use burn::tensor::Device;
use ft_core::{AutoBackbone, Backbone};
use ft_data::{TextInput, TextTokens};

use super::{encode, input_of};
use crate::forward::{finite, in_batches, inference};
use crate::{Result, text_layout};

/// The last hidden states of texts, by any body: an encoder, or a causal language model.
#[derive(Clone, Debug)]
pub struct FeatureExtraction {
    model: AutoBackbone,
    input: TextInput,
}

impl FeatureExtraction {
    /// Loads a model folder; a head is ignored.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, or the weights do not fit.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        let model = AutoBackbone::from_pretrained(folder, device)?;
        let dims = model.dims();
        let input = input_of(folder, dims.vocab_size, dims.max_position_embeddings)?;
        Ok(Self { model, input })
    }

    /// Of each text a vector for each token, special ones included.
    ///
    /// # Errors
    ///
    /// If a text is too long or has no tokens, or a number is not finite.
    pub fn extract(&self, texts: &[&str]) -> Result<Vec<Vec<Vec<f32>>>> {
        let tokens = texts.iter().map(|text| {
            let encoded = encode(&self.input, text, None, None)?;
            Ok(self.input.tokens(&encoded))
        });
        let tokens: Vec<TextTokens> = tokens.collect::<Result<_>>()?;
        if let Some(empty) = tokens.iter().position(|text| text.ids.is_empty()) {
            return Err(crate::Error::Input(format!(
                "text {} has no tokens",
                empty + 1
            )));
        }
        let (model, device) = inference(&self.model);
        let layout = text_layout(model.attends_by_tile(), &device, self.input.padding());
        in_batches(&tokens, layout, |batch| {
            let states = model.hidden_states(&batch.tokens(&device));
            let width = states.dims()[2];
            let states = finite(states)?;
            let vectors: Vec<&[f32]> = states.chunks_exact(width).collect();
            let texts = batch.places().iter().map(|place| {
                let vectors = vectors[place.clone()].iter();
                vectors.map(|vector| vector.to_vec()).collect()
            });
            Ok(texts.collect())
        })
    }
}
