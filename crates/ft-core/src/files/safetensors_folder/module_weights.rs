//! The parameters of a module from files, and into them.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use serde_json::{Value, json};

use super::{INDEX, WEIGHTS, check_finite, write_json, write_tensors};
use crate::files::weight_source::WeightSource;
use crate::module_path::{self, PathMapper, PathVisitor, join};
use crate::{Error, Parts, Result};

/// In which type weights are held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Widened to `f32`, so that they can train.
    #[default]
    F32,
    /// Matrices as the file has them, `f32`, `f16`, `bf16` or blocks of few bits, straight from the mapped file; nothing
    /// requires gradients. For inference, and for adapters on a frozen model.
    ///
    /// The file stays mapped as long as the model lives: replace it by renaming, as ft and most programs
    /// do, and never by writing into it. Where kernels do not take 16 bits (all devices but the CPU),
    /// matrices are widened to `f32` when they are loaded.
    Stored,
}

/// Fills every float parameter of `module` from `source`, held as `weights` says.
///
/// `key_of` turns a parameter's path into its key, and `ignored` tells which left-over keys are
/// ignored.
///
/// # Errors
///
/// [`Error::Keys`] with all that is missing, left over or of another shape; nothing is read then.
pub fn load_module<M: Module + Parts>(
    module: M,
    source: &dyn WeightSource,
    weights: Weights,
    key_of: impl Fn(&str) -> String,
    ignored: impl Fn(&str) -> bool,
) -> Result<M> {
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    let mut wanted = BTreeSet::new();
    for (path, shape) in module_path::shapes(&module) {
        let key = key_of(&path);
        if !source.contains(&key) {
            missing.push(key);
            continue;
        }
        let found = source.shape(&key)?;
        if found[..] != shape[..] {
            misshapen.push(format!("{key} (model {:?}, file {found:?})", &shape[..]));
        }
        wanted.insert(key);
    }
    let unexpected: Vec<String> = source
        .names()
        .filter(|name| !wanted.contains(*name) && !ignored(name))
        .map(str::to_string)
        .collect();
    if !(missing.is_empty() && unexpected.is_empty() && misshapen.is_empty()) {
        return Err(Error::Keys {
            path: source.path().to_path_buf(),
            missing,
            unexpected,
            misshapen,
        });
    }
    let mut module = module;
    if weights == Weights::Stored {
        put_blocks(&mut module, source, &key_of)?;
    }
    struct Fill<'a, F> {
        source: &'a dyn WeightSource,
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
                Weights::Stored if D >= 2 => self.source.stored(&key),
                _ => self.source.widened(&key),
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
        source,
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

/// Puts matrices that the source has in blocks into the layers, as they are.
fn put_blocks(
    module: &mut impl Parts,
    source: &dyn WeightSource,
    key_of: impl Fn(&str) -> String,
) -> Result<()> {
    let mut failure = None;
    module.for_each_part_mut(&mut |path, mut part| {
        let Some(device) = part.weight().map(|weight| weight.lazy_device()) else {
            return;
        };
        if failure.is_some() {
            return;
        }
        match source.blocks(&key_of(&join(path, "weight"))) {
            Ok(Some(blocks)) => {
                part.set_packed(&blocks.on(&device));
            }
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(()),
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
/// Before anything is written, [`Error::NotFinite`] if a number is infinite, is not a number, or would become infinite in
/// `dtype`, and [`Error::Settings`] if weights are held in blocks of few bits; or if a file cannot be written.
pub fn write_module(
    folder: &Path,
    module: &impl Module,
    dtype: FloatDType,
    max_shard_size: usize,
) -> Result<()> {
    let packed = module_path::packed_weights(module);
    if let Some((path, first)) = packed.first() {
        return Err(Error::Settings(format!(
            "{} weights are held in blocks of few bits (the first is {path}, {}), which safetensors files of Hugging Face do not \
             have: call dequantize first, or write a GGUF file",
            packed.len(),
            first.format()
        )));
    }
    let width = match dtype {
        FloatDType::F16 | FloatDType::BF16 => 2,
        FloatDType::F64 => 8,
        _ => 4,
    };
    let mut sizes = Vec::new();
    for (name, shape) in module_path::shapes(module) {
        for (name, data) in tensors_where(module, &|path| path == name) {
            check_finite(&name, &data, dtype)?;
        }
        sizes.push((name, shape.num_elements() * width));
    }
    write_shards(folder, sizes, max_shard_size, |names| {
        let tensors = tensors_where(module, &|path| names.contains(path)).into_iter();
        let converted = tensors.map(|(name, data)| (name, data.convert_dtype(dtype.into())));
        Ok(converted.collect())
    })
}

/// Writes tensors as `model.safetensors`, or in shards of at most `max_shard_size` bytes with an index; weights that an
/// earlier save left in the folder are removed once the new ones are whole.
///
/// `sizes` has the names of what is written and its bytes, and `tensors_of` gives the tensors of some of these names, possibly
/// several for one. It is called for one shard at a time.
///
/// # Errors
///
/// If `tensors_of` returns an error, or a file cannot be written.
pub fn write_shards(
    folder: &Path,
    sizes: Vec<(String, usize)>,
    max_shard_size: usize,
    tensors_of: impl Fn(&BTreeSet<String>) -> Result<Vec<(String, TensorData)>>,
) -> Result<()> {
    // Names of what each shard holds, and its bytes.
    let mut shards: Vec<(BTreeSet<String>, usize)> = vec![(BTreeSet::new(), 0)];
    for (name, size) in sizes {
        match shards.last_mut() {
            Some(last) if last.0.is_empty() || last.1 + size <= max_shard_size => {
                last.0.insert(name);
                last.1 += size;
            }
            _ => shards.push((BTreeSet::from([name]), size)),
        }
    }
    let write_shard = |path: &Path, names: &BTreeSet<String>| {
        let tensors = tensors_of(names)?;
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        write_tensors(path, &tensors, &metadata)?;
        let bytes = tensors.iter().map(|(_, data)| data.as_bytes().len());
        let bytes: usize = bytes.sum();
        let names = tensors.into_iter().map(|(name, _)| name);
        Ok::<_, Error>((names.collect::<Vec<_>>(), bytes))
    };
    let mut written = BTreeSet::new();
    if let [(only, _)] = shards.as_slice() {
        write_shard(&folder.join(WEIGHTS), only)?;
        written.insert(WEIGHTS.to_string());
    } else {
        let mut weight_map = serde_json::Map::new();
        let mut total = 0;
        let count = shards.len();
        // All shards are whole before the first takes the place of an older one, and the old index
        // is gone by then: a kill leaves the old model or none, and never a mixture of two.
        std::fs::create_dir_all(folder).map_err(Error::write(folder))?;
        let staging = tempfile::tempdir_in(folder).map_err(Error::write(folder))?;
        for (i, (names, _)) in shards.iter().enumerate() {
            let file = format!("model-{:05}-of-{count:05}.safetensors", i + 1);
            let (names, bytes) = write_shard(&staging.path().join(&file), names)?;
            for name in names {
                weight_map.insert(name, Value::from(file.clone()));
            }
            total += bytes;
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
