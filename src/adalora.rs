//! AdaLoRA in a training run: the place where the adapter, which knows no training, and the loop, which knows no adapters,
//! meet.

use std::path::Path;

use burn::module::Module;
use burn::optim::GradientsParams;
use ft_core::Parts;
use ft_peft::{RankAllocator, orthogonality};
use ft_train::{BoxError, Method, ModelView, StepContext, StepResult};

/// A training method with AdaLoRA's schedule: it adds the orthogonality of the adapter to the loss of another method, and
/// distributes the ranks after each update. The allocator's state is part of checkpoints.
///
/// `total_step` of the adapter's settings must be the number of steps of the run.
///
/// ```no_run
/// # fn demo(model: ft::core::AutoCausalLm, train: ft::data::SftBatches) -> Result<(), Box<dyn std::error::Error>> {
/// use ft::AdaLora;
/// use ft::peft::{AdaLoraConfig, attach, save_adapter};
/// use ft::train::{OnBatches, TrainConfig, Trainer, next_token_loss};
///
/// let settings = AdaLoraConfig { total_step: Some(1000), tinit: 100, tfinal: 300, ..AdaLoraConfig::default() };
/// let model = attach(model, &settings, "default", 0)?;
/// let mut method = AdaLora::new(&model, "default", OnBatches::new(train, next_token_loss))?;
/// let config = TrainConfig { max_steps: Some(1000), ..TrainConfig::default() };
/// let (model, _) = Trainer::with_method(config, &mut method).fit(model)?;
/// save_adapter(&method.trim(model), "default", "adapter".as_ref())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AdaLora<T> {
    method: T,
    name: String,
    allocator: RankAllocator,
}

impl<T> AdaLora<T> {
    /// The schedule of the adapter called `name`, around a method.
    ///
    /// # Errors
    ///
    /// As [`RankAllocator::new`].
    pub fn new(model: &impl Parts, name: &str, method: T) -> Result<Self, ft_peft::Error> {
        Ok(Self {
            method,
            name: name.to_string(),
            allocator: RankAllocator::new(model, name)?,
        })
    }

    /// The allocator, with the ranks that were kept.
    pub fn allocator(&self) -> &RankAllocator {
        &self.allocator
    }

    /// The model without the ranks that were removed, to be saved: see [`RankAllocator::trim`].
    pub fn trim<M: Module + Parts>(&self, model: M) -> M {
        self.allocator.trim(model)
    }
}

/// The allocator's file in a checkpoint.
const FILE: &str = "rank_allocator.safetensors";

impl<M: Module + Parts, T: Method<M>> Method<M> for AdaLora<T> {
    type Batch = T::Batch;

    fn len(&self, epoch: usize) -> usize {
        self.method.len(epoch)
    }

    fn evaluation_len(&self) -> Option<usize> {
        self.method.evaluation_len()
    }

    fn evaluation_sets(&self) -> Vec<(String, usize)> {
        self.method.evaluation_sets()
    }

    fn loss_is_a_measure(&self) -> bool {
        self.method.loss_is_a_measure()
    }

    fn batch_to_json(&self, epoch: usize, index: usize) -> Option<serde_json::Value> {
        self.method.batch_to_json(epoch, index)
    }

    fn batch(
        &mut self,
        model: &ModelView<'_, M>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<T::Batch, BoxError> {
        self.method.batch(model, epoch, index, context)
    }

    fn step(&mut self, model: &M, batch: &T::Batch, context: &StepContext) -> StepResult {
        let mut output = self.method.step(model, batch, context)?;
        if !context.is_training() {
            return Ok(output);
        }
        let total = self.allocator.config().total_step.unwrap_or_default();
        if context.step > total {
            return Err(format!(
                "the adapter's total_step is {total}, and the run has more steps: set it to the number of steps of the run"
            )
            .into());
        }
        // The loss is a sum over labels, which the loop divides by their count.
        let count = output.loss.count as f64;
        let distance = orthogonality(model, &self.name)? * count;
        let weight = self.allocator.config().orth_reg_weight;
        output.loss.sum = output.loss.sum + distance.clone() * weight;
        Ok(output.with_metric("orthogonality", distance.inner(), count))
    }

    fn before_update(
        &mut self,
        model: &M,
        gradients: &GradientsParams,
        scale: f64,
    ) -> Result<(), BoxError> {
        self.method.before_update(model, gradients, scale)?;
        self.allocator.observe(model, |param| {
            gradients.get(param.id).map(|gradient| gradient * scale)
        });
        Ok(())
    }

    fn after_update(&mut self, model: M, step: usize) -> Result<M, BoxError> {
        let mut model = self.method.after_update(model, step)?;
        self.allocator.allocate(&mut model, step)?;
        Ok(model)
    }

    fn save(&self, folder: &Path) -> Result<(), BoxError> {
        self.method.save(folder)?;
        Ok(self.allocator.save(&folder.join(FILE))?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), BoxError> {
        self.method.restore(folder)?;
        Ok(self.allocator.restore(&folder.join(FILE))?)
    }
}
