//! Classes of texts and of pairs of texts: the training step, predictions, measures.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor, TensorData};
use ft_core::{EncoderSequenceClassifier, LossSum, ProblemType};
use ft_data::{Loader, TextBatch, TextExample, TextLayout, TextTokens};
use ft_embed::loss::{binary_cross_entropy, cross_entropy};
use ft_eval::classification::{ConfusionMatrix, Counts, ScoreTable};
use ft_eval::regression::{mean_squared_error, pearson, spearman};
use ft_train::{StepContext, StepOutput, StepResult};
use serde::Serialize;

use crate::forward::{finite, in_batches, inference};
use crate::{Error, Result, text_layout};

/// Texts with their labels as numbers; see [`TextExample`].
#[derive(Clone, Debug, PartialEq)]
pub struct ClassificationBatch {
    /// The texts.
    pub texts: TextBatch,
    /// The labels of each text.
    pub labels: Vec<Vec<f32>>,
}

/// Batches of examples, shuffled in every epoch if a seed is given.
///
/// # Errors
///
/// If there are no examples, or the batch size is 0.
pub fn classification_batches(
    examples: Vec<TextExample>,
    batch_size: usize,
    shuffle_seed: Option<u64>,
    layout: TextLayout,
) -> Result<Loader<TextExample, ClassificationBatch>> {
    let collate = move |rows: &[&TextExample]| {
        let texts: Vec<&TextTokens> = rows.iter().map(|row| &row.tokens).collect();
        ClassificationBatch {
            texts: layout.batch(&texts),
            labels: rows.iter().map(|row| row.labels.clone()).collect(),
        }
    };
    Ok(Loader::new(examples, batch_size, shuffle_seed, collate)?)
}

/// The step of ft-train for labels of this kind: the mean over texts of `−ln softmax(z)[label]`; the mean over texts and labels
/// of the binary cross-entropy; or the mean squared error. These are the losses of transformers. A choice of one class also
/// reports the metric `accuracy`.
///
/// It is an error if the model's `problem_type` is another one, since it decides what pipelines do with the scores of the saved
/// model. A model without one is taken for a choice of one class.
///
/// ```no_run
/// # fn demo(model: ft_core::EncoderSequenceClassifier, rows: ft_data::LabelledTexts, input: ft_data::TextInput)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use ft_data::TextLayout;
/// use ft_tasks::{classification_batches, classification_step};
/// use ft_train::{TrainConfig, Trainer};
///
/// let examples = rows.tokenize(&input, &model.config().labels)?;
/// let batches = classification_batches(examples, 16, Some(42), TextLayout::Packed)?;
/// let (model, report) =
///     Trainer::new(TrainConfig::default(), batches, classification_step(rows.problem)).fit(model)?;
/// # Ok(())
/// # }
/// ```
pub fn classification_step(
    problem: ProblemType,
) -> impl Fn(&EncoderSequenceClassifier, &ClassificationBatch, &StepContext) -> StepResult {
    move |model, batch, context| {
        let of_model = model.config().problem_type;
        if of_model.unwrap_or(ProblemType::SingleLabelClassification) != problem {
            return Err(format!(
                "the labels are of {problem:?}, but the model's problem_type is {of_model:?}: call with_problem_type"
            )
            .into());
        }
        let logits = model.scores(&batch.texts.tokens(&context.device), batch.texts.places());
        let [texts, width] = logits.dims();
        let expected = match problem {
            ProblemType::MultiLabelClassification => width,
            _ => 1,
        };
        if batch.labels.iter().any(|labels| labels.len() != expected) {
            return Err(format!("{problem:?} needs {expected} numbers a text").into());
        }
        let labels: Vec<f32> = batch.labels.concat();
        let rows = texts as f64;
        let mut accuracy = None;
        let (sum, count) = match problem {
            ProblemType::SingleLabelClassification => {
                let classes: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
                let chosen = logits.clone().inner().argmax(1).squeeze_dim::<1>(1);
                let data = TensorData::new(classes.clone(), [texts]);
                let right =
                    chosen.equal(Tensor::<1, Int>::from_data(data, &logits.device().inner()));
                accuracy = Some(right.float().sum());
                (cross_entropy(logits, &classes).sum(), texts)
            }
            ProblemType::MultiLabelClassification => {
                let all = logits.reshape([texts * width]);
                (binary_cross_entropy(all, &labels, 1.0).sum(), texts * width)
            }
            ProblemType::Regression => {
                if width != 1 {
                    return Err(
                        format!("a regression needs one score, the model gives {width}").into(),
                    );
                }
                let labels = TensorData::new(labels, [texts]);
                let labels = Tensor::<1>::from_data(labels, &logits.device());
                let difference = logits.reshape([texts]) - labels;
                (difference.powi_scalar(2).sum(), texts)
            }
        };
        let output =
            StepOutput::from(LossSum { sum, count }).with_tokens(batch.texts.token_count());
        Ok(match accuracy {
            Some(right) => output.with_metric("accuracy", right, rows),
            None => output,
        })
    }
}

/// The scores of texts before any activation, a row of labels a text.
///
/// # Errors
///
/// If a score is not finite.
pub fn text_scores(
    model: &EncoderSequenceClassifier,
    texts: &[TextTokens],
    padding: u32,
) -> Result<Vec<Vec<f32>>> {
    let (model, device) = inference(model);
    let layout = text_layout(model.attends_by_tile(), &device, padding);
    in_batches(texts, layout, |batch| {
        let scores = model.scores(&batch.tokens(&device), batch.places());
        let width = scores.dims()[1];
        let scores = finite(scores)?;
        Ok(scores.chunks_exact(width).map(<[f32]>::to_vec).collect())
    })
}

/// How good predictions are. Measures that the kind of labels does not have are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassificationReport {
    /// The number of texts.
    pub texts: usize,
    /// The share of texts whose labels are all right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// The mean of the classes' F1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macro_f1: Option<f64>,
    /// F1 over all classes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_f1: Option<f64>,
    /// F1 by class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub f1: BTreeMap<String, f64>,
    /// The mean squared error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_squared_error: Option<f64>,
    /// Pearson's correlation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pearson: Option<f64>,
    /// Spearman's correlation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spearman: Option<f64>,
}

/// Compares the predictions of a model with labels: the class with the highest score, or those whose score is above 0, which is
/// a probability above one half.
///
/// # Errors
///
/// If there are no examples, a label is not among the classes, or a score is not finite.
pub fn evaluate_classification(
    model: &EncoderSequenceClassifier,
    examples: &[TextExample],
    problem: ProblemType,
    padding: u32,
) -> Result<ClassificationReport> {
    if examples.is_empty() {
        return Err(Error::Input("there are no examples to evaluate on".into()));
    }
    let texts: Vec<TextTokens> = examples.iter().map(|row| row.tokens.clone()).collect();
    let scores = text_scores(model, &texts, padding)?;
    let names = &model.config().labels;
    let mut report = ClassificationReport {
        texts: examples.len(),
        ..ClassificationReport::default()
    };
    let mut add_table = |table: ScoreTable<String>| {
        report.macro_f1 = Some(table.macro_average.f);
        report.micro_f1 = Some(table.micro_average.f);
        let classes = table.classes.into_iter();
        report.f1 = classes.map(|(name, scores)| (name, scores.f)).collect();
    };
    match problem {
        ProblemType::SingleLabelClassification => {
            let name = |class: usize| {
                names.get(class).cloned().ok_or_else(|| {
                    Error::Input(format!(
                        "the label {class} is not among {} classes",
                        names.len()
                    ))
                })
            };
            let truth = examples.iter().map(|row| name(row.labels[0] as usize));
            let truth = truth.collect::<Result<Vec<_>>>()?;
            let found = scores.iter().map(|row| name(crate::forward::argmax(row)));
            let found = found.collect::<Result<Vec<_>>>()?;
            let matrix = ConfusionMatrix::new(&truth, &found)?;
            let table = matrix.scores(1.0);
            add_table(ScoreTable {
                classes: (table.classes.into_iter())
                    .map(|(name, scores)| (name.clone(), scores))
                    .collect(),
                micro_average: table.micro_average,
                macro_average: table.macro_average,
                weighted_average: table.weighted_average,
            });
            report.accuracy = Some(matrix.accuracy());
        }
        ProblemType::MultiLabelClassification => {
            let mut counts = vec![Counts::default(); names.len()];
            let mut right = 0;
            for (row, scores) in examples.iter().zip(&scores) {
                let mut all = true;
                for ((count, &truth), &score) in counts.iter_mut().zip(&row.labels).zip(scores) {
                    let (truth, found) = (truth > 0.5, score > 0.0);
                    count.actual += usize::from(truth);
                    count.predicted += usize::from(found);
                    count.correct += usize::from(truth && found);
                    all &= truth == found;
                }
                right += usize::from(all);
            }
            add_table(ScoreTable::new(
                names.iter().cloned().zip(counts).collect(),
                1.0,
            ));
            report.accuracy = Some(right as f64 / examples.len() as f64);
        }
        ProblemType::Regression => {
            let truth: Vec<f64> = examples.iter().map(|row| row.labels[0].into()).collect();
            let found: Vec<f64> = scores.iter().map(|row| row[0].into()).collect();
            report.mean_squared_error = Some(mean_squared_error(&truth, &found)?);
            report.pearson = pearson(&truth, &found)?;
            report.spearman = spearman(&truth, &found)?;
        }
    }
    Ok(report)
}
