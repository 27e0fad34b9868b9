//! The output projection of a language model and what the model does to its logits.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};
use ft_kernels::{LogitOptions, Weight};

use crate::layers::adapter::Adapter;
use crate::layers::embedding::Embedding;
use crate::layers::linear::Linear;

/// The output projection of a model, and the factor and cap of its logits.
///
/// Losses and samplers take the head as a whole, so that none of them can forget the cap.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// What multiplies the hidden states.
    pub projection: Projection<'a>,
    /// What the model does to its logits.
    pub logits: LogitOptions,
}

/// What multiplies the hidden states.
#[derive(Clone, Copy, Debug)]
pub enum Projection<'a> {
    /// The embedding, `[vocab, hidden]`, serves as head.
    Tied(&'a Embedding),
    /// A projection of its own.
    Linear(&'a Linear),
}

impl<'a> Head<'a> {
    /// The embedding as head.
    pub fn tied(embedding: &'a Embedding) -> Self {
        Self {
            projection: Projection::Tied(embedding),
            logits: LogitOptions::default(),
        }
    }

    /// A projection of its own.
    pub fn linear(linear: &'a Linear) -> Self {
        Self {
            projection: Projection::Linear(linear),
            logits: LogitOptions::default(),
        }
    }

    /// The projection if there is one, else the embedding.
    pub fn new(projection: Option<&'a Linear>, embedding: &'a Embedding) -> Self {
        match projection {
            Some(linear) => Self::linear(linear),
            None => Self::tied(embedding),
        }
    }

    /// The same with what the model does to its logits.
    #[must_use]
    pub fn with_logits(self, logits: LogitOptions) -> Self {
        Self { logits, ..self }
    }

    /// The number of logits a token gets, without reading the weight.
    pub fn vocab_size(&self) -> usize {
        match self.projection {
            Projection::Tied(embedding) => embedding.rows(),
            Projection::Linear(linear) => linear.out_features(),
        }
    }

    /// `[batch, seq, hidden]` to logits `[batch, seq, vocab]`.
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let logits = match self.projection {
            Projection::Tied(embedding) => {
                let [batch, seq, width] = hidden.dims();
                let rows = hidden.reshape([batch * seq, width]);
                let logits = ft_kernels::linear(rows.clone(), embedding.product_weight(), None);
                let own = tables_by_row(embedding);
                let logits = own.fold(logits, |logits, (adapter, table)| {
                    adapter.on_its_rows(logits, |_| ft_kernels::linear(rows.clone(), table, None))
                });
                let logits =
                    other_rows(embedding).fold(logits, |logits, (adapter, tokens, table)| {
                        let old = logits.clone().select(1, tokens.clone());
                        let new = rows.clone().matmul(table.transpose());
                        adapter.on_its_rows(logits, |logits| {
                            logits.select_assign(1, tokens, new - old, IndexingUpdateOp::Add)
                        })
                    });
                logits.reshape([batch, seq, self.vocab_size()])
            }
            Projection::Linear(linear) => linear.forward(hidden),
        };
        self.logits.apply(logits)
    }

    /// The `[vocab, width]` that is all there is to the projection; none with a bias or with an active adapter that does
    /// more than to replace it.
    pub(crate) fn matrix(&self) -> Option<Weight> {
        match self.projection {
            Projection::Tied(embedding) => {
                let by_row = tables_by_row(embedding).next().is_some();
                let plain = !by_row && other_rows(embedding).next().is_none();
                plain.then(|| embedding.product_weight())
            }
            Projection::Linear(linear) if is_plain(linear) => Some(linear.product_weight()),
            Projection::Linear(_) => None,
        }
    }
}

/// The rows that active adapters give other values: their tokens and the values.
fn other_rows(
    embedding: &Embedding,
) -> impl Iterator<Item = (&Adapter, Tensor<1, Int>, Tensor<2>)> {
    embedding.adapters.active().filter_map(|adapter| {
        let (tokens, rows) = adapter.kind().other_rows(adapter)?;
        Some((adapter, tokens, rows))
    })
}

fn is_plain(linear: &Linear) -> bool {
    let mut kinds = linear.adapters.active();
    let is_copy =
        |adapter: &Adapter| adapter.kind().weight(adapter).is_some() && !adapter.is_by_row();
    linear.bias_vector().is_none() && kinds.all(is_copy)
}

/// The tables of adapters that act on some rows only.
fn tables_by_row(embedding: &Embedding) -> impl Iterator<Item = (&Adapter, Tensor<2>)> {
    (embedding.adapters).replaced_by_row(|kind, adapter| kind.weight(adapter))
}
