//! Keys and values of the tokens that a model has already read.

use burn::tensor::{Device, Int, Tensor};

use crate::layers::pass::shared_before;
use crate::layers::virtual_tokens::{Prefix, after_prefix, prefix_len};

/// The key-value cache of one batch of sequences.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Keys and values of each layer, in buffers that may have room for more.
    layers: Vec<Option<(Tensor<4>, Tensor<4>)>>,
    segments: Option<Tensor<2, Int>>,
    /// How many tokens of each sequence the buffers hold, virtual ones included.
    slots: usize,
    /// How many of them are virtual.
    virtual_tokens: usize,
    /// Keys and values of the virtual tokens until a layer appends its first ones.
    prefix: Vec<Option<[Tensor<2>; 2]>>,
}

impl KvCache {
    /// An empty cache for a model of `layers` layers.
    pub fn new(layers: usize) -> Self {
        Self {
            layers: vec![None; layers],
            segments: None,
            slots: 0,
            virtual_tokens: 0,
            prefix: Vec::new(),
        }
    }

    /// A cache that serves one block alone and holds these virtual tokens, `[virtual tokens, kv_heads · head_dim]`.
    pub(crate) fn of_block(layer: usize, prefix: [Tensor<2>; 2]) -> Self {
        let count = prefix[0].dims()[0];
        let mut all = vec![None; layer];
        all.push(Some(prefix));
        Self {
            slots: count,
            virtual_tokens: count,
            prefix: all,
            ..Self::new(layer + 1)
        }
    }

    /// How many tokens of each sequence the cache holds, without virtual ones.
    pub fn len(&self) -> usize {
        self.slots - self.virtual_tokens
    }

    /// Whether the cache holds nothing.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// How many tokens of each sequence the cache holds, virtual ones included.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// How many virtual tokens each sequence begins with.
    pub(crate) fn virtual_tokens(&self) -> usize {
        self.virtual_tokens
    }

    /// Lets the sequences begin with virtual tokens: `prompt` of those that are appended next, or a prefix.
    ///
    /// # Panics
    ///
    /// If the cache is not empty, or the prefix has another number of blocks.
    pub(crate) fn start(&mut self, prompt: usize, prefix: Option<Prefix>) {
        assert!(self.is_empty(), "virtual tokens come before all others");
        self.virtual_tokens = prompt;
        let Some(prefix) = prefix else {
            return;
        };
        let (given, layers) = (prefix.len(), self.layers.len());
        assert_eq!(
            given, layers,
            "the prefix has keys and values of {given} blocks, the model has {layers}"
        );
        self.slots = prefix_len(&prefix);
        self.virtual_tokens = self.slots;
        self.prefix = prefix.into_iter().map(Some).collect();
    }

    /// Appends keys and values (`[batch, kv_heads, new, head_dim]`) of one layer and returns those
    /// of all tokens so far.
    ///
    /// The buffers grow by half at a time, and in between new tokens are written where they belong, so
    /// that a token costs its own size and not that of all before it.
    pub fn append(&mut self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let all = self.slots + k.dims()[2];
        let prefix = self.prefix.get_mut(layer).and_then(Option::take);
        let (k, v) = match (self.layers[layer].take(), prefix) {
            // What many callers leave it at: a prompt, read once.
            (None, None) => (k, v),
            (None, Some([past_k, past_v])) => (after_prefix(past_k, k), after_prefix(past_v, v)),
            (Some((past_k, past_v)), _) => {
                (write(past_k, self.slots, k), write(past_v, self.slots, v))
            }
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
        device: &Device,
    ) -> Option<Tensor<2, Int>> {
        if new.is_none() && self.segments.is_none() {
            return None;
        }
        let new = new
            .cloned()
            .unwrap_or_else(|| Tensor::ones([rows, count], device));
        let all = match (self.segments.take(), self.slots) {
            (Some(past), _) => Tensor::cat(vec![past, new], 1),
            (None, 0) => new,
            (None, _) => Tensor::cat(vec![self.plain_segments(rows, device), new], 1),
        };
        self.segments = Some(all.clone());
        Some(all)
    }

    /// Counts tokens that every layer has now appended.
    pub fn advance(&mut self, count: usize) {
        self.slots += count;
    }

    /// Makes the given rows, in the given order, the rows of the cache. A row may be given several times.
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

    /// Appends the rows of another cache of the same model. The rows of the shorter cache get padding on the left, of
    /// segment 0, so that the last tokens of all rows stand side by side; tokens without segments belong to segment 1.
    pub(crate) fn append_rows(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        if other.is_empty() {
            return;
        }
        let lens = [self.slots, other.slots];
        let segments = [self.padded_segments(lens), other.padded_segments(lens)];
        let segments = (lens[0] != lens[1] || self.segments.is_some() || other.segments.is_some())
            .then(|| Tensor::cat(segments.into_iter().flatten().collect(), 0));
        for (mine, theirs) in self.layers.iter_mut().zip(other.layers) {
            *mine = match (mine.take(), theirs) {
                (Some((k, v)), Some((other_k, other_v))) => {
                    Some((stack([k, other_k], lens), stack([v, other_v], lens)))
                }
                (mine, theirs) => mine.or(theirs),
            };
        }
        self.segments = segments;
        self.slots = lens[0].max(lens[1]);
    }

    /// Cuts off the padding on the left that all rows share, where a row ends with its virtual tokens and `lengths[row]`
    /// others.
    ///
    /// # Panics
    ///
    /// If a row is longer than the cache.
    pub(crate) fn trim_padding(&mut self, lengths: &[usize]) {
        let longest = lengths.iter().copied().max().unwrap_or(self.len());
        let cut = self.len() - longest;
        if lengths.iter().all(|len| *len == longest) {
            self.segments = None;
        }
        if cut == 0 {
            return;
        }
        let trim = |x: Tensor<4>| {
            let capacity = x.dims()[2];
            x.narrow(2, cut, capacity - cut)
        };
        for layer in &mut self.layers {
            *layer = layer.take().map(|(k, v)| (trim(k), trim(v)));
        }
        self.slots -= cut;
        self.segments = self.segments.take().map(|s| s.narrow(1, cut, self.slots));
    }

    /// The segments of rows without padding, `[rows, slots]`.
    fn plain_segments(&self, rows: usize, device: &Device) -> Tensor<2, Int> {
        shared_before(
            self.virtual_tokens,
            Tensor::ones([rows, self.len()], device),
        )
    }

    /// The segments after padding on the left, `[rows, longest of lens]`; none if the cache is empty.
    fn padded_segments(&self, lens: [usize; 2]) -> Option<Tensor<2, Int>> {
        let (k, _) = self.layers.iter().flatten().next()?;
        let (rows, device) = (k.dims()[0], k.device());
        let segments = self.segments.clone();
        let segments = segments.unwrap_or_else(|| self.plain_segments(rows, &device));
        let padding = lens[0].max(lens[1]) - self.slots;
        Some(match padding {
            0 => segments,
            padding => Tensor::cat(vec![Tensor::zeros([rows, padding], &device), segments], 1),
        })
    }
}

/// The first `lens` tokens of two buffers as rows of one, aligned on the right, with room for more.
fn stack(buffers: [Tensor<4>; 2], lens: [usize; 2]) -> Tensor<4> {
    let [_, heads, _, width] = buffers[0].dims();
    let rows = buffers.each_ref().map(|buffer| buffer.dims()[0]);
    let len = lens[0].max(lens[1]);
    let (device, dtype) = (buffers[0].device(), buffers[0].dtype());
    let shape = [rows[0] + rows[1], heads, with_room(len), width];
    let mut all = Tensor::zeros(shape, (&device, dtype));
    let mut first = 0;
    for ((buffer, rows), own) in buffers.into_iter().zip(rows).zip(lens) {
        let place = [first..first + rows, 0..heads, len - own..len, 0..width];
        all = all.slice_assign(place, buffer.narrow(2, 0, own));
        first += rows;
    }
    all
}

/// How many tokens a buffer of `len` gets room for.
fn with_room(len: usize) -> usize {
    len + (len / 2).max(64)
}

/// Writes new tokens behind the first `past` of a buffer, `[batch, kv_heads, capacity, head_dim]`, which
/// grows if it has to. Nobody else may hold the buffer, or it is copied.
fn write(buffer: Tensor<4>, past: usize, new: Tensor<4>) -> Tensor<4> {
    let [rows, heads, capacity, width] = buffer.dims();
    let end = past + new.dims()[2];
    let buffer = if capacity < end {
        let room = [rows, heads, with_room(end), width];
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
    use burn::tensor::TensorData;

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

    /// Padding has segment 0, and goes when no row needs it.
    #[test]
    fn rows_of_two_caches_stand_side_by_side() {
        let cache = |first: usize, count: usize| {
            let mut cache = KvCache::new(1);
            cache.append(0, tokens(first, count), tokens(first, count) * 2.0);
            cache.advance(count);
            cache
        };
        let (short, long) = (2, 70);
        for (mut all, other, rows) in [
            (cache(0, short), cache(100, long), [2, 3]),
            (cache(100, long), cache(0, short), [0, 1]),
        ] {
            all.append_rows(other);
            assert_eq!(all.len(), long);
            let new = Tensor::cat(vec![tokens(500, 1), tokens(600, 1)], 0);
            let segments = all.append_segments(None, 4, 1, &Device::default());
            let (k, v) = all.append(0, new.clone(), new * 2.0);
            all.advance(1);
            assert_eq!(numbers(k.clone() * 2.0), numbers(v));
            let segments = segments
                .expect("rows of two lengths")
                .sum_dim(1)
                .into_data();
            let expected = |row| {
                if rows.contains(&row) {
                    long + 1
                } else {
                    short + 1
                }
            };
            let lengths: Vec<usize> = (0..4).map(expected).collect();
            let found: Vec<usize> = segments.iter::<i64>().map(|sum| sum as usize).collect();
            assert_eq!(found, lengths);
            let long_rows = k.narrow(0, rows[0], 2).narrow(2, 0, long);
            assert_eq!(numbers(long_rows), numbers(tokens(100, long)));

            // The long rows leave.
            let kept: Vec<usize> = (0..4).filter(|row| !rows.contains(row)).collect();
            all.select_rows(&kept);
            all.trim_padding(&[short + 1; 2]);
            assert_eq!(all.len(), short + 1);
            let segments = all.append_segments(None, 2, 1, &Device::default());
            assert!(segments.is_none(), "no padding is left");
            let (k, _) = all.append(0, tokens(7, 1), tokens(7, 1));
            assert_eq!(k.dims(), [2, 1, short + 2, 3]);
            assert_eq!(numbers(k.narrow(2, 0, short)), numbers(tokens(0, short)));
        }
    }

    #[test]
    fn padding_that_a_row_needs_stays() {
        let mut cache = KvCache::new(1);
        cache.append(0, tokens(0, 9), tokens(0, 9));
        cache.append_segments(
            Some(&Tensor::ones([2, 9], &Device::default())),
            2,
            9,
            &Device::default(),
        );
        cache.advance(9);
        cache.trim_padding(&[3, 7]);
        let (k, _) = cache.append(0, tokens(9, 1), tokens(9, 1));
        assert_eq!(numbers(k), numbers(tokens(2, 8)));
        assert!(
            cache
                .append_segments(None, 2, 1, &Device::default())
                .is_some()
        );
    }
}
