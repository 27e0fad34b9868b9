//! Training of embedding models, as a method of ft-train.

use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::{LossSum, mix_seed};
use ft_train::{BoxError, Method, ModelView, StepContext, StepOutput, StepResult};

use crate::batches::BatchPlan;
use crate::encode::Prompt;
use crate::loss::{LayerWeights, Matryoshka, layer_divergence, matryoshka, sample};
use crate::{EmbeddingLoss, EmbeddingModel, Error, Result, TextDataset, TextRow, TextTokens};

/// The settings of [`EmbeddingTraining`].
#[derive(Clone, Debug, Default)]
pub struct EmbeddingTrainingConfig {
    /// The loss.
    pub loss: EmbeddingLoss,
    /// Takes the loss on the first dimensions of embeddings as well.
    pub matryoshka: Option<Matryoshka>,
    /// Takes it on so many of these numbers of dimensions in each step, drawn by chance; on all of them if none.
    pub dims_per_step: Option<usize>,
    /// Takes it on earlier layers as well, one drawn by chance in each step.
    pub layers: Option<LayerWeights>,
    /// Embeds so many texts at a time and computes them again in the backward pass: memory is that of so many texts,
    /// however large the batch.
    pub mini_batch: Option<usize>,
    /// Lets a batch hold a text twice although the loss takes texts of other rows for negatives.
    pub keep_duplicates: bool,
    /// Leaves out the model's prompts, which come before texts as in encoding: that of queries before anchors and that of
    /// documents before all others, or the default one for losses on texts of one kind.
    pub without_prompts: bool,
    /// The guide of [`EmbeddingLoss::Gist`], on any device.
    pub guide: Option<EmbeddingModel>,
}

/// A row as token ids.
#[derive(Clone, Debug)]
struct Example {
    columns: Vec<TextTokens>,
    labels: Vec<f32>,
}

/// Trains an embedding model.
///
/// The loss of a step is the mean over its rows, for losses of a whole batch the mean over batches. With
/// [`mini_batch`](EmbeddingTrainingConfig::mini_batch) gradients are the same to rounding (Gao et al., 2021,
/// arXiv:2101.06983): texts are embedded without a graph, the loss gives the gradient of their embeddings, and the backward
/// pass embeds them again, a mini-batch at a time.
///
/// ```no_run
/// # fn demo(model: ft_embed::EmbeddingModel) -> Result<(), Box<dyn std::error::Error>> {
/// use ft_embed::{EmbeddingTraining, EmbeddingTrainingConfig, TextDataset};
/// use ft_train::{TrainConfig, Trainer};
///
/// let (train, held_out) = TextDataset::load("pairs.jsonl")?.split(0.1, 42)?;
/// let method = EmbeddingTraining::new(EmbeddingTrainingConfig::default(), &model, &[train], 64, Some(42))?
///     .with_evaluation(&model, &held_out)?;
/// let config = TrainConfig { learning_rate: 2e-5, warmup_ratio: 0.1, ..TrainConfig::default() };
/// let (model, report) = Trainer::with_method(config, method).fit(model)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EmbeddingTraining {
    config: EmbeddingTrainingConfig,
    train: Split,
    evaluation: Option<Split>,
    batch_size: usize,
}

#[derive(Debug)]
struct Split {
    examples: Vec<Example>,
    /// The texts of all rows in order if there is a guide, which may have another tokenizer.
    texts: Vec<TextRow>,
    plan: BatchPlan,
}

/// A batch: columns of texts as token ids, labels, and the guide's embeddings.
#[derive(Clone, Debug)]
pub struct EmbeddingBatch {
    /// Of each column the texts of all rows.
    columns: Vec<Vec<TextTokens>>,
    /// Of each row.
    labels: Vec<Vec<f32>>,
    /// Of each column, `[rows, dims]`.
    guide: Option<Vec<Tensor<2>>>,
}

impl EmbeddingBatch {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The texts, column by column.
    fn texts(&self) -> Vec<&TextTokens> {
        self.columns.iter().flatten().collect()
    }
}

impl EmbeddingTraining {
    /// Training on these datasets, in batches of `batch_size` rows that are shuffled in every epoch if a seed is given.
    ///
    /// # Errors
    ///
    /// As [`EmbeddingTrainingConfig::check`], and if a text cannot be tokenized.
    pub fn new(
        mut config: EmbeddingTrainingConfig,
        model: &EmbeddingModel,
        datasets: &[TextDataset],
        batch_size: usize,
        seed: Option<u64>,
    ) -> Result<Self> {
        let train = Split::new(&config, model, datasets, batch_size, seed)?;
        config.guide = config.guide.map(|guide| guide.without_graph());
        Ok(Self {
            config,
            train,
            evaluation: None,
            batch_size,
        })
    }

    /// How many rows a batch of training has: fewer than the batch size where a dataset ends, or where texts that repeat wait
    /// for other batches.
    pub fn rows_in(&self, epoch: usize, index: usize) -> usize {
        self.train.plan.rows(epoch, index).len()
    }

    /// Evaluates the loss on these rows as well.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_evaluation(self, model: &EmbeddingModel, held_out: &TextDataset) -> Result<Self> {
        let held_out = std::slice::from_ref(held_out);
        let split = Split::new(&self.config, model, held_out, self.batch_size, None)?;
        Ok(Self {
            evaluation: Some(split),
            ..self
        })
    }

    fn split(&self, context: &StepContext) -> &Split {
        match &self.evaluation {
            Some(evaluation) if !context.is_training() => evaluation,
            _ => &self.train,
        }
    }
}

impl EmbeddingTrainingConfig {
    /// Checks the settings, and that all rows are what the loss takes.
    ///
    /// # Errors
    ///
    /// If settings contradict each other or do not fit the model, a dataset has no rows, or rows are not what the loss takes: with
    /// the first row whose labels are not.
    pub fn check(&self, model: &EmbeddingModel, datasets: &[TextDataset]) -> Result<()> {
        self.check_settings(model)?;
        if datasets.is_empty() {
            return Err(Error::Settings("there are no rows to train on".into()));
        }
        for dataset in datasets {
            let Some(first) = dataset.rows.first() else {
                return Err(Error::Settings("a dataset has no rows".into()));
            };
            self.loss.check(first.texts.len(), first.labels.len())?;
            dataset.check_labels(|labels| self.loss.label_mistake(labels, model.dims()))?;
        }
        Ok(())
    }

    fn check_settings(&self, model: &EmbeddingModel) -> Result<()> {
        let guided = matches!(self.loss, EmbeddingLoss::Gist(_));
        if guided != self.guide.is_some() {
            return Err(Error::Settings(match guided {
                true => "the loss gist needs a guide: set one".into(),
                false => "only the loss gist has a guide: leave it out".into(),
            }));
        }
        if self.mini_batch == Some(0) {
            return Err(Error::Settings(
                "a mini-batch of 0 texts embeds nothing".into(),
            ));
        }
        if self.mini_batch.is_some() && self.layers.is_some() {
            return Err(Error::Settings(
                "losses on earlier layers need the states of the whole batch: leave out mini_batch"
                    .into(),
            ));
        }
        if self.layers.is_some() && model.num_layers() == 0 {
            return Err(Error::Settings(
                "the model has no layers to take a loss on".into(),
            ));
        }
        if let Some(dims) = self.matryoshka.as_ref().and_then(|m| m.dims().first())
            && dims.0 > model.dims()
        {
            return Err(Error::Settings(format!(
                "the model's embeddings have {} dimensions, not {}",
                model.dims(),
                dims.0
            )));
        }
        Ok(())
    }
}

impl Split {
    fn new(
        config: &EmbeddingTrainingConfig,
        model: &EmbeddingModel,
        datasets: &[TextDataset],
        batch_size: usize,
        seed: Option<u64>,
    ) -> Result<Self> {
        config.check(model, datasets)?;
        let mut examples = Vec::new();
        let mut texts = Vec::new();
        for dataset in datasets {
            let columns = dataset.rows.first().map_or(0, |row| row.texts.len());
            let mut tokens = Vec::with_capacity(columns);
            for column in 0..columns {
                let texts: Vec<&str> = dataset
                    .rows
                    .iter()
                    .map(|row| row.texts[column].as_str())
                    .collect();
                let prompt = match (config.loss.has_queries(), column) {
                    _ if config.without_prompts => Prompt::None,
                    (false, _) => Prompt::Default,
                    (true, 0) => model.query_prompt(),
                    (true, _) => model.document_prompt(),
                };
                tokens.push(
                    model
                        .tokenize(&texts, model.prompt_text(prompt)?)?
                        .into_iter(),
                );
            }
            for row in &dataset.rows {
                let columns = tokens.iter_mut().filter_map(Iterator::next).collect();
                examples.push(Example {
                    columns,
                    labels: row.labels.clone(),
                });
            }
            if config.guide.is_some() {
                texts.extend(dataset.rows.iter().cloned());
            }
        }
        let duplicates = config.keep_duplicates || !config.loss.has_in_batch_negatives();
        let rows = datasets.iter().map(|dataset| dataset.rows.as_slice());
        let plan = BatchPlan::new(rows, batch_size, seed, duplicates)?;
        Ok(Self {
            examples,
            texts,
            plan,
        })
    }
}

impl Method<EmbeddingModel> for EmbeddingTraining {
    type Batch = EmbeddingBatch;

    fn len(&self, epoch: usize) -> usize {
        self.train.plan.len(epoch)
    }

    fn evaluation_len(&self) -> Option<usize> {
        self.evaluation.as_ref().map(|split| split.plan.len(0))
    }

    fn batch(
        &mut self,
        _: &ModelView<'_, EmbeddingModel>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<EmbeddingBatch, BoxError> {
        let split = self.split(context);
        let rows = split.plan.rows(epoch, index);
        let count = rows
            .first()
            .map_or(0, |&row| split.examples[row].columns.len());
        let column = |column: usize| -> Vec<TextTokens> {
            let rows = rows.iter();
            rows.map(|&row| split.examples[row].columns[column].clone())
                .collect()
        };
        let guide = match &self.config.guide {
            None => None,
            Some(guide) => {
                let columns = (0..count).map(|column| {
                    let rows = rows.iter();
                    let texts: Vec<&str> = rows
                        .map(|&row| split.texts[row].texts[column].as_str())
                        .collect();
                    let embeddings = guide.encode(&texts)?;
                    let shape = [embeddings.len(), embeddings.dims()];
                    let data = TensorData::new(embeddings.values().to_vec(), shape);
                    Ok(Tensor::from_data(data, &context.device))
                });
                Some(columns.collect::<Result<Vec<_>>>()?)
            }
        };
        Ok(EmbeddingBatch {
            columns: (0..count).map(column).collect(),
            labels: rows
                .iter()
                .map(|&row| split.examples[row].labels.clone())
                .collect(),
            guide,
        })
    }

    fn step(
        &mut self,
        model: &EmbeddingModel,
        batch: &EmbeddingBatch,
        context: &StepContext,
    ) -> StepResult {
        let device = &context.device;
        let texts = batch.texts();
        let tokens = texts.iter().map(|text| text.ids.len()).sum();
        let loss = match &self.config.layers {
            None => {
                let embeddings = embed(model, &texts, self.config.mini_batch, device);
                self.config.loss(embeddings, batch, context.seed)
            }
            Some(weights) => self
                .config
                .layer_loss(model, &texts, batch, weights, context),
        };
        Ok(StepOutput::from(loss).with_tokens(tokens))
    }
}

impl EmbeddingTrainingConfig {
    /// The loss of all texts' embeddings, `[columns · rows, dims]`.
    fn loss(&self, embeddings: Tensor<2>, batch: &EmbeddingBatch, seed: u64) -> LossSum {
        let rows = batch.len();
        let columns: Vec<Tensor<2>> = (0..batch.columns.len())
            .map(|column| embeddings.clone().narrow(0, column * rows, rows))
            .collect();
        let labels: Vec<&[f32]> = batch.labels.iter().map(Vec::as_slice).collect();
        let guide = batch.guide.as_deref();
        let Some(dims) = &self.matryoshka else {
            return self.loss.compute(&columns, &labels, guide);
        };
        let drawn;
        let dims = match self.dims_per_step {
            None => dims,
            Some(count) => {
                drawn = dims.sample(count, seed);
                &drawn
            }
        };
        let mut count = 0;
        let sum = matryoshka(&columns, dims, |columns| {
            let loss = self.loss.compute(columns, &labels, guide);
            count = loss.count;
            loss.sum
        });
        LossSum { sum, count }
    }

    fn layer_loss(
        &self,
        model: &EmbeddingModel,
        texts: &[&TextTokens],
        batch: &EmbeddingBatch,
        weights: &LayerWeights,
        context: &StepContext,
    ) -> LossSum {
        let own = model.batch(texts, &context.device);
        let states = model.layers(&own, &context.device);
        let pooled = |layer: usize| model.pool(states[layer].clone(), &own);
        let last_layer = states.len() - 1;
        let last = pooled(last_layer);
        let loss = self.loss(last.clone(), batch, context.seed);
        let (mut sum, count) = (loss.sum * weights.last, loss.count);
        // The states after the embeddings and after each block but the last.
        for layer in sample(last_layer, 1, mix_seed(context.seed, 1)) {
            let earlier = pooled(layer);
            sum = sum + self.loss(earlier.clone(), batch, context.seed).sum * weights.prior;
            if weights.temperature > 0.0 {
                let divergence = layer_divergence(earlier, last.clone(), weights.temperature);
                sum = sum + divergence.mean() * (weights.divergence * count as f64);
            }
        }
        LossSum { sum, count }
    }
}

/// The embeddings of texts, `[texts, dims]`; with `mini_batch` so many at a time, computed again in the backward pass.
fn embed(
    model: &EmbeddingModel,
    texts: &[&TextTokens],
    mini_batch: Option<usize>,
    device: &Device,
) -> Tensor<2> {
    let Some(size) = mini_batch.filter(|size| *size < texts.len()) else {
        return model.embed(texts, device);
    };
    // Texts of similar lengths go together, so that there is little padding where there is some.
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(texts[text].ids.len()));
    // A backward pass goes by depth in the graph. Each part begins with a number of the one before, without effect, so that parts
    // have different depths: side by side, the gradients of all of them would be held before any are summed.
    let mut start = Tensor::zeros([1, 1, 1], device);
    let mut parts: Vec<Tensor<2>> = Vec::new();
    for chunk in order.chunks(size) {
        let chunk: Vec<TextTokens> = chunk.iter().map(|&text| texts[text].clone()).collect();
        let device = device.clone();
        let embeddings = ft_kernels::recompute(model, start, move |model: &EmbeddingModel, _| {
            let texts: Vec<&TextTokens> = chunk.iter().collect();
            model.embed(&texts, &device).unsqueeze_dim(0)
        });
        start = embeddings.clone().slice([0..1, 0..1, 0..1]);
        parts.push(embeddings.squeeze_dim(0));
    }
    let mut places = vec![0i64; texts.len()];
    for (place, text) in order.into_iter().enumerate() {
        places[text] = place as i64;
    }
    let places = TensorData::new(places, [texts.len()]);
    let places = Tensor::<1, Int>::from_data(places, device);
    Tensor::cat(parts, 0).select(0, places)
}
