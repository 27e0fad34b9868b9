//! LoRA on an embedding: `s·B·A[:, token]` is added to the row of a token.
//!
//! `A` begins as zeros and `B` as noise, the other way round than in linear layers: only the columns of tokens that occur
//! have a gradient. There is no dropout, as in PEFT. An output layer that is the embedding does not change.

use burn::tensor::{Int, Tensor};
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, Embedding, look_up};

use super::{InitLoraWeights, LoraConfig};
use crate::method::{Draw, NewAdapter};
use crate::{Error, Result};

/// `[r, rows]`.
const A: &str = "lora_embedding_A";
/// `[width, r]`.
const B: &str = "lora_embedding_B";

/// Rows of low rank, added to those of the table.
#[derive(Clone, Copy, Debug)]
struct LoraEmbedding {
    scaling: f64,
    padding: Option<usize>,
}

/// The adapter of a table.
///
/// # Errors
///
/// If settings are for linear layers alone.
pub(super) fn on_embedding(
    path: &str,
    table: &Embedding,
    config: &LoraConfig,
    draw: &mut Draw<'_>,
) -> Result<NewAdapter> {
    let refused = match config.init_lora_weights {
        _ if config.use_dora => Some("use_dora"),
        _ if config.lora_bias => Some("lora_bias"),
        InitLoraWeights::Pissa
        | InitLoraWeights::PissaNiter(_)
        | InitLoraWeights::Olora
        | InitLoraWeights::Mica => Some("this init_lora_weights"),
        _ => None,
    };
    if let Some(setting) = refused {
        return Err(Error::Settings(format!(
            "{setting} is for linear layers, and {path} is an embedding: leave it out of target_modules"
        )));
    }
    let [rows, width] = table.weight.lazy_shape().dims();
    let r = config.rank_of(path);
    let kind = LoraEmbedding {
        scaling: config.scaling_of(path),
        padding: table.padding,
    };
    let a = match config.init_lora_weights {
        InitLoraWeights::Random => draw.normal([r, rows], 1.0),
        _ => draw.zeros([r, rows]),
    };
    let tensors = vec![
        AdapterTensor::new(A, a),
        AdapterTensor::new(B, draw.normal([width, r], 1.0)),
    ];
    Ok(NewAdapter::new(kind, tensors))
}

impl AdapterKind for LoraEmbedding {
    fn rows(&self, adapter: &Adapter, ids: &Tensor<2, Int>, rows: Tensor<3>) -> Tensor<3> {
        let a = adapter.val2(A).transpose();
        let [batch, seq, width] = rows.dims();
        let low = look_up(a, ids.clone(), self.padding);
        let r = low.dims()[2];
        let new = low
            .reshape([batch * seq, r])
            .matmul(adapter.val2(B).transpose());
        rows + new.reshape([batch, seq, width]) * self.scaling
    }

    fn merge_table(&self, adapter: &Adapter, table: Tensor<2>) -> Option<Tensor<2>> {
        let delta = adapter.val2(B).matmul(adapter.val2(A)).transpose();
        Some(table + delta * self.scaling)
    }
}
