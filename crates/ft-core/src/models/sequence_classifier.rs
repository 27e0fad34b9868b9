//! Models that score whole sequences: the body of any causal language model, and a layer on its last token.
//!
//! `scores = W · h`, where `h` is the hidden state of a row's last token and `W`, `[num_labels, hidden]`, has no bias. This
//! is `LlamaForSequenceClassification` of transformers and its relatives, with the same keys in files: those of the body,
//! and `score.weight`. With one label it is a reward model.
//!
//! There is one difference. transformers takes the last id that is not `pad_token_id` for the last token. Where padding and
//! end of text share an id, it scores the token before the end (transformers#35352). Here the caller gives the lengths of
//! the rows, and the end is scored. A row that ends with another id, such as the newline of a chat template, has the same
//! score in both.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::files::pretrained::SaveOptions;
use crate::files::safetensors_folder::Weights;
use crate::models::config::SequenceClassifierConfig;
use crate::models::scored_decoder::ScoredDecoder;
use crate::{Dims, Parts, Result, TokenBatch};

/// A model that scores sequences, on the body of whatever architecture its `config.json` names.
///
/// It has no output layer over the vocabulary, in memory or in files. Adapters find its head as `score`: an adapter whose
/// `modules_to_save` names it trains the head, too.
#[derive(Module, Parts, Debug)]
#[parts(output = "score", task = "SEQ_CLS")]
pub struct AutoSequenceClassifier {
    _model: ScoredDecoder,
}

impl AutoSequenceClassifier {
    /// A model with random weights, drawn when first read; `device.seed` makes them reproducible.
    ///
    /// # Errors
    ///
    /// If the configuration contradicts itself.
    pub fn from_config(config: &SequenceClassifierConfig, device: &Device) -> Result<Self> {
        ScoredDecoder::new(config, false, device).map(|_model| Self { _model })
    }

    /// Loads a model folder of transformers' `*ForSequenceClassification`: `config.json` and `model.safetensors`, whole or
    /// sharded; weights are widened to `f32`.
    ///
    /// # Errors
    ///
    /// If a file is missing, truncated or malformed, the folder is that of another kind of model, or the weights do not fit
    /// the configuration: [`Error::Keys`](crate::Error::Keys) lists every missing, left-over and misshapen key.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        Self::from_pretrained_with(folder, device, Weights::F32)
    }

    /// [`from_pretrained`](Self::from_pretrained) with the weights held as `weights` says.
    ///
    /// # Errors
    ///
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn from_pretrained_with(folder: &Path, device: &Device, weights: Weights) -> Result<Self> {
        let config = SequenceClassifierConfig::from_pretrained(folder)?;
        config.body.check_folder(folder)?;
        let model = ScoredDecoder::new(&config, false, device)?;
        model.load(folder, weights).map(|_model| Self { _model })
    }

    /// The body of a causal language model in a folder, held as `weights` says, with a new head: `N(0, std²)` with the
    /// deviation `initializer_range` of the configuration. The head of the language model is not loaded.
    ///
    /// The new head is drawn from `seed` on the host, so it is the same on every device. It trains if nobody freezes it.
    ///
    /// # Errors
    ///
    /// As [`from_pretrained`](Self::from_pretrained). A folder that has a head for sequences is an error.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::path::Path;
    ///
    /// use burn::tensor::Device;
    /// use ft_core::{AutoSequenceClassifier, ModelConfig, SequenceClassifierConfig, Weights};
    ///
    /// let folder = Path::new("smollm2-135m-instruct");
    /// let config = SequenceClassifierConfig::new(ModelConfig::from_pretrained(folder)?, 1);
    /// let device = Device::default();
    /// let reward =
    ///     AutoSequenceClassifier::from_causal_lm(folder, &config, 42, &device, Weights::F32)?;
    /// # Ok::<(), ft_core::Error>(())
    /// ```
    pub fn from_causal_lm(
        folder: &Path,
        config: &SequenceClassifierConfig,
        seed: u64,
        device: &Device,
        weights: Weights,
    ) -> Result<Self> {
        config.body.check_folder(folder)?;
        let model = ScoredDecoder::new(config, false, device)?;
        (model.start(folder, seed, device, weights)).map(|_model| Self { _model })
    }

    /// Writes `config.json` and the weights, so that transformers' `AutoModelForSequenceClassification` loads the folder
    /// where it has a class for the architecture.
    ///
    /// # Errors
    ///
    /// As [`AutoCausalLm::save_pretrained`](crate::AutoCausalLm::save_pretrained).
    pub fn save_pretrained(&self, folder: &Path, options: &SaveOptions) -> Result<()> {
        let ending = "ForSequenceClassification";
        self._model.save(self, ending, folder, options)
    }

    /// The configuration.
    pub fn config(&self) -> &SequenceClassifierConfig {
        &self._model.config
    }

    /// The measures of the body. Virtual tokens take places of the longest sequence.
    pub fn dims(&self) -> Dims {
        self._model.dims()
    }

    /// The shortest window of the attention layers, less the places of virtual tokens; none if all of them see whole rows.
    pub fn attention_window(&self) -> Option<usize> {
        self._model.attention_window()
    }

    /// How many scores a sequence gets.
    pub fn num_labels(&self) -> usize {
        self._model.config.num_labels()
    }

    /// The scores of sequences: those of the last token of each row.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[rows, seq]`, padded on the right
    /// - `lengths`: the number of tokens of each row, without padding
    /// - result: `[rows, num_labels]`
    ///
    /// # Panics
    ///
    /// If there are not as many lengths as rows, or a length is not in `1..=seq`.
    pub fn scores(&self, tokens: &TokenBatch, lengths: &[usize]) -> Tensor<2> {
        let hidden = self._model.hidden_states(tokens);
        self._model
            .score
            .forward(last_of_rows(hidden, lengths))
            .squeeze_dim(1)
    }

    /// The scores of all tokens, as a value model has them: the head on every hidden state.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[rows, seq]`
    /// - result: `[rows, seq, num_labels]`
    pub fn token_scores(&self, tokens: &TokenBatch) -> Tensor<3> {
        self._model.score.forward(self._model.hidden_states(tokens))
    }
}

/// The vectors of the last tokens of rows: `[rows, seq, width]` to `[rows, 1, width]`.
fn last_of_rows(hidden: Tensor<3>, lengths: &[usize]) -> Tensor<3> {
    let [rows, seq, width] = hidden.dims();
    assert_eq!(lengths.len(), rows, "lengths of rows");
    let places = lengths.iter().enumerate().map(|(row, &length)| {
        assert!(
            (1..=seq).contains(&length),
            "row {row} has a length of {length}, the batch has {seq} positions"
        );
        (row * seq + length - 1) as i64
    });
    let places: Vec<i64> = places.collect();
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [rows]), &hidden.device());
    let last = hidden.reshape([rows * seq, width]).select(0, places);
    last.reshape([rows, 1, width])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_token_of_a_row_is_that_of_its_length() {
        let device = Device::default();
        let hidden = Tensor::<1, Int>::arange(0..12, &device).float();
        let last = |lengths| last_of_rows(hidden.clone().reshape([2, 3, 2]), lengths).into_data();
        assert_eq!(
            last(&[2, 3]),
            TensorData::from([[[2.0f32, 3.0]], [[10.0, 11.0]]])
        );
        assert_eq!(
            last(&[1, 1]),
            TensorData::from([[[0.0f32, 1.0]], [[6.0, 7.0]]])
        );
    }

    #[test]
    #[should_panic(expected = "row 1 has a length of 0")]
    fn an_empty_row_has_no_last_token() {
        last_of_rows(Tensor::zeros([2, 3, 2], &Device::default()), &[1, 0]);
    }
}
