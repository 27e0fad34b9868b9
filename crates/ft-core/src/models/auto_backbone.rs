//! One loader for bodies: encoders, and causal language models without their output layer.
//!
//! The list of encoders is here, and nowhere else.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde_json::Value;

use crate::files::pretrained::{Keys, SaveOptions, load_pretrained, save_pretrained};
use crate::files::safetensors_folder::Weights;
use crate::models::auto::{AutoCausalLm, ModelConfig, fitting_config, is_ignored, model_types};
use crate::models::config::{family_of, read_config};
use crate::models::*;
use crate::{Error, Parts, Pass, Result, TokenBatch};

/// The encoders: a variant, its configuration and its model.
macro_rules! encoders {
    ($($(#[$doc:meta])* $name:ident: $config:ident => $model:ident),* $(,)?) => {
        /// The configuration of any body of this crate.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum BackboneConfig {
            $($(#[$doc])* $name($config),)*
            /// A causal language model, of which the body is used.
            Decoder(ModelConfig),
        }

        /// A body of whatever architecture its `config.json` names: token ids to hidden states, without any head.
        #[allow(clippy::large_enum_variant)] // A program has a few of them.
        #[derive(Module, Parts, Debug)]
        #[non_exhaustive]
        pub enum AutoBackbone {
            $($(#[$doc])* $name($model),)*
            /// The body of a causal language model.
            Decoder(AutoCausalLm),
        }

        /// `model_type`s of encoders that can be loaded.
        pub fn encoder_types() -> Vec<&'static str> {
            [$($config::MODEL_TYPES),*].concat()
        }

        impl BackboneConfig {
            /// Reads a parsed `config.json`.
            ///
            /// # Errors
            ///
            /// [`Error::Settings`] with all that is wrong.
            pub fn from_json(json: Value) -> Result<Self> {
                let name = family_of(&json, &[encoder_types(), model_types()].concat())?;
                $(if $config::MODEL_TYPES.contains(&name.as_str()) {
                    return $config::from_json(json).map(Self::$name);
                })*
                ModelConfig::from_json(json).map(Self::Decoder)
            }

            /// The configuration as transformers reads it.
            pub fn to_json(&self) -> Value {
                match self {
                    $(Self::$name(config) => config.to_json(),)*
                    Self::Decoder(config) => config.to_json(),
                }
            }

            /// The measures of the body.
            pub fn dims(&self) -> Dims {
                match self {
                    $(Self::$name(config) => config.dims(),)*
                    Self::Decoder(config) => config.dims(),
                }
            }
        }

        impl AutoBackbone {
            /// A body with random weights, drawn when first read; `device.seed` makes them reproducible.
            ///
            /// # Errors
            ///
            /// If the configuration contradicts itself.
            pub fn from_config(config: &BackboneConfig, device: &Device) -> Result<Self> {
                Ok(match config {
                    $(BackboneConfig::$name(config) => {
                        config.validate()?;
                        Self::$name($model::from_config(config, device))
                    })*
                    BackboneConfig::Decoder(config) => {
                        Self::Decoder(AutoCausalLm::without_output_layer(config, device)?)
                    }
                })
            }

            /// Loads a model folder, with the weights held as `weights` says. The checkpoint may be the bare body or a
            /// model around it, whose head is ignored.
            ///
            /// # Errors
            ///
            /// If a file is missing, truncated or malformed, or the weights do not fit the configuration:
            /// [`Error::Keys`] lists every missing and misshapen key of the body.
            pub fn from_pretrained_with(
                folder: &Path,
                device: &Device,
                weights: Weights,
            ) -> Result<Self> {
                match BackboneConfig::from_pretrained(folder)? {
                    $(BackboneConfig::$name(_) => {
                        $model::from_pretrained_with(folder, device, weights).map(Self::$name)
                    })*
                    BackboneConfig::Decoder(config) => {
                        config.check_folder(folder)?;
                        let model = AutoCausalLm::without_output_layer(&config, device)?;
                        let keys = Keys {
                            body_prefixes: &[config.family().body_prefix()],
                            ignored: |name| is_ignored(name) || name.starts_with("lm_head.") || name.starts_with("score."),
                            ..Keys::default()
                        };
                        load_pretrained(model, folder, weights, &keys).map(Self::Decoder)
                    }
                }
            }

            /// The configuration.
            pub fn config(&self) -> BackboneConfig {
                match self {
                    $(Self::$name(model) => BackboneConfig::$name(model.config().clone()),)*
                    Self::Decoder(model) => BackboneConfig::Decoder(model.config()),
                }
            }

            /// Writes `config.json` and the weights, so that transformers' `AutoModel` loads the folder.
            ///
            /// # Errors
            ///
            /// If a file cannot be written, the model carries adapters, or a weight is not finite.
            pub fn save_pretrained(&self, folder: &Path, options: &SaveOptions) -> Result<()> {
                match self {
                    $(Self::$name(model) => model.save_pretrained(folder, options),)*
                    Self::Decoder(model) => {
                        let made = |config: &_| AutoCausalLm::without_output_layer(config, &Device::default());
                        let config = fitting_config(model, &model.config(), made)?;
                        save_pretrained(model, config, folder, options)
                    }
                }
            }

            /// The last hidden states, `[batch, seq, hidden]`, after the final norm. Virtual tokens of a decoder come before
            /// those of every row; the result has no places for them.
            pub fn hidden_states(&self, tokens: &TokenBatch) -> Tensor<3> {
                match self {
                    Self::Decoder(model) => CausalLm::hidden_states(model, tokens, None),
                    encoder => encoder.forward(encoder.embed(tokens.input_ids.clone()), tokens.pass()),
                }
            }

            fn body(&self) -> &dyn Backbone {
                match self {
                    $(Self::$name(model) => model,)*
                    Self::Decoder(model) => model.body(),
                }
            }
        }
    };
}

encoders! {
    /// BERT, RoBERTa, XLM-RoBERTa.
    Bert: BertConfig => Bert,
    /// DeBERTa-v2, DeBERTa-v3.
    Deberta: DebertaConfig => Deberta,
    /// DistilBERT.
    DistilBert: DistilBertConfig => DistilBert,
    /// MPNet.
    MpNet: MpNetConfig => MpNet,
    /// ModernBERT.
    ModernBert: ModernBertConfig => ModernBert,
}

impl BackboneConfig {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not JSON, names a `model_type` that is neither one of [`encoder_types`] nor one of
    /// [`model_types`], or has settings that are missing, contradictory or not supported.
    pub fn from_pretrained(folder: &Path) -> Result<Self> {
        let (path, json) = read_config(folder)?;
        Self::from_json(json).map_err(|error| Error::invalid(&path, error.to_string()))
    }
}

impl AutoBackbone {
    /// [`from_pretrained_with`](Self::from_pretrained_with), the weights widened to `f32`.
    ///
    /// # Errors
    ///
    /// As [`from_pretrained_with`](Self::from_pretrained_with).
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        Self::from_pretrained_with(folder, device, Weights::F32)
    }

    /// Whether tokens see those after them.
    pub fn is_bidirectional(&self) -> bool {
        !matches!(self, Self::Decoder(_))
    }
}

impl Backbone for AutoBackbone {
    fn dims(&self) -> Dims {
        match self {
            Self::Decoder(model) => CausalLm::dims(model),
            encoder => encoder.body().dims(),
        }
    }

    fn attention_window(&self) -> Option<usize> {
        self.body().attention_window()
    }

    fn attends_by_tile(&self) -> bool {
        self.body().attends_by_tile()
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.body().embed(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, pass: Pass<'_>) -> Tensor<3> {
        self.body().forward(embeddings, pass)
    }
}
