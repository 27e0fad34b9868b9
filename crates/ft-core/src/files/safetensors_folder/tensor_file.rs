//! One safetensors file of named tensors, whole.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::tensor::{DType, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::Serialize;

use super::WeightFiles;
use super::atomic_write::{json_bytes, replace, replace_both};
use crate::files::mapped_file::MappedFile;
use crate::{Error, Result};

struct Numbers<'a>(&'a TensorData, Dtype);

impl View for Numbers<'_> {
    fn dtype(&self) -> Dtype {
        self.1
    }
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.0.as_bytes())
    }
    fn data_len(&self) -> usize {
        self.0.as_bytes().len()
    }
}

/// Writes one safetensors file, atomically.
///
/// # Errors
///
/// If the file cannot be written, or a tensor has a type that safetensors lacks.
pub fn write_tensors(
    path: &Path,
    tensors: &[(String, TensorData)],
    metadata: &HashMap<String, String>,
) -> Result<()> {
    let views = views(path, tensors)?;
    replace(path, |part| serialize(views, metadata, part))
}

/// Writes one safetensors file and its settings, which are a JSON file of the same folder. A kill at any moment leaves the
/// old files, the new ones, or no settings, but never settings that belong to other tensors.
///
/// # Errors
///
/// As [`write_tensors`].
pub fn write_tensors_and_json(
    path: &Path,
    tensors: &[(String, TensorData)],
    metadata: &HashMap<String, String>,
    settings_path: &Path,
    settings: &impl Serialize,
) -> Result<()> {
    let views = views(path, tensors)?;
    let settings = json_bytes(settings_path, settings)?;
    replace_both(
        path,
        |part| serialize(views, metadata, part),
        settings_path,
        &settings,
    )
}

fn serialize(
    views: Vec<(&str, Numbers<'_>)>,
    metadata: &HashMap<String, String>,
    part: &Path,
) -> std::io::Result<()> {
    safetensors::serialize_to_file(views, Some(metadata.clone()), part)
        .map_err(|e| std::io::Error::other(e.to_string()))
}

fn views<'a>(
    path: &Path,
    tensors: &'a [(String, TensorData)],
) -> Result<Vec<(&'a str, Numbers<'a>)>> {
    let mut views = Vec::with_capacity(tensors.len());
    for (name, data) in tensors {
        let dtype = match data.dtype() {
            DType::F64 => Dtype::F64,
            DType::F32 | DType::Flex32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::I64 => Dtype::I64,
            DType::I32 => Dtype::I32,
            DType::U8 => Dtype::U8,
            DType::I8 => Dtype::I8,
            other => {
                return Err(Error::invalid(
                    path,
                    format!("{name} has type {other:?}, which is not saved"),
                ));
            }
        };
        views.push((name.as_str(), Numbers(data, dtype)));
    }
    Ok(views)
}

/// Reads one safetensors file whole, floats widened to `f32`, integers to `i64`, bytes as they are.
///
/// # Errors
///
/// If the file cannot be read or is not whole.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, TensorData>> {
    let files = WeightFiles::open_file(path)?;
    let read = |name: &str| match files.raw(name)? {
        (Dtype::U8, shape, bytes) => Ok(TensorData::new(bytes.to_vec(), shape)),
        _ => files.tensor(name),
    };
    let names = files.names();
    names
        .map(|name| Ok((name.to_string(), read(name)?)))
        .collect()
}

/// The metadata of a safetensors file; empty if it has none.
///
/// # Errors
///
/// If the file cannot be read or is not whole.
pub fn read_metadata(path: &Path) -> Result<HashMap<String, String>> {
    let map = MappedFile::open(path)?;
    let (_, header) = SafeTensors::read_metadata(&map)
        .map_err(|e| Error::invalid(path, format!("not a whole safetensors file ({e})")))?;
    Ok(header.metadata().clone().unwrap_or_default())
}
