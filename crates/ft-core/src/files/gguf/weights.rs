//! The weights of a file by Hugging Face's names, laid out as there.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Bytes, DType, TensorData};

use super::architecture::{Architecture, Change, Heads};
use super::{GgufFile, TensorInfo};
use crate::files::weight_source::{PackedBytes, RawTensor, WeightSource};
use crate::{Error, Result};

/// A [`GgufFile`] as a source of weights.
///
/// Tensors whose rows lie in another order here, query and key of Llama, are copied when they are read; all others are the
/// mapped file.
#[derive(Debug)]
pub struct GgufWeights {
    file: GgufFile,
    /// By Hugging Face's names: which tensor, and how it differs.
    places: BTreeMap<String, (usize, Change)>,
}

/// Tensors that are part of the configuration.
const NO_WEIGHTS: [&str; 3] = [
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
];

impl GgufWeights {
    /// The weights of a file of this architecture. Tensors that it does not have keep their names.
    pub(super) fn new(file: GgufFile, architecture: &Architecture, heads: Heads) -> Self {
        // A header may say anything: rows are listed only for heads that a tensor has room for.
        let rows = file.tensors().iter().filter_map(|one| one.shape.first());
        let most = rows.max().copied().unwrap_or(0);
        let fits = |count: usize| {
            let rows = count.checked_mul(heads.width);
            rows.is_some_and(|rows| rows <= most)
        };
        let heads = match fits(heads.heads) && fits(heads.kv_heads) {
            true => heads,
            false => Heads {
                heads: 0,
                kv_heads: 0,
                width: 0,
            },
        };
        let tensors = file.tensors().iter().enumerate();
        let places = tensors.filter(|(_, one)| !NO_WEIGHTS.contains(&&one.name[..]));
        let places = places.map(|(i, one)| match architecture.to_hf(&one.name) {
            Some(name) => (name, (i, architecture.change(&one.name, heads))),
            None => (one.name.clone(), (i, Change::Nothing)),
        });
        let places = places.collect();
        Self { file, places }
    }

    fn find(&self, name: &str) -> Result<(&TensorInfo, &Change)> {
        let (place, change) = (self.places.get(name))
            .ok_or_else(|| Error::invalid(self.file.path(), format!("holds no tensor {name}")))?;
        let tensor = &self.file.tensors()[*place];
        if let Change::Rows(rows) = change
            && tensor.shape[0] != rows.len()
        {
            return Err(Error::invalid(
                self.file.path(),
                format!(
                    "tensor {} has {} rows, and the heads have {}",
                    tensor.name,
                    tensor.shape[0],
                    rows.len()
                ),
            ));
        }
        if *change == Change::Transposed && tensor.shape.len() != 2 {
            return Err(Error::invalid(
                self.file.path(),
                format!(
                    "tensor {} has shape {:?}, and a matrix is expected",
                    tensor.name, tensor.shape
                ),
            ));
        }
        Ok((tensor, change))
    }
}

impl WeightSource for GgufWeights {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.places.keys().map(String::as_str))
    }

    fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let (tensor, change) = self.find(name)?;
        let mut shape = tensor.shape.clone();
        if *change == Change::Transposed {
            shape.reverse();
        }
        Ok(shape)
    }

    fn widened(&self, name: &str) -> Result<TensorData> {
        let (tensor, change) = self.find(name)?;
        Ok(changed(self.file.widened(tensor)?, change))
    }

    fn stored(&self, name: &str) -> Result<TensorData> {
        let (tensor, change) = self.find(name)?;
        Ok(changed(self.file.stored(tensor)?, change))
    }

    fn blocks(&self, name: &str) -> Result<Option<PackedBytes>> {
        let (tensor, change) = self.find(name)?;
        let blocks = self.file.blocks(tensor)?;
        Ok(blocks.map(|blocks| match change {
            Change::Rows(rows) => {
                let size = tensor.bytes / tensor.shape[0];
                let bytes = in_order(&blocks.bytes[..tensor.bytes], size, rows);
                PackedBytes {
                    bytes: Bytes::from_bytes_vec(bytes),
                    ..blocks
                }
            }
            _ => blocks,
        }))
    }

    fn for_each_raw(&self, visit: &mut dyn FnMut(RawTensor<'_>)) -> Result<()> {
        let mut tensors: Vec<&TensorInfo> = self.file.tensors().iter().collect();
        tensors.sort_unstable_by_key(|tensor| &tensor.name);
        for tensor in tensors {
            visit(RawTensor {
                name: &tensor.name,
                dtype: tensor.kind.name(),
                shape: &tensor.shape,
                bytes: self.file.bytes(tensor),
            });
        }
        Ok(())
    }
}

/// Rows of `size` bytes in another order.
fn in_order(bytes: &[u8], size: usize, rows: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for row in rows {
        out.extend_from_slice(&bytes[row * size..][..size]);
    }
    out
}

/// A tensor of a file as Hugging Face has it.
fn changed(data: TensorData, change: &Change) -> TensorData {
    let (shape, dtype) = (data.shape().to_vec(), data.dtype());
    let size = dtype.size();
    match change {
        Change::Nothing => data,
        Change::PlusOne => {
            let data = data.convert_dtype(DType::F32);
            let less: Vec<f32> = data.iter::<f32>().map(|x| x - 1.0).collect();
            TensorData::new(less, shape)
        }
        Change::Rows(rows) => {
            let bytes = data.as_bytes();
            let bytes = in_order(bytes, bytes.len() / shape[0], rows);
            TensorData::from_bytes_vec(bytes, shape, dtype)
        }
        Change::Transposed => {
            let (bytes, [rows, cols]) = (data.as_bytes(), [shape[0], shape[1]]);
            let mut out = Vec::with_capacity(bytes.len());
            for col in 0..cols {
                for row in 0..rows {
                    out.extend_from_slice(&bytes[(row * cols + col) * size..][..size]);
                }
            }
            TensorData::from_bytes_vec(out, [cols, rows], dtype)
        }
    }
}
