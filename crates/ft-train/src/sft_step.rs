//! The step of supervised training with regularization of labels and embeddings.

use burn::tensor::{Distribution, Tensor};
use ft_core::{CausalLm, causal_lm_loss_with};
use ft_data::Batch;

use crate::{StepContext, StepOutput, StepResult, next_token_loss};

/// [`next_token_loss`] with label smoothing and NEFTune. An evaluation has neither.
///
/// - Label smoothing `ε`: the target is the label with `1 − ε` and all tokens alike with `ε` (Szegedy et al., 2015,
///   arXiv:1512.00567, section 7).
/// - NEFTune `α`: embeddings get noise from `U(−1, 1)·α/√(length · width)`, `length` that of the padded row (Jain et al., 2023,
///   arXiv:2310.05914, algorithm 1). 5 is usual.
///
/// ```no_run
/// # fn demo(model: ft_core::AutoCausalLm, train: ft_data::SftBatches) -> ft_train::Result<()> {
/// use ft_train::{SftStep, TrainConfig, Trainer};
///
/// let step = SftStep { label_smoothing: 0.1, neftune_noise_alpha: 5.0 };
/// Trainer::new(TrainConfig::default(), train, step.into_fn()).fit(model)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SftStep {
    /// `ε` in `[0, 1)`; 0 is none.
    pub label_smoothing: f64,
    /// `α`; 0 is none.
    pub neftune_noise_alpha: f64,
}

impl SftStep {
    /// The step as a function.
    pub fn into_fn<M: CausalLm>(self) -> impl Fn(&M, &Batch, &StepContext) -> StepResult {
        move |model, batch, context| self.step(model, batch, context)
    }

    /// The loss of a batch.
    ///
    /// # Errors
    ///
    /// If a setting is outside its range, or noise is to be added for a model with virtual tokens.
    pub fn step<M: CausalLm>(self, model: &M, batch: &Batch, context: &StepContext) -> StepResult {
        let Self {
            label_smoothing,
            neftune_noise_alpha: alpha,
        } = self;
        if !(0.0..1.0).contains(&label_smoothing) {
            return Err(
                format!("label_smoothing is {label_smoothing}: it must be in [0, 1)").into(),
            );
        }
        if !(alpha.is_finite() && alpha >= 0.0) {
            return Err(format!("neftune_noise_alpha is {alpha}: it must be 0 or above").into());
        }
        if !context.is_training() || self == Self::default() {
            return next_token_loss(model, batch, context);
        }
        let tokens = batch.tokens(&context.device);
        let hidden = if alpha > 0.0 {
            if model.num_virtual_tokens() > 0 {
                return Err(
                    "NEFTune's noise is not defined for virtual tokens: train without it".into(),
                );
            }
            let embeddings = model.body().embed(tokens.input_ids.clone());
            let [_, seq, width] = embeddings.dims();
            let bound = alpha / ((seq * width) as f64).sqrt();
            let noise = Tensor::random(
                embeddings.shape(),
                Distribution::Uniform(-bound, bound),
                &embeddings.device(),
            );
            model.body().forward(embeddings + noise, tokens.pass())
        } else {
            model.hidden_states(&tokens, None)
        };
        let loss = causal_lm_loss_with(hidden, model.head(), &batch.labels, label_smoothing);
        Ok(StepOutput::from(loss).with_tokens(batch.token_count()))
    }
}
