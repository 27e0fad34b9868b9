//! Keys and values of the tokens that a model has already read.

use burn::tensor::{Int, Tensor};

/// The key-value cache of one batch of sequences.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<Option<(Tensor<4>, Tensor<4>)>>,
    segments: Option<Tensor<2, Int>>,
    len: usize,
}

impl KvCache {
    /// An empty cache for a model of `layers` layers.
    pub fn new(layers: usize) -> Self {
        Self {
            layers: vec![None; layers],
            segments: None,
            len: 0,
        }
    }

    /// How many tokens of each sequence the cache holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the cache holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends keys and values (`[batch, kv_heads, new, head_dim]`) of one layer and returns those
    /// of all tokens so far.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        k: Tensor<4>,
        v: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let (k, v) = match self.layers[layer].take() {
            None => (k, v),
            Some((past_k, past_v)) => (
                Tensor::cat(vec![past_k, k], 2),
                Tensor::cat(vec![past_v, v], 2),
            ),
        };
        self.layers[layer] = Some((k.clone(), v.clone()));
        (k, v)
    }

    /// Appends the segments (`[batch, new]`) of new tokens and returns those of all so far; tokens
    /// without segments belong to segment 1.
    pub(crate) fn append_segments(
        &mut self,
        new: Option<&Tensor<2, Int>>,
        rows: usize,
        count: usize,
        device: &burn::tensor::Device,
    ) -> Option<Tensor<2, Int>> {
        if new.is_none() && self.segments.is_none() {
            return None;
        }
        let ones = |count| Tensor::ones([rows, count], device);
        let new = new.cloned().unwrap_or_else(|| ones(count));
        let all = match (self.segments.take(), self.len) {
            (Some(past), _) => Tensor::cat(vec![past, new], 1),
            (None, 0) => new,
            (None, past) => Tensor::cat(vec![ones(past), new], 1),
        };
        self.segments = Some(all.clone());
        Some(all)
    }

    /// Counts tokens that every layer has now appended.
    pub(crate) fn advance(&mut self, count: usize) {
        self.len += count;
    }

    /// Keeps only the given rows of the batch, in the given order.
    pub fn select_rows(&mut self, rows: &[usize]) {
        let Some(device) = self.layers.iter().flatten().next().map(|(k, _)| k.device()) else {
            return;
        };
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let index = Tensor::<1, Int>::from_data(index.as_slice(), &device);
        for layer in &mut self.layers {
            *layer = layer
                .take()
                .map(|(k, v)| (k.select(0, index.clone()), v.select(0, index.clone())));
        }
        self.segments = self.segments.take().map(|s| s.select(0, index));
    }
}
