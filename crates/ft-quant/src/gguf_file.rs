//! A model written as a GGUF file in one of llama.cpp's mixes.
//!
//! One matrix at a time is widened, rounded and written, so the memory is that of the largest matrix beside the mapped source.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::DType;
use ft_core::gguf::{GgufLayout, GgufWriter, Placed, TensorType};
use ft_core::{Tokenizer, WeightSource};
use ft_kernels::PackedFormat;
use half::{bf16, f16};
use rayon::prelude::*;
use serde_json::Value as Json;

use crate::importance::weighted_squares;
use crate::{Error, Importance, Mix, Result, TensorFacts};

/// The number of bytes of numbers that a task rounds at least.
const PIECE: usize = 1 << 16;
/// `general.quantization_version` of ggml.
const QUANTIZATION_VERSION: u32 = 2;

/// Whether a tensor is of the output layer.
fn is_head(name: &str) -> bool {
    name.starts_with("lm_head.") || name.starts_with("embed_out.")
}

/// How a model is written.
#[derive(Clone)]
pub struct GgufOptions<'a> {
    /// The types of tensors.
    pub mix: Mix,
    /// Tensors that have other types than those of the mix, by their names in the file: `blk.0.attn_v.weight`.
    pub types: Option<&'a BTreeMap<String, TensorType>>,
    /// `general.name`.
    pub name: Option<String>,
    /// What matters, from a text.
    pub importance: Option<&'a Importance>,
    /// Called after each tensor with how many are written, and how many there are.
    pub progress: Option<&'a dyn Fn(usize, usize)>,
}

impl GgufOptions<'_> {
    /// A mix, and nothing else.
    pub fn new(mix: Mix) -> Self {
        Self {
            mix,
            types: None,
            name: None,
            importance: None,
            progress: None,
        }
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// All tensors, in the order of the file.
    pub tensors: Vec<WrittenTensor>,
    /// The size of the file.
    pub bytes: usize,
}

/// A tensor that was written.
#[derive(Clone, Debug)]
pub struct WrittenTensor {
    /// Its name in the file.
    pub name: String,
    /// Its type there.
    pub kind: TensorType,
    /// How many numbers it has.
    pub numbers: usize,
    /// `‖W − Ŵ‖ / ‖W‖`.
    pub error: f64,
}

impl Written {
    /// The mean of the errors of all tensors in blocks; 0 if there are none.
    pub fn mean_error(&self) -> f64 {
        let blocks = self.tensors.iter().filter(|one| one.kind.block() > 1);
        let (sum, count) = blocks.fold((0.0, 0), |(sum, count), one| (sum + one.error, count + 1));
        sum / f64::from(count.max(1))
    }

    /// Bits for each number of the model, with all that is in the file.
    pub fn bits_per_weight(&self) -> f64 {
        let numbers: usize = self.tensors.iter().map(|one| one.numbers).sum();
        self.bytes as f64 * 8.0 / numbers.max(1) as f64
    }
}

/// A tensor before it is written.
pub(crate) struct Planned {
    /// In the source.
    pub(crate) name: String,
    /// In the model, whose names begin with that of the body.
    pub(crate) path: String,
    pub(crate) placed: Placed,
    shape: Vec<usize>,
    pub(crate) kind: TensorType,
}

impl Planned {
    /// The shape in the file, outermost dimension first.
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.placed.shape(&self.shape)
    }

    /// The numbers in the file.
    pub(crate) fn numbers(&self, source: &dyn WeightSource) -> ft_core::Result<Vec<f32>> {
        let numbers = match source.widened(&self.name)? {
            data if data.dtype() == DType::F32 => data.try_into_vec::<f32>(),
            data => data.convert::<f32>().try_into_vec::<f32>(),
        };
        let numbers = numbers.map_err(|error| {
            ft_core::Error::Settings(format!("{} has other numbers: {error}", self.name))
        })?;
        Ok(self.placed.numbers(numbers, &self.shape))
    }
}

/// Writes a model as a GGUF file, which llama.cpp and Ollama load. `config` is its `config.json`.
///
/// The file is written whole or not at all. A source that is a GGUF file itself is rounded a second time.
///
/// # Errors
///
/// If llama.cpp has no such architecture, setting, tensor or tokenizer; a number is not finite or too large for a scale of 16
/// bits; or the file cannot be written.
pub fn write_gguf(
    source: &dyn WeightSource,
    config: &Json,
    tokenizer: &Tokenizer,
    path: &Path,
    options: &GgufOptions<'_>,
) -> Result<Written> {
    let (tensors, failure) = (RefCell::new(Vec::new()), RefCell::new(None));
    let (plan, mut writer) = begin(source, config, tokenizer, options)?;
    let total = plan.len();
    for one in &plan {
        let (tensors, failure) = (&tensors, &failure);
        let shape = one.shape();
        let width = shape[shape.len() - 1];
        writer.add(one.placed.name.as_str(), &shape, one.kind, move || {
            let numbers = one.numbers(source)?;
            let importance = options.importance.and_then(|all| all.of(&one.path));
            let rounded = Rounding {
                kind: one.kind,
                width,
                importance,
                measured_by: None,
            };
            match rounded.run(&one.placed.name, &numbers) {
                Ok((bytes, error)) => {
                    let mut tensors = tensors.borrow_mut();
                    tensors.push(WrittenTensor {
                        name: one.placed.name.clone(),
                        kind: one.kind,
                        numbers: numbers.len(),
                        error,
                    });
                    if let Some(progress) = options.progress {
                        progress(tensors.len(), total);
                    }
                    Ok(Cow::Owned(bytes))
                }
                Err(error) => {
                    let reason = error.to_string();
                    *failure.borrow_mut() = Some(error);
                    Err(ft_core::Error::Settings(reason))
                }
            }
        })?;
    }
    let bytes = writer.num_bytes();
    let written = writer.write(path);
    if let Some(error) = failure.into_inner() {
        return Err(error);
    }
    written?;
    Ok(Written {
        tensors: tensors.into_inner(),
        bytes,
    })
}

/// Which tensors the file has, and the file without them.
pub(crate) fn begin<'a>(
    source: &dyn WeightSource,
    config: &Json,
    tokenizer: &Tokenizer,
    options: &GgufOptions<'_>,
) -> Result<(Vec<Planned>, GgufWriter<'a>)> {
    let layout = GgufLayout::new(config)?;
    let plan = plan(source, config, &layout, options)?;
    let mut metadata = layout.metadata(config)?;
    if let Some(name) = &options.name {
        metadata.set("general.name", name.as_str());
    }
    metadata.set("general.file_type", options.mix.file_type());
    metadata.set("general.quantization_version", QUANTIZATION_VERSION);
    let rows = plan
        .iter()
        .find(|one| one.placed.name == "token_embd.weight");
    let rows = rows.map(|one| one.shape[0]).ok_or_else(|| {
        Error::Settings(format!(
            "{} has no embedding of tokens",
            source.path().display()
        ))
    })?;
    tokenizer.write_gguf(rows, &mut metadata)?;
    let mut writer = GgufWriter::new(metadata);
    layout.add_rope(config, &mut writer)?;
    Ok((plan, writer))
}

/// The name of a tensor as the file's architecture has it; none if it is no part of the file: a buffer, the output layer of a tied
/// model, and of an encoder all but its body.
fn name_in_file(name: &str, tied: bool, is_encoder: bool) -> Option<String> {
    if is_encoder {
        let name = name.strip_prefix("bert.").unwrap_or(name);
        let is_body = name.starts_with("embeddings.") || name.starts_with("encoder.");
        return (is_body && name != "embeddings.position_ids").then(|| {
            // As checkpoints from TensorFlow call them.
            let name = name.replace("LayerNorm.gamma", "LayerNorm.weight");
            name.replace("LayerNorm.beta", "LayerNorm.bias")
        });
    }
    let is_buffer = name.ends_with("rotary_emb.inv_freq")
        || name.ends_with(".attn.bias")
        || name.ends_with(".masked_bias")
        || name.ends_with(".attention.bias");
    let is_tied = tied && is_head(name) && name.ends_with(".weight");
    (!is_buffer && !is_tied).then(|| name.to_string())
}

/// Which tensors the file has, in llama.cpp's order: embedding, blocks, output.
fn plan(
    source: &dyn WeightSource,
    config: &Json,
    layout: &GgufLayout,
    options: &GgufOptions<'_>,
) -> Result<Vec<Planned>> {
    let tied = config["tie_word_embeddings"] == true;
    let mut plan = Vec::new();
    let is_encoder = layout.architecture().is_encoder();
    let body = layout.architecture().body();
    // GPT-2's own checkpoints and those of embedding models have the names of the body alone.
    let is_bare = !source.names().any(|name| name.starts_with(body));
    if is_bare && config["tie_word_embeddings"] == false && !source.names().any(is_head) {
        return Err(Error::Settings(format!(
            "{} has no output layer, and tie_word_embeddings is false: a file without it would give other logits; add the weight of the \
             model with its head",
            source.path().display()
        )));
    }
    for name in source.names() {
        let Some(mut path) = name_in_file(name, tied, is_encoder) else {
            continue;
        };
        if is_bare && !is_head(name) {
            path.insert_str(0, body);
        }
        plan.push(Planned {
            placed: layout.place(&path)?,
            path,
            shape: source.shape(name)?,
            name: name.to_string(),
            kind: TensorType::F32,
        });
    }
    plan.sort_by_cached_key(|one| order(&one.placed.name));
    let size = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| config[*key].as_u64());
        found.and_then(|size| usize::try_from(size).ok())
    };
    let heads = size(&["num_attention_heads", "n_head"]).unwrap_or(1);
    let keys = size(&["num_key_value_heads", "num_kv_heads"]).unwrap_or(heads);
    let has_output = plan.iter().any(|one| one.placed.name == "output.weight");
    for one in &mut plan {
        let shape = one.shape();
        let own = options.types.and_then(|types| types.get(&one.placed.name));
        let by_rules = || {
            options.mix.type_of(&TensorFacts {
                name: &one.placed.name,
                shape: &shape,
                architecture: layout.architecture().name,
                blocks: size(&["num_hidden_layers", "n_layer"]).unwrap_or(0),
                queries_per_key: heads / keys.max(1),
                has_output,
                has_importance: options.importance.is_some(),
            })
        };
        one.kind = own.copied().unwrap_or_else(by_rules);
        let plain = [TensorType::F32, TensorType::F16, TensorType::BF16];
        if one.kind.packed().is_none() && !plain.contains(&one.kind) {
            let known = PackedFormat::GGUF.iter().map(|format| format.name());
            let known: Vec<&str> = known.collect();
            return Err(Error::Settings(format!(
                "{} cannot be written as {}: give F32, F16, BF16, {}",
                one.placed.name,
                one.kind,
                known.join(", ")
            )));
        }
    }
    let mut names = options.types.into_iter().flat_map(BTreeMap::keys);
    match names.find(|name| !plan.iter().any(|one| one.placed.name == **name)) {
        Some(name) => Err(Error::Settings(format!(
            "the file has no tensor {name}, for which a type is given: names are those of llama.cpp, as blk.0.attn_v.weight"
        ))),
        None => Ok(plan),
    }
}

/// Where a tensor comes in the file.
fn order(name: &str) -> (u8, usize, String) {
    let block = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'));
    match block.and_then(|(block, rest)| Some((block.parse().ok()?, rest))) {
        Some((block, rest)) => (1, block, rest.to_string()),
        None if name.starts_with("output") => (2, 0, name.to_string()),
        None => (0, 0, name.to_string()),
    }
}

/// How a tensor is rounded.
pub(crate) struct Rounding<'a> {
    pub(crate) kind: TensorType,
    /// Numbers in a row.
    pub(crate) width: usize,
    /// What matters of each column.
    pub(crate) importance: Option<&'a [f32]>,
    /// What the error of each column is weighed by.
    pub(crate) measured_by: Option<&'a [f32]>,
}

impl Rounding<'_> {
    /// The bytes of a tensor, and the relative error of its numbers.
    pub(crate) fn run(&self, name: &str, numbers: &[f32]) -> Result<(Vec<u8>, f64)> {
        let Some(format) = self.kind.packed() else {
            return self.plain(name, numbers);
        };
        let width = self.width;
        if let Some(importance) = self.importance
            && importance.len() != width
        {
            return Err(Error::Settings(format!(
                "the importance of {name} has {} columns, and the tensor {width}: it was measured on another model",
                importance.len()
            )));
        }
        let row_bytes = format.bytes_of(width);
        let mut bytes = vec![0; numbers.len() / width * row_bytes];
        let rows = (PIECE / width).max(1);
        let pieces = bytes
            .par_chunks_mut(rows * row_bytes)
            .zip(numbers.par_chunks(rows * width));
        let errors: Result<Vec<[f64; 2]>, ft_kernels::EncodeError> = pieces
            .map(|(bytes, numbers)| {
                encode(format, numbers, self.importance, bytes)?;
                let mut decoded = vec![0.0; numbers.len()];
                format.decode(bytes, &mut decoded);
                Ok(weighted_squares(numbers, &decoded, self.measured_by))
            })
            .collect();
        let errors = errors.map_err(|source| Error::Numbers {
            tensor: name.to_string(),
            source,
        })?;
        Ok((bytes, relative(errors)))
    }

    /// Without blocks.
    fn plain(&self, name: &str, numbers: &[f32]) -> Result<(Vec<u8>, f64)> {
        let (bytes, decoded) = plain(name, self.kind, numbers)?;
        let error = decoded.map_or(0.0, |decoded| {
            relative(vec![weighted_squares(numbers, &decoded, self.measured_by)])
        });
        Ok((bytes, error))
    }
}

fn encode(
    format: PackedFormat,
    numbers: &[f32],
    importance: Option<&[f32]>,
    bytes: &mut [u8],
) -> Result<(), ft_kernels::EncodeError> {
    match importance {
        None => format.encode(numbers, bytes),
        Some(importance) => {
            let width = importance.len();
            let rows = bytes.chunks_exact_mut(format.bytes_of(width));
            rows.zip(numbers.chunks_exact(width))
                .try_for_each(|(bytes, row)| format.encode_weighted(row, importance, bytes))
        }
    }
}

/// Bytes of plain numbers, and what is read from them if it differs.
fn plain(name: &str, kind: TensorType, numbers: &[f32]) -> Result<(Vec<u8>, Option<Vec<f32>>)> {
    if let Some(x) = numbers.iter().find(|x| !x.is_finite()) {
        return Err(Error::Settings(format!(
            "{name} holds {x}, which is not finite: the weights are damaged; go back to an earlier checkpoint"
        )));
    }
    Ok(match kind {
        TensorType::F16 => {
            let halves: Vec<f16> = numbers.iter().map(|x| f16::from_f32(*x)).collect();
            if let Some(x) = numbers
                .iter()
                .zip(&halves)
                .find(|(_, half)| half.is_infinite())
            {
                return Err(Error::Settings(format!(
                    "{name} holds {}, which F16 cannot hold (its largest number is 65504): write BF16",
                    x.0
                )));
            }
            let bytes = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
            let decoded = halves.iter().map(|half| half.to_f32()).collect();
            (bytes, Some(decoded))
        }
        TensorType::BF16 => {
            let halves: Vec<bf16> = numbers.iter().map(|x| bf16::from_f32(*x)).collect();
            let bytes = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
            let decoded = halves.iter().map(|half| half.to_f32()).collect();
            (bytes, Some(decoded))
        }
        _ => {
            let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            (bytes, None)
        }
    })
}

fn relative(squares: Vec<[f64; 2]>) -> f64 {
    let [error, size] = squares
        .into_iter()
        .fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
    if size > 0.0 {
        (error / size).sqrt()
    } else {
        0.0
    }
}
