//! What a model reads: token ids, where they stand, and which of them belong together.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::layers::pass::Pass;

/// A batch of token ids with optional positions and segments.
///
/// One rule covers padding, packing and left-padded prompts: a token attends to the tokens of its
/// own segment that do not come after it. Without segments all tokens of a row are one segment,
/// which also serves rows padded on the right, whose padding nothing real can see.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// `[batch, seq]`.
    pub input_ids: Tensor<2, Int>,
    /// `[batch, seq]`, which do not count virtual tokens; when absent, positions count on from the cache's length.
    pub position_ids: Option<Tensor<2, Int>>,
    /// `[batch, seq]`; tokens of different segments do not see each other.
    pub segment_ids: Option<Tensor<2, Int>>,
    /// `[batch, seq]`, for encoders that tell the first text of a pair (0) from the second (1).
    pub token_type_ids: Option<Tensor<2, Int>>,
}

impl TokenBatch {
    /// A batch without padding: one segment a row, positions from zero.
    pub fn new(input_ids: Tensor<2, Int>) -> Self {
        Self {
            input_ids,
            position_ids: None,
            segment_ids: None,
            token_type_ids: None,
        }
    }

    /// A batch of one row.
    pub fn from_ids(ids: &[u32], device: &Device) -> Self {
        let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let len = ids.len();
        Self::new(Tensor::from_data(TensorData::new(ids, [1, len]), device))
    }

    /// A forward pass over these tokens.
    pub fn pass(&self) -> Pass<'static> {
        Pass {
            position_ids: self.position_ids.clone(),
            segment_ids: self.segment_ids.clone(),
            token_type_ids: self.token_type_ids.clone(),
            ..Pass::default()
        }
    }
}
