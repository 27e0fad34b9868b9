//! The layout of bitsandbytes.
//!
//! 4 bits, `NF4` and `FP4`: `w = absmax[block]·quant_map[code]`.
//!
//! - `weight` `[⌈numbers/2⌉, 1]`, bytes (or the same bytes as another type): codes of the flattened matrix, the first of two in
//!   the high half;
//! - `weight.absmax`, the largest magnitude of every `blocksize` numbers in `f32`. With double quantization it has codes of 8
//!   bits, `weight.nested_absmax` and `weight.nested_quant_map` their scales and numbers;
//! - `weight.quant_map` `[16]`, the numbers of the codes;
//! - `weight.quant_state.bitsandbytes__nf4` (or `__fp4`), bytes of a JSON text: `shape` `[out, in]`, `blocksize` and so on.
//!
//! 8 bits, which are read and not written: `w[o, i] = SCB[o]/127·weight[o, i]` with signed integers.
//!
//! Magnitudes are written in `f32`, without double quantization, so that nothing is rounded.

use burn::tensor::TensorData;
use ft_kernels::PackedFormat;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::reader::{Reader, size_of};
use super::{Matrix, NestedAbsmax, Rounded, Survey, join_bitsandbytes, one_of, split_bitsandbytes};
use crate::Result;

const NF4_STATE: &str = "weight.quant_state.bitsandbytes__nf4";
const FP4_STATE: &str = "weight.quant_state.bitsandbytes__fp4";
const SCALES_OF_8_BITS: &str = "SCB";

pub(super) const WRITTEN: &[u32] = &[];
pub(super) const MARKS: &[&str] = &[NF4_STATE, FP4_STATE, SCALES_OF_8_BITS];
pub(super) const ENDS: &[&str] = &[
    "weight",
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    "weight_format",
];

/// Numbers of a block in memory.
const BLOCK: usize = 64;

pub(super) fn check(settings: &Value) -> Result<(), String> {
    one_of(settings, "bnb_4bit_quant_type", &["nf4", "fp4"])
}

/// The settings of a matrix of 4 bits.
struct State {
    format: PackedFormat,
    json: Value,
    shape: [usize; 2],
    numbers: usize,
    block: usize,
}

impl State {
    /// None if the matrix has 8 bits.
    fn read(reader: &Reader<'_>) -> Result<Option<Self>> {
        let states = [
            (NF4_STATE, PackedFormat::NF4),
            (FP4_STATE, PackedFormat::FP4),
        ];
        let Some((end, format)) = states.into_iter().find(|(end, _)| reader.has(end)) else {
            return Ok(None);
        };
        let (_, _, text) = reader.files.raw(&reader.name(end))?;
        let json: Value = serde_json::from_slice(text)
            .map_err(|e| reader.wrong(end, format!("is no JSON text: {e}")))?;
        let size = |value: &Value| usize::try_from(value.as_u64()?).ok();
        let shape = match json["shape"].as_array().map(Vec::as_slice) {
            Some([out, cols]) => size(out).zip(size(cols)),
            _ => None,
        };
        let numbers = shape.and_then(|(out, cols)| size_of([out, cols]));
        let (Some((out, cols)), Some(numbers)) = (shape, numbers) else {
            let found = format!("has shape {}, not the two sizes of a matrix", json["shape"]);
            return Err(reader.wrong(end, found));
        };
        let block = size(&json["blocksize"]).filter(|size| *size > 0 && size.is_multiple_of(BLOCK));
        let block = block.ok_or_else(|| {
            let found = &json["blocksize"];
            reader.wrong(
                end,
                format!("has blocksize {found}, which is no multiple of {BLOCK}"),
            )
        })?;
        let (_, _, bytes) = reader.files.raw(&reader.name("weight"))?;
        if bytes.len() != numbers.div_ceil(2) || numbers == 0 {
            let what = format!(
                "has {} bytes, which do not hold [{out}, {cols}] of 4 bits",
                bytes.len()
            );
            return Err(reader.wrong("weight", what));
        }
        Ok(Some(Self {
            format,
            shape: [out, cols],
            numbers,
            block,
            json,
        }))
    }

    /// The largest magnitude of each block of the file.
    fn absmax(&self, reader: &Reader<'_>) -> Result<Vec<f32>> {
        let count = self.numbers.div_ceil(self.block);
        if !reader.has("weight.nested_absmax") {
            return Ok(reader.floats("weight.absmax", count)?.0);
        }
        let (dtype, shape, codes) = reader.files.raw(&reader.name("weight.absmax"))?;
        if dtype != Dtype::U8 || codes.len() != count {
            let found = format!("is {dtype:?} {shape:?} in place of {count} bytes");
            return Err(reader.wrong("weight.absmax", found));
        }
        let end = "weight.nested_absmax";
        if self.json["nested_blocksize"] != 256 {
            let found = &self.json["nested_blocksize"];
            return Err(reader.wrong(end, format!("has blocks of {found}, and 256 are supported")));
        }
        let nested = NestedAbsmax {
            codes: codes.to_vec(),
            nested: reader.floats(end, count.div_ceil(256))?.0,
            offset: self.json["nested_offset"].as_f64().unwrap_or(0.0) as f32,
            map: reader.floats("weight.nested_quant_map", 256)?.0,
        };
        Ok(nested.dequantize())
    }
}

pub(super) fn shape(reader: &Reader<'_>) -> Result<[usize; 2]> {
    match State::read(reader)? {
        Some(state) => Ok(state.shape),
        None => reader.dims("weight"),
    }
}

pub(super) fn read(reader: &Reader<'_>) -> Result<Matrix> {
    let Some(state) = State::read(reader)? else {
        return read_8_bits(reader);
    };
    let (map, _) = reader.floats("weight.quant_map", 16)?;
    if map != table(state.format) {
        let what = format!("is not the table of {}", state.format);
        return Err(reader.wrong("weight.quant_map", what));
    }
    let absmax = state.absmax(reader)?;
    let (_, _, codes) = reader.files.raw(&reader.name("weight"))?;
    let blocks = state.numbers.div_ceil(BLOCK);
    let mut codes = codes.to_vec();
    codes.resize(blocks * BLOCK / 2, 0);
    // Larger blocks of the file are several with the same magnitude.
    let absmax: Vec<f32> = (0..blocks)
        .map(|i| absmax[i * BLOCK / state.block])
        .collect();
    Ok(Matrix::Table {
        format: state.format,
        blocks: join_bitsandbytes(&codes, &absmax),
        shape: state.shape,
    })
}

/// The numbers of the 16 codes.
fn table(format: PackedFormat) -> Vec<f32> {
    let codes: Vec<u8> = (0..32u8)
        .map(|i| ((2 * i % 16) << 4) | ((2 * i + 1) % 16))
        .collect();
    let mut numbers = vec![0.0; BLOCK];
    format.decode(&join_bitsandbytes(&codes, &[1.0]), &mut numbers);
    numbers.truncate(16);
    numbers
}

fn read_8_bits(reader: &Reader<'_>) -> Result<Matrix> {
    let shape = reader.dims("weight")?;
    let (dtype, _, bytes) = reader.files.raw(&reader.name("weight"))?;
    if dtype != Dtype::I8 {
        return Err(reader.wrong("weight", format!("is {dtype:?} in place of I8")));
    }
    let [out, cols] = shape;
    let (scales, _) = reader.floats(SCALES_OF_8_BITS, out)?;
    Ok(Matrix::Integers(Rounded {
        shape,
        bits: 8,
        levels: bytes.iter().map(|byte| byte.wrapping_add(128)).collect(),
        scales: scales.iter().map(|scale| scale / 127.0).collect(),
        zero_points: vec![128.0; out],
        group_of: vec![0; cols],
    }))
}

pub(super) fn write(
    matrix: &Matrix,
    survey: &Survey,
) -> Result<Vec<(&'static str, TensorData)>, String> {
    let Matrix::Table {
        format,
        blocks,
        shape,
    } = matrix
    else {
        return Err("it has integers, and bitsandbytes numbers of NF4 or FP4: write gptq".into());
    };
    let (codes, absmax) = split_bitsandbytes(blocks);
    let (state, name) = match format {
        PackedFormat::FP4 => (FP4_STATE, "fp4"),
        _ => (NF4_STATE, "nf4"),
    };
    let text = json!({
        "quant_type": name,
        "blocksize": BLOCK,
        "dtype": survey.dtype_name(),
        "shape": shape,
    });
    let text = text.to_string().into_bytes();
    let bytes = |bytes: Vec<u8>, shape: Vec<usize>| TensorData::new(bytes, shape);
    let (text_size, code_size, blocks) = (text.len(), codes.len(), absmax.len());
    Ok(vec![
        ("weight", bytes(codes, vec![code_size, 1])),
        ("weight.absmax", TensorData::new(absmax, [blocks])),
        ("weight.quant_map", TensorData::new(table(*format), [16])),
        (state, bytes(text, vec![text_size])),
    ])
}

pub(super) fn config(survey: &Survey) -> Value {
    json!({
        "quant_method": "bitsandbytes",
        "load_in_4bit": true,
        "load_in_8bit": false,
        "bnb_4bit_quant_type": survey.table.unwrap_or("nf4"),
        "bnb_4bit_use_double_quant": false,
        "bnb_4bit_compute_dtype": survey.dtype_name(),
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": survey.dense,
    })
}
