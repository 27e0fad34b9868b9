//! A model in few bits, written as a folder that transformers and vLLM load.
//!
//! The blocks of linear layers are written as they are, so the folder has the numbers of the model, except that scales are
//! rounded to the type of the file. What else the model has is written in that type.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::Module;
use burn::tensor::FloatDType;
use ft_core::module_path::packed_weights;
use ft_core::packed_folder::{Matrix, PackedLayout, Survey};
use ft_core::safetensors_folder::{check_finite, write_json, write_shards};
use ft_core::{Part, Parts, WeightSource};
use ft_kernels::{Packed, PackedFormat};
use serde_json::{Value as Json, json};

use crate::{Error, ModelWeights, Result};

/// How a folder is written.
#[derive(Clone, Copy, Debug)]
pub struct FolderOptions {
    /// The type of scales and of tensors that are not packed: `F16` or `BF16`.
    pub dtype: FloatDType,
    /// Bytes after which a new file begins.
    pub max_shard_size: usize,
}

impl Default for FolderOptions {
    /// `F16`, which all kernels for packed weights take, and files of 5 GB.
    fn default() -> Self {
        Self {
            dtype: FloatDType::F16,
            max_shard_size: 5_000_000_000,
        }
    }
}

/// Writes `config.json` and the weights of a model whose linear layers are held in blocks, in a layout that transformers and
/// vLLM read, or the package `hqq`. `config` is the model's `config.json`; its `quantization_config` is set here. The tokenizer is written by itself.
///
/// Layers with numbers, such as an output layer, are written in 16 bits and named as not packed. Groups of one size are written:
/// that of the smallest blocks, whose scale larger blocks repeat. Integers get as few bits as the layout has that hold all of them:
/// 3 where blocks of 4 bits have none above 7. Zero points are left out where all are in the middle of the integers.
///
/// The weights are there before `config.json` is, and each file is written whole or not at all.
///
/// # Errors
///
/// If the model carries adapters; no layer is held in blocks, or layers have integers of different bits or other blocks than the
/// layout has; an embedding is held in blocks; a zero point is no integer from 0; a number does not fit in the type of the file;
/// or a file cannot be written.
///
/// ```no_run
/// use std::path::Path;
///
/// use burn::tensor::Device;
/// use ft_core::{AutoCausalLm, Weights};
/// use ft_quant::{FolderOptions, PackedLayout, write_packed};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // From one layout into another.
/// let device = Device::default();
/// let model = AutoCausalLm::from_pretrained_with(Path::new("model-awq"), &device, Weights::Stored)?;
/// let config = model.config().to_json();
/// let folder = Path::new("model-gptq");
/// write_packed(&model, &config, PackedLayout::Gptq, folder, &FolderOptions::default())?;
/// # Ok(())
/// # }
/// ```
pub fn write_packed<M: Module + Parts>(
    model: &M,
    config: &Json,
    layout: PackedLayout,
    folder: &Path,
    options: &FolderOptions,
) -> Result<()> {
    let source = ModelWeights::new(model)?;
    let packed = packed_weights(model);
    let find = |name: &str| packed.iter().find(|(path, _)| path == name);
    let survey = survey(model, layout, options.dtype)?;
    let mut sizes = Vec::new();
    for name in source.names() {
        let size = match find(name) {
            Some((_, packed)) => packed.num_bytes(),
            None => {
                check_finite(name, &source.widened(name)?, options.dtype)?;
                source.shape(name)?.iter().product::<usize>() * 2
            }
        };
        sizes.push((name.to_string(), size));
    }
    let tensors_of = |names: &BTreeSet<String>| {
        let mut tensors = Vec::new();
        for name in names {
            match find(name) {
                Some((_, packed)) => {
                    let path = name.strip_suffix(".weight").unwrap_or(name);
                    tensors.extend(layout.tensors(
                        path,
                        matrix(path, &packed.packed())?,
                        &survey,
                    )?);
                }
                None => {
                    let data = source.widened(name)?.convert_dtype(options.dtype.into());
                    tensors.push((name.clone(), data));
                }
            }
        }
        Ok(tensors)
    };
    write_shards(folder, sizes, options.max_shard_size, tensors_of)?;
    let mut config = config.clone();
    if let Some(keys) = config.as_object_mut() {
        keys.remove("dtype");
        keys.insert("torch_dtype".into(), json!(survey.dtype_name()));
        keys.insert("quantization_config".into(), layout.config(&survey));
    }
    Ok(write_json(&folder.join("config.json"), &config)?)
}

/// What the layers have in common.
fn survey(
    model: &(impl Module + Parts),
    layout: PackedLayout,
    dtype: FloatDType,
) -> Result<Survey> {
    let mut dense = Vec::new();
    let mut found: Vec<(String, Packed)> = Vec::new();
    let mut table = None;
    model.for_each_part(&mut |path, part| match (part, part.weight()) {
        (Part::Linear(_), Some(weight)) => match weight.packed() {
            Some(packed) => found.push((path.to_string(), packed.packed())),
            None => dense.push(path.to_string()),
        },
        (_, Some(weight)) if weight.packed().is_some() => table = Some(path.to_string()),
        _ => {}
    });
    let refused =
        |reason: String| Error::Settings(format!("{layout} cannot hold this model: {reason}"));
    if let Some(path) = table {
        return Err(refused(format!(
            "{path} is an embedding in blocks, which no layout has: keep it in 16 bits"
        )));
    }
    let Some((first, one)) = found.first() else {
        return Err(refused(
            "no linear layer is held in blocks of few bits".into(),
        ));
    };
    // Two layers are of one kind if they have integers of the same bits, or the same table.
    let kind = |format: PackedFormat| match format.integer_bits() {
        Some(bits) => format!("integers of {bits} bits"),
        None => format.to_string(),
    };
    let wanted = kind(one.format());
    if let Some((path, packed)) = (found.iter()).find(|(_, packed)| kind(packed.format()) != wanted)
    {
        let other = kind(packed.format());
        return Err(refused(format!("{first} has {wanted}, and {path} {other}")));
    }
    let group_size = found
        .iter()
        .map(|(_, packed)| packed.format().block())
        .min();
    let (mut most, mut zero_points) = (0.0f32, BTreeSet::new());
    for (path, packed) in &found {
        if let Matrix::Integers(rounded) | Matrix::Rows(rounded) = matrix(path, packed)? {
            let level = rounded.levels.iter().copied().max();
            most = most.max(level.map_or(0.0, f32::from));
            // Those that are no integers are refused where they are written.
            let whole = rounded.zero_points.iter().filter(|z| z.fract() == 0.0);
            zero_points.extend(whole.map(|z| *z as i64));
        }
    }
    let most = i64::max(most as i64, zero_points.last().copied().unwrap_or(0));
    let rows = one.format() == PackedFormat::INT8;
    let held = match one.format().integer_bits() {
        Some(bits) => bits,
        None if rows => 8,
        None => 4,
    };
    let fewest = layout.bits().iter().find(|bits| most < 1 << **bits);
    let bits = match fewest {
        Some(bits) if !rows => held.min(*bits),
        _ => held,
    };
    let middle = 1 << (bits - 1);
    let output = model.output_layer();
    let packed_output = found.iter().any(|(path, _)| path == output);
    // The output layer of a tied model is a layer in transformers.
    if !packed_output && !output.is_empty() && !dense.iter().any(|path| path == output) {
        dense.push(output.to_string());
    }
    Ok(Survey {
        bits,
        group_size: group_size.unwrap_or_default(),
        symmetric: zero_points.iter().all(|z| *z == middle),
        rows,
        has_zero: zero_points.contains(&0),
        table: match one.format() {
            PackedFormat::NF4 => Some("nf4"),
            PackedFormat::FP4 => Some("fp4"),
            _ => None,
        },
        dense,
        output: packed_output,
        dtype,
    })
}

/// The blocks of a layer as a matrix of a layout.
fn matrix(path: &str, packed: &Packed) -> ft_core::Result<Matrix> {
    let (format, shape) = (packed.format(), packed.dims());
    let found = packed.with_bytes(|bytes| Matrix::from_blocks(format, bytes, shape));
    found.ok_or_else(|| {
        ft_core::Error::Settings(format!(
            "{path} is held in {format}, a format of GGUF files: write a GGUF file, or quantize the model again"
        ))
    })
}
