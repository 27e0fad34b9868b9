//! What a forward pass gets besides its embeddings, and the places of its tokens.

use burn::tensor::{Int, Tensor};
use ft_kernels::{AttentionMask, EVERY_SEGMENT};

use crate::layers::kv_cache::KvCache;
use crate::layers::virtual_tokens::{Prefix, prefix_len};

/// What a forward pass gets besides its embeddings. The default is a batch without padding, read from its start.
///
/// One rule covers padding, packing and left-padded prompts: a token attends to the tokens of its own segment (in a
/// decoder: to those of them that do not come after it).
#[derive(Debug, Default)]
pub struct Pass<'a> {
    /// `[batch, seq]`, which do not count virtual tokens; when absent, positions count on from the cache's length.
    pub position_ids: Option<Tensor<2, Int>>,
    /// `[batch, seq]`; tokens of different segments do not see each other. When absent, a row is one segment.
    pub segment_ids: Option<Tensor<2, Int>>,
    /// `[batch, seq]`, for encoders with token types: 0 for the first text of a pair, 1 for the second.
    pub token_type_ids: Option<Tensor<2, Int>>,
    /// How many of the embeddings are those of virtual tokens, which come first. [`position_ids`](Self::position_ids) and
    /// [`segment_ids`](Self::segment_ids) are those of the others.
    pub prompt: usize,
    /// Keys and values of virtual tokens before these embeddings, where nothing else is.
    pub prefix: Option<Prefix>,
    /// Keys and values of the tokens before these; those of these are appended.
    pub cache: Option<&'a mut KvCache>,
    /// Gets the embeddings and the output of every block that ran, as `output_hidden_states` in transformers: the
    /// output of the model's last block is the one after the final norm.
    pub states: Option<&'a mut Vec<Tensor<3>>>,
    /// Run only so many blocks, counted from the first of the model; the result is the output of the last of them.
    pub layers: Option<usize>,
    /// How many blocks the embeddings have been through already: they are the output of the last of these. Only decoders
    /// continue so.
    pub passed: usize,
}

impl<'a> Pass<'a> {
    /// The same after the tokens of a cache.
    #[must_use]
    pub fn with_cache(self, cache: Option<&'a mut KvCache>) -> Self {
        Self { cache, ..self }
    }

    /// Where the tokens of `embeddings` stand, virtual ones included. Their segments go into the cache, and so does the
    /// prefix.
    ///
    /// # Panics
    ///
    /// If virtual tokens come after those of a cache.
    pub fn place(&mut self, embeddings: &Tensor<3>) -> Place {
        let [batch, seq, _] = embeddings.dims();
        let device = embeddings.device();
        let starts = self.prompt > 0 || self.prefix.is_some();
        let segments = self
            .segment_ids
            .as_ref()
            .map(|own| shared_before(self.prompt, own.clone()));
        let (past, before, segments) = match self.cache.as_deref_mut() {
            Some(cache) => {
                if starts {
                    cache.start(self.prompt, self.prefix.take());
                }
                let past = cache.slots();
                let segments = cache.append_segments(segments.as_ref(), batch, seq, &device);
                (past, cache.virtual_tokens(), segments)
            }
            None => {
                let past = self.prefix.as_deref().map_or(0, prefix_len);
                (
                    past,
                    past + self.prompt,
                    segments.map(|own| shared_before(past, own)),
                )
            }
        };
        let count = |from: usize, to: usize| {
            Tensor::<1, Int>::arange(from as i64..to as i64, &device).unsqueeze::<2>()
        };
        let positions = match &self.position_ids {
            None => count(past, past + seq),
            Some(own) if before == 0 => own.clone(),
            Some(own) => {
                let own = own.clone() + before as i64;
                match self.prompt {
                    0 => own,
                    prompt => Tensor::cat(vec![count(0, prompt).expand([batch, prompt]), own], 1),
                }
            }
        };
        Place {
            past,
            positions,
            segments,
            shared: starts && self.segment_ids.is_some(),
        }
    }
}

impl Pass<'_> {
    /// [`place`](Self::place) of the tokens of an encoder with so many positions.
    ///
    /// # Panics
    ///
    /// If there is a cache, there are virtual tokens, blocks have been passed already, or a row without given positions is
    /// longer. A row of several texts, whose positions are given, may be longer.
    pub(crate) fn place_of_encoder(&mut self, embeddings: &Tensor<3>, positions: usize) -> Place {
        assert!(self.cache.is_none(), "an encoder has no cache");
        // It adds positions to embeddings and has norms before its first block, which hidden states are behind.
        assert_eq!(
            self.passed, 0,
            "an encoder cannot continue behind a block: run it from its embeddings"
        );
        assert!(
            self.prompt == 0 && self.prefix.is_none(),
            "virtual tokens (prompt tuning, p-tuning, prefix tuning) are not supported on encoders: use another adapter"
        );
        let seq = embeddings.dims()[1];
        assert!(
            seq <= positions || self.position_ids.is_some(),
            "{seq} tokens are more than the encoder's {positions}"
        );
        self.place(embeddings)
    }
}

/// Segments, `[batch, seq]`, after those of `count` tokens that all of them see.
pub(crate) fn shared_before(count: usize, segments: Tensor<2, Int>) -> Tensor<2, Int> {
    if count == 0 {
        return segments;
    }
    let rows = segments.dims()[0];
    let shared = Tensor::full([rows, count], EVERY_SEGMENT, &segments.device());
    Tensor::cat(vec![shared, segments], 1)
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
    /// Whether the row begins with virtual tokens that several segments share.
    pub shared: bool,
}

impl Place {
    /// Which tokens a decoder's tokens see: those before them, of their segment, within `window` tokens if given.
    ///
    /// # Panics
    ///
    /// If virtual tokens would be out of the window of a token that sees them where its segment stands alone.
    pub fn causal_mask(&self, window: Option<usize>) -> AttentionMask {
        let device = self.positions.device();
        let seq = self.positions.dims()[1];
        let tokens = self.past + seq;
        if let Some(window) = window.filter(|window| self.shared && *window < tokens) {
            panic!(
                "the segments of a row of {tokens} tokens share virtual tokens, but the model's attention looks back {window} \
                 tokens only: use shorter rows, or rows without packing and padding on the left"
            );
        }
        AttentionMask::new(seq, self.past, window, self.segments.as_ref(), &device)
    }

    /// Which tokens an encoder's tokens see: those of their segment.
    pub fn bidirectional_mask(&self) -> AttentionMask {
        let device = self.positions.device();
        let seq = self.positions.dims()[1];
        AttentionMask::bidirectional(seq, self.segments.as_ref(), &device)
    }

    /// Which tokens an encoder's tokens see if they see near ones only: themselves and `window − 1` on either side, of their
    /// segment.
    pub fn bidirectional_mask_within(&self, window: usize) -> AttentionMask {
        let device = self.positions.device();
        let seq = self.positions.dims()[1];
        AttentionMask::bidirectional_within(seq, window, self.segments.as_ref(), &device)
    }
}
