//! A policy and its value model, which train together.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::{AutoSequenceClassifier, CausalLm, Parts, Predicted};
use ft_data::Branches;

use crate::sequences::{reach, shorter};
use crate::{Error, Result};

/// A policy and its value model, which [`Ppo`](crate::Ppo) trains together.
///
/// The value model estimates the rewards that follow a token. It is a model with one label, such as a new head on the body
/// that the policy started from ([`AutoSequenceClassifier::from_causal_lm`]) or the reward model. Paths of parameters begin
/// with `policy.` and `value.`.
#[derive(Module, Parts, Debug)]
pub struct ActorCritic<M: CausalLm> {
    /// The model that is wanted.
    pub policy: M,
    /// Scores every token of the policy's completions.
    pub value: AutoSequenceClassifier,
}

impl<M: CausalLm> ActorCritic<M> {
    /// Both together.
    ///
    /// # Errors
    ///
    /// If the value model does not have one label, has another vocabulary, or a shorter longest sequence.
    pub fn new(policy: M, value: AutoSequenceClassifier) -> Result<Self> {
        let (own, other) = (policy.dims(), value.dims());
        let mistake = if value.num_labels() != 1 {
            format!(
                "the value model has {} labels, and one is needed: make it with one label",
                value.num_labels()
            )
        } else if own.vocab_size != other.vocab_size {
            format!(
                "the policy has {} tokens in its vocabulary and the value model {}: use models of the same family, with the \
                 same tokenizer",
                own.vocab_size, other.vocab_size
            )
        } else if other.max_position_embeddings < own.max_position_embeddings {
            format!(
                "the value model takes {} tokens and the policy {}: use a value model that reads as much",
                other.max_position_embeddings, own.max_position_embeddings
            )
        } else {
            return Ok(Self { policy, value });
        };
        Err(Error::Settings(vec![mistake]))
    }

    /// How long a row of branches may be for both models.
    pub(crate) fn reach(&self) -> Option<usize> {
        shorter(reach(&self.policy), self.value.attention_window())
    }

    /// The values of the states in which the tokens of completions were chosen, `[completions, longest]`, and 0 behind the
    /// ends of shorter ones.
    pub(crate) fn values(&self, branches: &Branches, device: &Device) -> Tensor<2> {
        let scores = self.value.token_scores(&branches.batch.tokens(device));
        at(scores, &branches.completions)
    }
}

/// The scores at the positions that predict tokens, `[completions, longest]`, 0 where there is no token.
fn at(scores: Tensor<3>, completions: &[Vec<Predicted>]) -> Tensor<2> {
    let longest = completions.iter().map(Vec::len).max().unwrap_or(0);
    let shape = [completions.len(), longest];
    let mut places = Vec::with_capacity(shape[0] * shape[1]);
    let mut absent = Vec::with_capacity(shape[0] * shape[1]);
    for completion in completions {
        let own = completion.iter().map(|token| token.position as i64);
        places.extend(own.chain(std::iter::repeat_n(0, longest - completion.len())));
        absent.extend((0..longest).map(|token| token >= completion.len()));
    }
    let device = scores.device();
    let places =
        Tensor::<1, Int>::from_data(TensorData::new(places, [shape[0] * shape[1]]), &device);
    let absent = Tensor::from_data(TensorData::new(absent, shape), &device);
    let flat = scores.flatten::<1>(0, 2).select(0, places);
    flat.reshape(shape).mask_fill(absent, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_positions_before_the_tokens() {
        let scores = Tensor::<1, Int>::arange(0..6, &Device::default()).float();
        let predicted = |position| Predicted { position, token: 0 };
        let completions = [vec![predicted(1), predicted(2)], vec![predicted(5)]];
        let found = at(scores.reshape([2, 3, 1]), &completions);
        assert_eq!(
            found.into_data(),
            TensorData::from([[1.0f32, 2.0], [5.0, 0.0]])
        );
    }
}
