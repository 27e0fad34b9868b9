//! Tokens in the place of masks.

use std::path::Path;

use burn::tensor::Device;
use ft_core::EncoderMaskedLm;
use ft_data::TextInput;
use serde::Serialize;

use super::{encode, input_of};
use crate::forward::{finite, inference, softmax};
use crate::{Error, Result, text_layout};

/// A token for a mask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilledMask {
    /// Its probability.
    pub score: f32,
    /// Its id.
    pub token: u32,
    /// The token as text.
    pub token_str: String,
    /// The text with the token; with special tokens if the text has several masks.
    pub sequence: String,
}

/// Tokens for masks, by a masked language model.
#[derive(Clone, Debug)]
pub struct FillMask {
    model: EncoderMaskedLm,
    input: TextInput,
    mask: u32,
}

impl FillMask {
    /// Loads a folder of transformers' `*ForMaskedLM`.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, the weights do not fit, or the tokenizer has no mask.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        let model = EncoderMaskedLm::from_pretrained(folder, device)?;
        let dims = model.dims();
        let input = input_of(folder, dims.vocab_size, dims.max_position_embeddings)?;
        Self::new(model, input)
    }

    /// This model with this input.
    ///
    /// # Errors
    ///
    /// If the tokenizer has no mask.
    pub fn new(model: EncoderMaskedLm, input: TextInput) -> Result<Self> {
        let mask = input.tokenizer().mask_token_id();
        let mask = mask.ok_or_else(|| Error::Input("the tokenizer has no mask token".into()))?;
        Ok(Self { model, input, mask })
    }

    /// The text of the mask.
    pub fn mask_token(&self) -> &str {
        self.input.tokenizer().mask_token().unwrap_or_default()
    }

    /// The `top_k` most probable tokens for each mask of each text, of all tokens or of `targets`. A target that is no token
    /// stands for its first one. Probabilities are those among all tokens.
    ///
    /// # Errors
    ///
    /// If a text has no mask or is too long, a target has no token, or a score is not finite.
    pub fn fill(
        &self,
        texts: &[&str],
        top_k: usize,
        targets: Option<&[&str]>,
    ) -> Result<Vec<Vec<Vec<FilledMask>>>> {
        let tokenizer = self.input.tokenizer();
        let targets = targets.map(|targets| {
            let ids = targets.iter().map(|target| {
                let known = tokenizer.token_to_id(target);
                let first = || Ok::<_, Error>(tokenizer.encode(target, false)?.first().copied());
                match known.map_or_else(first, |id| Ok(Some(id)))? {
                    Some(id) => Ok(id),
                    None => Err(Error::Input(format!("the target {target:?} has no token"))),
                }
            });
            let mut ids = ids.collect::<Result<Vec<u32>>>()?;
            ids.sort_unstable();
            ids.dedup();
            Ok::<_, Error>(ids)
        });
        let targets = targets.transpose()?;
        let (model, device) = inference(&self.model);
        let layout = text_layout(model.attends_by_tile(), &device, self.input.padding());
        texts
            .iter()
            .map(|text| {
                let encoded = encode(&self.input, text, None, None)?;
                let masks: Vec<usize> = (0..encoded.len())
                    .filter(|&token| encoded.ids[token] == self.mask)
                    .collect();
                if masks.is_empty() {
                    return Err(Error::Input(format!(
                        "the text {text:?} has no {}",
                        self.mask_token()
                    )));
                }
                let batch = layout.batch(&[&self.input.tokens(&encoded)]);
                let logits = model.logits(&batch.tokens(&device), &masks);
                let vocab = logits.dims()[1];
                let mut scores = finite(logits)?;
                let rows = scores.chunks_exact_mut(vocab).zip(&masks);
                rows.map(|(scores, &mask)| {
                    softmax(scores);
                    let mut order: Vec<u32> = match &targets {
                        None => (0..vocab as u32).collect(),
                        Some(ids) => ids.clone(),
                    };
                    let better = |a: &u32, b: &u32| {
                        let [a_score, b_score] = [a, b].map(|id| scores[*id as usize]);
                        b_score.total_cmp(&a_score).then(a.cmp(b))
                    };
                    // A vocabulary is large, and few of it are wanted.
                    if top_k < order.len() {
                        order.select_nth_unstable_by(top_k, better);
                        order.truncate(top_k);
                    }
                    order.sort_unstable_by(better);
                    let found = order.into_iter().map(|token| {
                        let mut ids = encoded.ids.clone();
                        ids[mask] = token;
                        Ok(FilledMask {
                            score: scores[token as usize],
                            token,
                            token_str: tokenizer.decode(&[token], false)?,
                            sequence: tokenizer.decode(&ids, masks.len() == 1)?,
                        })
                    });
                    found.collect()
                })
                .collect()
            })
            .collect()
    }
}
