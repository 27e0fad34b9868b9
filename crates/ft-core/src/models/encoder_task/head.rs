//! The heads of tasks.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, activation};

use crate::Parts;
use crate::layers::embedding::Embedding;
use crate::layers::linear::{Linear, ones};
use crate::models::masked_head::MaskedHead;

/// A head.
#[derive(Module, Parts, Debug)]
pub(super) enum Head {
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
pub(super) struct Classifier {
    pub(super) classifier: Linear,
}

#[derive(Module, Parts, Debug)]
pub(super) struct Spans {
    pub(super) qa_outputs: Linear,
}

#[derive(Module, Parts, Debug)]
pub(super) struct DenseClassifier {
    pub(super) classifier: DenseOut,
}

#[derive(Module, Parts, Debug)]
pub(super) struct DenseOut {
    pub(super) dense: Linear,
    pub(super) out_proj: Linear,
}

#[derive(Module, Parts, Debug)]
pub(super) struct DistilClassifier {
    pub(super) pre_classifier: Linear,
    pub(super) classifier: Linear,
}

#[derive(Module, Parts, Debug)]
pub(super) struct ModernClassifier {
    pub(super) head: ModernHead,
    pub(super) classifier: Linear,
}

#[derive(Module, Parts, Debug)]
pub(in crate::models) struct ModernHead {
    pub(super) dense: Linear,
    pub(super) norm: ModernNorm,
}

#[derive(Module, Parts, Debug)]
pub(super) struct ModernNorm {
    pub(super) weight: Param<Tensor<1>>,
    pub(super) epsilon: f64,
}

impl ModernHead {
    pub(in crate::models) fn new(dense: Linear, epsilon: f64, device: &Device) -> Self {
        let weight = ones([dense.out_features()], device);
        Self {
            dense,
            norm: ModernNorm { weight, epsilon },
        }
    }

    /// `norm(gelu(dense(x)))`.
    pub(in crate::models) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = ft_kernels::Activation::Gelu.forward(self.dense.forward(x));
        let weight = self.norm.weight.val();
        let bias = Tensor::zeros(weight.dims(), &weight.device());
        ft_kernels::layer_norm(inner, weight, bias, self.norm.epsilon)
    }
}

impl Head {
    /// `[1, texts, width]` or `[rows, seq, width]` to scores; `words` are the embeddings of the body.
    pub(super) fn scores(&self, x: Tensor<3>, words: &Embedding) -> Tensor<3> {
        match self {
            Self::Classifier(head) => head.classifier.forward(x),
            Self::Spans(head) => head.qa_outputs.forward(x),
            Self::Dense(DenseClassifier { classifier }) => classifier
                .out_proj
                .forward(classifier.dense.forward(x).tanh()),
            Self::Distil(head) => {
                let inner = activation::relu(head.pre_classifier.forward(x));
                head.classifier.forward(inner)
            }
            Self::Modern(head) => head.classifier.forward(head.head.forward(x)),
            Self::Masked(head) => head.logits(x, words),
        }
    }
}
