//! Models that score every token: the body of any causal language model, and a layer on each hidden state.
//!
//! `scores = W · h + b` at every token. This is `LlamaForTokenClassification` of transformers and its relatives, with the same keys in
//! files: those of the body, `score.weight` and `score.bias` (none with `token_classification_bias` false). GPT-2, GPT-NeoX and Falcon,
//! whose heads have other names there, are refused. With two labels, read at
//! the ends of steps, it is a process reward model. The dropout before the head is not applied.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde_json::Value;

use crate::files::pretrained::SaveOptions;
use crate::files::safetensors_folder::Weights;
use crate::models::config::SequenceClassifierConfig;
use crate::models::scored_decoder::ScoredDecoder;
use crate::{Dims, Error, Parts, Result, TokenBatch};

/// A model that scores tokens, on the body of whatever architecture its `config.json` names. A token is scored from the
/// tokens up to and including it.
///
/// Adapters find its head as `score`: an adapter whose `modules_to_save` names it trains the head, too.
#[derive(Module, Parts, Debug)]
#[parts(output = "score", task = "TOKEN_CLS")]
pub struct AutoTokenClassifier {
    _model: ScoredDecoder,
}

impl AutoTokenClassifier {
    /// A model with random weights, drawn when first read; `device.seed` makes them reproducible.
    ///
    /// # Errors
    ///
    /// If the configuration contradicts itself, or is of an architecture whose head has another name in transformers.
    pub fn from_config(config: &SequenceClassifierConfig, device: &Device) -> Result<Self> {
        let family = config.body.family();
        let class = family.classifier_architecture();
        let other = ["GPT2For", "GPTNeoXFor", "FalconFor"];
        if other.iter().any(|start| class.starts_with(start)) {
            return Err(Error::Settings(format!(
                "scores of tokens are not supported for {}: transformers gives their head another name",
                config.body.model_type()
            )));
        }
        let json = family.json();
        let bias = json.get("token_classification_bias") != Some(&Value::Bool(false));
        ScoredDecoder::new(config, bias, device).map(|_model| Self { _model })
    }

    /// Loads a model folder of transformers' `*ForTokenClassification`, its weights held as `weights` says.
    ///
    /// # Errors
    ///
    /// If a file is missing, truncated or malformed, the folder is that of another kind of model, or the weights do not fit
    /// the configuration: [`Error::Keys`] lists every missing, left-over and misshapen key.
    pub fn from_pretrained_with(folder: &Path, device: &Device, weights: Weights) -> Result<Self> {
        let config = SequenceClassifierConfig::from_pretrained(folder)?;
        let json = config.body.family().json();
        let class = json
            .get("architectures")
            .and_then(|classes| classes[0].as_str());
        if let Some(class) = class.filter(|class| !class.ends_with("ForTokenClassification")) {
            return Err(Error::invalid(
                folder,
                format!(
                    "is of {class}, which is no *ForTokenClassification; from_causal_lm gives a language model a new head"
                ),
            ));
        }
        config.body.check_folder(folder)?;
        let Self { _model } = Self::from_config(&config, device)?;
        _model.load(folder, weights).map(|_model| Self { _model })
    }

    /// The body of a causal language model in a folder, held as `weights` says, with a new head, drawn from `seed`.
    ///
    /// # Errors
    ///
    /// As [`from_pretrained_with`](Self::from_pretrained_with). A folder that has a head is an error.
    pub fn from_causal_lm(
        folder: &Path,
        config: &SequenceClassifierConfig,
        seed: u64,
        device: &Device,
        weights: Weights,
    ) -> Result<Self> {
        config.body.check_folder(folder)?;
        let Self { _model } = Self::from_config(config, device)?;
        (_model.start(folder, seed, device, weights)).map(|_model| Self { _model })
    }

    /// Writes `config.json` and the weights, so that transformers' `AutoModelForTokenClassification` loads the folder where it
    /// has a class for the architecture.
    ///
    /// # Errors
    ///
    /// As [`AutoCausalLm::save_pretrained`](crate::AutoCausalLm::save_pretrained).
    pub fn save_pretrained(&self, folder: &Path, options: &SaveOptions) -> Result<()> {
        let ending = "ForTokenClassification";
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

    /// The scores of tokens: `[rows, seq]` to `[rows, seq, num_labels]`. Rows are padded on the right.
    pub fn scores(&self, tokens: &TokenBatch) -> Tensor<3> {
        self._model.score.forward(self._model.hidden_states(tokens))
    }
}
