//! Encoders with the head of a task: scores of texts, of tokens, of where an answer starts and ends, of what a mask hides.
//!
//! Paths are those of transformers' `BertForSequenceClassification` and its relatives, so folders go both ways. The dropouts of
//! heads are not applied.

use std::ops::Range;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use serde_json::Value;

use crate::files::pretrained::{Keys, SaveOptions, load_from, save_pretrained};
use crate::files::safetensors_folder::Weights;
use crate::files::weight_source::open_weights;
use crate::layers::embedding::Embedding;
use crate::layers::linear::{Layout, Linear, ones};
use crate::models::config::{BertKind, EncoderTask, EncoderTaskConfig, ProblemType};
use crate::models::masked_head::MaskedHead;
use crate::models::{BackboneConfig, Bert, Deberta, DistilBert, ModernBert, MpNet};
use crate::{Backbone, Dims, Error, LossSum, Parts, Result, TokenBatch};

/// A body under its name in a model with a head.
#[allow(clippy::large_enum_variant)] // A model has one of them.
#[derive(Module, Parts, Debug)]
enum Body {
    Bert(InBert),
    Roberta(InRoberta),
    Deberta(InDeberta),
    DistilBert(InDistilBert),
    MpNet(InMpNet),
    ModernBert(InModernBert),
}

#[derive(Module, Parts, Debug)]
struct InBert {
    bert: PooledBert,
}

#[derive(Module, Parts, Debug)]
struct PooledBert {
    _encoder: Bert,
    /// Only the head for texts reads it.
    pooler: Option<Pooler>,
}

#[derive(Module, Parts, Debug)]
struct Pooler {
    dense: Linear,
}

#[derive(Module, Parts, Debug)]
struct InRoberta {
    roberta: Bert,
}

#[derive(Module, Parts, Debug)]
struct InDeberta {
    deberta: Deberta,
    /// Only the head for texts reads it.
    pooler: Option<Pooler>,
}

#[derive(Module, Parts, Debug)]
struct InDistilBert {
    distilbert: DistilBert,
}

#[derive(Module, Parts, Debug)]
struct InMpNet {
    mpnet: MpNet,
}

#[derive(Module, Parts, Debug)]
struct InModernBert {
    model: ModernBert,
}

/// A head.
#[derive(Module, Parts, Debug)]
enum Head {
    /// One layer.
    Classifier(Classifier),
    /// One layer, of question answering.
    Spans(Spans),
    /// `out(tanh(dense(x)))`: RoBERTa, MPNet.
    Dense(DenseClassifier),
    /// `out(relu(dense(x)))`: DistilBERT.
    Distil(DistilClassifier),
    /// `out(norm(act(dense(x))))`: ModernBERT.
    Modern(ModernClassifier),
    /// Scores of all tokens of the vocabulary.
    Masked(MaskedHead),
}

#[derive(Module, Parts, Debug)]
struct Classifier {
    classifier: Linear,
}

#[derive(Module, Parts, Debug)]
struct Spans {
    qa_outputs: Linear,
}

#[derive(Module, Parts, Debug)]
struct DenseClassifier {
    classifier: DenseOut,
}

#[derive(Module, Parts, Debug)]
struct DenseOut {
    dense: Linear,
    out_proj: Linear,
}

#[derive(Module, Parts, Debug)]
struct DistilClassifier {
    pre_classifier: Linear,
    classifier: Linear,
}

#[derive(Module, Parts, Debug)]
struct ModernClassifier {
    head: ModernHead,
    classifier: Linear,
}

#[derive(Module, Parts, Debug)]
pub(super) struct ModernHead {
    dense: Linear,
    norm: ModernNorm,
}

#[derive(Module, Parts, Debug)]
struct ModernNorm {
    weight: Param<Tensor<1>>,
    epsilon: f64,
}

impl ModernHead {
    pub(super) fn new(dense: Linear, epsilon: f64, device: &Device) -> Self {
        let weight = ones([dense.out_features()], device);
        Self {
            dense,
            norm: ModernNorm { weight, epsilon },
        }
    }

    /// `norm(gelu(dense(x)))`.
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = ft_kernels::Activation::Gelu.forward(self.dense.forward(x));
        let weight = self.norm.weight.val();
        let bias = Tensor::zeros(weight.dims(), &weight.device());
        ft_kernels::layer_norm(inner, weight, bias, self.norm.epsilon)
    }
}

/// An encoder with a head.
#[derive(Module, Parts, Debug)]
#[parts(output = "")]
struct Tasked {
    _body: Body,
    _head: Head,
    #[module(skip)]
    config: EncoderTaskConfig,
    /// Whether texts are the mean of their tokens, not their first token.
    mean: bool,
}

impl Tasked {
    fn from_config(config: &EncoderTaskConfig, device: &Device) -> Result<Self> {
        let width = config.body.dims().hidden_size;
        let labels = config.num_labels();
        let std = 0.02;
        let linear = |from, to, bias| Linear::new(from, to, bias, Layout::OutIn, std, device);
        let texts = config.task == EncoderTask::SequenceClassification;
        let plain = || match config.task {
            EncoderTask::QuestionAnswering => Head::Spans(Spans {
                qa_outputs: linear(width, labels, true),
            }),
            _ => Head::Classifier(Classifier {
                classifier: linear(width, labels, true),
            }),
        };
        let dense = || {
            Head::Dense(DenseClassifier {
                classifier: DenseOut {
                    dense: linear(width, width, true),
                    out_proj: linear(width, labels, true),
                },
            })
        };
        let mut mean = false;
        let (body, head) = match &config.body {
            BackboneConfig::Bert(own) => {
                let encoder = Bert::from_config(own, device);
                match own.model_type {
                    BertKind::Bert => {
                        let pooler = texts.then(|| Pooler {
                            dense: linear(width, width, true),
                        });
                        let bert = PooledBert {
                            _encoder: encoder,
                            pooler,
                        };
                        (Body::Bert(InBert { bert }), plain())
                    }
                    BertKind::Roberta | BertKind::XlmRoberta => (
                        Body::Roberta(InRoberta { roberta: encoder }),
                        if texts { dense() } else { plain() },
                    ),
                }
            }
            BackboneConfig::Deberta(own) => {
                let activation = config.extra("pooler_hidden_act");
                if let Some(other) = activation.filter(|name| name != "gelu") {
                    return Err(Error::Settings(format!(
                        "pooler_hidden_act {other} is not supported, only gelu"
                    )));
                }
                let pooler = texts.then(|| Pooler {
                    dense: linear(width, width, true),
                });
                let deberta = Deberta::from_config(own, device);
                (Body::Deberta(InDeberta { deberta, pooler }), plain())
            }
            BackboneConfig::DistilBert(own) => {
                let head = match texts {
                    false => plain(),
                    true => Head::Distil(DistilClassifier {
                        pre_classifier: linear(width, width, true),
                        classifier: linear(width, labels, true),
                    }),
                };
                let distilbert = DistilBert::from_config(own, device);
                (Body::DistilBert(InDistilBert { distilbert }), head)
            }
            BackboneConfig::MpNet(own) => {
                let mpnet = MpNet::from_config(own, device);
                (
                    Body::MpNet(InMpNet { mpnet }),
                    if texts { dense() } else { plain() },
                )
            }
            BackboneConfig::ModernBert(own) => {
                mean = match config
                    .extra("classifier_pooling")
                    .as_ref()
                    .and_then(Value::as_str)
                {
                    None | Some("cls") => false,
                    Some("mean") => true,
                    Some(other) => {
                        return Err(Error::Settings(format!(
                            "classifier_pooling {other:?} is not supported: cls and mean are"
                        )));
                    }
                };
                let activation = config.extra("classifier_activation");
                if let Some(other) = activation.filter(|name| name != "gelu") {
                    return Err(Error::Settings(format!(
                        "classifier_activation {other} is not supported, only gelu"
                    )));
                }
                let bias = config.extra("classifier_bias") == Some(Value::Bool(true));
                let head = ModernClassifier {
                    head: ModernHead::new(linear(width, width, bias), own.norm_eps, device),
                    classifier: linear(width, labels, true),
                };
                let model = ModernBert::from_config(own, device);
                (Body::ModernBert(InModernBert { model }), Head::Modern(head))
            }
            BackboneConfig::Decoder(_) => {
                return Err(Error::Settings("a decoder is no encoder".into()));
            }
        };
        let head = match config.task {
            EncoderTask::MaskedLm => Head::Masked(MaskedHead::new(config, device)?),
            _ => head,
        };
        Ok(Self {
            _body: body,
            _head: head,
            config: config.clone(),
            mean,
        })
    }

    fn load(
        config: &EncoderTaskConfig,
        folder: &Path,
        device: &Device,
        weights: Weights,
    ) -> Result<Self> {
        let model = Self::from_config(config, device)?;
        let files = open_weights(folder)?;
        load_from(model, &*files, weights, &KEYS)
    }

    /// The body of a folder, with a new head.
    fn start(
        config: &EncoderTaskConfig,
        folder: &Path,
        seed: u64,
        device: &Device,
        weights: Weights,
    ) -> Result<Self> {
        let mut model = Self::from_config(config, device)?;
        device.seed(seed);
        // Heads are drawn when they are first read.
        model._head.for_each_linear(&mut |_, layer| {
            layer.matrix();
        });
        model._body = match model._body {
            Body::Bert(InBert { bert }) => Body::Bert(InBert {
                bert: PooledBert {
                    _encoder: Bert::from_pretrained_with(folder, device, weights)?,
                    pooler: bert
                        .pooler
                        .map(|pooler| loaded_pooler(pooler, folder, weights))
                        .transpose()?,
                },
            }),
            Body::Roberta(_) => Body::Roberta(InRoberta {
                roberta: Bert::from_pretrained_with(folder, device, weights)?,
            }),
            Body::Deberta(InDeberta { pooler, .. }) => Body::Deberta(InDeberta {
                deberta: Deberta::from_pretrained_with(folder, device, weights)?,
                pooler: pooler
                    .map(|pooler| loaded_pooler(pooler, folder, weights))
                    .transpose()?,
            }),
            Body::DistilBert(_) => Body::DistilBert(InDistilBert {
                distilbert: DistilBert::from_pretrained_with(folder, device, weights)?,
            }),
            Body::MpNet(_) => Body::MpNet(InMpNet {
                mpnet: MpNet::from_pretrained_with(folder, device, weights)?,
            }),
            Body::ModernBert(_) => Body::ModernBert(InModernBert {
                model: ModernBert::from_pretrained_with(folder, device, weights)?,
            }),
        };
        Ok(model)
    }

    fn body(&self) -> &dyn Backbone {
        match &self._body {
            Body::Bert(body) => &body.bert._encoder,
            Body::Roberta(body) => &body.roberta,
            Body::Deberta(body) => &body.deberta,
            Body::DistilBert(body) => &body.distilbert,
            Body::MpNet(body) => &body.mpnet,
            Body::ModernBert(body) => &body.model,
        }
    }

    fn word_embeddings(&self) -> &Embedding {
        match &self._body {
            Body::Bert(body) => body.bert._encoder.word_embeddings(),
            Body::Roberta(body) => body.roberta.word_embeddings(),
            Body::Deberta(body) => body.deberta.word_embeddings(),
            Body::DistilBert(body) => body.distilbert.word_embeddings(),
            Body::MpNet(body) => body.mpnet.word_embeddings(),
            Body::ModernBert(body) => body.model.word_embeddings(),
        }
    }

    fn hidden(&self, tokens: &TokenBatch) -> Tensor<3> {
        let body = self.body();
        body.forward(body.embed(tokens.input_ids.clone()), tokens.pass())
    }

    /// `[1, texts, width]` or `[rows, seq, width]` to scores.
    fn scores(&self, x: Tensor<3>) -> Tensor<3> {
        match &self._head {
            Head::Classifier(head) => head.classifier.forward(x),
            Head::Spans(head) => head.qa_outputs.forward(x),
            Head::Dense(DenseClassifier { classifier }) => classifier
                .out_proj
                .forward(classifier.dense.forward(x).tanh()),
            Head::Distil(head) => {
                let inner = activation::relu(head.pre_classifier.forward(x));
                head.classifier.forward(inner)
            }
            Head::Modern(head) => head.classifier.forward(head.head.forward(x)),
            Head::Masked(head) => head.logits(x, self.word_embeddings()),
        }
    }

    /// The vectors of texts, `[1, texts, width]`.
    fn texts(&self, hidden: Tensor<3>, places: &[Range<usize>]) -> Tensor<3> {
        let [rows, seq, width] = hidden.dims();
        let device = hidden.device();
        let hidden: Tensor<2> = hidden.reshape([rows * seq, width]);
        for place in places {
            assert!(
                place.start < place.end && place.end <= rows * seq,
                "{place:?} are no places of a text among {} tokens",
                rows * seq
            );
        }
        let texts: Tensor<2> = match self.mean {
            false => {
                let firsts: Vec<i64> = places.iter().map(|place| place.start as i64).collect();
                let firsts = TensorData::new(firsts, [places.len()]);
                hidden.select(0, Tensor::<1, Int>::from_data(firsts, &device))
            }
            true => {
                let mut weights = vec![0.0f32; places.len() * rows * seq];
                for (place, weights) in places.iter().zip(weights.chunks_exact_mut(rows * seq)) {
                    weights[place.clone()].fill(1.0 / place.len() as f32);
                }
                let weights = TensorData::new(weights, [places.len(), rows * seq]);
                Tensor::<2>::from_data(weights, &device).matmul(hidden)
            }
        };
        let texts = texts.unsqueeze_dim(0);
        match &self._body {
            Body::Bert(InBert { bert }) => match &bert.pooler {
                Some(pooler) => pooler.dense.forward(texts).tanh(),
                None => texts,
            },
            Body::Deberta(InDeberta {
                pooler: Some(pooler),
                ..
            }) => ft_kernels::Activation::Gelu.forward(pooler.dense.forward(texts)),
            _ => texts,
        }
    }
}

/// Keys that are no parameters, heads of pretraining, and the names of TensorFlow.
const KEYS: Keys<'static> = Keys {
    body_prefixes: &[],
    bare: false,
    ignored: |name| {
        name.ends_with("embeddings.position_ids")
            || name.starts_with("cls.")
            || name.starts_with("lm_head.")
            || name.contains(".pooler.")
            // The embedding under another name.
            || matches!(name, "vocab_projector.weight" | "decoder.weight")
    },
    old_names: &[
        ("LayerNorm.weight", "LayerNorm.gamma"),
        ("LayerNorm.bias", "LayerNorm.beta"),
    ],
};

/// The pooler of a checkpoint if it has one.
fn loaded_pooler(pooler: Pooler, folder: &Path, weights: Weights) -> Result<Pooler> {
    let files = open_weights(folder)?;
    let prefix = ["bert.pooler.", "pooler."];
    let Some(prefix) = prefix
        .into_iter()
        .find(|prefix| files.contains(&format!("{prefix}dense.weight")))
    else {
        // A new one, drawn when it is first read.
        pooler.dense.matrix();
        return Ok(pooler);
    };
    let key = |path: &str| format!("{prefix}{path}");
    crate::safetensors_folder::load_module(pooler, &*files, weights, key, |_| true)
}

/// A model of one task.
macro_rules! task {
    ($(#[$doc:meta])* $name:ident, $task:ident) => {
        $(#[$doc])*
        #[derive(Module, Parts, Debug)]
        #[parts(output = "")]
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
                self._model.body().dims()
            }

            /// Whether several texts may share a row at no cost; see [`Backbone::attends_by_tile`].
            pub fn attends_by_tile(&self) -> bool {
                self._model.body().attends_by_tile()
            }
        }
    };
}

/// New heads for labels.
macro_rules! labelled {
    ($($name:ident: $task:ident),* $(,)?) => {$(
        impl $name {
            /// The encoder of a folder with a new head for these labels, drawn by `seed`.
            ///
            /// # Errors
            ///
            /// If the folder has no encoder, or its weights do not fit.
            pub fn from_encoder(folder: &Path, labels: Vec<String>, seed: u64, device: &Device) -> Result<Self> {
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
    EncoderSequenceClassifier, SequenceClassification
}

task! {
    /// An encoder that scores every token.
    EncoderTokenClassifier, TokenClassification
}

task! {
    /// An encoder that scores every token as the start and as the end of an answer.
    EncoderQuestionAnswering, QuestionAnswering
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
    /// The encoder of a folder with a new head, drawn by `seed`. [`from_pretrained`](Self::from_pretrained) loads the head of a
    /// folder that has one.
    ///
    /// # Errors
    ///
    /// If the folder has no encoder, or its weights do not fit.
    pub fn from_encoder(folder: &Path, seed: u64, device: &Device) -> Result<Self> {
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
        let sum = head.loss(hidden, self._model.word_embeddings(), &targets);
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
