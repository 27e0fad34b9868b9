//! The layers of a model with a row for each token: embedding and output layer, and whether they are one.

use burn::tensor::DType;
use ft_core::{Part, Parts};

use crate::{Error, Result};

/// Embedding and output layer of a model.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    /// The path of the embedding of tokens, the first embedding of a model.
    pub(crate) embedding: Option<String>,
    /// The path of the output layer; empty if there is none.
    pub(crate) output: &'static str,
    /// Whether the output layer is the embedding.
    pub(crate) tied: bool,
    /// Whether the output layer has a row for every token. That of a classifier has one for every label.
    of_tokens: bool,
}

impl Vocabulary {
    pub(crate) fn of(model: &impl Parts) -> Self {
        let mut embedding = None;
        let output = model.output_layer();
        let mut tied = !output.is_empty();
        let (mut rows, mut outputs) = (None, None);
        model.for_each_part(&mut |path, part| match part {
            Part::Embedding(table) if embedding.is_none() => {
                embedding = Some(path.to_string());
                rows = Some(table.rows());
            }
            Part::Linear(linear) if path == output => {
                tied = false;
                outputs = Some(linear.out_features());
            }
            _ => {}
        });
        Self {
            embedding,
            output,
            tied,
            of_tokens: tied || outputs == rows,
        }
    }

    /// Whether the model has an output layer with a row for every token of its embedding.
    pub(crate) fn predicts_tokens(&self) -> bool {
        self.embedding.is_some() && self.of_tokens
    }

    /// Whether the layer is the embedding of tokens.
    pub(crate) fn is_embedding(&self, layer: &str) -> bool {
        self.embedding.as_deref() == Some(layer)
    }

    /// Whether the layer is the embedding, which is the output layer too.
    pub(crate) fn is_tied(&self, layer: &str) -> bool {
        self.tied && self.is_embedding(layer)
    }

    /// Whether the layer has a row for every token.
    pub(crate) fn counts_tokens(&self, layer: &str) -> bool {
        layer == self.output && self.of_tokens || self.is_embedding(layer)
    }
}

/// Checks that merging the active adapters does not change a tied output layer that they do not change.
///
/// # Errors
///
/// [`Error::TiedMerge`] if one changes what is looked up in a tied embedding, and not the output layer.
pub(crate) fn check_tied_merge(model: &impl Parts) -> Result<()> {
    let vocabulary = Vocabulary::of(model);
    let mut failure = None;
    model.for_each_part(&mut |path, part| {
        if !vocabulary.is_tied(path) {
            return;
        }
        for adapter in part.adapters().active() {
            let kind = adapter.kind();
            // Adapters that cannot be merged at all are not an error of this kind.
            let merges = matches!(part, Part::Embedding(table)
                if kind.merge_table(adapter, table.table().cast(DType::F32)).is_some());
            if merges && kind.weight(adapter).is_none() && kind.other_rows(adapter).is_none() {
                failure = Some(Error::TiedMerge {
                    layer: path.to_string(),
                    adapter: adapter.name.clone(),
                    output: vocabulary.output,
                });
            }
        }
    });
    failure.map_or(Ok(()), Err)
}
