//! BERT (Devlin et al., 2018, arXiv:1810.04805) and RoBERTa (Liu et al., 2019, arXiv:1907.11692): encoders, in which
//! every token sees every other.
//!
//! The encoder alone: what a checkpoint has besides (the pooler, heads of pretraining or of a task) is passed over.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::config::BertConfig;
use crate::embedding::Embedding;
use crate::layer_norm::LayerNorm;
use crate::linear::{Layout, Linear};
use crate::linears::Linears;
use crate::safetensors_folder::{self, WeightFiles, Weights};
use crate::{Error, Result, TokenBatch};
use ft_kernels::{self as kernels, Activation, AttentionMask};

/// The encoder of BERT, RoBERTa and XLM-RoBERTa.
#[derive(Module, Debug)]
pub struct Bert {
    embeddings: Embeddings,
    encoder: Encoder,
    #[module(skip)]
    config: BertConfig,
}

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct Encoder {
    layer: Vec<Block>,
}

#[derive(Module, Debug)]
struct Block {
    attention: Attention,
    intermediate: Intermediate,
    output: Output,
}

#[derive(Module, Debug)]
struct Attention {
    // `self` in the files, which Rust keeps to itself.
    this: SelfAttention,
    output: Output,
}

#[derive(Module, Debug)]
struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
struct Intermediate {
    dense: Linear,
    #[module(skip)]
    act: Activation,
}

/// A projection back, the residual, and the norm after both.
#[derive(Module, Debug)]
struct Output {
    dense: Linear,
    layer_norm: LayerNorm,
}

impl Bert {
    /// An encoder with random weights, drawn when first read.
    pub fn from_config(config: &BertConfig, device: &Device) -> Self {
        let (width, std) = (config.hidden_size, config.initializer_range);
        let embedding = |rows| Embedding::new(rows, width, std, device);
        Self {
            embeddings: Embeddings {
                word_embeddings: embedding(config.vocab_size),
                position_embeddings: embedding(config.max_position_embeddings),
                token_type_embeddings: embedding(config.type_vocab_size),
                layer_norm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, device),
            },
            encoder: Encoder {
                layer: (0..config.num_hidden_layers)
                    .map(|_| Block::new(config, device))
                    .collect(),
            },
            config: config.clone(),
        }
    }

    /// Loads a model folder: `config.json` and `model.safetensors`, whole or sharded; weights are widened to `f32`. The
    /// checkpoint may be the bare encoder or a model around it.
    ///
    /// # Errors
    ///
    /// If a file is missing, truncated or malformed, or the weights do not fit the configuration:
    /// [`Error::Keys`] lists every missing and misshapen key, and those of the encoder that are left over.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        let config = BertConfig::from_pretrained(folder)?;
        let files = WeightFiles::open(folder)?;
        let prefix = ["bert.", "roberta."]
            .into_iter()
            .find(|prefix| files.names().any(|name| name.starts_with(prefix)));
        let prefix = prefix.unwrap_or("");
        // Checkpoints from TensorFlow call the weights of norms gamma and beta.
        let greek = files.names().any(|name| name.ends_with("LayerNorm.gamma"));
        let key_of = |path: &str| {
            let mut key = path
                .replace("layer_norm", "LayerNorm")
                .replace("attention.this", "attention.self");
            if greek && key.contains("LayerNorm") {
                key = key.replace(".weight", ".gamma").replace(".bias", ".beta");
            }
            format!("{prefix}{key}")
        };
        let outside = |name: &str| {
            let name = name.strip_prefix(prefix).unwrap_or(name);
            name == "embeddings.position_ids"
                || !(name.starts_with("embeddings.") || name.starts_with("encoder."))
        };
        let model = Self::from_config(&config, device);
        safetensors_folder::load_module(model, &files, Weights::F32, key_of, outside)
    }

    /// The configuration.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The hidden states after each layer, `[batch, seq, hidden]`, those of the embeddings first: as many as layers and one.
    ///
    /// Tokens see those of their own segment only, so that padding is a segment of its own, commonly 0. Positions count from
    /// 0 in each row, also for RoBERTa, if none are given; so rows are padded on the right. `token_types`, `[batch, seq]`,
    /// tell the first from the second text of a pair; without them all are of the first.
    ///
    /// # Errors
    ///
    /// If the sequence is longer than the model's positions.
    pub fn hidden_states(
        &self,
        tokens: &TokenBatch,
        token_types: Option<Tensor<2, Int>>,
    ) -> Result<Vec<Tensor<3>>> {
        self.up_to(tokens, token_types, self.encoder.layer.len())
    }

    /// The hidden states up to a layer; later layers are not computed.
    ///
    /// # Errors
    ///
    /// As [`hidden_states`](Self::hidden_states), or if there are fewer layers.
    pub fn up_to(
        &self,
        tokens: &TokenBatch,
        token_types: Option<Tensor<2, Int>>,
        layers: usize,
    ) -> Result<Vec<Tensor<3>>> {
        let [batch, seq] = tokens.input_ids.dims();
        let device = tokens.input_ids.device();
        if seq > self.config.max_length() {
            return Err(Error::Settings(format!(
                "a sequence of {seq} tokens is longer than the encoder's {}: cut it",
                self.config.max_length()
            )));
        }
        if layers > self.encoder.layer.len() {
            return Err(Error::Settings(format!(
                "the encoder has {} layers, not {layers}",
                self.encoder.layer.len()
            )));
        }
        let first = self.config.first_position() as i64;
        let positions = match &tokens.position_ids {
            Some(positions) => positions.clone().add_scalar(first),
            None => Tensor::<1, Int>::arange(first..first + seq as i64, &device)
                .unsqueeze::<2>()
                .expand([batch, seq]),
        };
        let token_types = token_types.unwrap_or_else(|| Tensor::zeros([batch, seq], &device));
        let mask = AttentionMask::bidirectional(seq, tokens.segment_ids.as_ref(), &device);
        let embeddings = &self.embeddings;
        let x = embeddings.word_embeddings.forward(tokens.input_ids.clone())
            + embeddings.position_embeddings.forward(positions)
            + embeddings.token_type_embeddings.forward(token_types);
        let mut states = vec![embeddings.layer_norm.forward(x)];
        for layer in &self.encoder.layer[..layers] {
            let x = states[states.len() - 1].clone();
            states.push(layer.forward(x, &mask));
        }
        Ok(states)
    }
}

impl Block {
    fn new(config: &BertConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let linear = |from, to| {
            Linear::new(
                from,
                to,
                true,
                Layout::OutIn,
                config.initializer_range,
                device,
            )
        };
        let output = |from| Output {
            dense: linear(from, width),
            layer_norm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, device),
        };
        Self {
            attention: Attention {
                this: SelfAttention {
                    query: linear(width, width),
                    key: linear(width, width),
                    value: linear(width, width),
                    heads: config.num_attention_heads,
                },
                output: output(width),
            },
            intermediate: Intermediate {
                dense: linear(width, inner),
                act: config.hidden_act,
            },
            output: output(inner),
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let attended = self.attention.this.forward(x.clone(), mask);
        let x = self.attention.output.forward(attended, x);
        let inner = self
            .intermediate
            .act
            .forward(self.intermediate.dense.forward(x.clone()));
        self.output.forward(inner, x)
    }

    fn linears(&self) -> [&Linear; 6] {
        let this = &self.attention.this;
        [
            &this.query,
            &this.key,
            &this.value,
            &self.attention.output.dense,
            &self.intermediate.dense,
            &self.output.dense,
        ]
    }

    fn linears_mut(&mut self) -> [&mut Linear; 6] {
        let this = &mut self.attention.this;
        [
            &mut this.query,
            &mut this.key,
            &mut this.value,
            &mut self.attention.output.dense,
            &mut self.intermediate.dense,
            &mut self.output.dense,
        ]
    }
}

impl SelfAttention {
    fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let head_dim = width / self.heads;
        let split = |x: Tensor<3>| {
            x.reshape([batch, seq, self.heads, head_dim])
                .swap_dims(1, 2)
        };
        let q = split(self.query.forward(x.clone()));
        let k = split(self.key.forward(x.clone()));
        let v = split(self.value.forward(x));
        kernels::attention(q, k, v, (head_dim as f64).powf(-0.5), mask)
            .swap_dims(1, 2)
            .reshape([batch, seq, width])
    }
}

impl Output {
    fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.layer_norm.forward(self.dense.forward(x) + residual)
    }
}

impl Linears for Bert {
    fn for_each_linear(&self, f: &mut dyn FnMut(&str, &Linear)) {
        for (i, layer) in self.encoder.layer.iter().enumerate() {
            for (name, linear) in BLOCK_LINEARS.iter().zip(layer.linears()) {
                f(&format!("encoder.layer.{i}.{name}"), linear);
            }
        }
    }

    fn for_each_linear_mut(&mut self, f: &mut dyn FnMut(&str, &mut Linear)) {
        for (i, layer) in self.encoder.layer.iter_mut().enumerate() {
            for (name, linear) in BLOCK_LINEARS.iter().zip(layer.linears_mut()) {
                f(&format!("encoder.layer.{i}.{name}"), linear);
            }
        }
    }
}

const BLOCK_LINEARS: [&str; 6] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
];
