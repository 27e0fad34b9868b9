//! What a training method is to the loop: batches, perhaps made from the current model, and a loss.
//!
//! Supervised training is a closure over batches ([`OnBatches`]). A policy method makes its batches from the model
//! that is trained: it samples answers, scores them and takes several updates on them. It then keeps them between
//! steps, so that a checkpoint must hold them too.

use std::path::Path;

use burn::module::Module;
use burn::optim::GradientsParams;
use ft_data::Batches;
use serde_json::Value;

use crate::eval_batches::{BoxedBatches, EvalBatches};
use crate::{BoxError, ModelView, StepContext, StepResult};

/// A training method for models `M`.
///
/// The loop asks for the batches of an optimizer step one after another, `batch` and `step` in turn, and the model
/// changes only between steps. A method of rollouts that takes `n` updates on each has `n` steps' batches for every
/// set of prompts, and makes the rollouts when it is asked for the first of them:
///
/// ```
/// use burn::module::Module;
/// use ft_train::{BoxError, Method, ModelView, StepContext, StepResult};
/// # use ft_core::LossSum;
///
/// struct Rollouts { prompts: Vec<u64>, updates: usize, made: Vec<f32> }
///
/// impl<M: Module> Method<M> for Rollouts {
///     type Batch = Vec<f32>;
///
///     fn len(&self, _epoch: usize) -> usize {
///         self.prompts.len() * self.updates
///     }
///
///     fn batch(
///         &mut self, model: &ModelView<'_, M>, _epoch: usize, index: usize, context: &StepContext,
///     ) -> Result<Vec<f32>, BoxError> {
///         if index % self.updates == 0 {
///             self.made = sample(&**model, self.prompts[index / self.updates], context.seed);
///         }
///         Ok(self.made.clone())
///     }
///
///     fn step(&mut self, model: &M, rollouts: &Vec<f32>, _context: &StepContext) -> StepResult {
///         Ok(loss(model, rollouts).into())
///     }
///
///     fn save(&self, folder: &std::path::Path) -> Result<(), BoxError> {
///         Ok(std::fs::write(folder.join("rollouts.json"), serde_json::to_vec(&self.made)?)?)
///     }
///
///     fn restore(&mut self, folder: &std::path::Path) -> Result<(), BoxError> {
///         self.made = serde_json::from_slice(&std::fs::read(folder.join("rollouts.json"))?)?;
///         Ok(())
///     }
/// }
/// # fn sample<M: Module>(_: &M, _: u64, _: u64) -> Vec<f32> { Vec::new() }
/// # fn loss<M: Module>(_: &M, _: &[f32]) -> LossSum { unreachable!() }
/// ```
pub trait Method<M> {
    /// What a step is taken on.
    type Batch;

    /// How many batches an epoch of the training has.
    fn len(&self, epoch: usize) -> usize;

    /// How many batches an evaluation has; `None` if there is nothing to evaluate on.
    fn evaluation_len(&self) -> Option<usize> {
        None
    }

    /// Named sets that are evaluated besides, each with its number of batches. Their batches are numbered behind those of
    /// [`evaluation_len`](Self::evaluation_len), one set after the other.
    fn evaluation_sets(&self) -> Vec<(String, usize)> {
        Vec::new()
    }

    /// Whether a lower loss is a better model, as it is where targets are learned. The loss of a policy method is not: it scatters
    /// around 0 whatever the policy does, so that [`diagnose_step`](crate::diagnose_step)'s rules about losses that fall do not
    /// hold for it.
    fn loss_is_a_measure(&self) -> bool {
        true
    }

    /// Batch `index` of an epoch as JSON, for a file that is kept when its loss is not finite; `None` if it is not to be kept.
    fn batch_to_json(&self, epoch: usize, index: usize) -> Option<Value> {
        let (_, _) = (epoch, index);
        None
    }

    /// Batch `index` of an epoch, or of the evaluation if the context says so. `model` is the current model, ready
    /// to generate from.
    ///
    /// In training a batch may depend on the arguments and on what [`save`](Self::save) keeps, on nothing else:
    /// then a run that is resumed continues as if it had not been interrupted.
    ///
    /// # Errors
    ///
    /// Of any kind; they end the run before the update.
    fn batch(
        &mut self,
        model: &ModelView<'_, M>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<Self::Batch, BoxError>;

    /// The summed loss of a batch and its count, with metrics if there are any.
    ///
    /// # Errors
    ///
    /// Of any kind; they end the run before the update.
    fn step(&mut self, model: &M, batch: &Self::Batch, context: &StepContext) -> StepResult;

    /// Looks at the gradients of a step before the update takes them. They are those of the summed loss: the update is
    /// made with `scale` times them, which are the gradients of the mean loss, clipped.
    ///
    /// # Errors
    ///
    /// Of any kind; they end the run before the update.
    fn before_update(
        &mut self,
        model: &M,
        gradients: &GradientsParams,
        scale: f64,
    ) -> Result<(), BoxError> {
        let (_, _, _) = (model, gradients, scale);
        Ok(())
    }

    /// Changes the model after the update of step `step`, counted from 1, where a method does more to it than the
    /// optimizer: it may prune, or project onto a constraint. Parameters keep their identity.
    ///
    /// # Errors
    ///
    /// Of any kind; they end the run.
    fn after_update(&mut self, model: M, step: usize) -> Result<M, BoxError> {
        let _ = step;
        Ok(model)
    }

    /// Writes what the method keeps between steps into a folder of its own, which becomes part of a checkpoint.
    ///
    /// # Errors
    ///
    /// Of any kind; the checkpoint is then not made and the run ends.
    fn save(&self, folder: &Path) -> Result<(), BoxError> {
        let _ = folder;
        Ok(())
    }

    /// Reads what [`save`](Self::save) wrote, before the first step of a run that is resumed. It is not called if that
    /// was nothing.
    ///
    /// # Errors
    ///
    /// Of any kind; the checkpoint is then reported as damaged.
    fn restore(&mut self, folder: &Path) -> Result<(), BoxError> {
        let _ = folder;
        Ok(())
    }
}

/// Lends a method to a trainer, to look at it after the run.
impl<M, T: Method<M> + ?Sized> Method<M> for &mut T {
    type Batch = T::Batch;

    fn len(&self, epoch: usize) -> usize {
        (**self).len(epoch)
    }
    fn evaluation_len(&self) -> Option<usize> {
        (**self).evaluation_len()
    }
    fn evaluation_sets(&self) -> Vec<(String, usize)> {
        (**self).evaluation_sets()
    }
    fn loss_is_a_measure(&self) -> bool {
        (**self).loss_is_a_measure()
    }
    fn batch_to_json(&self, epoch: usize, index: usize) -> Option<Value> {
        (**self).batch_to_json(epoch, index)
    }
    fn batch(
        &mut self,
        model: &ModelView<'_, M>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<T::Batch, BoxError> {
        (**self).batch(model, epoch, index, context)
    }
    fn step(&mut self, model: &M, batch: &T::Batch, context: &StepContext) -> StepResult {
        (**self).step(model, batch, context)
    }
    fn before_update(
        &mut self,
        model: &M,
        gradients: &GradientsParams,
        scale: f64,
    ) -> Result<(), BoxError> {
        (**self).before_update(model, gradients, scale)
    }
    fn after_update(&mut self, model: M, step: usize) -> Result<M, BoxError> {
        (**self).after_update(model, step)
    }
    fn save(&self, folder: &Path) -> Result<(), BoxError> {
        (**self).save(folder)
    }
    fn restore(&mut self, folder: &Path) -> Result<(), BoxError> {
        (**self).restore(folder)
    }
}

type BoxedStep<'a, M, B> = Box<dyn FnMut(&M, &B, &StepContext) -> StepResult + 'a>;

/// The simplest method: a step on batches that do not depend on the model. It keeps nothing between steps.
pub struct OnBatches<'a, M, B> {
    training: BoxedBatches<'a, B>,
    evaluation: EvalBatches<'a, B>,
    to_json: Option<fn(&B) -> Value>,
    step: BoxedStep<'a, M, B>,
}

impl<'a, M, B> OnBatches<'a, M, B> {
    /// This step on these batches.
    pub fn new(
        batches: impl Batches<Batch = B> + 'a,
        step: impl FnMut(&M, &B, &StepContext) -> StepResult + 'a,
    ) -> Self {
        Self {
            training: Box::new(batches),
            evaluation: EvalBatches::default(),
            to_json: None,
            step: Box::new(step),
        }
    }

    /// Evaluates on these batches too, whose results have this name.
    #[must_use]
    pub fn with_named_evaluation(
        mut self,
        name: impl Into<String>,
        batches: impl Batches<Batch = B> + 'a,
    ) -> Self {
        let named = (name.into(), Box::new(batches) as BoxedBatches<'a, B>);
        self.evaluation.named.push(named);
        self
    }

    /// Keeps a batch whose loss is not finite as a file of the run.
    #[must_use]
    pub fn with_batch_to_json(self, to_json: fn(&B) -> Value) -> Self {
        Self {
            to_json: Some(to_json),
            ..self
        }
    }

    /// Evaluates on these batches, with the same step.
    #[must_use]
    pub fn with_evaluation(mut self, batches: impl Batches<Batch = B> + 'a) -> Self {
        self.evaluation.held_out = Some(Box::new(batches));
        self
    }
}

impl<M: Module, B> Method<M> for OnBatches<'_, M, B> {
    type Batch = B;

    fn len(&self, epoch: usize) -> usize {
        self.training.len(epoch)
    }

    fn evaluation_len(&self) -> Option<usize> {
        self.evaluation.len()
    }

    fn evaluation_sets(&self) -> Vec<(String, usize)> {
        self.evaluation.sets()
    }

    fn batch_to_json(&self, epoch: usize, index: usize) -> Option<Value> {
        let to_json = self.to_json?;
        Some(to_json(&self.training.batch(epoch, index)))
    }

    fn batch(
        &mut self,
        _: &ModelView<'_, M>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<B, BoxError> {
        match context.is_training() || self.evaluation.held_out.is_none() {
            true => Ok(self.training.batch(epoch, index)),
            false => self.evaluation.batch(index),
        }
    }

    fn step(&mut self, model: &M, batch: &B, context: &StepContext) -> StepResult {
        (self.step)(model, batch, context)
    }
}
