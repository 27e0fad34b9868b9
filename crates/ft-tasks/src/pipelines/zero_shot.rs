//! Labels that a model of entailment was not trained on (Yin et al., 2019, arXiv:1909.00161): a text is the premise, a sentence
//! with a label the hypothesis.

use std::path::Path;

use burn::tensor::Device;
use ft_core::{EncoderSequenceClassifier, Truncation};
use ft_data::{TextInput, TextTokens};
use serde::Serialize;

use super::{encode, input_of};
use crate::forward::softmax;
use crate::{Error, Result, text_scores};

/// How labels become hypotheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroShotOptions<'a> {
    /// The hypothesis, in which `{}` stands for the label.
    pub hypothesis_template: &'a str,
    /// Whether several labels may hold: each score is then a probability of its own.
    pub multi_label: bool,
}

impl Default for ZeroShotOptions<'_> {
    fn default() -> Self {
        Self {
            hypothesis_template: "This example is {}.",
            multi_label: false,
        }
    }
}

/// The labels of a text, the best first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ZeroShotResult {
    /// The text.
    pub sequence: String,
    /// The labels.
    pub labels: Vec<String>,
    /// Their probabilities.
    pub scores: Vec<f32>,
}

/// Labels by a model of entailment.
#[derive(Clone, Debug)]
pub struct ZeroShotClassification {
    model: EncoderSequenceClassifier,
    input: TextInput,
    entailment: usize,
    truncated: bool,
}

impl ZeroShotClassification {
    /// Loads a folder of transformers' `*ForSequenceClassification` with a label whose name begins with `entail`.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, the weights do not fit, or there is no such label among two or more.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        let model = EncoderSequenceClassifier::from_pretrained(folder, device)?;
        let dims = model.dims();
        let input = input_of(folder, dims.vocab_size, dims.max_position_embeddings)?;
        Self::new(model, input)
    }

    /// This model with this input.
    ///
    /// # Errors
    ///
    /// If no label begins with `entail`, or there are no others. transformers takes the last label in that case.
    pub fn new(model: EncoderSequenceClassifier, input: TextInput) -> Result<Self> {
        let labels = &model.config().labels;
        let entails = |label: &String| label.to_lowercase().starts_with("entail");
        match labels.iter().position(entails) {
            Some(entailment) if labels.len() > 1 => Ok(Self {
                model,
                input,
                entailment,
                truncated: false,
            }),
            _ => Err(Error::Input(format!(
                "no label begins with `entail` among {}: use a model of natural language inference",
                labels.join(", ")
            ))),
        }
    }

    /// Cuts texts that are too long for a hypothesis beside them. Without it they are an error.
    #[must_use]
    pub fn truncated(self) -> Self {
        Self {
            truncated: true,
            ..self
        }
    }

    /// The labels of texts.
    ///
    /// # Errors
    ///
    /// If there are no labels, the template has no `{}`, a text is too long, or a score is not finite.
    pub fn classify(
        &self,
        texts: &[&str],
        labels: &[&str],
        options: &ZeroShotOptions<'_>,
    ) -> Result<Vec<ZeroShotResult>> {
        if labels.is_empty() || !options.hypothesis_template.contains("{}") {
            return Err(Error::Input(
                "there must be labels, and a {} for them in the hypothesis_template".into(),
            ));
        }
        let mut tokens: Vec<TextTokens> = Vec::with_capacity(texts.len() * labels.len());
        for text in texts {
            for label in labels {
                let hypothesis = options.hypothesis_template.replace("{}", label);
                let cut = self.truncated.then_some(Truncation::OnlyFirst);
                let encoded = encode(&self.input, text, Some(&hypothesis), cut)?;
                tokens.push(self.input.tokens(&encoded));
            }
        }
        let scores = text_scores(&self.model, &tokens, self.input.padding())?;
        let contradiction = match self.entailment {
            0 => self.model.config().labels.len() - 1,
            _ => 0,
        };
        let results = texts.iter().zip(scores.chunks_exact(labels.len()));
        let results = results.map(|(text, rows)| {
            let scores: Vec<f32> = match options.multi_label || labels.len() == 1 {
                true => {
                    let rows = rows.iter();
                    rows.map(|row| {
                        let mut both = [row[contradiction], row[self.entailment]];
                        softmax(&mut both);
                        both[1]
                    })
                    .collect()
                }
                false => {
                    let mut all: Vec<f32> = rows.iter().map(|row| row[self.entailment]).collect();
                    softmax(&mut all);
                    all
                }
            };
            let mut order: Vec<usize> = (0..labels.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            ZeroShotResult {
                sequence: (*text).to_string(),
                labels: order.iter().map(|&i| labels[i].to_string()).collect(),
                scores: order.iter().map(|&i| scores[i]).collect(),
            }
        });
        Ok(results.collect())
    }
}
