//! Tags of words: the training step, predictions, entities as seqeval finds them.

use burn::tensor::{Int, Tensor, TensorData};
use ft_core::{EncoderTokenClassifier, IGNORE_INDEX, LossSum};
use ft_data::{Loader, TagExample, TaggedText, TextBatch, TextLayout, TextTokens, spread_tag};
use ft_embed::loss::cross_entropy;
use ft_eval::classification::ScoreTable;
use ft_eval::tagging::{TagOptions, entity_scores};
use ft_train::{StepContext, StepOutput, StepResult};

use crate::forward::{argmax, finite, in_batches, inference};
use crate::{Result, text_layout};

/// Texts with a label for each token.
#[derive(Clone, Debug, PartialEq)]
pub struct TagBatch {
    /// The texts.
    pub texts: TextBatch,
    /// The label of each token of the batch, [`IGNORE_INDEX`] where there is none.
    pub labels: Vec<i64>,
}

/// Batches of examples, shuffled in every epoch if a seed is given.
///
/// # Errors
///
/// If there are no examples, or the batch size is 0.
pub fn tag_batches(
    examples: Vec<TagExample>,
    batch_size: usize,
    shuffle_seed: Option<u64>,
    layout: TextLayout,
) -> Result<Loader<TagExample, TagBatch>> {
    let collate = move |rows: &[&TagExample]| {
        let texts: Vec<&TextTokens> = rows.iter().map(|row| &row.tokens).collect();
        let texts = layout.batch(&texts);
        let mut labels = vec![IGNORE_INDEX; texts.slots()];
        for (place, row) in texts.places().iter().zip(rows) {
            labels[place.clone()].copy_from_slice(&row.labels);
        }
        TagBatch { texts, labels }
    };
    Ok(Loader::new(examples, batch_size, shuffle_seed, collate)?)
}

/// The step of ft-train: the mean over tokens with a label of `−ln softmax(z)[label]`. Tokens of all batches of a step count
/// alike.
///
/// # Errors
///
/// None; the type is that of all steps. A batch without labels counts for nothing.
pub fn tag_step(
    model: &EncoderTokenClassifier,
    batch: &TagBatch,
    context: &StepContext,
) -> StepResult {
    let scores = model.scores(&batch.texts.tokens(&context.device));
    let [rows, seq, width] = scores.dims();
    let (places, labels): (Vec<i64>, Vec<i64>) = (batch.labels.iter().enumerate())
        .filter(|(_, label)| **label != IGNORE_INDEX)
        .map(|(place, label)| (place as i64, *label))
        .unzip();
    let count = places.len();
    let tokens = batch.texts.token_count();
    if count == 0 {
        let sum = scores.sum() * 0.0;
        return Ok(StepOutput::from(LossSum { sum, count }).with_tokens(tokens));
    }
    let places = TensorData::new(places, [count]);
    let places = Tensor::<1, Int>::from_data(places, &scores.device());
    let logits = scores.reshape([rows * seq, width]).select(0, places);
    let loss = LossSum {
        sum: cross_entropy(logits, &labels).sum(),
        count,
    };
    Ok(StepOutput::from(loss).with_tokens(tokens))
}

/// The scores of the tokens of texts before any activation: of each text a row of labels a token.
///
/// # Errors
///
/// If a score is not finite.
pub fn token_scores(
    model: &EncoderTokenClassifier,
    texts: &[TextTokens],
    padding: u32,
) -> Result<Vec<Vec<Vec<f32>>>> {
    let (model, device) = inference(model);
    let layout = text_layout(model.attends_by_tile(), &device, padding);
    in_batches(texts, layout, |batch| {
        let scores = model.scores(&batch.tokens(&device));
        let [_, _, width] = scores.dims();
        let scores = finite(scores)?;
        let tokens: Vec<&[f32]> = scores.chunks_exact(width).collect();
        let texts = batch.places().iter().map(|place| {
            let tokens = tokens[place.clone()].iter();
            tokens.map(|token| token.to_vec()).collect()
        });
        Ok(texts.collect())
    })
}

/// The tags of the words of texts: the best one of the first token of each word, `O` for words without a token. Words that share a
/// token share its tag as parts of one entity ([`spread_tag`]).
///
/// # Errors
///
/// If a score is not finite.
pub fn predict_tags(
    model: &EncoderTokenClassifier,
    examples: &[TagExample],
    padding: u32,
) -> Result<Vec<Vec<String>>> {
    let texts: Vec<TextTokens> = examples.iter().map(|row| row.tokens.clone()).collect();
    let scores = token_scores(model, &texts, padding)?;
    let names = &model.config().labels;
    let rows = examples.iter().zip(&scores).map(|(row, scores)| {
        let shared = row.firsts.chunk_by(|a, b| a.is_some() && a == b);
        let tags = shared.flat_map(|words| match words[0] {
            Some(token) => spread_tag(&names[argmax(&scores[token])], words.len()),
            None => vec!["O".to_string(); words.len()],
        });
        tags.collect()
    });
    Ok(rows.collect())
}

/// Precision, recall and F1 of entities (seqeval's): an entity is right if its type, its first and its last word are. Words that
/// were cut off count as missed.
///
/// # Errors
///
/// If a tag is not in the scheme, or a score is not finite.
pub fn evaluate_tags(
    model: &EncoderTokenClassifier,
    rows: &[TaggedText],
    examples: &[TagExample],
    options: &TagOptions,
    padding: u32,
) -> Result<ScoreTable<String>> {
    let predicted = predict_tags(model, examples, padding)?;
    let truth: Vec<&[String]> = rows.iter().map(|row| row.tags.as_slice()).collect();
    let predicted: Vec<&[String]> = predicted.iter().map(Vec::as_slice).collect();
    Ok(entity_scores(&truth, &predicted, options)?)
}
