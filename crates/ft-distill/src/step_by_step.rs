//! Distilling step by step: one model learns the answer and the reason for it as two tasks.
//!
//! Hsieh et al., 2023 (arXiv:2305.02301, equation 3): a rationale of a large model is a target of the training, not an input, so
//! that the small model answers at once, without writing a rationale. What task is asked for stands before the question.

use burn::tensor::Tensor;
use ft_core::{CausalLm, LossSum, Message, TokenLogps, Tokenizer, token_logps};
use ft_data::{
    Batch, Conversation, Loader, Prompt, PromptSample, Sample, Tokenized, collate_padded, tokenize,
};
use ft_train::{StepContext, StepOutput, StepResult};
use serde_json::Value;

use crate::{Error, Result};

/// What stands before a question whose answer is asked for.
pub const PREDICT: &str = "predict: ";
/// What stands before a question whose rationale is asked for.
pub const EXPLAIN: &str = "explain: ";

/// A question with its answer, and with its rationale.
#[derive(Clone, Debug, PartialEq)]
pub struct StepByStepExample {
    /// [`PREDICT`], the question, and the answer, which has labels.
    pub answer: Tokenized,
    /// [`EXPLAIN`], the question, and the rationale, which has labels.
    pub rationale: Tokenized,
}

impl StepByStepExample {
    /// Reads a row with a prompt in one of the forms of [`PromptSample`], and the texts `label` (the answer) and `rationale`.
    /// `row_number` counts from 1 and appears in error messages.
    ///
    /// # Errors
    ///
    /// If a column is missing or is no text, or a task has more than `max_len` tokens.
    pub fn from_row(
        row: &Value,
        row_number: usize,
        tokenizer: &Tokenizer,
        max_len: usize,
    ) -> Result<Self> {
        let sample = PromptSample::parse(row, row_number)?;
        let task = |prefix: &str, column: &str| -> Result<Tokenized> {
            let wrong = |reason: String| {
                Error::Data(ft_data::Error::Row {
                    row: row_number,
                    reason,
                })
            };
            let target = sample.columns.get(column).and_then(Value::as_str);
            let target = target.filter(|text| !text.trim().is_empty());
            let target = target.ok_or_else(|| wrong(format!("`{column}` must be a text")))?;
            let whole = tokenize(&asked(&sample, prefix, target)?, tokenizer, usize::MAX)?;
            match whole.len() > max_len {
                true => Err(wrong(format!(
                    "the prompt with `{column}` has {} tokens, and {max_len} are allowed: leave the row out, or allow more",
                    whole.len()
                ))),
                false => Ok(whole),
            }
        };
        Ok(Self {
            answer: task(PREDICT, "label")?,
            rationale: task(EXPLAIN, "rationale")?,
        })
    }
}

/// The prompt with a prefix before its last message, and the target.
fn asked(sample: &PromptSample, prefix: &str, target: &str) -> Result<Sample> {
    match &sample.prompt {
        Prompt::Text(text) => Ok(Sample::PromptCompletion {
            prompt: format!("{prefix}{text}"),
            completion: target.to_string(),
        }),
        Prompt::Messages(messages) => {
            let mut messages = messages.clone();
            let Some(last) = messages.last_mut() else {
                return Err(Error::Settings(vec!["a prompt has no messages".into()]));
            };
            let Some(text) = last.text() else {
                return Err(Error::Settings(vec![
                    "the last message of a prompt is no text, so that no task can stand before it"
                        .into(),
                ]));
            };
            *last = Message::new(last.role.clone(), format!("{prefix}{text}"));
            Ok(Sample::Conversation(Conversation {
                masked: (0..messages.len()).collect(),
                messages: (messages.into_iter())
                    .chain([Message::new("assistant", target)])
                    .collect(),
                tools: sample.tools.clone(),
            }))
        }
    }
}

/// Examples as rows of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepByStepBatch {
    /// The rows of the answers, then as many of the rationales, padded on the right.
    pub rows: Batch,
}

/// Batches of `batch_size` examples.
///
/// # Errors
///
/// If there are no examples or the batch size is 0.
pub fn step_by_step_batches(
    examples: Vec<StepByStepExample>,
    batch_size: usize,
    shuffle_seed: Option<u64>,
    pad_id: u32,
) -> Result<Loader<StepByStepExample, StepByStepBatch>> {
    Ok(Loader::new(
        examples,
        batch_size,
        shuffle_seed,
        move |examples| {
            let answers = examples.iter().map(|example| &example.answer);
            let rationales = examples.iter().map(|example| &example.rationale);
            StepByStepBatch {
                rows: collate_padded(&answers.chain(rationales).collect::<Vec<_>>(), 1, pad_id),
            }
        },
    )?)
}

/// The step of both tasks: `α L_answer + (1 − α) L_rationale`, a mean over the examples.
///
/// The loss of a row is the mean over its tokens, and that of a task the mean over its rows, so that batches may be split as one
/// likes. Metrics are `answer_loss` and `rationale_loss`. The paper writes `L_answer + λ L_rationale`, which is the same up to a factor
/// with `λ = (1 − α) / α`; its code takes the mean over all tokens of a batch.
///
/// ```no_run
/// # fn demo(
/// #     model: ft_core::AutoCausalLm, examples: Vec<ft_distill::StepByStepExample>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use ft_distill::{StepByStep, step_by_step_batches};
/// use ft_train::{TrainConfig, Trainer};
///
/// let batches = step_by_step_batches(examples, 8, Some(42), 0)?;
/// let tasks = StepByStep::default();
/// let step = move |model: &_, batch: &_, context: &_| tasks.step(model, batch, context);
/// let (model, report) = Trainer::new(TrainConfig::default(), batches, step).fit(model)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepByStep {
    /// α, from 0 (the rationale alone) to 1 (the answer alone).
    pub alpha: f64,
}

impl Default for StepByStep {
    /// Both tasks alike.
    fn default() -> Self {
        Self { alpha: 0.5 }
    }
}

impl StepByStep {
    /// The summed loss of the examples of a batch, with their number and the metrics.
    ///
    /// # Errors
    ///
    /// If α is not from 0 to 1.
    pub fn step<M: CausalLm>(
        &self,
        model: &M,
        StepByStepBatch { rows }: &StepByStepBatch,
        context: &StepContext,
    ) -> StepResult {
        if !(0.0..=1.0).contains(&self.alpha) {
            let mistake = format!("alpha must be from 0 to 1, not {}", self.alpha);
            return Err(Error::Settings(vec![mistake]).into());
        }
        let hidden = model.hidden_states(&rows.tokens(&context.device), None);
        let TokenLogps { logps, mask } = token_logps(hidden, model.head(), &rows.labels, 1.0);
        let losses = -logps.sum_dim(1) / mask.sum_dim(1).clamp_min(1.0);
        let examples = rows.batch / 2;
        let sum = |from: usize| -> Tensor<1> { losses.clone().narrow(0, from, examples).sum() };
        let (answers, rationales) = (sum(0), sum(examples));
        let loss = LossSum {
            sum: answers.clone() * self.alpha + rationales.clone() * (1.0 - self.alpha),
            count: examples,
        };
        Ok(StepOutput::from(loss)
            .with_metric("answer_loss", answers.inner(), examples as f64)
            .with_metric("rationale_loss", rationales.inner(), examples as f64)
            .with_tokens(rows.token_count()))
    }
}
