//! Encoders with the head of a task: scores of texts, of tokens, of where an answer starts and ends, of what a mask hides.
//!
//! Paths are those of transformers' `BertForSequenceClassification` and its relatives, so folders go both ways. The dropouts of
//! heads are not applied.

mod body;
pub(in crate::models) mod head;
mod tasked;

use std::ops::Range;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::files::pretrained::{SaveOptions, save_pretrained};
use crate::files::safetensors_folder::Weights;
use crate::models::BackboneConfig;
use crate::models::config::{EncoderTask, EncoderTaskConfig, ProblemType};
use crate::{Dims, Error, LossSum, Parts, Result, TokenBatch};
use head::Head;
use tasked::Tasked;

/// A model of one task, with PEFT's name of it.
macro_rules! task {
    ($(#[$doc:meta])* $name:ident, $task:ident $(, $peft:literal)?) => {
        $(#[$doc])*
        #[derive(Module, Parts, Debug)]
        #[parts(output = "" $(, task = $peft)?)]
        pub struct $name {
            _model: Tasked,
        }

        impl $name {
            /// A model with random weights, drawn when first read; `device.seed` makes them reproducible.
            ///
            /// # Errors
            ///
            /// If the configuration is of another task, or has settings that are not supported.
            pub fn from_config(config: &EncoderTaskConfig, device: &Device) -> Result<Self> {
                if config.task != EncoderTask::$task {
                    return Err(Error::Settings(format!(
                        "the configuration is of {:?}, not of {:?}",
                        config.task,
                        EncoderTask::$task
                    )));
                }
                Tasked::from_config(config, device).map(|_model| Self { _model })
            }

            /// Loads a model folder of this task; weights are held as `weights` says.
            ///
            /// # Errors
            ///
            /// If a file is missing or malformed, the folder is that of another kind of model, or the weights do not fit the
            /// configuration.
            pub fn from_pretrained_with(folder: &Path, device: &Device, weights: Weights) -> Result<Self> {
                let config = EncoderTaskConfig::from_pretrained(folder, EncoderTask::$task)?;
                Tasked::load(&config, folder, device, weights).map(|_model| Self { _model })
            }

            /// [`from_pretrained_with`](Self::from_pretrained_with), the weights widened to `f32`.
            ///
            /// # Errors
            ///
            /// As [`from_pretrained_with`](Self::from_pretrained_with).
            pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
                Self::from_pretrained_with(folder, device, Weights::F32)
            }

            /// Writes `config.json` and the weights, so that transformers loads the folder.
            ///
            /// # Errors
            ///
            /// If a file cannot be written, the model carries adapters, or a weight is not finite.
            pub fn save_pretrained(&self, folder: &Path, options: &SaveOptions) -> Result<()> {
                save_pretrained(self, self._model.config.to_json(), folder, options)
            }

            /// The configuration.
            pub fn config(&self) -> &EncoderTaskConfig {
                &self._model.config
            }

            /// The measures of the encoder.
            pub fn dims(&self) -> Dims {
                self._model._body.encoder().dims()
            }

            /// Whether several texts may share a row at no cost; see
            /// [`Backbone::attends_by_tile`](crate::Backbone::attends_by_tile).
            pub fn attends_by_tile(&self) -> bool {
                self._model._body.encoder().attends_by_tile()
            }
        }
    };
}

/// New heads for labels.
macro_rules! labelled {
    ($($name:ident: $task:ident),* $(,)?) => {$(
        impl $name {
            /// The encoder of a folder with a new head for these labels, drawn by `seed`. A head of this task in the folder is
            /// not loaded, with a warning: [`from_pretrained`](Self::from_pretrained) loads it, and
            /// [`EncoderTaskConfig::of_trained`] finds out whether there is one.
            ///
            /// # Errors
            ///
            /// If the folder has no encoder, or its weights do not fit.
            pub fn from_encoder(folder: &Path, labels: Vec<String>, seed: u64, device: &Device) -> Result<Self> {
                if EncoderTaskConfig::is_trained(folder, EncoderTask::$task)? {
                    tracing::warn!(
                        "{}: the trained head is replaced by a new one; from_pretrained loads it",
                        folder.display()
                    );
                }
                let body = BackboneConfig::from_pretrained(folder)?;
                let config = EncoderTaskConfig::new(body, EncoderTask::$task, labels)?;
                Tasked::start(&config, folder, seed, device, Weights::F32).map(|_model| Self { _model })
            }
        }
    )*};
}

labelled! {
    EncoderSequenceClassifier: SequenceClassification,
    EncoderTokenClassifier: TokenClassification,
    EncoderQuestionAnswering: QuestionAnswering,
}

task! {
    /// An encoder that scores texts, or pairs of them.
    EncoderSequenceClassifier, SequenceClassification, "SEQ_CLS"
}

task! {
    /// An encoder that scores every token.
    EncoderTokenClassifier, TokenClassification, "TOKEN_CLS"
}

task! {
    /// An encoder that scores every token as the start and as the end of an answer.
    EncoderQuestionAnswering, QuestionAnswering, "QUESTION_ANS"
}

task! {
    /// An encoder that predicts tokens from those before and behind them.
    EncoderMaskedLm, MaskedLm
}

impl EncoderSequenceClassifier {
    /// The same with what its scores mean, which transformers and pipelines read.
    #[must_use]
    pub fn with_problem_type(mut self, problem_type: ProblemType) -> Self {
        self._model.config.problem_type = Some(problem_type);
        self
    }

    /// The scores of texts.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[rows, seq]`
    /// - `places`: where the tokens of each text are, counted over all rows
    /// - result: `[texts, num_labels]`
    ///
    /// # Panics
    ///
    /// If a text has no tokens or reaches beyond them.
    pub fn scores(&self, tokens: &TokenBatch, places: &[Range<usize>]) -> Tensor<2> {
        let model = &self._model;
        let texts = model.texts(model.hidden(tokens), places);
        model.scores(texts).squeeze_dim(0)
    }
}

impl EncoderTokenClassifier {
    /// The scores of tokens: `[rows, seq, num_labels]`.
    pub fn scores(&self, tokens: &TokenBatch) -> Tensor<3> {
        self._model.scores(self._model.hidden(tokens))
    }
}

impl EncoderQuestionAnswering {
    /// The scores of tokens as the start and as the end of an answer: each `[rows, seq]`.
    pub fn scores(&self, tokens: &TokenBatch) -> [Tensor<2>; 2] {
        let scores = self._model.scores(self._model.hidden(tokens));
        [0, 1].map(|which| scores.clone().narrow(2, which, 1).squeeze_dim(2))
    }
}

impl EncoderMaskedLm {
    /// The encoder of a folder with its head of masked tokens, or with a new one, drawn by `seed`, if it has none.
    ///
    /// # Errors
    ///
    /// If the folder has no encoder, or its weights do not fit.
    pub fn from_encoder(folder: &Path, seed: u64, device: &Device) -> Result<Self> {
        if EncoderTaskConfig::is_trained(folder, EncoderTask::MaskedLm)? {
            return Self::from_pretrained(folder, device);
        }
        let body = BackboneConfig::from_pretrained(folder)?;
        let config = EncoderTaskConfig::new(body, EncoderTask::MaskedLm, Vec::new())?;
        Tasked::start(&config, folder, seed, device, Weights::F32).map(|_model| Self { _model })
    }

    /// The logits of some tokens.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[rows, seq]`
    /// - `places`: the tokens, counted over all rows
    /// - result: `[places, vocab]`
    ///
    /// # Panics
    ///
    /// If there are no places.
    pub fn logits(&self, tokens: &TokenBatch, places: &[usize]) -> Tensor<2> {
        let hidden = self.hidden_at(tokens, places);
        self._model.scores(hidden.unsqueeze()).squeeze_dim(0)
    }

    /// `Σ −log softmax(logits)[label]` over the tokens whose label is not [`IGNORE_INDEX`](crate::IGNORE_INDEX). The head is
    /// applied to these tokens only, and their logits are not stored.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[rows, seq]`; `labels`: a label for each token, row by row
    ///
    /// # Panics
    ///
    /// If there is not a label for every token, or a label is not in the vocabulary.
    pub fn loss(&self, tokens: &TokenBatch, labels: &[i64]) -> LossSum {
        let places: Vec<usize> = (labels.iter().enumerate())
            .filter(|(_, label)| **label != crate::IGNORE_INDEX)
            .map(|(place, _)| place)
            .collect();
        let targets: Vec<i64> = places.iter().map(|&place| labels[place]).collect();
        let [rows, seq] = tokens.input_ids.dims();
        assert_eq!(labels.len(), rows * seq, "a label for every token");
        let count = targets.len();
        let (Head::Masked(head), true) = (&self._model._head, count > 0) else {
            let sum = Tensor::zeros([1], &tokens.input_ids.device());
            return LossSum { sum, count };
        };
        let hidden = self.hidden_at(tokens, &places);
        let sum = head.loss(hidden, self._model._body.word_embeddings(), &targets);
        LossSum { sum, count }
    }

    /// The hidden states of some tokens, `[places, width]`.
    fn hidden_at(&self, tokens: &TokenBatch, places: &[usize]) -> Tensor<2> {
        let hidden = self._model.hidden(tokens);
        let [rows, seq, width] = hidden.dims();
        let places: Vec<i64> = places.iter().map(|&place| place as i64).collect();
        let places = Tensor::<1, Int>::from_data(places.as_slice(), &hidden.device());
        hidden.reshape([rows * seq, width]).select(0, places)
    }
}
