//! Training on a stream, whose rows need not fit into memory.

use std::path::Path;

use burn::module::Module;
use ft_core::safetensors_folder::write_json;
use ft_data::{Batches, StreamLoader};
use serde_json::Value;

use crate::eval_batches::{BoxedBatches, EvalBatches};
use crate::{BoxError, Method, ModelView, StepContext, StepResult};

/// The name of the stream's position in a checkpoint.
const FILE: &str = "stream.json";

type BoxedStep<'a, M, B> = Box<dyn FnMut(&M, &B, &StepContext) -> StepResult + 'a>;

/// A step on the batches of a stream, in their order. The position of the stream is part of a checkpoint, and so is how the stream is
/// built: one with other files, seeds or sizes is refused.
///
/// A stream has no length, so the number of batches that count as an epoch is given, or, with
/// [`TrainConfig::max_steps`](crate::TrainConfig::max_steps), as the run. The stream is built with
/// [`RowStream::repeat`](ft_data::RowStream::repeat) if it may end before.
///
/// ```no_run
/// # fn demo(model: ft_core::AutoCausalLm, tokenizer: ft_core::Tokenizer) -> Result<(), Box<dyn std::error::Error>> {
/// use ft_data::{Collation, Format, RowStream, StreamLoader, StreamOptions};
/// use ft_train::{OnStream, TrainConfig, Trainer, next_token_loss};
///
/// let stream = RowStream::open("data/*.jsonl.gz")?.shuffle(10_000, 42).repeat();
/// let packed = Collation::Packed { seq_len: 512 };
/// let loader = StreamLoader::sft(stream, Format::Messages, &tokenizer, 512, packed, StreamOptions::default())?;
/// let config = TrainConfig { max_steps: Some(1000), ..TrainConfig::default() };
/// let (model, _) = Trainer::with_method(config, OnStream::new(loader, 1000, next_token_loss)).fit(model)?;
/// # Ok(())
/// # }
/// ```
pub struct OnStream<'a, M, E, B> {
    loader: StreamLoader<E, B>,
    batches: usize,
    evaluation: EvalBatches<'a, B>,
    to_json: Option<fn(&B) -> Value>,
    /// The batches of the current step as JSON, by number.
    kept: Vec<(usize, Value)>,
    step: BoxedStep<'a, M, B>,
}

impl<'a, M, E, B> OnStream<'a, M, E, B> {
    /// This step on `batches` batches of the stream an epoch.
    pub fn new(
        loader: StreamLoader<E, B>,
        batches: usize,
        step: impl FnMut(&M, &B, &StepContext) -> StepResult + 'a,
    ) -> Self {
        Self {
            loader,
            batches,
            evaluation: EvalBatches::default(),
            to_json: None,
            kept: Vec::new(),
            step: Box::new(step),
        }
    }

    /// Evaluates on these batches, with the same step.
    #[must_use]
    pub fn with_evaluation(mut self, batches: impl Batches<Batch = B> + 'a) -> Self {
        self.evaluation.held_out = Some(Box::new(batches));
        self
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

    /// The stream, to look at its report and bad rows after the run.
    pub fn loader(&self) -> &StreamLoader<E, B> {
        &self.loader
    }
}

impl<M: Module, E: Send, B> Method<M> for OnStream<'_, M, E, B> {
    type Batch = B;

    fn len(&self, _: usize) -> usize {
        self.batches
    }

    fn evaluation_len(&self) -> Option<usize> {
        self.evaluation.len()
    }

    fn evaluation_sets(&self) -> Vec<(String, usize)> {
        self.evaluation.sets()
    }

    fn batch_to_json(&self, _: usize, index: usize) -> Option<Value> {
        let mut kept = self.kept.iter();
        kept.find_map(|(number, batch)| (*number == index).then(|| batch.clone()))
    }

    fn batch(
        &mut self,
        _: &ModelView<'_, M>,
        _: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<B, BoxError> {
        if !context.is_training() {
            return self.evaluation.batch(index);
        }
        let batch = self.loader.next_batch()?.ok_or(
            "the stream has ended before the run: repeat it (RowStream::repeat), or take fewer steps",
        )?;
        if context.micro_batch == 0 {
            self.kept.clear();
        }
        if let Some(to_json) = self.to_json {
            self.kept.push((index, to_json(&batch)));
        }
        Ok(batch)
    }

    fn step(&mut self, model: &M, batch: &B, context: &StepContext) -> StepResult {
        (self.step)(model, batch, context)
    }

    fn save(&self, folder: &Path) -> Result<(), BoxError> {
        Ok(write_json(&folder.join(FILE), &self.loader.state())?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), BoxError> {
        let state = std::fs::read(folder.join(FILE))?;
        Ok(self.loader.restore(&serde_json::from_slice(&state)?)?)
    }
}
