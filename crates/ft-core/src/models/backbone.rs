//! The body of a model: token ids to embeddings, and embeddings to hidden states.
//!
//! The two steps are apart because much comes in between: prompts that are trained, images, noise on embeddings.
//! What follows the body is apart too: a [`Head`](crate::Head) for language models, others for other tasks.

use burn::tensor::{Int, Tensor};

use crate::layers::pass::Pass;
use crate::{Error, Result};

/// The measures of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Number of token ids that the embedding holds.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// The longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
}

impl Dims {
    /// Refuses sequences that are longer than the model allows.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with both lengths.
    pub fn check_length(&self, tokens: usize) -> Result<()> {
        let most = self.max_position_embeddings;
        if tokens > most {
            return Err(Error::Settings(format!(
                "{tokens} tokens are more than the model allows: max_position_embeddings is {most}; \
                 use shorter sequences"
            )));
        }
        Ok(())
    }
}

/// The body of a decoder or an encoder.
pub trait Backbone {
    /// The measures of the body.
    fn dims(&self) -> Dims;

    /// The shortest window of the attention layers, in tokens; none if all of them see the whole row. Rows of
    /// [branches](ft_kernels::branch) must not be longer.
    fn attention_window(&self) -> Option<usize> {
        None
    }

    /// Whether attention takes time and memory for what tokens see, not for the whole row, on devices whose kernel does
    /// ([`ft_kernels::is_cpu`]): a row of many short texts then costs what the texts cost.
    fn attends_by_tile(&self) -> bool {
        true
    }

    /// Token ids, `[batch, seq]`, to embeddings, `[batch, seq, hidden]`: what
    /// [`forward`](Self::forward) takes. Positions are not part of them.
    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3>;

    /// Embeddings, `[batch, seq, hidden]`, to the last hidden states of the same shape, after the final norm.
    fn forward(&self, embeddings: Tensor<3>, pass: Pass<'_>) -> Tensor<3>;
}
