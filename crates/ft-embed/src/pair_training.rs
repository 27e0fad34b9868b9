//! Training of cross-encoders, as a method of ft-train.

use ft_core::mix_seed;
use ft_train::{BoxError, Method, ModelView, StepContext, StepOutput, StepResult};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

use crate::batches::BatchPlan;
use crate::{CrossEncoder, CrossEncoderLoss, Error, Result, TextDataset, TextRow, TextTokens};

/// Trains a cross-encoder on rows of a query and documents.
///
/// ```no_run
/// # fn demo(model: ft_embed::CrossEncoder) -> Result<(), Box<dyn std::error::Error>> {
/// use ft_embed::{CrossEncoderLoss, CrossEncoderTraining, TextDataset};
/// use ft_train::{TrainConfig, Trainer};
///
/// let rows = TextDataset::load("labelled_pairs.jsonl")?;
/// let method = CrossEncoderTraining::new(CrossEncoderLoss::Binary(1.0), &model, &rows, 16, Some(42))?;
/// let (model, _) = Trainer::with_method(TrainConfig::default(), method).fit(model)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CrossEncoderTraining {
    loss: CrossEncoderLoss,
    train: Split,
    evaluation: Option<Split>,
    batch_size: usize,
}

#[derive(Debug)]
struct Split {
    rows: Vec<TextRow>,
    plan: BatchPlan,
}

/// A batch: the pairs of all rows as token ids, and labels.
#[derive(Clone, Debug)]
pub struct PairBatch {
    pairs: Vec<TextTokens>,
    labels: Vec<Vec<f32>>,
}

impl CrossEncoderTraining {
    /// Training on these rows, in batches of `batch_size` rows that are shuffled in every epoch if a seed is given.
    ///
    /// # Errors
    ///
    /// If rows are not what the loss takes, with the first row whose labels are not.
    pub fn new(
        loss: CrossEncoderLoss,
        model: &CrossEncoder,
        rows: &TextDataset,
        batch_size: usize,
        seed: Option<u64>,
    ) -> Result<Self> {
        Ok(Self {
            train: Split::new(loss, model, rows, batch_size, seed)?,
            loss,
            evaluation: None,
            batch_size,
        })
    }

    /// Evaluates the loss on these rows as well.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_evaluation(self, model: &CrossEncoder, held_out: &TextDataset) -> Result<Self> {
        let split = Split::new(self.loss, model, held_out, self.batch_size, None)?;
        Ok(Self {
            evaluation: Some(split),
            ..self
        })
    }
}

impl Split {
    fn new(
        loss: CrossEncoderLoss,
        model: &CrossEncoder,
        dataset: &TextDataset,
        batch_size: usize,
        seed: Option<u64>,
    ) -> Result<Self> {
        let Some(first) = dataset.rows.first() else {
            return Err(Error::Settings("there are no rows to train on".into()));
        };
        let scores = model.num_labels();
        loss.check(first.texts.len(), first.labels.len(), scores)?;
        dataset.check_labels(|labels| loss.label_mistake(labels, scores))?;
        // Documents of other rows are negatives, so none may be in a batch twice.
        let duplicates = loss.random_negatives() == 0;
        let rows = [dataset.rows.as_slice()].into_iter();
        Ok(Self {
            plan: BatchPlan::new(rows, batch_size, seed, duplicates)?,
            rows: dataset.rows.clone(),
        })
    }
}

impl Method<CrossEncoder> for CrossEncoderTraining {
    type Batch = PairBatch;

    fn len(&self, epoch: usize) -> usize {
        self.train.plan.len(epoch)
    }

    fn evaluation_len(&self) -> Option<usize> {
        self.evaluation.as_ref().map(|split| split.plan.len(0))
    }

    fn batch(
        &mut self,
        model: &ModelView<'_, CrossEncoder>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<PairBatch, BoxError> {
        let split = match &self.evaluation {
            Some(evaluation) if !context.is_training() => evaluation,
            _ => &self.train,
        };
        let rows = split.plan.rows(epoch, index);
        let rows: Vec<&TextRow> = rows.iter().map(|&row| &split.rows[row]).collect();
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        let others = rows.iter().map(|row| row.texts.len() - 1).sum::<usize>();
        let own = rows.first().map_or(0, |row| row.texts.len() - 1);
        let negatives = self.loss.random_negatives().min(others - own);
        for (number, row) in rows.iter().enumerate() {
            let query = row.texts[0].as_str();
            pairs.extend(row.texts[1..].iter().map(|text| (query, text.as_str())));
            if negatives > 0 {
                let seed = mix_seed(context.seed, number as u64);
                let other = rows
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != number);
                let other = other.flat_map(|(_, row)| &row.texts[1..]);
                let drawn = other.choose_multiple(&mut StdRng::seed_from_u64(seed), negatives);
                pairs.extend(drawn.into_iter().map(|text| (query, text.as_str())));
            }
        }
        Ok(PairBatch {
            pairs: model.tokenize(&pairs)?,
            labels: rows.iter().map(|row| row.labels.clone()).collect(),
        })
    }

    fn step(
        &mut self,
        model: &CrossEncoder,
        batch: &PairBatch,
        context: &StepContext,
    ) -> StepResult {
        let pairs: Vec<&TextTokens> = batch.pairs.iter().collect();
        let tokens = pairs.iter().map(|pair| pair.ids.len()).sum();
        let logits = model.logits(&pairs, &context.device);
        let labels: Vec<&[f32]> = batch.labels.iter().map(Vec::as_slice).collect();
        let loss = self.loss.compute(logits, &labels);
        Ok(StepOutput::from(loss).with_tokens(tokens))
    }
}
