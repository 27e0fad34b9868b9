//! Encoders under their names in models with a head.

use std::path::Path;

use burn::module::Module;

use crate::files::safetensors_folder::Weights;
use crate::files::weight_source::open_weights;
use crate::layers::embedding::Embedding;
use crate::layers::linear::Linear;
use crate::models::{Bert, Deberta, DistilBert, ModernBert, MpNet};
use crate::{Backbone, Parts, Result};

/// A body under its name in a model with a head.
#[allow(clippy::large_enum_variant)] // A model has one of them.
#[derive(Module, Parts, Debug)]
pub(super) enum Body {
    Bert(InBert),
    Roberta(InRoberta),
    Deberta(InDeberta),
    DistilBert(InDistilBert),
    MpNet(InMpNet),
    ModernBert(InModernBert),
}

#[derive(Module, Parts, Debug)]
pub(super) struct InBert {
    pub(super) bert: PooledBert,
}

#[derive(Module, Parts, Debug)]
pub(super) struct PooledBert {
    pub(super) _encoder: Bert,
    /// Only the head for texts reads it.
    pub(super) pooler: Option<Pooler>,
}

#[derive(Module, Parts, Debug)]
pub(super) struct Pooler {
    pub(super) dense: Linear,
}

#[derive(Module, Parts, Debug)]
pub(super) struct InRoberta {
    pub(super) roberta: Bert,
}

#[derive(Module, Parts, Debug)]
pub(super) struct InDeberta {
    pub(super) deberta: Deberta,
    /// Only the head for texts reads it.
    pub(super) pooler: Option<Pooler>,
}

#[derive(Module, Parts, Debug)]
pub(super) struct InDistilBert {
    pub(super) distilbert: DistilBert,
}

#[derive(Module, Parts, Debug)]
pub(super) struct InMpNet {
    pub(super) mpnet: MpNet,
}

#[derive(Module, Parts, Debug)]
pub(super) struct InModernBert {
    pub(super) model: ModernBert,
}

impl Body {
    /// The encoder itself.
    pub(super) fn encoder(&self) -> &dyn Backbone {
        match self {
            Self::Bert(body) => &body.bert._encoder,
            Self::Roberta(body) => &body.roberta,
            Self::Deberta(body) => &body.deberta,
            Self::DistilBert(body) => &body.distilbert,
            Self::MpNet(body) => &body.mpnet,
            Self::ModernBert(body) => &body.model,
        }
    }

    /// The pooler, for families that have one.
    pub(super) fn pooler_mut(&mut self) -> Option<&mut Option<Pooler>> {
        match self {
            Self::Bert(body) => Some(&mut body.bert.pooler),
            Self::Deberta(body) => Some(&mut body.pooler),
            _ => None,
        }
    }

    /// The embeddings of its words.
    pub(super) fn word_embeddings(&self) -> &Embedding {
        match self {
            Self::Bert(body) => body.bert._encoder.word_embeddings(),
            Self::Roberta(body) => body.roberta.word_embeddings(),
            Self::Deberta(body) => body.deberta.word_embeddings(),
            Self::DistilBert(body) => body.distilbert.word_embeddings(),
            Self::MpNet(body) => body.mpnet.word_embeddings(),
            Self::ModernBert(body) => body.model.word_embeddings(),
        }
    }
}

/// The pooler of a checkpoint if it has one.
pub(super) fn loaded_pooler(pooler: Pooler, folder: &Path, weights: Weights) -> Result<Pooler> {
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
