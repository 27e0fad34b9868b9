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

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::files::pretrained::{Keys, SaveOptions, load_from, save_pretrained};
use crate::files::safetensors_folder::Weights;
use crate::files::weight_source::open_weights;
use crate::layers::linear::{Layout, Linear};
use crate::models::auto::{AutoCausalLm, fitting_config, is_buffer};
use crate::models::config::SequenceClassifierConfig;
use crate::{CausalLm, Dims, Error, Parts, Result, TokenBatch};

/// The key of the head in files.
const SCORE: &str = "score.weight";

/// A model that scores sequences, on the body of whatever architecture its `config.json` names.
///
/// It has no output layer over the vocabulary, in memory or in files. Adapters find its head as `score`: an adapter whose
/// `modules_to_save` names it trains the head, too.
#[derive(Module, Parts, Debug)]
#[parts(output = "score")]
pub struct AutoSequenceClassifier {
    _body: AutoCausalLm,
    score: Linear,
    #[module(skip)]
    config: SequenceClassifierConfig,
}

impl AutoSequenceClassifier {
    /// A model with random weights, drawn when first read; `device.seed` makes them reproducible.
    ///
    /// # Errors
    ///
    /// If the configuration contradicts itself.
    pub fn from_config(config: &SequenceClassifierConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let hidden = config.body.dims().hidden_size;
        let std = config.initializer_range();
        Ok(Self {
            _body: AutoCausalLm::without_output_layer(&config.body, device)?,
            score: Linear::new(
                hidden,
                config.num_labels(),
                false,
                Layout::OutIn,
                std,
                device,
            ),
            config: config.clone(),
        })
    }

    /// Loads a model folder of transformers' `*ForSequenceClassification`: `config.json` and `model.safetensors`, whole or
    /// sharded; weights are widened to `f32`.
    ///
    /// # Errors
    ///
    /// If a file is missing, truncated or malformed, the folder is that of another kind of model, or the weights do not fit
    /// the configuration: [`Error::Keys`] lists every missing, left-over and misshapen key.
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
        let model = Self::from_config(&config, device)?;
        let files = open_weights(folder)?;
        if !files.contains(SCORE) {
            return Err(Error::invalid(
                files.path(),
                format!(
                    "holds no {SCORE}, so it is no sequence classifier; from_causal_lm gives a language model a new head"
                ),
            ));
        }
        let keys = Keys {
            body_prefixes: &[config.body.family().body_prefix()],
            ignored: is_buffer,
            ..Keys::default()
        };
        load_from(model, &*files, weights, &keys)
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
        let mut model = Self::from_config(config, device)?;
        let files = open_weights(folder)?;
        let keys = Keys {
            body_prefixes: &[config.body.family().body_prefix()],
            ignored: |name| is_buffer(name) || name == "lm_head.bias",
            ..Keys::default()
        };
        model._body = load_from(model._body, &*files, weights, &keys)?;
        let shape = [config.num_labels(), config.body.dims().hidden_size];
        let numbers = normal(shape[0] * shape[1], config.initializer_range(), seed);
        let head = Tensor::from_data(TensorData::new(numbers, shape), device);
        model.score.weight = Param::from_tensor(head).into();
        Ok(model)
    }

    /// Writes `config.json` and the weights, so that transformers' `AutoModelForSequenceClassification` loads the folder
    /// where it has a class for the architecture.
    ///
    /// # Errors
    ///
    /// As [`AutoCausalLm::save_pretrained`].
    pub fn save_pretrained(&self, folder: &Path, options: &SaveOptions) -> Result<()> {
        let made = |config: &_| AutoCausalLm::without_output_layer(config, &Device::default());
        let body = fitting_config(&self._body, &self.config.body, made)?;
        save_pretrained(self, self.config.on(body), folder, options)
    }

    /// The configuration.
    pub fn config(&self) -> &SequenceClassifierConfig {
        &self.config
    }

    /// The measures of the body. Virtual tokens take places of the longest sequence.
    pub fn dims(&self) -> Dims {
        self._body.dims()
    }

    /// How many scores a sequence gets.
    pub fn num_labels(&self) -> usize {
        self.config.num_labels()
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
        let hidden = self._body.hidden_states(tokens, None);
        self.score
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
        self.score.forward(self._body.hidden_states(tokens, None))
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

/// Normal numbers of mean 0, by the method of Box and Muller.
fn normal(count: usize, std: f64, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut one = || {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let number = radius * (std::f64::consts::TAU * rng.random::<f64>()).cos();
        (number * std) as f32
    };
    (0..count).map(|_| one()).collect()
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

    #[test]
    fn a_new_head_has_the_deviation_that_is_asked_for() {
        let numbers = normal(20_000, 0.5, 1);
        let mean = numbers.iter().sum::<f32>() / 20_000.0;
        let square = numbers.iter().map(|x| x * x).sum::<f32>() / 20_000.0;
        // standard deviations: 0.5/√20000 = 0.0035, 0.25·√(2/20000) = 0.0025
        assert!(
            mean.abs() < 0.015 && (square - 0.25).abs() < 0.01,
            "{mean} {square}"
        );
        assert_ne!(numbers[..3], normal(3, 0.5, 2));
    }
}
