//! A body with a head.

use std::ops::Range;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Value;

use super::body::*;
use super::head::*;
use crate::files::pretrained::{Keys, load_from};
use crate::files::safetensors_folder::Weights;
use crate::files::sizes::{check_folder, check_sizes};
use crate::files::weight_source::open_weights;
use crate::layers::linear::{Layout, Linear};
use crate::models::config::{BertKind, EncoderTask, EncoderTaskConfig};
use crate::models::masked_head::MaskedHead;
use crate::models::{BackboneConfig, Bert, Deberta, DistilBert, ModernBert, MpNet};
use crate::{Error, Parts, Result, TokenBatch};

/// An encoder with a head.
#[derive(Module, Parts, Debug)]
#[parts(output = "")]
pub(super) struct Tasked {
    pub(super) _body: Body,
    pub(super) _head: Head,
    #[module(skip)]
    pub(super) config: EncoderTaskConfig,
    /// Whether texts are the mean of their tokens, not their first token.
    mean: bool,
}

impl Tasked {
    pub(super) fn from_config(config: &EncoderTaskConfig, device: &Device) -> Result<Self> {
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

    pub(super) fn load(
        config: &EncoderTaskConfig,
        folder: &Path,
        device: &Device,
        weights: Weights,
    ) -> Result<Self> {
        let files = open_weights(folder)?;
        check_sizes(config.body.dims(), &[], &*files)?;
        let model = Self::from_config(config, device)?;
        load_from(model, &*files, weights, &KEYS)
    }

    /// The body of a folder, with a new head.
    pub(super) fn start(
        config: &EncoderTaskConfig,
        folder: &Path,
        seed: u64,
        device: &Device,
        weights: Weights,
    ) -> Result<Self> {
        check_folder(config.body.dims(), &[], folder)?;
        let mut model = Self::from_config(config, device)?;
        // The weights before the heads: they fit the configuration then.
        match &mut model._body {
            Body::Bert(InBert { bert }) => {
                bert._encoder = Bert::from_pretrained_with(folder, device, weights)?;
            }
            Body::Roberta(InRoberta { roberta }) => {
                *roberta = Bert::from_pretrained_with(folder, device, weights)?;
            }
            Body::Deberta(InDeberta { deberta, .. }) => {
                *deberta = Deberta::from_pretrained_with(folder, device, weights)?;
            }
            Body::DistilBert(InDistilBert { distilbert }) => {
                *distilbert = DistilBert::from_pretrained_with(folder, device, weights)?;
            }
            Body::MpNet(InMpNet { mpnet }) => {
                *mpnet = MpNet::from_pretrained_with(folder, device, weights)?;
            }
            Body::ModernBert(InModernBert { model }) => {
                *model = ModernBert::from_pretrained_with(folder, device, weights)?;
            }
        }
        device.seed(seed);
        // Heads are drawn when they are first read.
        model._head.for_each_linear(&mut |_, layer| {
            layer.matrix();
        });
        if let Some(pooler) = model._body.pooler_mut()
            && let Some(new) = pooler.take()
        {
            *pooler = Some(loaded_pooler(new, folder, weights)?);
        }
        Ok(model)
    }

    pub(super) fn hidden(&self, tokens: &TokenBatch) -> Tensor<3> {
        let body = self._body.encoder();
        body.forward(body.embed(tokens.input_ids.clone()), tokens.pass())
    }

    /// `[1, texts, width]` or `[rows, seq, width]` to scores.
    pub(super) fn scores(&self, x: Tensor<3>) -> Tensor<3> {
        self._head.scores(x, self._body.word_embeddings())
    }

    /// The vectors of texts, `[1, texts, width]`.
    pub(super) fn texts(&self, hidden: Tensor<3>, places: &[Range<usize>]) -> Tensor<3> {
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
