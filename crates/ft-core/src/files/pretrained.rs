//! A model's folder: weights into a model, and a model with its configuration into a folder.

use std::path::Path;

use burn::module::Module;
use burn::tensor::FloatDType;
use serde_json::Value;

use crate::files::safetensors_folder::{self, Weights};
use crate::files::weight_source::{WeightSource, open_weights};
use crate::{Error, Parts, Result};

/// How a model is written.
#[derive(Clone, Copy, Debug)]
pub struct SaveOptions {
    /// Type of the numbers in the file.
    pub dtype: FloatDType,
    /// Bytes after which a new shard begins; transformers' default is 5 GB.
    pub max_shard_size: usize,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            dtype: FloatDType::F32,
            max_shard_size: 5_000_000_000,
        }
    }
}

/// How the keys of a checkpoint differ from the paths of a model. The default is: not at all.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// Beginnings of the body's keys in a checkpoint of a model with a head. A checkpoint of the bare body lacks them.
    pub body_prefixes: &'a [&'a str],
    /// Whether the model is a bare body, whose paths have no prefix.
    pub bare: bool,
    /// Which keys that the model has no place for are ignored; it gets them without the body's prefix if the model is
    /// bare.
    pub ignored: fn(&str) -> bool,
    /// Ends of paths, and how old checkpoints spell them.
    pub old_names: &'a [(&'a str, &'a str)],
}

impl Default for Keys<'_> {
    fn default() -> Self {
        Self {
            body_prefixes: &[],
            bare: false,
            ignored: |_| false,
            old_names: &[],
        }
    }
}

impl Keys<'_> {
    /// The key of a path in these files.
    fn of<'a>(&'a self, files: &'a dyn WeightSource) -> impl Fn(&str) -> String + 'a {
        let found = (self.body_prefixes.iter().copied())
            .find(|prefix| files.names().any(|name| name.starts_with(prefix)));
        let renamed: Vec<_> = (self.old_names.iter())
            .filter(|(_, old)| files.names().any(|name| name.ends_with(old)))
            .collect();
        move |path| {
            let mut key = path.to_string();
            for (new, old) in &renamed {
                if let Some(start) = key.strip_suffix(new) {
                    key = format!("{start}{old}");
                    break;
                }
            }
            match (self.bare, found) {
                (true, Some(prefix)) => format!("{prefix}{key}"),
                // The checkpoint is bare, the model is not.
                (false, None) => (self.body_prefixes.iter())
                    .find_map(|prefix| key.strip_prefix(prefix))
                    .map(str::to_string)
                    .unwrap_or(key),
                _ => key,
            }
        }
    }
}

/// Fills `model` from the weights of a folder, held as `weights` says: `model.safetensors`, whole or sharded, and possibly with
/// packed matrices.
///
/// # Errors
///
/// If a file is missing, truncated or malformed, or the weights do not fit the model:
/// [`Error::Keys`] lists every missing, left-over and misshapen key.
pub fn load_pretrained<M: Module + Parts>(
    model: M,
    folder: &Path,
    weights: Weights,
    keys: &Keys<'_>,
) -> Result<M> {
    let files = open_weights(folder)?;
    load_from(model, &*files, weights, keys)
}

/// [`load_pretrained`] from files that are open.
pub(crate) fn load_from<M: Module + Parts>(
    model: M,
    files: &dyn WeightSource,
    weights: Weights,
    keys: &Keys<'_>,
) -> Result<M> {
    let ignored = |name: &str| {
        let prefixes = keys.body_prefixes.iter().filter(|_| keys.bare);
        let bare = prefixes.into_iter().find_map(|p| name.strip_prefix(p));
        (keys.ignored)(bare.unwrap_or(name))
    };
    safetensors_folder::load_module(model, files, weights, keys.of(files), ignored)
}

/// A type as PyTorch calls it.
pub(crate) fn dtype_name(dtype: FloatDType) -> &'static str {
    match dtype {
        FloatDType::F16 => "float16",
        FloatDType::BF16 => "bfloat16",
        FloatDType::F64 => "float64",
        _ => "float32",
    }
}

/// Writes `config.json` and the weights of a model, so that transformers loads the folder. `dtype` of the configuration
/// is set here.
///
/// Adapters are not part of it: merge them first, or save them as an adapter.
///
/// # Errors
///
/// If a file cannot be written, the model carries adapters or weights in blocks of few bits (call
/// [`dequantize`](crate::dequantize) first), or ([`Error::NotFinite`], with nothing written) a weight is
/// not finite or has no finite number in the type of the file: above 65,504 in `f16`.
pub fn save_pretrained<M: Module + Parts>(
    model: &M,
    mut config: Value,
    folder: &Path,
    options: &SaveOptions,
) -> Result<()> {
    let mut adapted = Vec::new();
    model.for_each_part(&mut |path, part| {
        if !part.adapters().is_empty() {
            adapted.push(path.to_string());
        }
    });
    if let Some(first) = adapted.first() {
        return Err(Error::Settings(format!(
            "the model carries adapters ({} layers, the first is {first}), which save_pretrained \
             would lose: merge them first, or save the adapter by itself",
            adapted.len()
        )));
    }
    let name = dtype_name(options.dtype);
    if let Some(map) = config.as_object_mut() {
        map.remove("dtype");
        map.insert("torch_dtype".into(), name.into());
    }
    safetensors_folder::write_module(folder, model, options.dtype, options.max_shard_size)?;
    safetensors_folder::write_json(&folder.join("config.json"), &config)?;
    super::stage::forget(folder)
}
