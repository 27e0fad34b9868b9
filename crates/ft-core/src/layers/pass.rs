//! What a forward pass knows besides its embeddings, and where its tokens stand.

use burn::tensor::{Int, Tensor};
use ft_kernels::AttentionMask;

use crate::layers::kv_cache::KvCache;

/// What a forward pass knows besides its embeddings. The default is a batch without padding, read from its start.
///
/// One rule covers padding, packing and left-padded prompts: a token attends to the tokens of its own segment (in a
/// decoder: to those of them that do not come after it).
#[derive(Debug, Default)]
pub struct Pass<'a> {
    /// `[batch, seq]`; when absent, positions count on from the cache's length.
    pub position_ids: Option<Tensor<2, Int>>,
    /// `[batch, seq]`; tokens of different segments do not see each other. When absent, a row is one segment.
    pub segment_ids: Option<Tensor<2, Int>>,
    /// `[batch, seq]`, for encoders that tell the first text of a pair (0) from the second (1).
    pub token_type_ids: Option<Tensor<2, Int>>,
    /// Keys and values of the tokens before these; those of these are appended.
    pub cache: Option<&'a mut KvCache>,
    /// Gets the embeddings and the output of every block that ran, as `output_hidden_states` in transformers: the
    /// output of the model's last block is the one after the final norm.
    pub states: Option<&'a mut Vec<Tensor<3>>>,
    /// Run only so many blocks; the result is the output of the last of them.
    pub layers: Option<usize>,
}

impl<'a> Pass<'a> {
    /// The same after the tokens of a cache.
    #[must_use]
    pub fn with_cache(self, cache: Option<&'a mut KvCache>) -> Self {
        Self { cache, ..self }
    }

    /// Where the tokens of `embeddings` stand; their segments go into the cache.
    pub fn place(&mut self, embeddings: &Tensor<3>) -> Place {
        let [batch, seq, _] = embeddings.dims();
        let device = embeddings.device();
        let past = self.cache.as_ref().map_or(0, |cache| cache.len());
        let segments = match self.cache.as_deref_mut() {
            Some(cache) => cache.append_segments(self.segment_ids.as_ref(), batch, seq, &device),
            None => self.segment_ids.clone(),
        };
        let positions = self.position_ids.clone().unwrap_or_else(|| {
            Tensor::<1, Int>::arange(past as i64..(past + seq) as i64, &device).unsqueeze()
        });
        Place {
            past,
            positions,
            segments,
        }
    }
}

/// Where the tokens of a forward pass stand.
#[derive(Clone, Debug)]
pub struct Place {
    /// How many tokens the cache holds before them.
    pub past: usize,
    /// `[batch or 1, seq]`.
    pub positions: Tensor<2, Int>,
    /// `[batch, past + seq]`; none if each row is one segment.
    pub segments: Option<Tensor<2, Int>>,
}

impl Place {
    /// Which tokens a decoder's tokens see: those before them, of their segment, within `window` tokens if given.
    pub fn causal_mask(&self, window: Option<usize>) -> AttentionMask {
        let device = self.positions.device();
        let seq = self.positions.dims()[1];
        AttentionMask::new(seq, self.past, window, self.segments.as_ref(), &device)
    }

    /// Which tokens an encoder's tokens see: those of their segment.
    pub fn bidirectional_mask(&self) -> AttentionMask {
        let device = self.positions.device();
        let seq = self.positions.dims()[1];
        AttentionMask::bidirectional(seq, self.segments.as_ref(), &device)
    }
}
