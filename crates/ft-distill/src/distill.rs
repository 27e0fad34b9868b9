//! Distillation of language models: a student learns a teacher's distribution of every next token.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use ft_core::{
    CausalLm, IGNORE_INDEX, LossSum, TeacherStates, TokenBatch, causal_lm_loss,
    check_distillation_head, distillation_loss,
};
use ft_data::{Batch, Batches};
use ft_kernels::{DistillationOptions, Divergence};
use ft_train::{
    BoxError, EvalMetrics, Method, ModelView, StepContext, StepOutput, StepResult, evaluate,
};

use crate::loss::{cosine, hidden_mse};
use crate::{Error, OwnAnswers, Result, TopLogits};

/// The settings of [`Distill`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistillConfig {
    /// How distributions are compared.
    pub divergence: Divergence,
    /// The temperature of both distributions, above 0.
    pub temperature: f64,
    /// α, from 0 to 1: the weight of `T²` times the divergence, beside `1 − α` of the cross-entropy with the data.
    pub alpha: f64,
    /// The weight of `1 − cos` between the last hidden states of both, beside the loss above: DistilBERT's third loss (Sanh et al.,
    /// 2019, section 3). Above 0, it needs a student as wide as its teacher, which is a model.
    pub cosine: f64,
    /// The weight of the mean squared difference between the hidden states of the student's blocks and those of the teacher's
    /// blocks at the same share of the depth, beside the loss above: TinyBERT's loss of hidden states (Jiao et al., 2020,
    /// arXiv:1909.10351, equation 8), with `g(m) = m·N/M`, rounded. Above 0, it needs what [`cosine`](Self::cosine) needs, and a student of no more blocks than
    /// its teacher.
    pub layers: f64,
}

impl Default for DistillConfig {
    /// The forward divergence at a temperature of 2, half of the loss.
    fn default() -> Self {
        Self {
            divergence: Divergence::Forward,
            temperature: 2.0,
            alpha: 0.5,
            cosine: 0.0,
            layers: 0.0,
        }
    }
}

impl DistillConfig {
    /// Checks all settings.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with all mistakes.
    pub fn validate(&self) -> Result<()> {
        let mut mistakes = Vec::new();
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            mistakes.push(format!(
                "temperature must be above 0, not {}: 1 leaves the distributions as they are",
                self.temperature
            ));
        }
        if !(0.0..=1.0).contains(&self.alpha) {
            mistakes.push(format!(
                "alpha must be from 0 (the data alone) to 1 (the teacher alone), not {}",
                self.alpha
            ));
        }
        for (name, weight) in [("cosine", self.cosine), ("layers", self.layers)] {
            if !(weight >= 0.0 && weight.is_finite()) {
                mistakes.push(format!(
                    "{name} must be 0 (hidden states are not compared) or more, not {weight}"
                ));
            }
        }
        if let Divergence::JensenShannon(beta) = self.divergence
            && !(beta > 0.0 && beta < 1.0)
        {
            mistakes.push(format!(
                "beta must be between 0 and 1, not {beta}: the forward and the reverse divergence have names of their own"
            ));
        }
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Error::Settings(mistakes)),
        }
    }

    /// Whether hidden states are part of the loss.
    fn compares_states(self) -> bool {
        self.cosine > 0.0 || self.layers > 0.0
    }

    fn options(self) -> DistillationOptions {
        DistillationOptions {
            divergence: self.divergence,
            temperature: self.temperature,
            alpha: self.alpha,
            ..DistillationOptions::default()
        }
    }
}

/// Where the teacher's distributions come from.
#[derive(Clone, Debug)]
pub enum TeacherSource<T> {
    /// A model, which does not train.
    Model(Arc<T>),
    /// Its likeliest tokens, written before. The divergence is that of these tokens and of all others as one.
    Top(Arc<TopLogits>),
}

impl<T: CausalLm> TeacherSource<T> {
    /// A model as teacher, without dropout and gradients.
    pub fn model(teacher: &T) -> Self {
        Self::Model(Arc::new(teacher.valid()))
    }
}

type BoxedBatches<'a> = Box<dyn Batches<Batch = Batch> + 'a>;

/// Trains a student on the distributions of a teacher (Hinton et al., 2015, arXiv:1503.02531), at every position whose next
/// token has a label.
///
/// The loss is `α T² D(p‖q) + (1 − α) CE`, a mean over positions. Metrics are `divergence` (`D`), `cross_entropy`, and
/// `agreement`, the share of positions at which both find the same token likeliest; with [`cosine`](DistillConfig::cosine) also
/// `hidden_cosine`, the mean of `1 − cos`, and with [`layers`](DistillConfig::layers) `layer_mse`.
///
/// The loss of an evaluation is the cross-entropy, so that it compares with other trainings; with a model as teacher it
/// reports the same metrics.
///
/// ```no_run
/// # fn demo(
/// #     teacher: ft_core::AutoCausalLm, train: ft_data::SftBatches, held_out: ft_data::SftBatches,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use ft_distill::{Distill, DistillConfig, TeacherSource, student_of};
/// use ft_train::{TrainConfig, Trainer};
///
/// let student = student_of(&teacher, &[0, 2, 4, 6])?;
/// let source = TeacherSource::model(&teacher);
/// let method = Distill::new(DistillConfig::default(), source, &student, train)?
///     .with_evaluation(held_out);
/// let config = TrainConfig { learning_rate: 3e-4, ..TrainConfig::default() };
/// let (student, report) = Trainer::with_method(config, method).fit(student)?;
/// println!("{:?}", report.eval_after());
/// # Ok(())
/// # }
/// ```
pub struct Distill<'a, T> {
    config: DistillConfig,
    teacher: TeacherSource<T>,
    training: BoxedBatches<'a>,
    evaluation: Option<BoxedBatches<'a>>,
    own_answers: Option<OwnAnswers>,
}

impl<'a, T: CausalLm> Distill<'a, T> {
    /// A method for `student`, the model that will be trained.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, the vocabularies differ, an output layer is more than a matrix, or a teacher on disk has
    /// another temperature.
    pub fn new<M: CausalLm>(
        config: DistillConfig,
        teacher: TeacherSource<T>,
        student: &M,
        batches: impl Batches<Batch = Batch> + 'a,
    ) -> Result<Self> {
        config.validate()?;
        let teacher = match teacher {
            // Neither dropout nor gradients, also of a model that was put in by hand.
            TeacherSource::Model(model) if model.devices().iter().any(Device::is_autodiff) => {
                TeacherSource::model(&*model)
            }
            other => other,
        };
        let own = student.dims().vocab_size;
        check_distillation_head(student.head(), "student")?;
        let other = match &teacher {
            TeacherSource::Model(teacher) => {
                check_distillation_head(teacher.head(), "teacher")?;
                teacher.dims().vocab_size
            }
            TeacherSource::Top(top) => top.vocab_size(),
        };
        if own != other {
            return Err(Error::Teacher(format!(
                "the student has {own} tokens in its vocabulary and the teacher {other}: distillation of logits needs the same \
                 tokenizer and vocabularies of one size. If the tokenizer is the same and only the padding of the embeddings \
                 differs, resize those of one model (resize_token_embeddings)"
            )));
        }
        if config.compares_states() {
            let width = student.dims().hidden_size;
            let reason = match &teacher {
                TeacherSource::Top(_) => "a teacher on disk has no hidden states".to_string(),
                TeacherSource::Model(teacher) if teacher.dims().hidden_size != width => format!(
                    "the student's have {width} numbers and the teacher's {}",
                    teacher.dims().hidden_size
                ),
                TeacherSource::Model(teacher)
                    if config.layers > 0.0
                        && teacher.dims().num_layers < student.dims().num_layers =>
                {
                    format!(
                        "the student has {} blocks and the teacher only {}",
                        student.dims().num_layers,
                        teacher.dims().num_layers
                    )
                }
                TeacherSource::Model(_) => String::new(),
            };
            if !reason.is_empty() {
                return Err(Error::Teacher(format!(
                    "hidden states cannot be compared, since {reason}: set `cosine` and `layers` to 0"
                )));
            }
        }
        if let TeacherSource::Top(top) = &teacher
            && top.temperature() != config.temperature
        {
            return Err(Error::Teacher(format!(
                "the teacher's likeliest tokens were written at a temperature of {}, and the loss has {}: use the same, or \
                 write them again",
                top.temperature(),
                config.temperature
            )));
        }
        Ok(Self {
            config,
            teacher,
            training: Box::new(batches),
            evaluation: None,
            own_answers: None,
        })
    }

    /// Trains a share of the batches on answers that the student samples (on-policy).
    ///
    /// At those the loss has no cross-entropy, since the answers are no data, and there is no metric `cross_entropy`. Batches
    /// with own answers have the metric `own_answers/mean_length`. A run that resumes samples the same answers, except for
    /// rounding.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, or the teacher is on disk: it has no distributions of other answers.
    pub fn with_own_answers(self, own_answers: OwnAnswers) -> Result<Self> {
        let mistakes = own_answers.mistakes();
        if !mistakes.is_empty() {
            return Err(Error::Settings(mistakes));
        }
        match self.teacher {
            TeacherSource::Model(_) => Ok(Self {
                own_answers: Some(own_answers),
                ..self
            }),
            TeacherSource::Top(_) => Err(Error::Teacher(
                "a teacher on disk has distributions along the answers of the data alone: own answers need the teacher as a model"
                    .into(),
            )),
        }
    }

    /// Evaluates on these batches too.
    #[must_use]
    pub fn with_evaluation(self, batches: impl Batches<Batch = Batch> + 'a) -> Self {
        Self {
            evaluation: Some(Box::new(batches)),
            ..self
        }
    }
}

/// A batch, and the teacher's output for it.
#[derive(Clone, Debug)]
pub struct DistillBatch {
    /// The tokens.
    pub batch: Batch,
    /// Whether the student sampled the answers.
    pub own_answers: bool,
    output: TeacherOutput,
}

#[derive(Clone, Debug)]
enum TeacherOutput {
    /// The teacher's hidden states: those that are compared, and the last.
    Hidden(Vec<Tensor<3>>),
    /// Its likeliest tokens and their log-probabilities.
    Top(Vec<i64>, Vec<f32>),
    /// Nothing, in evaluations without a model.
    Nothing,
}

impl<T: CausalLm> Distill<'_, T> {
    /// How many tokens a teacher reads that is a model.
    fn teacher_room(&self) -> Option<usize> {
        match &self.teacher {
            TeacherSource::Model(teacher) => Some(teacher.dims().max_position_embeddings),
            TeacherSource::Top(_) => None,
        }
    }
}

impl<M: CausalLm, T: CausalLm> Method<M> for Distill<'_, T> {
    type Batch = DistillBatch;

    fn len(&self, epoch: usize) -> usize {
        self.training.len(epoch)
    }

    fn evaluation_len(&self) -> Option<usize> {
        self.evaluation.as_ref().map(|batches| batches.len(0))
    }

    fn batch(
        &mut self,
        student: &ModelView<'_, M>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<DistillBatch, BoxError> {
        let batches = match &self.evaluation {
            Some(evaluation) if !context.is_training() => evaluation,
            _ => &self.training,
        };
        let mut batch = batches.batch(epoch, index);
        let own_answers = (self.own_answers.as_ref())
            .filter(|own| context.is_training() && own.wants(context.seed));
        if let Some(own) = own_answers {
            let room = student.dims().max_position_embeddings;
            let room = room.min(self.teacher_room().unwrap_or(room));
            batch = own.sample(&**student, &batch, room, context.seed)?;
        }
        let output = match &self.teacher {
            TeacherSource::Model(teacher) => {
                let device = teacher.devices().first().cloned().unwrap_or_default();
                let depth = student.dims().num_layers;
                TeacherOutput::Hidden(
                    self.config
                        .states(&**teacher, &batch.tokens(&device), depth),
                )
            }
            TeacherSource::Top(_) if !context.is_training() => TeacherOutput::Nothing,
            TeacherSource::Top(top) => {
                let (tokens, logps) = top.of(&batch)?;
                TeacherOutput::Top(tokens, logps)
            }
        };
        Ok(DistillBatch {
            batch,
            own_answers: own_answers.is_some(),
            output,
        })
    }

    fn step(&mut self, model: &M, batch: &DistillBatch, context: &StepContext) -> StepResult {
        let DistillBatch {
            batch,
            own_answers,
            output,
        } = batch;
        let tokens = batch.tokens(&context.device);
        let depth = model.dims().num_layers;
        let states = self.config.states(model, &tokens, depth);
        let (of_teacher, compared) = match (output, &self.teacher) {
            (TeacherOutput::Hidden(found), TeacherSource::Model(teacher)) => {
                let last = found.last().expect("the last states");
                (TeacherStates::Head(last, teacher.head()), Some(&found[..]))
            }
            (TeacherOutput::Top(tokens, logps), TeacherSource::Top(top)) => {
                let k = top.k();
                (TeacherStates::Top { k, tokens, logps }, None)
            }
            _ => {
                let hidden = states.into_iter().next_back().expect("the last states");
                let loss = causal_lm_loss(hidden, model.head(), &batch.labels);
                return Ok(StepOutput::from(loss).with_tokens(batch.token_count()));
            }
        };
        let states = (states, compared);
        if !own_answers {
            return teacher_step(self.config, model, states, of_teacher, batch, context);
        }
        let config = DistillConfig {
            alpha: 1.0,
            ..self.config
        };
        let mut output = teacher_step(config, model, states, of_teacher, batch, context)?;
        output
            .metrics
            .retain(|metric| metric.name != "cross_entropy");
        let (tokens, rows) = (batch.label_count() as f64, batch.batch as f64);
        Ok(output.with_metric("own_answers/mean_length", tokens, rows))
    }
}

impl DistillConfig {
    /// The hidden states of a model that are compared with those of a student of `depth` blocks, the last ones at the end.
    fn states<M: CausalLm>(self, model: &M, tokens: &TokenBatch, depth: usize) -> Vec<Tensor<3>> {
        if self.layers == 0.0 {
            return vec![model.hidden_states(tokens, None)];
        }
        let all = model.all_hidden_states(tokens);
        let blocks = all.len() - 1;
        let of = (1..=depth).map(|block| (2 * block * blocks + depth) / (2 * depth));
        of.map(|block| all[block].clone()).collect()
    }
}

/// The loss and the metrics of a batch, given the student's hidden states, those of the teacher if it has some, and what the
/// teacher knows of the next tokens.
fn teacher_step<M: CausalLm>(
    config: DistillConfig,
    model: &M,
    (mut states, compared): (Vec<Tensor<3>>, Option<&[Tensor<3>]>),
    of_teacher: TeacherStates<'_>,
    batch: &Batch,
    context: &StepContext,
) -> StepResult {
    let compared = compared.unwrap_or_default();
    let mut of_states = Vec::new();
    if config.compares_states() && !compared.is_empty() {
        let learned = learned(batch, &context.device);
        let pairs: Vec<_> = states.iter().zip(compared).collect();
        if let (true, Some(&last)) = (config.cosine > 0.0, pairs.last()) {
            let sum = learned.sum(cosine, last);
            of_states.push(("hidden_cosine", config.cosine, sum));
        }
        if config.layers > 0.0 {
            let mse = |student, teacher| hidden_mse(student, teacher, None);
            let count = pairs.len() as f64;
            let sums = pairs.into_iter().map(|pair| learned.sum(mse, pair));
            let sum = sums.reduce(|a, b| a + b).expect("a student has blocks") / count;
            of_states.push(("layer_mse", config.layers, sum));
        }
    }
    let hidden = states.pop().expect("the last states");
    let options = config.options();
    let found = distillation_loss(hidden, model.head(), of_teacher, &batch.labels, options)?;
    let Some((found, count)) = found else {
        let sum = Tensor::zeros([1], &context.device);
        return Ok(LossSum { sum, count: 0 }.into());
    };
    let sum = match context.is_training() {
        true => (of_states.iter()).fold(found.loss, |loss, (_, weight, sum)| {
            loss + sum.clone() * *weight
        }),
        false => found.cross_entropy.clone(),
    };
    let positions = count as f64;
    let mut output = StepOutput::from(LossSum { sum, count });
    for (name, _, sum) in of_states {
        output = output.with_metric(name, sum, positions);
    }
    Ok(output
        .with_metric("divergence", found.divergence, positions)
        .with_metric("cross_entropy", found.cross_entropy, positions)
        .with_metric("agreement", found.agreement, positions)
        .with_tokens(batch.token_count()))
}

/// 1 at positions whose next token has a label, 0 at others: `[batch · seq]`.
struct Learned(Tensor<1>);

fn learned(batch: &Batch, device: &Device) -> Learned {
    let mut counts = vec![0.0f32; batch.batch * batch.seq];
    for (counts, labels) in (counts.chunks_mut(batch.seq)).zip(batch.labels.chunks(batch.seq)) {
        for (count, &next) in counts.iter_mut().zip(&labels[1..]) {
            *count = f32::from(u8::from(next != IGNORE_INDEX));
        }
    }
    let shape = [counts.len()];
    Learned(Tensor::from_data(TensorData::new(counts, shape), device))
}

impl Learned {
    /// The sum of a loss of hidden states, `[batch, seq, width]`, over these positions.
    fn sum(
        &self,
        loss: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<1>,
        (student, teacher): (&Tensor<3>, &Tensor<3>),
    ) -> Tensor<1> {
        let rows = |states: &Tensor<3>| states.clone().flatten(0, 1);
        (loss(rows(student), rows(teacher)) * self.0.clone()).sum()
    }
}

/// How far a student is from its teacher on held-out rows: the loss is the student's cross-entropy with the data, and the
/// metrics are those of [`Distill`].
///
/// # Errors
///
/// If a setting makes no sense, the vocabularies differ, an output layer is more than a matrix, or no position has a label.
pub fn compare<M: CausalLm, T: CausalLm>(
    config: DistillConfig,
    teacher: &T,
    student: &M,
    batches: &(impl Batches<Batch = Batch> + ?Sized),
) -> Result<EvalMetrics> {
    config.validate()?;
    let teacher = teacher.valid();
    let (own, other) = (student.dims(), teacher.dims());
    let same_width = own.hidden_size == other.hidden_size;
    let config = match same_width {
        true if own.num_layers <= other.num_layers => config,
        true => DistillConfig {
            layers: 0.0,
            ..config
        },
        false => DistillConfig {
            cosine: 0.0,
            layers: 0.0,
            ..config
        },
    };
    let found = evaluate(
        student,
        batches,
        |student: &M, batch: &Batch, context: &StepContext| {
            let tokens = batch.tokens(&context.device);
            let depth = student.dims().num_layers;
            let found = config.states(&teacher, &tokens, depth);
            let last = found.last().expect("the last states");
            let of_teacher = TeacherStates::Head(last, teacher.head());
            let states = (config.states(student, &tokens, depth), Some(&found[..]));
            teacher_step(config, student, states, of_teacher, batch, context)
        },
    )?;
    Ok(found)
}
