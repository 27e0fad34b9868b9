//! Rows of an embedding that train, by their tokens: the rest of the table stays frozen.
//!
//! The trained tensor holds whole rows, not differences, and begins as a copy. An output layer that is the embedding changes
//! with it. No second table is formed: rows that are looked up are replaced, and so are columns of the logits.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, At, Merged, Stage};
use ft_core::{Layout, Part};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Tokens whose rows train: of the embedding of tokens, or of layers by their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIndices {
    /// Tokens of the embedding.
    Embedding(Vec<usize>),
    /// Tokens by the names of layers, which match as in `target_modules`.
    Layers(BTreeMap<String, Vec<usize>>),
}

impl TokenIndices {
    /// What is wrong with the numbers.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let lists: Vec<&Vec<usize>> = match self {
            Self::Embedding(tokens) => vec![tokens],
            Self::Layers(layers) => layers.values().collect(),
        };
        lists
            .into_iter()
            .flat_map(|tokens| mistake_of(tokens))
            .collect()
    }
}

/// A list of tokens that is empty, or names one twice.
pub(crate) fn mistake_of(tokens: &[usize]) -> Option<String> {
    let mut seen = BTreeSet::new();
    if tokens.is_empty() {
        return Some("a list of token indices is empty: give the tokens whose rows train".into());
    }
    let twice = tokens.iter().find(|token| !seen.insert(**token))?;
    Some(format!(
        "token {twice} is given twice: its row would be trained twice, give it once"
    ))
}

/// Rows of a table with other values.
#[derive(Clone, Debug)]
pub(crate) struct TokenRows {
    tokens: Vec<i64>,
    name: &'static str,
}

impl TokenRows {
    /// The kind and its tensor, `[tokens, width]`, called `name`, which begins as the layer's rows.
    ///
    /// # Errors
    ///
    /// If the layer has no such rows.
    pub(crate) fn on(
        path: &str,
        part: Part<'_>,
        tokens: &[usize],
        name: &'static str,
    ) -> Result<(Self, AdapterTensor)> {
        let (table, layout) = match part {
            Part::Embedding(table) => (&table.weight, Layout::OutIn),
            Part::Linear(linear) => (&linear.weight, linear.layout()),
            _ => return Err(Error::Settings(format!("{path} has no rows of tokens"))),
        };
        let dim = match layout {
            Layout::OutIn => 0,
            Layout::InOut => 1,
        };
        let rows = table.lazy_shape()[dim];
        if let Some(token) = tokens.iter().find(|token| **token >= rows) {
            return Err(Error::Settings(format!(
                "token {token} has no row in {path}, which has {rows}: resize the model's embedding first, or leave it out"
            )));
        }
        let kind = Self {
            tokens: tokens.iter().map(|token| *token as i64).collect(),
            name,
        };
        let table = table.val();
        let own = table
            .clone()
            .select(dim, kind.indices(&table))
            .cast(DType::F32);
        let own = match layout {
            Layout::OutIn => own,
            Layout::InOut => own.transpose(),
        };
        // A parameter is no result of the graph.
        let own = own.detach();
        Ok((kind, AdapterTensor::new(name, own)))
    }

    fn indices(&self, like: &Tensor<2>) -> Tensor<1, Int> {
        Tensor::from_data(self.tokens.as_slice(), &like.device())
    }

    /// `rows` with those of the tokens exchanged.
    fn exchanged(&self, rows: Tensor<2>, new: Tensor<2>) -> Tensor<2> {
        let indices = self.indices(&rows);
        let place = |value: Tensor<2>, of: Tensor<2>| {
            of.select_assign(0, indices.clone(), value, IndexingUpdateOp::Add)
        };
        let gone = place(
            -Tensor::ones([self.tokens.len(), 1], &rows.device()),
            Tensor::ones([rows.dims()[0], 1], &rows.device()),
        );
        let new = place(new, rows.zeros_like());
        rows * gone + new
    }
}

impl AdapterKind for TokenRows {
    fn rows(&self, adapter: &Adapter, ids: &Tensor<2, Int>, rows: Tensor<3>) -> Tensor<3> {
        let shape @ [batch, seq, width] = rows.dims();
        let new = adapter.val2(self.name);
        let ids = ids.clone().reshape([batch * seq, 1]);
        let tokens = self.indices(&new).reshape([1, self.tokens.len()]);
        let size = [batch * seq, self.tokens.len()];
        // One where a position has the token.
        let has = ids.expand(size).equal(tokens.expand(size)).float();
        let kept = -has.clone().sum_dim(1) + 1.0;
        let rows = rows.reshape([batch * seq, width]) * kept + has.matmul(new);
        rows.reshape(shape)
    }

    fn other_rows(&self, adapter: &Adapter) -> Option<(Tensor<1, Int>, Tensor<2>)> {
        let new = adapter.val2(self.name);
        Some((self.indices(&new), new))
    }

    fn merge_table(&self, adapter: &Adapter, table: Tensor<2>) -> Option<Tensor<2>> {
        Some(self.exchanged(table, adapter.val2(self.name)))
    }

    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let new = x.clone().matmul(at.adapter.val2(self.name).transpose());
        let indices = self.indices(&new);
        let old = y.clone().select(1, indices.clone());
        y.select_assign(1, indices, new - old, IndexingUpdateOp::Add)
    }

    fn stage(&self) -> Stage {
        Stage::Replacement
    }

    fn merge(&self, at: &At<'_>, merged: Merged) -> Option<Merged> {
        Some(Merged {
            weight: self.exchanged(merged.weight, at.adapter.val2(self.name)),
            ..merged
        })
    }
}
