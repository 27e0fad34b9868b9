//! Scaled dot-product attention with grouped heads (Vaswani et al., 2017, arXiv:1706.03762,
//! equation 1; Ainslie et al., 2023, arXiv:2305.13245).
//!
//! Key and value heads are not repeated: the query heads that share one are stacked along the sequence, so that
//! each group is one product.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Bool, Device, Int, Tensor, activation};

/// The segment of keys that every query may attend to, whatever its own segment: tokens that all documents of a row share.
pub const EVERY_SEGMENT: i64 = -1;

/// Segments from here on are branches.
pub(crate) const BRANCH: i64 = 1 << 16;

/// Branch `number` (from 1) of a segment: its tokens attend to those of the segment and to their own, not to those of the
/// segment's other branches. Several answers to one prompt can so be read in one row, and the prompt once.
///
/// ```
/// use ft_kernels::branch;
///
/// // One prompt of two tokens with two answers, and a second document.
/// let segments = [1, 1, branch(1, 1), branch(1, 1), branch(1, 2), 2, 2];
/// assert_ne!(segments[2], segments[4]);
/// ```
///
/// # Panics
///
/// If the segment or the number is not in `0..=32767`.
pub fn branch(segment: i64, number: usize) -> i64 {
    assert!(
        (0..1 << 15).contains(&segment) && number < 1 << 15,
        "segment {segment} and branch {number} must be below 32768"
    );
    segment + number as i64 * BRANCH
}

/// The segment that a branch belongs to; other segments are their own.
#[cfg(feature = "cpu")]
pub(crate) fn trunk(segment: i64) -> i64 {
    if segment < BRANCH {
        return segment;
    }
    segment % BRANCH
}

/// The keys that each query must not attend to. It is built once per forward pass and shared by the layers.
///
/// The mask stores a rule. An implementation that needs a tensor builds it once.
#[derive(Clone, Debug)]
pub struct AttentionMask {
    queries: usize,
    past: usize,
    window: Option<usize>,
    /// Whether tokens also attend to later tokens.
    bidirectional: bool,
    segments: Option<Tensor<2, Int>>,
    device: Device,
    made: Arc<Made>,
}

#[derive(Debug, Default)]
struct Made {
    /// `[batch or 1, 1, queries, keys]`, true where attention is forbidden; `None` if all is allowed.
    forbidden: OnceLock<Option<Tensor<4, Bool>>>,
    #[cfg(feature = "cpu")]
    segments: OnceLock<Option<Arc<crate::flex::attention::Segments>>>,
}

impl AttentionMask {
    /// The mask of `queries` tokens that follow `past` cached ones: causal, within `window` tokens
    /// if given, and within the token's own segment and [`EVERY_SEGMENT`] if `segments` (`[batch, past + queries]`) are
    /// given.
    ///
    /// # Panics
    ///
    /// If the window is 0: a token attends at least to itself.
    pub fn new(
        queries: usize,
        past: usize,
        window: Option<usize>,
        segments: Option<&Tensor<2, Int>>,
        device: &Device,
    ) -> Self {
        assert_ne!(window, Some(0), "a token sees itself at least");
        Self {
            queries,
            past,
            window: window.filter(|&window| past + queries > window),
            bidirectional: false,
            segments: segments.cloned(),
            device: device.clone(),
            made: Arc::default(),
        }
    }

    /// The mask of encoders: each of `tokens` tokens attends to all tokens, or with `segments` (`[batch, tokens]`) to all
    /// tokens of its segment.
    pub fn bidirectional(
        tokens: usize,
        segments: Option<&Tensor<2, Int>>,
        device: &Device,
    ) -> Self {
        Self {
            bidirectional: true,
            ..Self::new(tokens, 0, None, segments, device)
        }
    }

    /// [`bidirectional`](Self::bidirectional) within a distance: a token attends to itself and to the `window − 1` tokens on
    /// either side.
    ///
    /// # Panics
    ///
    /// If the window is 0.
    pub fn bidirectional_within(
        tokens: usize,
        window: usize,
        segments: Option<&Tensor<2, Int>>,
        device: &Device,
    ) -> Self {
        Self {
            bidirectional: true,
            ..Self::new(tokens, 0, Some(window), segments, device)
        }
    }

    fn forbidden(&self) -> Option<&Tensor<4, Bool>> {
        let make = || self.make_forbidden();
        self.made.forbidden.get_or_init(make).as_ref()
    }

    fn make_forbidden(&self) -> Option<Tensor<4, Bool>> {
        let (queries, past) = (self.queries, self.past);
        let sees_all = self.window.is_none() && (queries == 1 || self.bidirectional);
        if sees_all && self.segments.is_none() {
            return None;
        }
        let keys = past + queries;
        let query = Tensor::<1, Int>::arange(past as i64..keys as i64, &self.device)
            .reshape([1, 1, queries, 1])
            .expand([1, 1, queries, keys]);
        let key = Tensor::<1, Int>::arange(0..keys as i64, &self.device)
            .reshape([1, 1, 1, keys])
            .expand([1, 1, queries, keys]);
        let mut forbidden = match self.bidirectional {
            // There is none yet.
            true => key.clone().greater(key.clone()),
            false => key.clone().greater(query.clone()),
        };
        if let Some(window) = self.window {
            let distance = match self.bidirectional {
                true => (query - key).abs(),
                false => query - key,
            };
            forbidden = forbidden.bool_or(distance.greater_equal_scalar(window as i64));
        }
        if let Some(segments) = &self.segments {
            if self.window.is_some() {
                let largest = segments.clone().max().into_data();
                check_branches(largest.iter::<i64>());
            }
            let batch = segments.dims()[0];
            let shape = [batch, 1, queries, keys];
            let of_key = segments.clone().reshape([batch, 1, 1, keys]).expand(shape);
            let of_query = segments
                .clone()
                .narrow(1, past, queries)
                .reshape([batch, 1, queries, 1])
                .expand(shape);
            let shared = of_key.clone().equal_scalar(EVERY_SEGMENT);
            let trunk = of_query.clone().remainder_scalar(BRANCH);
            let trunk = trunk.equal(of_key.clone());
            let apart = of_query.not_equal(of_key);
            let apart = apart.bool_and(shared.bool_or(trunk).bool_not());
            forbidden = forbidden.expand(shape).bool_or(apart);
        }
        Some(forbidden)
    }

    #[cfg(feature = "cpu")]
    fn rule(&self, scores: Scores) -> crate::flex::attention::Rule {
        let read = || {
            let numbers = self.segments.clone()?.into_data().convert::<i64>();
            let numbers = numbers.try_to_vec::<i64>().expect("converted to i64");
            if self.window.is_some() {
                check_branches(numbers.iter().copied());
            }
            // Rows with a single segment need no comparison, also where shared keys come before it.
            let keys = self.past + self.queries;
            let alike = |row: &[i64]| {
                let shared = |segment: &&i64| !self.bidirectional && **segment == EVERY_SEGMENT;
                let mut own = row.iter().skip_while(shared);
                let first = own.next();
                own.all(|segment| Some(segment) == first)
            };
            (!numbers.chunks_exact(keys.max(1)).all(alike))
                .then(|| Arc::new(crate::flex::attention::Segments::new(numbers, keys)))
        };
        crate::flex::attention::Rule {
            scale: scores.scale as f32,
            softcap: scores.softcap.map(|cap| cap as f32),
            past: self.past,
            window: self.window,
            all_keys: self.bidirectional.then_some(self.queries),
            segments: self.made.segments.get_or_init(read).clone(),
        }
    }
}

/// A window counts places, which are not those of the tokens in a row of branches.
fn check_branches(mut segments: impl Iterator<Item = i64>) {
    assert!(
        segments.all(|segment| segment < BRANCH),
        "a row of branches is longer than the window of an attention layer: read its sequences in rows of their own"
    );
}

/// How scores are computed from products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Factor of `⟨q, k⟩`, commonly `1/√head_dim`.
    pub scale: f64,
    /// `c·tanh(s/c)` of every score `s`, as in Gemma 2 (arXiv:2408.00118, section 2).
    pub softcap: Option<f64>,
}

impl From<f64> for Scores {
    fn from(scale: f64) -> Self {
        Self {
            scale,
            softcap: None,
        }
    }
}

/// `softmax(cap(q·kᵀ·scale) + mask)·v`.
///
/// `scores` is the scale, or [`Scores`] with a cap.
///
/// # Shapes
///
/// - `q`: `[batch, heads, queries, head_dim]`
/// - `k`, `v`: `[batch, kv_heads, keys, head_dim]`, where `kv_heads` divides `heads`
/// - output: `[batch, heads, queries, head_dim]`
///
/// # Panics
///
/// If the mask has other numbers of queries and keys, or the shapes do not match.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scores: impl Into<Scores>,
    mask: &AttentionMask,
) -> Tensor<4> {
    let scores = scores.into();
    check_shapes(q.dims(), k.dims(), v.dims());
    let (queries, keys) = (q.dims()[2], k.dims()[2]);
    assert_eq!(
        (queries, keys),
        (mask.queries, mask.past + mask.queries),
        "the mask was made for other numbers of queries and keys"
    );
    #[cfg(feature = "cpu")]
    if [&q, &k, &v].into_iter().all(crate::flex::takes) {
        use crate::flex::attention::Attention;
        use burn::backend::Dispatch;
        let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
        return Tensor::from_dispatch(Dispatch::attention(q, k, v, mask.rule(scores)));
    }
    portable(q, k, v, scores, mask)
}

fn check_shapes(q: [usize; 4], k: [usize; 4], v: [usize; 4]) {
    assert_eq!(k, v, "keys and values have the same shape");
    assert_eq!(q[0], k[0], "queries and keys have the same batch");
    assert_eq!(q[3], k[3], "queries and keys have the same width");
    assert!(
        k[1] > 0 && q[1].is_multiple_of(k[1]),
        "{} query heads cannot share {} key heads",
        q[1],
        k[1]
    );
}

/// [`attention`] with Burn's operations. It materializes `[batch, heads, queries, keys]`.
pub fn portable(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scores: impl Into<Scores>,
    mask: &AttentionMask,
) -> Tensor<4> {
    let Scores { scale, softcap } = scores.into();
    let [batch, heads, queries, width] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    if q.shape().num_elements() == 0 {
        // Empty, and a gradient of zeros reaches keys and values.
        return q + (k.sum() + v.sum()).unsqueeze();
    }
    let group = heads / kv_heads;
    let q = q.reshape([batch, kv_heads, group * queries, width]) * scale;
    let mut scores = q
        .matmul(k.transpose())
        .reshape([batch, heads, queries, keys]);
    if let Some(cap) = softcap {
        scores = (scores / cap).tanh() * cap;
    }
    if let Some(forbidden) = mask.forbidden() {
        let forbidden = forbidden.clone().expand([batch, heads, queries, keys]);
        scores = scores.mask_fill(forbidden, f32::NEG_INFINITY);
    }
    activation::softmax(scores, 3)
        .reshape([batch, kv_heads, group * queries, keys])
        .matmul(v)
        .reshape([batch, heads, queries, width])
}
