//! Labels of texts.

use std::path::Path;

use burn::tensor::Device;
use ft_core::{EncoderSequenceClassifier, ProblemType, Truncation};
use ft_data::{TextInput, TextTokens};
use serde::Serialize;

use super::{encode, input_of};
use crate::forward::softmax;
use crate::{Result, text_scores};

/// A text, or two that are read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOrPair<'a> {
    /// The text, or the first one.
    pub text: &'a str,
    /// The second one.
    pub pair: Option<&'a str>,
}

impl<'a> From<&'a str> for TextOrPair<'a> {
    fn from(text: &'a str) -> Self {
        Self { text, pair: None }
    }
}

impl<'a> From<(&'a str, &'a str)> for TextOrPair<'a> {
    fn from((text, pair): (&'a str, &'a str)) -> Self {
        Self {
            text,
            pair: Some(pair),
        }
    }
}

/// A label with its score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// Its probability, or the number of a regression.
    pub score: f32,
}

/// Labels of texts, by a classifier.
///
/// ```no_run
/// use std::path::Path;
///
/// use burn::tensor::Device;
/// use ft_tasks::pipelines::TextClassification;
///
/// let classifier = TextClassification::from_pretrained(Path::new("my-classifier"), &Device::default())?;
/// for labels in classifier.classify(&["A fine kettle.", "It leaks."], Some(1))? {
///     println!("{} {:.3}", labels[0].label, labels[0].score);
/// }
/// # Ok::<(), ft_tasks::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TextClassification {
    model: EncoderSequenceClassifier,
    input: TextInput,
    truncated: bool,
}

impl TextClassification {
    /// Loads a folder of transformers' `*ForSequenceClassification`.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, or the weights do not fit.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        let model = EncoderSequenceClassifier::from_pretrained(folder, device)?;
        let dims = model.dims();
        let input = input_of(folder, dims.vocab_size, dims.max_position_embeddings)?;
        Ok(Self::new(model, input))
    }

    /// This model with this input.
    pub fn new(model: EncoderSequenceClassifier, input: TextInput) -> Self {
        Self {
            model,
            input,
            truncated: false,
        }
    }

    /// Cuts texts that are too long, of a pair the longer one. Without it they are an error.
    #[must_use]
    pub fn truncated(self) -> Self {
        Self {
            truncated: true,
            ..self
        }
    }

    /// The labels of texts, the best first; `top_k` of them, or all. Scores are those of a softmax; of the logistic function if
    /// several labels may hold or there is one label; of a regression the numbers as they are.
    ///
    /// # Errors
    ///
    /// If a text is too long, or a score is not finite.
    pub fn classify<'a, T: Into<TextOrPair<'a>> + Copy>(
        &self,
        texts: &[T],
        top_k: Option<usize>,
    ) -> Result<Vec<Vec<LabelScore>>> {
        let cut = self.truncated.then_some(Truncation::LongestFirst);
        let tokens = texts.iter().map(|&text| {
            let TextOrPair { text, pair } = text.into();
            let encoded = encode(&self.input, text, pair, cut)?;
            Ok(self.input.tokens(&encoded))
        });
        let tokens: Vec<TextTokens> = tokens.collect::<Result<_>>()?;
        let config = self.model.config();
        let mut all = Vec::with_capacity(texts.len());
        for mut scores in text_scores(&self.model, &tokens, self.input.padding())? {
            match config.problem_type {
                Some(ProblemType::Regression) => {}
                Some(ProblemType::MultiLabelClassification) => logistic(&mut scores),
                _ if scores.len() == 1 => logistic(&mut scores),
                _ => softmax(&mut scores),
            }
            let labels = config.labels.iter().zip(scores);
            let mut labels: Vec<LabelScore> = labels
                .map(|(label, score)| LabelScore {
                    label: label.clone(),
                    score,
                })
                .collect();
            labels.sort_by(|a, b| b.score.total_cmp(&a.score));
            labels.truncate(top_k.unwrap_or(usize::MAX));
            all.push(labels);
        }
        Ok(all)
    }
}

fn logistic(scores: &mut [f32]) {
    for score in scores {
        *score = 1.0 / (1.0 + (-*score).exp());
    }
}
