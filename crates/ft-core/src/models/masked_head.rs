//! Heads of masked language models: hidden states to scores of all tokens of the vocabulary.
//!
//! `logits = norm(act(dense(x))) · Wᵀ + b`, where `W` is the embedding of tokens (Devlin et al., 2018, arXiv:1810.04805). The
//! families differ in names and in the activation only.

#![allow(non_snake_case)] // Fields spell the checkpoint's names: `LayerNorm`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, activation};
use ft_kernels::{Activation, LossOptions, Weight, cross_entropy_sum};
use serde_json::Value;

use super::encoder_task::head::ModernHead;
use crate::layers::embedding::Embedding;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::{Layout, Linear, zeros};
use crate::models::BackboneConfig;
use crate::models::config::{BertKind, EncoderTaskConfig};
use crate::{Error, Head, Parts, Result};

/// The head under its names in a checkpoint.
#[allow(clippy::large_enum_variant)] // A model has one of them.
#[derive(Module, Parts, Debug)]
pub(super) enum MaskedHead {
    Bert(BertHead),
    /// RoBERTa, XLM-RoBERTa, MPNet.
    Roberta(RobertaHead),
    DistilBert(DistilHead),
    ModernBert(ModernMasked),
}

#[derive(Module, Parts, Debug)]
pub(super) struct BertHead {
    cls: Cls,
}

#[derive(Module, Parts, Debug)]
struct Cls {
    predictions: Predictions,
}

#[derive(Module, Parts, Debug)]
struct Predictions {
    transform: Transform,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Parts, Debug)]
struct Transform {
    dense: Linear,
    LayerNorm: LayerNorm,
    #[module(skip)]
    act: Activation,
}

#[derive(Module, Parts, Debug)]
pub(super) struct RobertaHead {
    lm_head: LmHead,
}

#[derive(Module, Parts, Debug)]
struct LmHead {
    dense: Linear,
    layer_norm: LayerNorm,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Parts, Debug)]
pub(super) struct DistilHead {
    vocab_transform: Linear,
    vocab_layer_norm: LayerNorm,
    vocab_projector: Bias,
    #[module(skip)]
    act: Activation,
}

#[derive(Module, Parts, Debug)]
pub(super) struct ModernMasked {
    head: ModernHead,
    decoder: Bias,
}

/// What a projection whose weight is the embedding has of its own.
#[derive(Module, Parts, Debug)]
struct Bias {
    bias: Param<Tensor<1>>,
}

impl MaskedHead {
    /// # Errors
    ///
    /// If the output layer is to have a weight of its own, or another setting is not supported.
    pub(super) fn new(config: &EncoderTaskConfig, device: &Device) -> Result<Self> {
        let off = |name: &str| config.extra(name) == Some(Value::Bool(false));
        if off("tie_word_embeddings") {
            return Err(Error::Settings(
                "tie_word_embeddings is false: only output layers that are the embedding are supported".into(),
            ));
        }
        let dims = config.body.dims();
        let width = dims.hidden_size;
        let linear = |bias| Linear::new(width, width, bias, Layout::OutIn, 0.02, device);
        let norm = |epsilon| LayerNorm::new(width, epsilon, device);
        let bias = || zeros([dims.vocab_size], device);
        let roberta = |epsilon| {
            Self::Roberta(RobertaHead {
                lm_head: LmHead {
                    dense: linear(true),
                    layer_norm: norm(epsilon),
                    bias: bias(),
                },
            })
        };
        Ok(match &config.body {
            BackboneConfig::Bert(own) => match own.model_type {
                BertKind::Bert => Self::Bert(BertHead {
                    cls: Cls {
                        predictions: Predictions {
                            transform: Transform {
                                dense: linear(true),
                                LayerNorm: norm(own.layer_norm_eps),
                                act: own.hidden_act,
                            },
                            bias: bias(),
                        },
                    },
                }),
                BertKind::Roberta | BertKind::XlmRoberta => roberta(own.layer_norm_eps),
            },
            BackboneConfig::MpNet(own) => roberta(own.layer_norm_eps),
            BackboneConfig::DistilBert(own) => Self::DistilBert(DistilHead {
                vocab_transform: linear(true),
                vocab_layer_norm: norm(1e-12),
                vocab_projector: Bias { bias: bias() },
                act: own.activation,
            }),
            BackboneConfig::ModernBert(own) => {
                if off("decoder_bias") {
                    return Err(Error::Settings(
                        "decoder_bias is false: only heads with a bias are supported".into(),
                    ));
                }
                let dense = linear(config.extra("classifier_bias") == Some(Value::Bool(true)));
                Self::ModernBert(ModernMasked {
                    head: ModernHead::new(dense, own.norm_eps, device),
                    decoder: Bias { bias: bias() },
                })
            }
            BackboneConfig::Deberta(_) => {
                return Err(Error::Settings(
                    "the masked language model of DeBERTa is not supported: other encoders have heads for masks".into(),
                ));
            }
            BackboneConfig::Decoder(_) => {
                return Err(Error::Settings("a decoder is no encoder".into()));
            }
        })
    }

    /// What the embedding multiplies, of the shape of `x`.
    fn transform(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Bert(head) => {
                let own = &head.cls.predictions.transform;
                own.LayerNorm.forward(own.act.forward(own.dense.forward(x)))
            }
            Self::Roberta(RobertaHead { lm_head: own }) => own
                .layer_norm
                .forward(Activation::Gelu.forward(own.dense.forward(x))),
            Self::DistilBert(own) => own
                .vocab_layer_norm
                .forward(own.act.forward(own.vocab_transform.forward(x))),
            Self::ModernBert(own) => own.head.forward(x),
        }
    }

    fn bias(&self) -> Tensor<1> {
        match self {
            Self::Bert(head) => head.cls.predictions.bias.val(),
            Self::Roberta(head) => head.lm_head.bias.val(),
            Self::DistilBert(head) => head.vocab_projector.bias.val(),
            Self::ModernBert(head) => head.decoder.bias.val(),
        }
    }

    /// `[rows, seq, width]` to `[rows, seq, vocab]`.
    pub(super) fn logits(&self, x: Tensor<3>, embedding: &Embedding) -> Tensor<3> {
        Head::tied(embedding).forward(self.transform(x)) + self.bias().unsqueeze()
    }

    /// `Σ −log softmax(logits)[target]` over rows, `[rows, width]`.
    pub(super) fn loss(
        &self,
        hidden: Tensor<2>,
        embedding: &Embedding,
        targets: &[i64],
    ) -> Tensor<1> {
        let device = hidden.device();
        let x = hidden.unsqueeze::<3>();
        match Head::tied(embedding).matrix() {
            // The bias is a column of the weight, so that the logits are never stored.
            Some(Weight::Dense(weight)) if weight.dtype() == x.dtype() => {
                let x = self.transform(x).squeeze_dim::<2>(0);
                let one = Tensor::ones([targets.len(), 1], &device);
                let weight = Tensor::cat(vec![weight, self.bias().unsqueeze_dim(1)], 1);
                let x = Tensor::cat(vec![x, one], 1);
                cross_entropy_sum(x, weight, targets, LossOptions::default())
            }
            _ => {
                let logits = self.logits(x, embedding).squeeze_dim::<2>(0);
                let targets = Tensor::<1, Int>::from_data(targets, &device).unsqueeze_dim(1);
                -activation::log_softmax(logits, 1).gather(1, targets).sum()
            }
        }
    }
}
