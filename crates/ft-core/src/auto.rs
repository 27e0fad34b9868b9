//! One loader for every model: the architecture is what `model_type` says.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Tensor};

use crate::safetensors_folder::{self, WeightFiles, Weights};
use crate::{
    CausalLm, Error, Gpt2, Head, KvCache, Linear, Linears, Llama, ModelConfig, Result, TokenBatch,
};

/// A causal language model of whatever architecture its `config.json` names.
#[derive(Module, Debug)]
#[non_exhaustive]
pub enum AutoCausalLm {
    /// Llama, Mistral, Qwen2, Qwen3.
    Llama(Llama),
    /// GPT-2.
    Gpt2(Gpt2),
}

/// How a model is written.
#[derive(Clone, Copy, Debug)]
pub struct SaveOptions {
    /// Type of the numbers in the file.
    pub dtype: FloatDType,
    /// Bytes after which a new shard begins; transformers' default is 5 GB.
    pub max_shard_size: usize,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            dtype: FloatDType::F32,
            max_shard_size: 5_000_000_000,
        }
    }
}

impl AutoCausalLm {
    /// A model with random weights, drawn when first read; `device.seed` makes them reproducible.
    ///
    /// # Errors
    ///
    /// If the configuration contradicts itself.
    pub fn from_config(config: &ModelConfig, device: &Device) -> Result<Self> {
        config.validate().map_err(Error::Settings)?;
        Ok(match config {
            ModelConfig::Llama(config) => Self::Llama(Llama::from_config(config, device)),
            ModelConfig::Gpt2(config) => Self::Gpt2(Gpt2::from_config(config, device)),
        })
    }

    /// Loads a model folder: `config.json` and `model.safetensors`, whole or sharded, in `f32`,
    /// `f16` or `bf16`; weights are widened to `f32`.
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
    /// in 16 bits takes half the memory and loads at once. Computation is in `f32` all the same, and
    /// since every 16-bit number is one of `f32`, results differ by rounding alone. No
    /// matrix of the model trains, adapters do.
    ///
    /// # Errors
    ///
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn from_pretrained_with(folder: &Path, device: &Device, weights: Weights) -> Result<Self> {
        let config = ModelConfig::from_pretrained(folder)?;
        let model = Self::from_config(&config, device)?;
        let files = WeightFiles::open(folder)?;
        check_tied_head(&config, &files)?;
        let base = model.base_prefix();
        // Checkpoints of the bare decoder, as GPT-2's on the hub, lack its prefix.
        let bare = !files.names().any(|name| name.starts_with(base));
        let key_of = |path: &str| match path.strip_prefix(base) {
            Some(rest) if bare => rest.to_string(),
            _ => path.to_string(),
        };
        safetensors_folder::load_module(model, &files, weights, key_of, is_buffer)
    }

    /// Writes `config.json` and the weights, so that transformers loads the folder.
    ///
    /// Active adapters are not part of it: merge them first, or save them as an adapter.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, or the model carries adapters.
    pub fn save_pretrained(&self, folder: &Path, options: &SaveOptions) -> Result<()> {
        let mut adapted = Vec::new();
        self.for_each_linear(&mut |path, linear| {
            if !linear.adapters.is_empty() {
                adapted.push(path.to_string());
            }
        });
        if let Some(first) = adapted.first() {
            return Err(Error::Settings(format!(
                "the model carries adapters ({} layers, the first is {first}), which save_pretrained \
                 would lose: merge them first, or save the adapter by itself",
                adapted.len()
            )));
        }
        let mut json = self.config().to_json();
        let name = match options.dtype {
            FloatDType::F16 => "float16",
            FloatDType::BF16 => "bfloat16",
            FloatDType::F64 => "float64",
            _ => "float32",
        };
        json["torch_dtype"] = name.into();
        if let Some(map) = json.as_object_mut() {
            map.remove("dtype");
        }
        std::fs::create_dir_all(folder).map_err(Error::write(folder))?;
        safetensors_folder::write_module(folder, self, options.dtype, options.max_shard_size)?;
        safetensors_folder::write_json(&folder.join("config.json"), &json)
    }

    fn base_prefix(&self) -> &'static str {
        match self {
            Self::Llama(_) => "model.",
            Self::Gpt2(_) => "transformer.",
        }
    }
}

/// Keys that old checkpoints hold although they are no parameters.
fn is_buffer(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
        || name.ends_with(".attn.bias")
        || name.ends_with(".attn.masked_bias")
        || name == "lm_head.weight"
}

/// A head in the file of a tied model is passed over if it is the embedding; if it is not, loading
/// would silently replace a trained head.
fn check_tied_head(config: &ModelConfig, files: &WeightFiles) -> Result<()> {
    const HEAD: &str = "lm_head.weight";
    if !config.tie_word_embeddings() || !files.contains(HEAD) {
        return Ok(());
    }
    let embeddings = [
        "model.embed_tokens.weight",
        "transformer.wte.weight",
        "wte.weight",
    ];
    for name in embeddings.into_iter().filter(|name| files.contains(name)) {
        if files.raw(name)? != files.raw(HEAD)? {
            return Err(Error::invalid(
                files.path(),
                format!(
                    "{HEAD} differs from {name}, but config.json says tie_word_embeddings: set it \
                     to false to keep the head, or remove the tensor"
                ),
            ));
        }
    }
    Ok(())
}

/// Calls a method of whichever model it is.
macro_rules! each {
    ($model:expr, $inner:ident => $call:expr) => {
        match $model {
            AutoCausalLm::Llama($inner) => $call,
            AutoCausalLm::Gpt2($inner) => $call,
        }
    };
}

impl CausalLm for AutoCausalLm {
    fn config(&self) -> &ModelConfig {
        each!(self, model => model.config())
    }

    fn hidden_states(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Tensor<3> {
        each!(self, model => model.hidden_states(tokens, cache))
    }

    fn head(&self) -> Head<'_> {
        each!(self, model => model.head())
    }
}

impl Linears for AutoCausalLm {
    fn for_each_linear(&self, f: &mut dyn FnMut(&str, &Linear)) {
        each!(self, model => model.for_each_linear(f));
    }

    fn for_each_linear_mut(&mut self, f: &mut dyn FnMut(&str, &mut Linear)) {
        each!(self, model => model.for_each_linear_mut(f));
    }
}
