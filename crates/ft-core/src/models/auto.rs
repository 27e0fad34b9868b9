//! One loader for every causal language model: the architecture is what `model_type` says.
//!
//! The list of families is here, and nowhere else. A family is a configuration that implements [`Family`] and a model
//! that implements [`CausalLm`].

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Shape};
use serde_json::Value;

use crate::files::pretrained::{Keys, SaveOptions, load_from, save_pretrained};
use crate::files::safetensors_folder::Weights;
use crate::files::sizes::{check_folder, check_sizes};
use crate::files::weight_source::{WeightSource, open_weights};
use crate::models::config::{Family, family_of, read_config, validate};
use crate::models::*;
use crate::{Error, Head, PartMut, Parts, Result, module_path};

/// The families: a variant, its configuration, its model, and what their docs say.
macro_rules! families {
    ($($(#[$doc:meta])* $name:ident: $config:ident => $model:ident),* $(,)?) => {
        /// The configuration of any causal language model of this crate.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum ModelConfig {
            $($(#[$doc])* $name($config),)*
        }

        /// A causal language model of whatever architecture its `config.json` names.
        #[derive(Module, Parts, Debug)]
        #[non_exhaustive]
        pub enum AutoCausalLm {
            $($(#[$doc])* $name($model),)*
        }

        /// `model_type`s that can be loaded.
        pub fn model_types() -> Vec<&'static str> {
            [$($config::MODEL_TYPES),*].concat()
        }

        impl ModelConfig {
            /// Reads a parsed `config.json`.
            ///
            /// # Errors
            ///
            /// [`Error::Settings`] with all that is wrong.
            pub fn from_json(json: Value) -> Result<Self> {
                let name = family_of(&json, &model_types())?;
                $(if $config::MODEL_TYPES.contains(&name.as_str()) {
                    return $config::read(json).map(Self::$name);
                })*
                unreachable!("{name} is of no family, although it is on their list")
            }

            pub(super) fn family(&self) -> &dyn Family {
                match self { $(Self::$name(config) => config,)* }
            }

            fn family_mut(&mut self) -> &mut dyn Family {
                match self { $(Self::$name(config) => config,)* }
            }
        }

        impl AutoCausalLm {
            /// A model with random weights, drawn when first read; `device.seed` makes them reproducible.
            ///
            /// # Errors
            ///
            /// If the configuration contradicts itself.
            pub fn from_config(config: &ModelConfig, device: &Device) -> Result<Self> {
                config.validate()?;
                Ok(Self::of(config, device))
            }

            fn of(config: &ModelConfig, device: &Device) -> Self {
                let mut model = match config {
                    $(ModelConfig::$name(config) => Self::$name($model::from_config(config, device)),)*
                };
                model.set_padding(config.family());
                model
            }

            /// The configuration; its `vocab_size` is the number of rows that the embedding has now.
            pub fn config(&self) -> ModelConfig {
                match self {
                    $(Self::$name(model) => {
                        let mut config = model.config().clone();
                        config.set_vocab_size(model.dims().vocab_size);
                        ModelConfig::$name(config)
                    })*
                }
            }

            /// The path of the embedding of tokens.
            pub(super) fn embedding(&self) -> &'static str {
                match self { $(Self::$name(model) => model.config().embedding(),)* }
            }
        }

        impl CausalLm for AutoCausalLm {
            fn body(&self) -> &dyn Backbone {
                match self { $(Self::$name(model) => model.body(),)* }
            }

            fn head(&self) -> Head<'_> {
                match self { $(Self::$name(model) => model.head(),)* }
            }
        }
    };
}

families! {
    /// Llama, Mistral, Qwen2, Qwen3.
    Llama: LlamaConfig => Llama,
    /// GPT-2.
    Gpt2: Gpt2Config => Gpt2,
    /// GPT-NeoX, Pythia.
    GptNeox: GptNeoxConfig => GptNeox,
    /// Gemma 1, 2 and 3 (text).
    Gemma: GemmaConfig => Gemma,
    /// SmolLM3.
    SmolLm3: SmolLm3Config => SmolLm3,
    /// OLMo 2.
    Olmo2: Olmo2Config => Olmo2,
    /// Granite.
    Granite: GraniteConfig => Granite,
    /// Phi-1, Phi-1.5, Phi-2.
    Phi: PhiConfig => Phi,
    /// Phi-3, Phi-3.5, Phi-4-mini.
    Phi3: Phi3Config => Phi3,
    /// Falcon.
    Falcon: FalconConfig => Falcon,
}

impl ModelConfig {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not JSON, names a `model_type` that is not one of
    /// [`model_types`], or has settings that are missing, contradictory or not supported; all of
    /// them are listed at once.
    pub fn from_pretrained(folder: &Path) -> Result<Self> {
        let (path, json) = read_config(folder)?;
        Self::from_json(json).map_err(|error| Error::invalid(&path, error.to_string()))
    }

    /// The configuration as transformers reads it.
    ///
    /// Rotary settings are written as `rope_theta` and `rope_scaling`, which every version reads.
    pub fn to_json(&self) -> Value {
        let family = self.family();
        let mut json = family.json();
        if json.get("architectures").is_none() {
            json["architectures"] = Value::from(vec![family.architecture()]);
        }
        json
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with all mistakes, separated by semicolons.
    pub fn validate(&self) -> Result<()> {
        validate(self.family())
    }

    /// The measures of the model.
    pub fn dims(&self) -> Dims {
        self.family().dims()
    }

    /// Widths besides those of [`dims`](Self::dims) that are lengths of lists.
    fn widths(&self) -> [(&'static str, usize); 1] {
        let width = self.family().json()["head_dim"].as_u64().unwrap_or(0);
        [("head_dim", usize::try_from(width).unwrap_or(usize::MAX))]
    }

    /// Compares the sizes with the weights of a folder; see [`check_sizes`].
    pub(super) fn check_folder(&self, folder: &Path) -> Result<()> {
        check_folder(self.dims(), &self.widths(), folder)
    }

    /// The `model_type` of `config.json`.
    pub fn model_type(&self) -> &'static str {
        self.family().model_type()
    }

    /// Whether the embedding serves as head too.
    pub fn tie_word_embeddings(&self) -> bool {
        self.family().tie_word_embeddings()
    }
}

impl AutoCausalLm {
    /// [`from_config`](Self::from_config) without weights of an output layer: the body for other heads.
    ///
    /// # Errors
    ///
    /// As [`from_config`](Self::from_config).
    pub(super) fn without_output_layer(config: &ModelConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let mut config = config.clone();
        config.family_mut().set_tie_word_embeddings(true);
        Ok(Self::of(&config, device))
    }

    fn set_padding(&mut self, family: &dyn Family) {
        let (embedding, padding) = (family.embedding(), family.padding());
        self.for_each_part_mut(&mut |path, part| {
            if let PartMut::Embedding(table) = part
                && path == embedding
            {
                table.padding = padding;
            }
        });
    }

    /// Loads a model folder: `config.json` and `model.safetensors`, whole or sharded, in `f32`,
    /// `f16` or `bf16`, or a GGUF file; weights are widened to `f32`.
    ///
    /// For a hub id, [`resolve`](crate::resolve) gives the folder.
    ///
    /// # Errors
    ///
    /// If a file is missing, truncated or malformed, or the weights do not fit the configuration:
    /// [`Error::Keys`] lists every missing, left-over and misshapen key.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        Self::from_pretrained_with(folder, device, Weights::F32)
    }

    /// [`from_pretrained`](Self::from_pretrained) with the weights held as `weights` says.
    ///
    /// With [`Weights::Stored`] the matrices stay in the file's type and are not copied, so that a model
    /// in 16 bits takes half the memory and loads at once, and a GGUF file in 4 bits an eighth. Computation is in `f32` all the same, and
    /// since every 16-bit number is one of `f32`, results differ by rounding alone. No
    /// matrix of the model trains, adapters do.
    ///
    /// # Errors
    ///
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn from_pretrained_with(folder: &Path, device: &Device, weights: Weights) -> Result<Self> {
        let config = ModelConfig::from_pretrained(folder)?;
        let files = open_weights(folder)?;
        check_sizes(config.dims(), &config.widths(), &*files)?;
        let model = Self::from_config(&config, device)?;
        let family = config.family();
        check_tied_head(family, &*files)?;
        let keys = Keys {
            body_prefixes: &[family.body_prefix()],
            ignored: is_ignored,
            ..Keys::default()
        };
        load_from(model, &*files, weights, &keys)
    }

    /// Writes `config.json` and the weights, so that transformers loads the folder.
    ///
    /// Active adapters are not part of it: merge them first, or save them as an adapter.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, the model carries adapters or biases that `config.json` has no setting for, or
    /// ([`Error::NotFinite`], with nothing written) a weight is not finite or has no finite number in the type of the file:
    /// above 65,504 in `f16`.
    pub fn save_pretrained(&self, folder: &Path, options: &SaveOptions) -> Result<()> {
        let made = |config: &ModelConfig| Self::from_config(config, &Device::default());
        let config = fitting_config(self, &self.config(), made)?;
        save_pretrained(self, config, folder, options)
    }
}

/// The `config.json` of a model, with the settings of the biases that merging an adapter may have added to it. `made` makes
/// a model of a configuration.
pub(super) fn fitting_config<M: Module>(
    model: &M,
    config: &ModelConfig,
    made: impl Fn(&ModelConfig) -> Result<M>,
) -> Result<Value> {
    let tensors = |model: &M| -> BTreeMap<String, Shape> {
        let all = module_path::shapes(model).into_iter();
        all.filter(|(path, _)| !path.contains(".adapters."))
            .collect()
    };
    let own = tensors(model);
    let json = config.to_json();
    let mut expected = None;
    for settings in [
        &[][..],
        &["attention_bias"],
        &["mlp_bias"],
        &["attention_bias", "mlp_bias"],
    ] {
        let mut json = json.clone();
        settings.iter().for_each(|name| json[*name] = true.into());
        let model = ModelConfig::from_json(json.clone()).and_then(|config| made(&config));
        let Ok(model) = model else { continue };
        let found = tensors(&model);
        if found == own {
            return Ok(json);
        }
        expected.get_or_insert(found);
    }
    let expected = expected.unwrap_or_default();
    let added: Vec<_> = own
        .keys()
        .filter(|path| !expected.contains_key(*path))
        .collect();
    match added.first() {
        None => Ok(json),
        Some(first) => Err(Error::Settings(format!(
            "config.json of a {} has no setting for {} tensors of this model (the first is {first}), as merging an adapter \
             that adds biases leaves them: save the adapter by itself",
            config.model_type(),
            added.len()
        ))),
    }
}

/// [Buffers](is_buffer), and the head of a tied model, which [`check_tied_head`] has compared.
pub(super) fn is_ignored(name: &str) -> bool {
    is_buffer(name) || name == "lm_head.weight" || name == "embed_out.weight"
}

/// Keys that old checkpoints hold although they are no parameters.
pub(crate) fn is_buffer(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
        || name.ends_with(".attn.bias")
        || name.ends_with(".attn.masked_bias")
        || name.ends_with(".attention.bias")
        || name.ends_with(".attention.masked_bias")
}

/// A head in the file of a tied model is ignored if it is the embedding; if it is not, loading
/// would silently replace a trained head.
fn check_tied_head(family: &dyn Family, files: &dyn WeightSource) -> Result<()> {
    let head = format!("{}.weight", family.output_layer());
    if !family.tie_word_embeddings() || !files.contains(&head) {
        return Ok(());
    }
    let embedding = format!("{}.weight", family.embedding());
    let bare = embedding.strip_prefix(family.body_prefix());
    let names = std::iter::once(embedding.as_str()).chain(bare);
    for name in names.filter(|name| files.contains(name)) {
        if files.stored(name)? != files.stored(&head)? {
            return Err(Error::invalid(
                files.path(),
                format!(
                    "{head} differs from {name}, but config.json says tie_word_embeddings: set it \
                     to false to keep the head, or remove the tensor"
                ),
            ));
        }
    }
    Ok(())
}
