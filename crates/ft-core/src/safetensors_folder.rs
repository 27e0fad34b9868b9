//! Checkpoints in safetensors files: one file, or shards with an index.
//!
//! Reading maps the files into memory and checks names and shapes before any number is read, so a
//! checkpoint that does not fit costs nothing and is described whole. Writing goes to a temporary
//! file in the same folder, is synced, then renamed: a kill at any moment leaves either the old file
//! or the new one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{AllocationProperty, Bytes, DType, FloatDType, Tensor, TensorData};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::Serialize;
use serde_json::{Value, json};

use crate::module_path::{self, PathMapper, PathVisitor};
use crate::{Error, Result};

/// The name of an unsharded checkpoint.
pub const WEIGHTS: &str = "model.safetensors";
/// The name of the index of a sharded checkpoint.
pub const INDEX: &str = "model.safetensors.index.json";

/// The weights of a model folder, mapped into memory.
#[derive(Debug)]
pub struct WeightFiles {
    /// What was opened, for messages: the file, or the index.
    path: PathBuf,
    maps: Vec<(PathBuf, bytes::Bytes)>,
    /// Which map holds a tensor.
    places: BTreeMap<String, usize>,
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
        let text = std::fs::read_to_string(&index).map_err(Error::read(&index))?;
        let parsed: Value = serde_json::from_str(&text)
            .map_err(|e| Error::invalid(&index, format!("not valid JSON: {e}")))?;
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
            .filter(|name| !opened.places.contains_key(*name))
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
        let mut maps = Vec::new();
        let mut places = BTreeMap::new();
        for file in files {
            let map = map_file(&file)?;
            for name in parse(&file, &map)?.names() {
                if places.insert(name.to_string(), maps.len()).is_some() {
                    return Err(Error::invalid(
                        &file,
                        format!("{name} is in another shard as well"),
                    ));
                }
            }
            maps.push((file, map));
        }
        Ok(Self { path, maps, places })
    }

    /// The file or index that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Shape and raw bytes of a tensor, as they lie in the file.
    ///
    /// # Errors
    ///
    /// If there is no tensor of this name.
    pub fn raw(&self, name: &str) -> Result<(Dtype, Vec<usize>, &[u8])> {
        let Some(&place) = self.places.get(name) else {
            return Err(Error::invalid(
                &self.path,
                format!("holds no tensor {name}"),
            ));
        };
        let (file, map) = &self.maps[place];
        // The header was parsed once when the file was opened; parsing it again is cheap beside
        // reading the tensor, and spares a structure that borrows from itself.
        let parsed = parse(file, map)?;
        let view = parsed
            .tensor(name)
            .map_err(|e| Error::invalid(file, e.to_string()))?;
        Ok((view.dtype(), view.shape().to_vec(), view.data()))
    }

    /// A tensor as it lies in the file, without a copy where its numbers are aligned: it keeps the file
    /// mapped, and its pages come from the disk when they are first read.
    ///
    /// # Errors
    ///
    /// As [`tensor`](Self::tensor).
    pub fn stored(&self, name: &str) -> Result<TensorData> {
        let (dtype, shape, bytes) = self.raw(name)?;
        let dtype = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            _ => return self.tensor(name),
        };
        let aligned = bytes.as_ptr().addr().is_multiple_of(dtype.size());
        if cfg!(target_endian = "big") || !aligned {
            return Ok(self.tensor(name)?.convert_dtype(dtype));
        }
        let (_, map) = &self.maps[self.places[name]];
        let bytes = Bytes::from_shared(map.slice_ref(bytes), AllocationProperty::File);
        Ok(TensorData::from_bytes(bytes, shape, dtype))
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

fn map_file(path: &Path) -> Result<bytes::Bytes> {
    let file = File::open(path).map_err(Error::read(path))?;
    // SAFETY: the map is read-only and checkpoints are replaced by renaming, never written in
    // place, so the bytes do not change while they are mapped, which with `Weights::Stored` is as long
    // as the model lives. Another program that truncates the
    // file under us would be an error that no mapping reader is safe from.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(Error::read(path))?;
    Ok(bytes::Bytes::from_owner(map))
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

/// In which type weights are held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Widened to `f32`, so that they can train.
    #[default]
    F32,
    /// Matrices as the file has them, `f32`, `f16` or `bf16`, straight from the mapped file; nothing
    /// requires gradients. For inference, and for adapters on a frozen model.
    ///
    /// The file stays mapped as long as the model lives: replace it by renaming, as ft and most programs
    /// do, and never by writing into it. Where kernels do not take 16 bits (all devices but the CPU),
    /// matrices are widened to `f32` when they are loaded.
    Stored,
}

/// Fills every float parameter of `module` from `files`, held as `weights` says.
///
/// `key_of` turns a parameter's path into its key, and `ignored` tells which left-over keys may be
/// passed over.
///
/// # Errors
///
/// [`Error::Keys`] with all that is missing, left over or of another shape; nothing is read then.
pub fn load_module<M: Module>(
    module: M,
    files: &WeightFiles,
    weights: Weights,
    key_of: impl Fn(&str) -> String,
    ignored: impl Fn(&str) -> bool,
) -> Result<M> {
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    let mut wanted = BTreeSet::new();
    for (path, shape) in module_path::shapes(&module) {
        let key = key_of(&path);
        if !files.contains(&key) {
            missing.push(key);
            continue;
        }
        let (_, found, _) = files.raw(&key)?;
        if found[..] != shape[..] {
            misshapen.push(format!("{key} (model {:?}, file {found:?})", &shape[..]));
        }
        wanted.insert(key);
    }
    let unexpected: Vec<String> = files
        .names()
        .filter(|name| !wanted.contains(*name) && !ignored(name))
        .map(str::to_string)
        .collect();
    if !(missing.is_empty() && unexpected.is_empty() && misshapen.is_empty()) {
        return Err(Error::Keys {
            path: files.path.clone(),
            missing,
            unexpected,
            misshapen,
        });
    }
    struct Fill<'a, F> {
        files: &'a WeightFiles,
        weights: Weights,
        key_of: F,
        failure: Option<Error>,
    }
    impl<F: Fn(&str) -> String> PathMapper for Fill<'_, F> {
        fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.failure.is_some() {
                return param;
            }
            let key = (self.key_of)(path);
            let device = param.lazy_device();
            let data = match self.weights {
                // Norms and biases are small, and their kernels compute in `f32`.
                Weights::Stored if D >= 2 => self.files.stored(&key),
                _ => self.files.tensor(&key),
            };
            match data {
                Ok(data) => {
                    let dtype = match data.dtype() {
                        narrow @ (DType::F16 | DType::BF16)
                            if ft_kernels::takes_16_bits(&device) =>
                        {
                            narrow
                        }
                        _ => DType::F32,
                    };
                    let data = data.convert_dtype(dtype);
                    let id = param.id;
                    param.transform_for_load(Tensor::from_data(data, (&device, dtype)), id)
                }
                Err(error) => {
                    self.failure = Some(error);
                    param
                }
            }
        }
    }
    let mut fill = Fill {
        files,
        weights,
        key_of,
        failure: None,
    };
    let module = module_path::map_params(module, &mut fill);
    match fill.failure {
        Some(error) => Err(error),
        None if weights == Weights::Stored => Ok(module.no_grad()),
        None => Ok(module),
    }
}

/// Every float parameter of `module` by path.
pub fn module_tensors(module: &impl Module) -> Vec<(String, TensorData)> {
    tensors_where(module, &|_| true)
}

fn tensors_where(module: &impl Module, wanted: &dyn Fn(&str) -> bool) -> Vec<(String, TensorData)> {
    struct Collect<'a> {
        wanted: &'a dyn Fn(&str) -> bool,
        found: Vec<(String, TensorData)>,
    }
    impl PathVisitor for Collect<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if (self.wanted)(path) {
                self.found.push((path.to_string(), param.val().into_data()));
            }
        }
    }
    let mut collect = Collect {
        wanted,
        found: Vec::new(),
    };
    module_path::visit_params(module, &mut collect);
    collect.found
}

/// Writes a module's parameters as `model.safetensors`, or in shards of at most `max_shard_size`
/// bytes with an index; weights that an earlier save left in the folder are removed once the new ones
/// are whole. One shard at a time is copied from the device.
///
/// # Errors
///
/// If a file cannot be written.
pub fn write_module(
    folder: &Path,
    module: &impl Module,
    dtype: FloatDType,
    max_shard_size: usize,
) -> Result<()> {
    let width = match dtype {
        FloatDType::F16 | FloatDType::BF16 => 2,
        FloatDType::F64 => 8,
        _ => 4,
    };
    // Names of the tensors of each shard, and its bytes.
    let mut shards: Vec<(BTreeSet<String>, usize)> = vec![(BTreeSet::new(), 0)];
    for (name, shape) in module_path::shapes(module) {
        let size = shape.num_elements() * width;
        match shards.last_mut() {
            Some(last) if last.0.is_empty() || last.1 + size <= max_shard_size => {
                last.0.insert(name);
                last.1 += size;
            }
            _ => shards.push((BTreeSet::from([name]), size)),
        }
    }
    let write_shard = |path: &Path, names: &BTreeSet<String>| {
        let tensors: Vec<_> = tensors_where(module, &|path| names.contains(path))
            .into_iter()
            .map(|(name, data)| (name, data.convert_dtype(dtype.into())))
            .collect();
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        write_tensors(path, &tensors, &metadata)
    };
    let mut written = BTreeSet::new();
    if let [(only, _)] = shards.as_slice() {
        write_shard(&folder.join(WEIGHTS), only)?;
        written.insert(WEIGHTS.to_string());
    } else {
        let mut weight_map = serde_json::Map::new();
        let total: usize = shards.iter().map(|(_, size)| size).sum();
        let count = shards.len();
        // All shards are whole before the first takes the place of an older one, and the old index
        // is gone by then: a kill leaves the old model or none, and never a mixture of two.
        let staging = tempfile::tempdir_in(folder).map_err(Error::write(folder))?;
        for (i, (names, _)) in shards.iter().enumerate() {
            let file = format!("model-{:05}-of-{count:05}.safetensors", i + 1);
            write_shard(&staging.path().join(&file), names)?;
            for name in names {
                weight_map.insert(name.clone(), Value::from(file.clone()));
            }
            written.insert(file);
        }
        let index_path = folder.join(INDEX);
        if index_path.exists() {
            std::fs::remove_file(&index_path).map_err(Error::write(&index_path))?;
        }
        for file in &written {
            let place = folder.join(file);
            std::fs::rename(staging.path().join(file), &place).map_err(Error::write(&place))?;
        }
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_json(&index_path, &index)?;
        written.insert(INDEX.to_string());
    }
    remove_stale_weights(folder, &written)
}

/// A sharded model saved over an unsharded one, or the other way round, must not leave files that
/// a reader would take for the weights.
fn remove_stale_weights(folder: &Path, written: &BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
        let entry = entry.map_err(Error::read(folder))?;
        let name = entry.file_name().to_string_lossy().to_string();
        let weights = name == WEIGHTS || name == INDEX || is_shard(&name);
        if weights && !written.contains(&name) {
            std::fs::remove_file(entry.path()).map_err(Error::write(&entry.path()))?;
        }
    }
    Ok(())
}

/// `model-00001-of-00002.safetensors`; other files of the user's are not ours to remove.
fn is_shard(name: &str) -> bool {
    let digits = |part: &str| part.len() == 5 && part.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix("model-")
        .and_then(|name| name.strip_suffix(".safetensors"))
        .and_then(|name| name.split_once("-of-"))
        .is_some_and(|(index, count)| digits(index) && digits(count))
}

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
            other => {
                return Err(Error::invalid(
                    path,
                    format!("{name} has type {other:?}, which is not saved"),
                ));
            }
        };
        views.push((name.as_str(), Numbers(data, dtype)));
    }
    replace(path, |part| {
        safetensors::serialize_to_file(views, Some(metadata.clone()), part)
            .map_err(|e| std::io::Error::other(e.to_string()))
    })
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
    let map = map_file(path)?;
    let (_, header) = SafeTensors::read_metadata(&map)
        .map_err(|e| Error::invalid(path, format!("not a whole safetensors file ({e})")))?;
    Ok(header.metadata().clone().unwrap_or_default())
}

/// Writes a value as indented JSON, atomically.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|e| Error::invalid(path, e.to_string()))?;
    bytes.push(b'\n');
    write_file(path, &bytes)
}

/// Writes a file so that a reader sees either the old bytes or all of the new ones; makes the
/// folder if it is not there.
///
/// # Errors
///
/// If the folder or file cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |part| std::fs::write(part, bytes))
}

/// Lets `write` fill a file beside `path`, syncs it, and renames it to `path`.
fn replace(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(Error::write(folder))?;
    let part = tempfile::Builder::new()
        .prefix(".ft-")
        .suffix(".part")
        .tempfile_in(folder)
        .map_err(Error::write(path))?
        .into_temp_path();
    write(&part).map_err(Error::write(path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private; a checkpoint is for whoever may read the folder.
        let readable = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&part, readable).map_err(Error::write(path))?;
    }
    File::options()
        .write(true)
        .open(&part)
        .and_then(|file| file.sync_all())
        .map_err(Error::write(path))?;
    part.persist(path)
        .map_err(|e| Error::write(path)(e.error))?;
    // The new name is on the disk once the folder is; systems without it do that by themselves.
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::write(folder))?;
    Ok(())
}
