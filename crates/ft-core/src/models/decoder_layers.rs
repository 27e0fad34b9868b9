//! The layers of decoders that share [`DecoderConfig`], with random weights that are drawn when first read.

use burn::tensor::Device;
use ft_kernels::{Activation, Scores};

use crate::layers::embedding::Embedding;
use crate::layers::gated_mlp::GatedMlp;
use crate::layers::linear::{Layout, Linear};
use crate::layers::rope::Rope;
use crate::layers::self_attention::SelfAttention;
use crate::models::config::DecoderConfig;

impl DecoderConfig {
    fn linear(&self, from: usize, to: usize, bias: bool, device: &Device) -> Linear {
        let std = self.initializer_range;
        Linear::new(from, to, bias, Layout::OutIn, std, device)
    }

    /// The embedding of tokens.
    pub(super) fn embedding(&self, device: &Device) -> Embedding {
        let std = self.initializer_range;
        Embedding::new(self.vocab_size, self.hidden_size, std, device)
    }

    /// The output layer; none if the embedding serves as head.
    pub(super) fn lm_head(&self, device: &Device) -> Option<Linear> {
        (!self.tie_word_embeddings)
            .then(|| self.linear(self.hidden_size, self.vocab_size, false, device))
    }

    /// The rotary frequencies.
    pub(super) fn rope(&self) -> Rope {
        Rope::new(self.head_width(), self.rope_theta, &self.rope_scaling)
    }

    /// `1/√head_dim`.
    pub(super) fn plain_scores(&self) -> Scores {
        (self.head_width() as f64).powf(-0.5).into()
    }

    /// Attention without norms.
    pub(super) fn self_attention(&self, scores: Scores, device: &Device) -> SelfAttention {
        let (hidden, bias) = (self.hidden_size, self.attention_bias);
        let queries = self.num_attention_heads * self.head_width();
        let keys = self.num_key_value_heads * self.head_width();
        SelfAttention {
            q_proj: self.linear(hidden, queries, bias, device),
            k_proj: self.linear(hidden, keys, bias, device),
            v_proj: self.linear(hidden, keys, bias, device),
            o_proj: self.linear(queries, hidden, bias, device),
            q_norm: None,
            k_norm: None,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            scores,
        }
    }

    /// The feed-forward layer.
    pub(super) fn gated_mlp(&self, act: Activation, bias: bool, device: &Device) -> GatedMlp {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        GatedMlp {
            gate_proj: self.linear(hidden, inner, bias, device),
            up_proj: self.linear(hidden, inner, bias, device),
            down_proj: self.linear(inner, hidden, bias, device),
            act,
        }
    }
}
