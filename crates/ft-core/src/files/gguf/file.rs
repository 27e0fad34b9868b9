//! A file that was opened: its keys and the places of its tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use burn::tensor::{AllocationProperty, Bytes, DType, TensorData};
use half::{bf16, f16};
use rayon::prelude::*;

use super::cursor::Cursor;
use super::{
    ALIGNMENT, ALIGNMENT_KEY, MAGIC, MOST_DIMS, Metadata, NAME_LIMIT, TensorType, VERSION, Value,
};
use crate::files::mapped_file::MappedFile;
use crate::files::weight_source::PackedBytes;
use crate::{Error, Result};

/// Blocks that a task decodes.
const PIECE: usize = 1 << 12;

/// The description of a tensor in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name: `blk.0.attn_q.weight`.
    pub name: String,
    /// Its shape, outermost dimension first, as everywhere else.
    pub shape: Vec<usize>,
    /// Its type.
    pub kind: TensorType,
    /// Where its bytes begin in the data of the file.
    pub offset: usize,
    /// How many bytes it has.
    pub bytes: usize,
}

/// A GGUF file, mapped into memory.
pub struct GgufFile {
    path: PathBuf,
    map: MappedFile,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: BTreeMap<String, usize>,
    data: usize,
}

impl fmt::Debug for GgufFile {
    /// Everything but the bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f.debug_struct("GgufFile"))
            .field("path", &self.path)
            .field("bytes", &self.map.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

impl GgufFile {
    /// Opens a file and checks every field of it.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or a field is wrong: magic, version, counts that the file has no room for, keys or
    /// tensors that are there twice, types that do not exist, dimensions that are no whole blocks, and tensors that overlap,
    /// leave gaps, or end beyond the file. The message names the key or the tensor.
    pub fn open(path: &Path) -> Result<Self> {
        let map = MappedFile::open(path)?;
        let parsed = Header::read(&map).map_err(|reason| Error::invalid(path, reason))?;
        let places = parsed.tensors.iter().enumerate();
        Ok(Self {
            by_name: places.map(|(i, one)| (one.name.clone(), i)).collect(),
            metadata: Metadata::new(path, parsed.pairs),
            path: path.to_path_buf(),
            map,
            version: parsed.version,
            tensors: parsed.tensors,
            data: parsed.data,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The keys.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of a name.
    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|place| &self.tensors[*place])
    }

    /// The size of the file.
    pub fn num_bytes(&self) -> usize {
        self.map.len()
    }

    /// The bytes of a tensor of this file.
    pub fn bytes(&self, tensor: &TensorInfo) -> &[u8] {
        &self.map[self.data + tensor.offset..][..tensor.bytes]
    }

    /// The same bytes, which keep the file mapped, with up to three more up to whole words.
    pub(crate) fn mapped(&self, tensor: &TensorInfo) -> Bytes {
        let start = self.data + tensor.offset;
        let end = start + tensor.bytes;
        let whole = (end - start).next_multiple_of(4) + start;
        let end = if whole <= self.map.len() { whole } else { end };
        Bytes::from_shared(self.map.piece(start..end), AllocationProperty::File)
    }

    /// The numbers of a tensor in `f32`.
    ///
    /// # Errors
    ///
    /// If there is no decoder for its type.
    pub fn widened(&self, tensor: &TensorInfo) -> Result<TensorData> {
        fn numbers<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            let chunks = bytes.as_chunks::<N>().0.iter();
            chunks.map(|chunk| read(*chunk)).collect()
        }
        let bytes = self.bytes(tensor);
        let found = match (tensor.kind.name(), tensor.kind.packed()) {
            ("F32", _) => numbers(bytes, f32::from_le_bytes),
            ("F16", _) => numbers(bytes, |b| f16::from_le_bytes(b).to_f32()),
            ("BF16", _) => numbers(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            ("F64", _) => numbers(bytes, |b| f64::from_le_bytes(b) as f32),
            (_, Some(format)) => {
                let mut numbers = vec![0.0; tensor.shape.iter().product()];
                (numbers.par_chunks_mut(PIECE * format.block()))
                    .zip(bytes.par_chunks(PIECE * format.block_bytes()))
                    .for_each(|(numbers, bytes)| format.decode(bytes, numbers));
                numbers
            }
            _ => return Err(self.no_decoder(tensor)),
        };
        Ok(TensorData::new(found, tensor.shape.clone()))
    }

    /// The numbers of a tensor in the type of the file if that is a float of 16 or 32 bits, which keep the file mapped; else
    /// in `f32`.
    ///
    /// # Errors
    ///
    /// As [`widened`](Self::widened).
    pub fn stored(&self, tensor: &TensorInfo) -> Result<TensorData> {
        let dtype = match tensor.kind {
            TensorType::F32 => DType::F32,
            TensorType::F16 => DType::F16,
            TensorType::BF16 => DType::BF16,
            _ => return self.widened(tensor),
        };
        let start = self.data + tensor.offset;
        let bytes = self.map.piece(start..start + tensor.bytes);
        let aligned = bytes.as_ptr().addr().is_multiple_of(dtype.size());
        if cfg!(target_endian = "big") || !aligned {
            return Ok(self.widened(tensor)?.convert_dtype(dtype));
        }
        let bytes = Bytes::from_shared(bytes, AllocationProperty::File);
        Ok(TensorData::from_bytes(bytes, tensor.shape.clone(), dtype))
    }

    /// The blocks of a matrix; none if it has plain numbers.
    ///
    /// # Errors
    ///
    /// If there is no decoder for its type.
    pub fn blocks(&self, tensor: &TensorInfo) -> Result<Option<PackedBytes>> {
        if tensor.kind.block() == 1 {
            return Ok(None);
        }
        let format = tensor
            .kind
            .packed()
            .ok_or_else(|| self.no_decoder(tensor))?;
        let [rows, cols] = tensor.shape[..] else {
            return Ok(None);
        };
        Ok(Some(PackedBytes {
            format,
            bytes: self.mapped(tensor),
            shape: [rows, cols],
        }))
    }

    fn no_decoder(&self, tensor: &TensorInfo) -> Error {
        let known: Vec<_> = ft_kernels::PackedFormat::GGUF
            .iter()
            .map(|format| format.name())
            .collect();
        Error::invalid(
            &self.path,
            format!(
                "tensor {} has type {}, which is not decoded here: quantize the model to F32, F16, BF16 or one of {}",
                tensor.name,
                tensor.kind,
                known.join(", ")
            ),
        )
    }
}

/// What lies before the data.
struct Header {
    version: u32,
    pairs: Vec<(String, Value)>,
    tensors: Vec<TensorInfo>,
    data: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut cursor = Cursor::new(bytes);
        let magic: [u8; 4] = cursor.array()?;
        if magic != MAGIC {
            return Err(format!(
                "not a GGUF file: it begins with {magic:?} and not with \"GGUF\""
            ));
        }
        let version = cursor.u32().map_err(|e| format!("version: {e}"))?;
        match version {
            2 | VERSION => {}
            1 => {
                return Err("version 1, which is no longer read: convert the model again".into());
            }
            _ if version.swap_bytes() <= VERSION => {
                return Err(
                    "the file has its big end first: convert the model for this kind of machine"
                        .into(),
                );
            }
            _ => {
                return Err(format!(
                    "version {version}, and versions 2 and 3 are known here"
                ));
            }
        }
        // The smallest tensor has a name's length, a dimension, a type and an offset; the smallest key a type and a byte.
        let tensors = cursor
            .u64()
            .map_err(|e| format!("number of tensors: {e}"))?;
        let keys = cursor.count(8 + 4 + 1).map_err(|e| format!("keys: {e}"))?;
        let mut pairs = Vec::with_capacity(keys);
        let mut seen = BTreeSet::new();
        for i in 0..keys {
            let key = cursor.string().map_err(|e| format!("key {i}: {e}"))?;
            let value = Value::read(&mut cursor).map_err(|e| format!("{key}: {e}"))?;
            if !seen.insert(key.clone()) {
                return Err(format!("{key}: the key is there twice"));
            }
            pairs.push((key, value));
        }
        let alignment = alignment(&pairs)?;
        let room = cursor.left() / (8 + 4 + 8 + 4 + 8);
        let count = usize::try_from(tensors).ok().filter(|count| *count <= room);
        let count = count.ok_or_else(|| {
            format!("number of tensors: {tensors}, and the file has room for {room} at most")
        })?;
        let mut infos = Vec::with_capacity(count);
        let mut names = BTreeSet::new();
        let mut end = 0u64;
        for i in 0..count {
            let name = cursor
                .string()
                .map_err(|e| format!("name of tensor {i}: {e}"))?;
            let mut info =
                tensor(&mut cursor, &name, &mut end, alignment).map_err(|e| {
                    match name.is_empty() {
                        true => format!("tensor {i}: {e}"),
                        false => format!("tensor {name}: {e}"),
                    }
                })?;
            if !names.insert(name.clone()) {
                return Err(format!("tensor {name}: it is there twice"));
            }
            info.name = name;
            infos.push(info);
        }
        let data = (cursor.at() as u64).next_multiple_of(alignment);
        for info in &infos {
            let end = data + info.offset as u64 + info.bytes as u64;
            if end > bytes.len() as u64 {
                return Err(format!(
                    "tensor {}: its data end at byte {end}, and the file at {}; it is truncated, download it again",
                    info.name,
                    bytes.len()
                ));
            }
        }
        Ok(Self {
            version,
            pairs,
            tensors: infos,
            data: usize::try_from(data).map_err(|e| e.to_string())?,
        })
    }
}

fn alignment(pairs: &[(String, Value)]) -> Result<u64, String> {
    let Some((_, value)) = pairs.iter().find(|(key, _)| key == ALIGNMENT_KEY) else {
        return Ok(ALIGNMENT);
    };
    match value {
        Value::U32(alignment) if alignment.is_power_of_two() => Ok(u64::from(*alignment)),
        other => Err(format!(
            "{ALIGNMENT_KEY}: {other:?} is no power of two of type u32"
        )),
    }
}

/// Reads what is said of a tensor and checks it. `end` is where the data of the tensors before it end, with padding.
fn tensor(
    cursor: &mut Cursor<'_>,
    name: &str,
    end: &mut u64,
    alignment: u64,
) -> Result<TensorInfo, String> {
    if name.is_empty() || name.len() >= NAME_LIMIT {
        return Err(format!(
            "its name has {} bytes, and names have 1 to {}",
            name.len(),
            NAME_LIMIT - 1
        ));
    }
    let dims = cursor.u32()? as usize;
    if !(1..=MOST_DIMS).contains(&dims) {
        return Err(format!(
            "{dims} dimensions, and tensors have 1 to {MOST_DIMS}"
        ));
    }
    let mut shape = Vec::with_capacity(dims);
    for _ in 0..dims {
        let size = cursor.u64()?;
        let size = usize::try_from(size).ok().filter(|size| *size > 0);
        shape.push(size.ok_or("a dimension of zero, or beyond memory")?);
    }
    shape.reverse();
    let id = cursor.u32()?;
    let kind = TensorType::from_id(id).ok_or_else(|| {
        format!("type {id}, which does not exist or is newer than this program: quantize the model to another type")
    })?;
    let inner = shape[dims - 1];
    if inner % kind.block() != 0 {
        return Err(format!(
            "rows of {inner} numbers are no whole blocks of {}, which has {} in each",
            kind.name(),
            kind.block()
        ));
    }
    let numbers = shape
        .iter()
        .try_fold(1usize, |product, size| product.checked_mul(*size));
    let bytes =
        numbers.and_then(|numbers| (numbers / kind.block()).checked_mul(kind.block_bytes()));
    let bytes = bytes.ok_or_else(|| format!("shape {shape:?} is beyond memory"))?;
    let offset = cursor.u64()?;
    if offset != *end {
        return Err(format!(
            "its data begin at {offset}, and those before it end at {end}: tensors overlap, leave a gap, or are not aligned"
        ));
    }
    *end = (offset.checked_add(bytes as u64))
        .and_then(|end| end.checked_next_multiple_of(alignment))
        .filter(|end| *end < u64::MAX / 2)
        .ok_or_else(|| format!("shape {shape:?} is beyond memory"))?;
    Ok(TensorInfo {
        name: String::new(),
        shape,
        kind,
        offset: usize::try_from(offset).map_err(|e| e.to_string())?,
        bytes,
    })
}
