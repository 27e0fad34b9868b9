//! Training on a stream, whose rows need not fit into memory.

use std::path::Path;

use burn::module::Module;
use ft_core::safetensors_folder::write_json;
use ft_data::{Batches, StreamLoader};

use crate::{BoxError, Method, ModelView, StepContext, StepResult};

/// The name of the stream's position in a checkpoint.
const FILE: &str = "stream.json";

type BoxedBatches<'a, B> = Box<dyn Batches<Batch = B> + 'a>;
type BoxedStep<'a, M, B> = Box<dyn FnMut(&M, &B, &StepContext) -> StepResult + 'a>;

/// A step on the batches of a stream, in their order. The position of the stream is part of a checkpoint.
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
    evaluation: Option<BoxedBatches<'a, B>>,
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
            evaluation: None,
            step: Box::new(step),
        }
    }

    /// Evaluates on these batches, with the same step.
    #[must_use]
    pub fn with_evaluation(self, batches: impl Batches<Batch = B> + 'a) -> Self {
        Self {
            evaluation: Some(Box::new(batches)),
            ..self
        }
    }

    /// The stream, to look at its bad rows after the run.
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
        self.evaluation.as_ref().map(|batches| batches.len(0))
    }

    fn batch(
        &mut self,
        _: &ModelView<'_, M>,
        _: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<B, BoxError> {
        if let (Some(evaluation), false) = (&self.evaluation, context.is_training()) {
            return Ok(evaluation.batch(0, index));
        }
        self.loader.next_batch()?.ok_or_else(|| {
            "the stream has ended before the run: repeat it (RowStream::repeat), or take fewer steps".into()
        })
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
