//! The weights of a model folder, mapped into memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::{AllocationProperty, Bytes, DType, TensorData};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::Value;

use super::{INDEX, WEIGHTS};
use crate::files::mapped_file::MappedFile;
use crate::files::weight_source::{RawTensor, WeightSource};
use crate::{Error, Result};

/// The weights of a model folder, mapped into memory.
#[derive(Debug)]
pub struct WeightFiles {
    /// What was opened, for messages: the file, or the index.
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
}

/// A tensor of a mapped file.
#[derive(Debug)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: bytes::Bytes,
}

impl WeightFiles {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    ///
    /// If there is neither, a shard is missing, a file is truncated or is not safetensors, or the
    /// index names tensors that its shards do not hold.
    pub fn open(folder: &Path) -> Result<Self> {
        let single = folder.join(WEIGHTS);
        if single.is_file() {
            return Self::from_files(single.clone(), vec![single]);
        }
        let index = folder.join(INDEX);
        if !index.is_file() {
            let reason = if folder.is_dir() {
                "holds neither model.safetensors nor model.safetensors.index.json (pickled \
                 pytorch_model.bin files are not read: convert them with transformers)"
            } else {
                "is not a folder"
            };
            return Err(Error::invalid(folder, reason));
        }
        let parsed = read_json(&index)?;
        let Some(weight_map) = parsed["weight_map"].as_object() else {
            return Err(Error::invalid(&index, "has no weight_map"));
        };
        let mut shards = BTreeSet::new();
        for (name, file) in weight_map {
            let plain = file
                .as_str()
                .filter(|file| Path::new(file).file_name() == Some(file.as_ref()));
            let Some(file) = plain else {
                return Err(Error::invalid(
                    &index,
                    format!("{name} is said to be in {file}, which is not a file name"),
                ));
            };
            shards.insert(file.to_string());
        }
        let missing: Vec<_> = shards
            .iter()
            .filter(|shard| !folder.join(shard).is_file())
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(Error::invalid(
                &index,
                format!(
                    "{} of {} shards are missing: {}; download the folder again",
                    missing.len(),
                    shards.len(),
                    missing.join(", ")
                ),
            ));
        }
        let files = shards.iter().map(|shard| folder.join(shard)).collect();
        let opened = Self::from_files(index.clone(), files)?;
        let absent: Vec<_> = weight_map
            .keys()
            .filter(|name| !opened.contains(name))
            .cloned()
            .collect();
        if !absent.is_empty() {
            return Err(Error::invalid(
                &index,
                format!("lists tensors that no shard holds: {}", absent.join(", ")),
            ));
        }
        Ok(opened)
    }

    /// Opens one safetensors file of any name.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_file(path: &Path) -> Result<Self> {
        Self::from_files(path.to_path_buf(), vec![path.to_path_buf()])
    }

    fn from_files(path: PathBuf, files: Vec<PathBuf>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for file in files {
            let map = MappedFile::open(&file)?;
            for (name, view) in parse(&file, &map)?.tensors() {
                let stored = Stored {
                    dtype: view.dtype(),
                    shape: view.shape().to_vec(),
                    bytes: map.piece(range_of(view.data(), &map)),
                };
                if tensors.insert(name.clone(), stored).is_some() {
                    return Err(Error::invalid(
                        &file,
                        format!("{name} is in another shard as well"),
                    ));
                }
            }
        }
        Ok(Self { path, tensors })
    }

    /// The file or index that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Shape and raw bytes of a tensor, as they lie in the file.
    ///
    /// # Errors
    ///
    /// If there is no tensor of this name.
    pub fn raw(&self, name: &str) -> Result<(Dtype, Vec<usize>, &[u8])> {
        let stored = self.get(name)?;
        Ok((stored.dtype, stored.shape.clone(), &stored.bytes))
    }

    fn get(&self, name: &str) -> Result<&Stored> {
        let found = self.tensors.get(name);
        found.ok_or_else(|| Error::invalid(&self.path, format!("holds no tensor {name}")))
    }

    /// A tensor as it lies in the file, without a copy where its numbers are aligned: it keeps the file
    /// mapped, and its pages come from the disk when they are first read.
    ///
    /// # Errors
    ///
    /// As [`tensor`](Self::tensor).
    pub fn stored(&self, name: &str) -> Result<TensorData> {
        let stored = self.get(name)?;
        let dtype = match stored.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            _ => return self.tensor(name),
        };
        let aligned = stored.bytes.as_ptr().addr().is_multiple_of(dtype.size());
        if cfg!(target_endian = "big") || !aligned {
            return Ok(self.tensor(name)?.convert_dtype(dtype));
        }
        let bytes = Bytes::from_shared(stored.bytes.clone(), AllocationProperty::File);
        Ok(TensorData::from_bytes(bytes, stored.shape.clone(), dtype))
    }

    /// A tensor with floats widened to `f32`.
    ///
    /// # Errors
    ///
    /// If there is no tensor of this name, or its type is not a float of 16, 32 or 64 bits or an
    /// integer of 32 or 64.
    pub fn tensor(&self, name: &str) -> Result<TensorData> {
        let (dtype, shape, bytes) = self.raw(name)?;
        widen(dtype, shape, bytes)
            .ok_or_else(|| Error::invalid(&self.path, format!("{name} has type {dtype:?}, which cannot be read here; dequantize the checkpoint first")))
    }
}

impl WeightSource for WeightFiles {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.tensors.keys().map(String::as_str))
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        self.raw(name).map(|(_, shape, _)| shape)
    }

    fn widened(&self, name: &str) -> Result<TensorData> {
        self.tensor(name)
    }

    fn stored(&self, name: &str) -> Result<TensorData> {
        self.stored(name)
    }

    fn for_each_raw(&self, visit: &mut dyn FnMut(RawTensor<'_>)) -> Result<()> {
        for (name, stored) in &self.tensors {
            visit(RawTensor {
                name,
                dtype: &format!("{:?}", stored.dtype),
                shape: &stored.shape,
                bytes: &stored.bytes,
            });
        }
        Ok(())
    }
}

/// A parsed JSON file.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    serde_json::from_str(&text).map_err(|e| Error::invalid(path, format!("not valid JSON: {e}")))
}

/// Where a part of some bytes lies in them.
fn range_of(part: &[u8], all: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - all.as_ptr().addr();
    start..start + part.len()
}

fn parse<'a>(path: &Path, map: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(map).map_err(|e| {
        Error::invalid(
            path,
            format!("not a whole safetensors file ({e}); it may be truncated: download it again"),
        )
    })
}

/// Little-endian bytes as numbers, floats as `f32`, integers as `i64`.
fn widen(dtype: Dtype, shape: Vec<usize>, bytes: &[u8]) -> Option<TensorData> {
    fn numbers<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes
            .as_chunks::<N>()
            .0
            .iter()
            .map(|chunk| read(*chunk))
            .collect()
    }
    Some(match dtype {
        Dtype::F32 => TensorData::new(numbers(bytes, f32::from_le_bytes), shape),
        Dtype::F16 => TensorData::new(numbers(bytes, |b| f16::from_le_bytes(b).to_f32()), shape),
        Dtype::BF16 => TensorData::new(numbers(bytes, |b| bf16::from_le_bytes(b).to_f32()), shape),
        Dtype::F64 => TensorData::new(numbers(bytes, |b| f64::from_le_bytes(b) as f32), shape),
        Dtype::I64 => TensorData::new(numbers(bytes, i64::from_le_bytes), shape),
        Dtype::I32 => TensorData::new(numbers(bytes, |b| i64::from(i32::from_le_bytes(b))), shape),
        _ => return None,
    })
}
