//! A mix of types for a size: each matrix of a GGUF file gets the type with which the sum of errors is least within a budget.

use std::collections::BTreeMap;

use ft_core::gguf::TensorType;
use ft_core::{Tokenizer, WeightSource};
use ft_kernels::PackedFormat;
use serde_json::Value as Json;

use crate::gguf_file::{Planned, Rounding, begin};
use crate::mix::fitting;
use crate::{Choice, Error, GgufOptions, Mix, Result, Sensitivity, allocate};

/// The formats that are tried, and 16 bits.
const FORMATS: [PackedFormat; 6] = [
    PackedFormat::Q2_K,
    PackedFormat::Q3_K,
    PackedFormat::Q4_K,
    PackedFormat::Q5_K,
    PackedFormat::Q6_K,
    PackedFormat::Q8_0,
];
/// Tensors begin at multiples of so many bytes.
const ALIGNMENT: usize = 32;

/// How large a file may be, with all that is in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Bytes.
    Bytes(u64),
    /// Bits of the file for each number of the model, as [`Written::bits_per_weight`](crate::Written::bits_per_weight).
    BitsPerWeight(f64),
}

/// Types for a file.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The mix with the type that most numbers have, for [`GgufOptions::mix`].
    pub mix: Mix,
    /// The types of all matrices by their names in the file, for [`GgufOptions::types`].
    pub types: BTreeMap<String, TensorType>,
    /// The size of the file.
    pub bytes: u64,
    /// The sum of errors, about the relative change of the hidden states, squared.
    pub error: f64,
}

/// The types with which a model's GGUF file has the least error among all files within a budget. `config` is the model's
/// `config.json`.
///
/// The error of a type for a matrix is `Σ a·(w − ŵ)² / Σ a·w²` times the [`Sensitivity`] of the layer, where `a` is the importance of
/// a column; for embedding and output layer it is the relative error of their numbers, twice that if they are tied. The sum over
/// matrices is made least by [`allocate`]. Each matrix is rounded to Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_0 and F16, or what llama.cpp
/// takes where rows are no whole blocks. `name` is the [`GgufOptions::name`] that the file gets, which is part of its size.
/// `progress` gets how many tensors were tried, and how many there are.
///
/// # Errors
///
/// If the budget is less than the smallest file, a layer has no finite sensitivity, or the model cannot be written, see
/// [`write_gguf`](crate::write_gguf).
///
/// ```no_run
/// use std::path::Path;
///
/// use burn::tensor::Device;
/// use ft_core::{AutoCausalLm, Tokenizer, Weights, open_weights};
/// use ft_quant::{Budget, GgufOptions, Sensitivity, calibration_windows, fit_mix, write_gguf};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = Path::new("smollm2-135m-instruct");
/// let mut model = AutoCausalLm::from_pretrained_with(folder, &Device::default(), Weights::Stored)?;
/// let tokenizer = Tokenizer::from_pretrained(folder)?;
/// let windows = calibration_windows(Path::new("c4.jsonl"), &tokenizer, 512, 32)?;
/// let sensitivity = Sensitivity::measure(&mut model, &windows, &mut |_, _| {})?;
/// let (config, weights) = (model.config().to_json(), open_weights(folder)?);
/// let (name, budget) = (Some("smollm2"), Budget::BitsPerWeight(4.5));
/// let fit = fit_mix(&*weights, &config, &tokenizer, name, &sensitivity, budget, &mut |_, _| {})?;
/// let options = GgufOptions {
///     types: Some(&fit.types),
///     name: name.map(str::to_string),
///     importance: Some(&sensitivity.importance),
///     ..GgufOptions::new(fit.mix)
/// };
/// write_gguf(&*weights, &config, &tokenizer, Path::new("smollm2.gguf"), &options)?;
/// # Ok(())
/// # }
/// ```
pub fn fit_mix(
    source: &dyn WeightSource,
    config: &Json,
    tokenizer: &Tokenizer,
    name: Option<&str>,
    sensitivity: &Sensitivity,
    budget: Budget,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Fit> {
    // All that is rounded in any mix has 16 bits in this one.
    let options = GgufOptions {
        name: name.map(str::to_string),
        ..GgufOptions::new(Mix::F16)
    };
    let (plan, mut writer) = begin(source, config, tokenizer, &options)?;
    let mut numbers = 0;
    for one in &plan {
        let shape = one.shape();
        numbers += shape.iter().product::<usize>();
        writer.add(one.placed.name.as_str(), &shape, one.kind, || {
            unreachable!("only the size of this file is asked for")
        })?;
    }
    let total = plan.len();
    let (mut matrices, mut kinds, mut choices) = (Vec::new(), Vec::new(), Vec::new());
    for (done, one) in plan.iter().enumerate() {
        if one.kind == TensorType::F16 {
            let (kinds_of_one, choices_of_one) = tried(one, source, config, sensitivity)?;
            matrices.push(one);
            kinds.push(kinds_of_one);
            choices.push(choices_of_one);
        }
        progress(done + 1, total);
    }
    let in_16_bits = matrices.iter().map(|one| size(one, TensorType::F16));
    let rest = writer.num_bytes() as u64 - in_16_bits.sum::<u64>();
    let allowed = match budget {
        Budget::Bytes(bytes) => bytes,
        Budget::BitsPerWeight(bits) => (bits * numbers as f64 / 8.0) as u64,
    };
    let chosen = allowed.checked_sub(rest);
    let Some(chosen) = chosen.and_then(|allowed| allocate(&choices, allowed)) else {
        let least = choices
            .iter()
            .flat_map(|part| part.iter().map(|one| one.bytes).min());
        let least = rest + least.sum::<u64>();
        return Err(Error::Settings(format!(
            "no file of this model has {allowed} bytes or less: give {least} bytes ({:.3} bits a weight) or more",
            least as f64 * 8.0 / numbers.max(1) as f64
        )));
    };
    let mut fit = Fit {
        mix: Mix::F16,
        types: BTreeMap::new(),
        bytes: rest,
        error: 0.0,
    };
    let mut counts = BTreeMap::<&str, usize>::new();
    for ((one, index), (kinds, choices)) in
        matrices.iter().zip(chosen).zip(kinds.iter().zip(&choices))
    {
        fit.types.insert(one.placed.name.clone(), kinds[index]);
        fit.bytes += choices[index].bytes;
        fit.error += choices[index].error;
        *counts.entry(kinds[index].name()).or_default() += one.shape().iter().product::<usize>();
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    if let Some(mix) = most.and_then(|(name, _)| Mix::all().find(|mix| mix.most() == name)) {
        fit.mix = mix;
    }
    Ok(fit)
}

/// The types of a matrix, and what each costs.
fn tried(
    one: &Planned,
    source: &dyn WeightSource,
    config: &Json,
    sensitivity: &Sensitivity,
) -> Result<(Vec<TensorType>, Vec<Choice>)> {
    let shape = one.shape();
    let width = shape[shape.len() - 1];
    let numbers = one.numbers(source)?;
    let importance = sensitivity.importance.of(&one.path);
    let path = one.path.strip_suffix(".weight").unwrap_or(&one.path);
    let factor = match one.placed.name.as_str() {
        "token_embd.weight" if config["tie_word_embeddings"] == true => 2.0,
        "token_embd.weight" | "output.weight" => 1.0,
        _ => *sensitivity.layers.get(path).ok_or_else(|| {
            Error::Settings(format!(
                "no sensitivity for {path}: it was measured on another model"
            ))
        })?,
    };
    if !factor.is_finite() {
        return Err(Error::Settings(format!(
            "the sensitivity of {path} is {factor}: give finite numbers, as Sensitivity::measure does"
        )));
    }
    let mut kinds: Vec<TensorType> = FORMATS.map(|format| fitting(format, width)).to_vec();
    kinds.push(TensorType::F16);
    kinds.dedup();
    let choice = |kind: &TensorType| {
        let rounding = Rounding {
            kind: *kind,
            width,
            importance,
            measured_by: importance,
        };
        let (_, error) = rounding.run(&one.placed.name, &numbers)?;
        Ok(Choice {
            bytes: size(one, *kind),
            error: factor * error * error,
        })
    };
    let choices: Result<Vec<Choice>> = kinds.iter().map(choice).collect();
    Ok((kinds, choices?))
}

/// The bytes of a matrix in the file.
fn size(one: &Planned, kind: TensorType) -> u64 {
    let numbers: usize = one.shape().iter().product();
    (numbers / kind.block() * kind.block_bytes()).next_multiple_of(ALIGNMENT) as u64
}
