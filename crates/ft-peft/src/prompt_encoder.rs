//! The virtual tokens of the prompt methods, and the networks that compute them while they train.
//!
//! A file holds what the network computes, as in PEFT. So an adapter that is loaded has no network: what trains then are
//! the virtual tokens themselves.

use burn::tensor::{Tensor, activation};
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, VirtualTokens};
use ft_core::{Part, Parts};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::method::{Draw, NewAdapter};
use crate::{Error, Result};

/// Sizes of the model that PEFT writes beside the settings of a prompt method. Those that are not given are taken from the
/// model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptSizes {
    /// The width of the embeddings; with prefix tuning that of all key heads of a block together.
    pub token_dim: Option<usize>,
    /// The number of blocks.
    pub num_layers: Option<usize>,
    /// The number of heads, with prefix tuning of key heads, which PEFT's width of a head follows from. It has no effect here.
    pub num_attention_heads: Option<usize>,
}

impl PromptSizes {
    /// Fills in the sizes of the model.
    ///
    /// # Errors
    ///
    /// If other sizes are given.
    pub(crate) fn fit(&mut self, token_dim: usize, num_layers: usize) -> Result<()> {
        let found = [
            ("token_dim", &mut self.token_dim, token_dim),
            ("num_layers", &mut self.num_layers, num_layers),
        ];
        for (name, given, found) in found {
            match given {
                Some(given) if *given != found => {
                    return Err(Error::Settings(format!(
                        "{name} is {given}, but that of the model is {found}: is this the model the adapter was made for?"
                    )));
                }
                _ => *given = Some(found),
            }
        }
        Ok(())
    }
}

/// Checks that a model can have virtual tokens.
///
/// # Errors
///
/// If it is an encoder.
pub(crate) fn check_decoder(model: &dyn Parts) -> Result<()> {
    match model.is_encoder() {
        true => Err(Error::Settings(
            "virtual tokens (prompt tuning, p-tuning, prefix tuning) are not supported on encoders: use LoRA or another \
             method"
                .into(),
        )),
        false => Ok(()),
    }
}

/// The width of the embedding of tokens, and the number of blocks.
///
/// # Errors
///
/// If the model is an encoder, or has no embedding.
pub(crate) fn embedding_and_blocks(model: &dyn Parts) -> Result<(usize, usize)> {
    check_decoder(model)?;
    let (mut width, mut blocks) = (None, Vec::new());
    model.for_each_part(&mut |path, part| {
        if let Part::Embedding(table) = part {
            width.get_or_insert(table.weight.lazy_shape()[1]);
        }
        let names: Vec<&str> = path.split('.').collect();
        if let Some(at) = names.iter().position(|name| name.parse::<usize>().is_ok()) {
            let block = names[..=at].join(".");
            if blocks.last() != Some(&block) {
                blocks.push(block);
            }
        }
    });
    match width {
        Some(width) => Ok((width, blocks.len())),
        None => Err(Error::Settings(
            "the model has no embedding of tokens, which virtual tokens need".into(),
        )),
    }
}

/// What is the same for all prompt methods, in place of `method!`: the name, and the names of settings that PEFT writes
/// as null.
///
/// A prompt method is put on the embedding of tokens. It has none of the settings that name layers, and its file holds the
/// virtual tokens.
macro_rules! prompt_method {
    ($peft_type:literal $(, $null:literal)*) => {
        $crate::method::method!($peft_type);

        fn fixed(&self) -> serde_json::Value {
            $crate::prompt_encoder::fixed(&[$($null),*])
        }

        fn keys(&self) -> &'static [&'static str] {
            &[]
        }

        fn on_first(&self) -> bool {
            true
        }

        fn takes(&self, part: ft_core::Part<'_>) -> bool {
            matches!(part, ft_core::Part::Embedding(_))
        }

        fn saved(&self, adapter: &ft_core::layers::Adapter) -> Vec<ft_core::layers::AdapterTensor> {
            $crate::prompt_encoder::saved(adapter)
        }
    };
}
pub(crate) use prompt_method;

/// The settings that PEFT writes for all prompt methods, and more that it writes as null.
pub(crate) fn fixed(null: &[&str]) -> Value {
    let mut fixed = json!({"modules_to_save": null, "num_transformer_submodules": 1});
    for name in null {
        fixed[*name] = Value::Null;
    }
    fixed
}

/// What is wrong with the numbers of a prompt method: that of virtual tokens, and the width of its network.
pub(crate) fn mistakes(
    num_virtual_tokens: usize,
    encoder_hidden_size: Option<usize>,
) -> Vec<String> {
    let mut mistakes = Vec::new();
    if num_virtual_tokens == 0 {
        mistakes.push("num_virtual_tokens must be at least 1".into());
    }
    if encoder_hidden_size == Some(0) {
        mistakes.push("encoder_hidden_size must be at least 1".into());
    }
    mistakes
}

/// The key in a file.
const SAVED: &str = "prompt_embeddings";
/// What a network reads, a row for each virtual token.
const EMBEDDING: &str = "embedding.weight";

/// Virtual tokens that a network computes, or that are tensors of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PromptEncoder {
    /// How many virtual tokens.
    tokens: usize,
    /// The blocks that have keys and values; none for embeddings.
    blocks: Option<usize>,
    network: Option<Network>,
}

/// Linear layers with an activation between each two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    /// The names of the layers in PEFT.
    pub(crate) layers: &'static [&'static str],
    pub(crate) activation: Activation,
}

/// What stands between the layers of a network.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Activation {
    Tanh,
    Relu,
}

/// Virtual tokens `[tokens, width]` that are a tensor.
pub(crate) fn plain(embeddings: Tensor<2>, blocks: Option<usize>) -> NewAdapter {
    let kind = PromptEncoder {
        tokens: embeddings.dims()[0],
        blocks,
        network: None,
    };
    NewAdapter::new(kind, vec![saved_tensor(embeddings)])
}

impl Network {
    /// This network between layers of `widths`, for `tokens` virtual tokens. Weights and biases begin as those of
    /// PyTorch's `Linear`, those of the last layer as zeros if `zero`.
    pub(crate) fn begin(
        self,
        tokens: usize,
        widths: &[usize],
        blocks: Option<usize>,
        zero: bool,
        draw: &mut Draw<'_>,
    ) -> NewAdapter {
        let mut tensors = vec![AdapterTensor::new(
            EMBEDDING,
            draw.normal([tokens, widths[0]], 1.0),
        )];
        for (i, (name, widths)) in self.layers.iter().zip(widths.windows(2)).enumerate() {
            let (from, to) = (widths[0], widths[1]);
            let bound = match zero && i + 1 == self.layers.len() {
                true => 0.0,
                false => 1.0 / (from as f64).sqrt(),
            };
            tensors.push(AdapterTensor::new(
                format!("{name}.weight"),
                draw.uniform([to, from], bound),
            ));
            tensors.push(AdapterTensor::new(
                format!("{name}.bias"),
                draw.uniform([to], bound),
            ));
        }
        let kind = PromptEncoder {
            tokens,
            blocks,
            network: Some(self),
        };
        NewAdapter::new(
            kind,
            tensors.into_iter().map(AdapterTensor::unsaved).collect(),
        )
    }

    fn forward(self, adapter: &Adapter) -> Tensor<2> {
        let mut x = adapter.val2(EMBEDDING);
        for (i, name) in self.layers.iter().enumerate() {
            if i > 0 {
                x = match self.activation {
                    Activation::Tanh => x.tanh(),
                    Activation::Relu => activation::relu(x),
                };
            }
            let weight = adapter.val2(&format!("{name}.weight"));
            let bias = adapter.val1(&format!("{name}.bias"));
            x = x.matmul(weight.transpose()) + bias.unsqueeze();
        }
        x
    }
}

impl AdapterKind for PromptEncoder {
    fn num_virtual_tokens(&self) -> usize {
        self.tokens
    }

    fn virtual_tokens(&self, adapter: &Adapter) -> Option<VirtualTokens> {
        let all = match self.network {
            Some(network) => network.forward(adapter),
            None => adapter.val2(SAVED),
        };
        let Some(blocks) = self.blocks else {
            return Some(VirtualTokens::Prompt(all));
        };
        let parts = parts(all, 2 * blocks);
        let blocks = parts
            .chunks_exact(2)
            .map(|pair| [pair[0].clone(), pair[1].clone()]);
        Some(VirtualTokens::Prefix(blocks.collect()))
    }
}

/// `count` parts of `x`, `[tokens, width]`, of equal width.
///
/// It is halved again and again, because the gradient of a part has the size of the tensor that the part is cut from.
fn parts(x: Tensor<2>, count: usize) -> Vec<Tensor<2>> {
    if count < 2 {
        return vec![x];
    }
    let width = x.dims()[1];
    let half = count / 2;
    let middle = half * (width / count);
    let mut all = parts(x.clone().narrow(1, 0, middle), half);
    all.extend(parts(x.narrow(1, middle, width - middle), count - half));
    all
}

/// The virtual tokens of an adapter, as its file holds them.
pub(crate) fn saved(adapter: &Adapter) -> Vec<AdapterTensor> {
    let tensor = match adapter.kind().virtual_tokens(adapter) {
        None => return Vec::new(),
        Some(VirtualTokens::Prompt(prompt)) => prompt,
        Some(VirtualTokens::Prefix(blocks)) => {
            Tensor::cat(blocks.into_iter().flatten().collect(), 1)
        }
    };
    vec![saved_tensor(tensor.detach())]
}

fn saved_tensor(embeddings: Tensor<2>) -> AdapterTensor {
    AdapterTensor::new(SAVED, embeddings).unprefixed()
}
