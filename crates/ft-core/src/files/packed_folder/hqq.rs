//! HQQ's layout: `w[o, i] = scale[o, g]·(q[o, i] − zero[o, g])` with groups of neighbours in a row and zero points that are no
//! integers.
//!
//! - `W_q` `[⌈groups/k⌉, group_size]`: each number has integers of `k` groups, those of the first in its highest bits. With `n`
//!   rows, group `r + j·n` is the `j`th of row `r`, where groups are counted over all rows of the matrix. Bytes hold 4, 2 or 1
//!   integers of 2, 4 or 8 bits, words of 32 bits 10 of 3;
//! - `scale` and `zero` `[groups, 1]` in 16 bits;
//! - `nbits`, `group_size`, `shape` and `axis`, which is 1, as tensors, and settings of the package, which are written and not
//!   read.

use burn::tensor::TensorData;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::reader::{Reader, integers_of, scales, word_data};
use super::{Matrix, Rounded, Survey};
use crate::Result;

pub(super) const MARKS: &[&str] = &["W_q"];
pub(super) const ENDS: &[&str] = &[
    "scale",
    "zero",
    "nbits",
    "group_size",
    "shape",
    "axis",
    "packing",
    "unpack_view_dtype",
    "view_as_float",
    "quant_scale",
    "quant_zero",
    "compute_dtype",
    "offload_meta",
    "encoded_state_dict",
    "stores_quant_config",
    "channel_wise",
    "optimize",
    "round_zero",
];
pub(super) const WRITTEN: &[u32] = &[2, 3, 4, 8];

/// How integers lie in `W_q`.
struct Packing {
    name: &'static str,
    /// Bits of a field.
    bits: u32,
    /// Fields of a number.
    fields: usize,
    dtype: Dtype,
}

impl Packing {
    /// None for bits that are not read here.
    fn of(bits: i64) -> Option<Self> {
        let (name, bits, fields, dtype) = match bits {
            2 => ("2bit_u8", 2, 4, Dtype::U8),
            3 => ("3bit_32", 3, 10, Dtype::I32),
            4 => ("4bit_u8", 4, 2, Dtype::U8),
            5 | 6 | 8 => ("8bit_u8", 8, 1, Dtype::U8),
            _ => return None,
        };
        Some(Self {
            name,
            bits,
            fields,
            dtype,
        })
    }

    /// How far the field of part `j` is shifted.
    fn shift(&self, j: usize) -> u32 {
        self.bits * (self.fields - 1 - j) as u32
    }
}

pub(super) fn check(settings: &Value) -> Result<(), String> {
    let weights = &settings["quant_config"]["weight_quant_params"];
    match weights["axis"].as_i64() {
        None | Some(1) => Ok(()),
        Some(axis) => Err(format!(
            "quantization_config has axis: {axis}, whose groups lie over several rows; what is read is 1"
        )),
    }
}

/// The one number of a tensor.
fn one(reader: &Reader<'_>, end: &str) -> Result<i64> {
    match reader.integers(end)?[..] {
        [number] => Ok(number),
        _ => Err(reader.wrong(end, "is not one number")),
    }
}

pub(super) fn shape(reader: &Reader<'_>) -> Result<[usize; 2]> {
    let [out, cols] = reader.sizes("shape")?;
    layout(reader, [out, cols])?;
    Ok([out, cols])
}

/// The packing, the bits and the size of groups, which fit `W_q`.
fn layout(reader: &Reader<'_>, [out, cols]: [usize; 2]) -> Result<(Packing, u32, usize)> {
    let bits = one(reader, "nbits")?;
    let packing = Packing::of(bits)
        .ok_or_else(|| reader.wrong("nbits", format!("is {bits}; 2 to 6 and 8 are read")))?;
    if one(reader, "axis")? != 1 {
        return Err(reader.wrong("axis", "is not 1: groups over several rows are not read"));
    }
    let group = one(reader, "group_size")?;
    let group = usize::try_from(group)
        .ok()
        .filter(|group| *group > 0 && cols.is_multiple_of(*group));
    let group = group
        .ok_or_else(|| reader.wrong("group_size", format!("does not divide the {cols} columns")))?;
    let (dtype, found, _) = reader.files.raw(&reader.name("W_q"))?;
    let rows = (out * (cols / group)).div_ceil(packing.fields);
    if dtype != packing.dtype || found != [rows, group] {
        let wanted = packing.dtype;
        let what = format!(
            "is {dtype:?} {found:?} in place of {wanted:?} [{rows}, {group}] for {bits} bits"
        );
        return Err(reader.wrong("W_q", what));
    }
    Ok((packing, bits as u32, group))
}

pub(super) fn read(reader: &Reader<'_>) -> Result<Matrix> {
    let [out, cols] = shape(reader)?;
    let (packing, bits, group) = layout(reader, [out, cols])?;
    let groups = cols / group;
    let (_, _, bytes) = reader.files.raw(&reader.name("W_q"))?;
    let words: Vec<u32> = match packing.dtype {
        Dtype::I32 => {
            let (words, _) = bytes.as_chunks::<4>();
            words.iter().map(|word| u32::from_le_bytes(*word)).collect()
        }
        _ => bytes.iter().map(|byte| u32::from(*byte)).collect(),
    };
    let mut levels = vec![0; out * cols];
    let mask = (1u32 << packing.bits) - 1;
    for (j, part) in levels.chunks_mut(words.len()).enumerate() {
        for (level, word) in part.iter_mut().zip(&words) {
            *level = (word >> packing.shift(j) & mask) as u8;
        }
    }
    let (scales, _) = reader.floats("scale", out * groups)?;
    let (zero_points, _) = reader.floats("zero", out * groups)?;
    Ok(Matrix::Integers(Rounded {
        shape: [out, cols],
        bits,
        levels,
        scales,
        zero_points,
        group_of: (0..cols).map(|col| col / group).collect(),
    }))
}

pub(super) fn write(
    matrix: &Matrix,
    survey: &Survey,
) -> Result<Vec<(&'static str, TensorData)>, String> {
    let rounded = integers_of(matrix)?;
    let ([out, cols], bits, group) = (rounded.shape, rounded.bits, survey.group_size);
    let packing = Packing::of(i64::from(bits)).ok_or_else(|| format!("it has {bits} bits"))?;
    let count = out * rounded.groups();
    if packing.dtype == Dtype::U8 && !count.is_multiple_of(packing.fields) {
        return Err(format!("{count} groups of {bits} bits do not fill bytes"));
    }
    let rows = count.div_ceil(packing.fields);
    let mut words = vec![0u32; rows * group];
    for (j, part) in rounded.levels.chunks(words.len()).enumerate() {
        for (word, level) in words.iter_mut().zip(part) {
            *word |= u32::from(*level) << packing.shift(j);
        }
    }
    let packed = match packing.dtype {
        Dtype::I32 => word_data(words, [rows, group]),
        _ => {
            let bytes: Vec<u8> = words.into_iter().map(|word| word as u8).collect();
            TensorData::new(bytes, [rows, group])
        }
    };
    let text = |text: &str| TensorData::new(text.as_bytes().to_vec(), [text.len()]);
    let flag = |flag: bool| TensorData::new(vec![u8::from(flag)], [0usize; 0]);
    let number = |number: usize| TensorData::new(vec![number as i32], [0usize; 0]);
    let view = match packing.dtype {
        Dtype::I32 => "torch.int32",
        _ => "torch.uint8",
    };
    Ok(vec![
        ("W_q", packed),
        (
            "scale",
            scales(rounded.scales.clone(), &[count, 1], survey)?,
        ),
        ("zero", zero_points(rounded, survey)?),
        ("nbits", number(bits as usize)),
        ("group_size", number(group)),
        ("shape", TensorData::new(vec![out as i64, cols as i64], [2])),
        ("axis", number(1)),
        ("packing", text(packing.name)),
        ("unpack_view_dtype", text(view)),
        ("view_as_float", flag(false)),
        ("quant_scale", flag(false)),
        ("quant_zero", flag(false)),
        (
            "compute_dtype",
            text(&format!("torch.{}", survey.dtype_name())),
        ),
        ("offload_meta", flag(false)),
        ("encoded_state_dict", flag(true)),
        ("stores_quant_config", flag(true)),
        ("channel_wise", flag(true)),
        ("optimize", flag(true)),
        ("round_zero", flag(false)),
    ])
}

/// Zero points in the type of the file, which must not move numbers by more than an eighth of a step.
fn zero_points(rounded: &Rounded, survey: &Survey) -> Result<TensorData, String> {
    let shape = [rounded.zero_points.len(), 1];
    let data = TensorData::new(rounded.zero_points.clone(), shape);
    let stored = data.convert_dtype(survey.dtype.into());
    for (found, zero) in stored.iter::<f32>().zip(&rounded.zero_points) {
        let change = (found - zero).abs();
        if change.is_nan() || change > 0.125 {
            let name = survey.dtype_name();
            return Err(format!("a zero point of {zero} would be {found} in {name}"));
        }
    }
    Ok(stored)
}

pub(super) fn config(survey: &Survey) -> Value {
    json!({
        "quant_method": "hqq",
        "quant_config": {
            "weight_quant_params": {
                "nbits": survey.bits,
                "channel_wise": true,
                "group_size": survey.group_size,
                "optimize": true,
                "round_zero": false,
                "axis": 1,
                "view_as_float": false,
            },
            "scale_quant_params": null,
            "zero_quant_params": null,
            "offload_meta": false,
        },
        "skip_modules": survey.dense,
    })
}
