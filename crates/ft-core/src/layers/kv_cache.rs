//! Keys and values of the tokens that a model has already read.

use burn::tensor::{Int, Tensor};

/// The key-value cache of one batch of sequences.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Keys and values of each layer, in buffers that may have room for more.
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
    ///
    /// The buffers grow by half at a time, and in between new tokens are written where they belong, so
    /// that a token costs its own size and not that of all before it.
    pub fn append(&mut self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let all = self.len + k.dims()[2];
        let (k, v) = match self.layers[layer].take() {
            // What many callers leave it at: a prompt, read once.
            None => (k, v),
            Some((past_k, past_v)) => (write(past_k, self.len, k), write(past_v, self.len, v)),
        };
        let (seen_k, seen_v) = (k.clone().narrow(2, 0, all), v.clone().narrow(2, 0, all));
        self.layers[layer] = Some((k, v));
        (seen_k, seen_v)
    }

    /// Appends the segments (`[batch, new]`) of new tokens and returns those of all so far; tokens
    /// without segments belong to segment 1.
    pub fn append_segments(
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
    pub fn advance(&mut self, count: usize) {
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

/// Writes new tokens behind the first `past` of a buffer, `[batch, kv_heads, capacity, head_dim]`, which
/// grows if it has to. Nobody else may hold the buffer, or it is copied.
fn write(buffer: Tensor<4>, past: usize, new: Tensor<4>) -> Tensor<4> {
    let [rows, heads, capacity, width] = buffer.dims();
    let end = past + new.dims()[2];
    let buffer = if capacity < end {
        let room = [rows, heads, end + (end / 2).max(64), width];
        let seen = buffer.narrow(2, 0, past);
        let larger = Tensor::zeros(room, (&new.device(), new.dtype()));
        larger.slice_assign([0..rows, 0..heads, 0..past, 0..width], seen)
    } else {
        buffer
    };
    buffer.slice_assign([0..rows, 0..heads, past..end, 0..width], new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    /// `[2, 1, count, 3]`, other numbers for every token of every row.
    fn tokens(first: usize, count: usize) -> Tensor<4> {
        let numbers = (0..2 * count).flat_map(|i| {
            let (row, token) = (i / count, first + i % count);
            (0..3).map(move |j| (row * 10_000 + token * 10 + j) as f32)
        });
        let data = TensorData::new(numbers.collect::<Vec<f32>>(), [2, 1, count, 3]);
        Tensor::from_data(data, &Device::default())
    }

    fn numbers(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_to_vec().expect("f32")
    }

    #[test]
    fn tokens_come_out_in_order_however_they_came_in() {
        let mut cache = KvCache::new(1);
        let mut len = 0;
        // The buffers grow at the second, and several times later.
        for count in [5, 1, 1, 60, 1, 1, 200, 1].into_iter().chain([1; 150]) {
            let (k, v) = cache.append(0, tokens(len, count), tokens(len, count) * 2.0);
            cache.advance(count);
            len += count;
            assert_eq!(numbers(k), numbers(tokens(0, len)));
            assert_eq!(numbers(v), numbers(tokens(0, len) * 2.0));
        }
    }

    #[test]
    fn a_copy_of_a_cache_goes_its_own_way() {
        let mut cache = KvCache::new(1);
        for first in [0, 3] {
            cache.append(0, tokens(first, 3), tokens(first, 3));
            cache.advance(3);
        }
        let mut other = cache.clone();
        other.append(0, tokens(90, 1), tokens(90, 1));
        let (k, _) = cache.append(0, tokens(6, 1), tokens(6, 1));
        assert_eq!(numbers(k), numbers(tokens(0, 7)));
    }

    #[test]
    fn rows_that_stay_keep_their_tokens_and_their_room() {
        let mut cache = KvCache::new(1);
        for first in [0, 3] {
            cache.append(0, tokens(first, 3), tokens(first, 3));
            cache.advance(3);
        }
        cache.select_rows(&[1]);
        let row = |x: Tensor<4>| x.narrow(0, 1, 1);
        let (k, _) = cache.append(0, row(tokens(6, 1)), row(tokens(6, 1)));
        assert_eq!(numbers(k), numbers(row(tokens(0, 7))));
    }
}
