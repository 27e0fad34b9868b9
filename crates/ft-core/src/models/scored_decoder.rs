//! The body of a causal language model with a layer of scores on its hidden states.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::files::pretrained::{Keys, SaveOptions, load_from, save_pretrained};
use crate::files::safetensors_folder::Weights;
use crate::files::weight_source::open_weights;
use crate::layers::linear::{Layout, Linear};
use crate::models::auto::{AutoCausalLm, fitting_config, is_ignored};
use crate::models::config::SequenceClassifierConfig;
use crate::{CausalLm, Dims, Error, Parts, Result, TokenBatch};

/// The key of the head in files.
const SCORE: &str = "score.weight";

/// A body without its output layer over the vocabulary, and a layer with as many scores as there are labels.
#[derive(Module, Parts, Debug)]
#[parts(output = "score")]
pub(super) struct ScoredDecoder {
    _body: AutoCausalLm,
    pub(super) score: Linear,
    #[module(skip)]
    pub(super) config: SequenceClassifierConfig,
}

impl ScoredDecoder {
    /// Random weights.
    pub(super) fn new(
        config: &SequenceClassifierConfig,
        bias: bool,
        device: &Device,
    ) -> Result<Self> {
        config.validate()?;
        let hidden = config.body.dims().hidden_size;
        let (labels, std) = (config.num_labels(), config.initializer_range());
        Ok(Self {
            _body: AutoCausalLm::without_output_layer(&config.body, device)?,
            score: Linear::new(hidden, labels, bias, Layout::OutIn, std, device),
            config: config.clone(),
        })
    }

    /// The weights of a folder, which has a head.
    pub(super) fn load(self, folder: &Path, weights: Weights) -> Result<Self> {
        let files = open_weights(folder)?;
        if !files.contains(SCORE) {
            return Err(Error::invalid(
                files.path(),
                format!(
                    "holds no {SCORE}, so it is no classifier; from_causal_lm gives a language model a new head"
                ),
            ));
        }
        let keys = Keys {
            body_prefixes: &[self.config.body.family().body_prefix()],
            ignored: is_ignored,
            ..Keys::default()
        };
        load_from(self, &*files, weights, &keys)
    }

    /// The body of a causal language model in a folder, and a head that is drawn from `seed` on the host, so that it is the same
    /// on every device. A bias begins at 0.
    pub(super) fn start(
        mut self,
        folder: &Path,
        seed: u64,
        device: &Device,
        weights: Weights,
    ) -> Result<Self> {
        let files = open_weights(folder)?;
        let keys = Keys {
            body_prefixes: &[self.config.body.family().body_prefix()],
            ignored: |name| is_ignored(name) || name == "lm_head.bias",
            ..Keys::default()
        };
        self._body = load_from(self._body, &*files, weights, &keys)?;
        let shape = [
            self.config.num_labels(),
            self.config.body.dims().hidden_size,
        ];
        let numbers = normal(shape[0] * shape[1], self.config.initializer_range(), seed);
        let head = Tensor::from_data(TensorData::new(numbers, shape), device);
        self.score.weight = Param::from_tensor(head).into();
        Ok(self)
    }

    /// Writes `model`, which holds this one, under the name of a class of transformers: `...ForSequenceClassification` or another
    /// ending.
    pub(super) fn save<M: Module + Parts>(
        &self,
        model: &M,
        ending: &str,
        folder: &Path,
        options: &SaveOptions,
    ) -> Result<()> {
        let made = |config: &_| AutoCausalLm::without_output_layer(config, &Device::default());
        let body = fitting_config(&self._body, &self.config.body, made)?;
        let mut config = self.config.on(body);
        if let Some(Value::String(class)) = config.pointer_mut("/architectures/0") {
            *class = class.replace("ForSequenceClassification", ending);
        }
        save_pretrained(model, config, folder, options)
    }

    /// The measures of the body. Virtual tokens take places of the longest sequence.
    pub(super) fn dims(&self) -> Dims {
        self._body.dims()
    }

    /// The shortest window of the attention layers, less the places of virtual tokens.
    pub(super) fn attention_window(&self) -> Option<usize> {
        let window = self._body.body().attention_window();
        window.map(|window| window.saturating_sub(self._body.num_virtual_tokens()))
    }

    /// The last hidden states, `[rows, seq, width]`.
    pub(super) fn hidden_states(&self, tokens: &TokenBatch) -> Tensor<3> {
        self._body.hidden_states(tokens, None)
    }
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
