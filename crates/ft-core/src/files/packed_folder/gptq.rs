//! GPTQ's layout, of AutoGPTQ and GPTQModel: `w[o, i] = scales[g, o]·(q[i, o] − zeros[g, o])` with `g = g_idx[i]`.
//!
//! - `qweight` `[in·bits/32, out]`, 32-bit words: the integers of a column lie one after the other, lowest bits first;
//! - `qzeros` `[groups, out·bits/32]`, the same along `out`. In version 1 (`checkpoint_format: gptq`) they are stored less 1, so
//!   that a zero point of 0 wraps around, which readers take for `2ᵇ`; `gptq_v2` stores them as they are;
//! - `scales` `[groups, out]` in 16 bits, and `g_idx` `[in]`, the group of each column. With `desc_act` groups follow the order in
//!   which columns were rounded.
//!
//! Version 1 is written if no zero point is 0.

use burn::tensor::TensorData;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::bit_stream::{pack, unpack, words_of};
use super::reader::{
    Reader, integer_zero_points, integers_of, scales, size_of, transposed, word_data,
};
use super::{Matrix, Rounded, Survey, one_of};
use crate::Result;

pub(super) const WRITTEN: &[u32] = &[2, 3, 4, 8];
pub(super) const MARKS: &[&str] = &["qweight"];
pub(super) const ENDS: &[&str] = &["qzeros", "scales", "g_idx"];

/// Columns of `qweight` that are read together: as many words as are loaded at once.
const TILE: usize = 16;

pub(super) fn check(settings: &Value) -> Result<(), String> {
    one_of(settings, "checkpoint_format", &["gptq", "gptq_v2"])?;
    one_of(settings, "format", &["gptq", "gptq_v2"])?;
    one_of(settings, "pack_dtype", &["int32"])
}

/// The version, by its old and its new key.
fn version(settings: &Value) -> &str {
    let keys = ["checkpoint_format", "format"];
    let found = keys.iter().find_map(|key| settings[*key].as_str());
    found.unwrap_or("gptq")
}

/// Bits of an integer: those for which the words hold as many integers as `g_idx` has columns, since single layers may have
/// other bits than `quantization_config` has.
fn bits(reader: &Reader<'_>, words: usize) -> Result<u32> {
    let allowed = WRITTEN.iter().copied();
    let found = if reader.has("g_idx") {
        let (_, shape, _) = reader.files.raw(&reader.name("g_idx"))?;
        let cols: usize = shape.iter().product();
        allowed
            .clone()
            .find(|bits| words_of(cols, *bits) == words && cols > 0)
    } else {
        let bits = reader.settings["bits"].as_u64();
        allowed
            .clone()
            .find(|allowed| bits == Some(u64::from(*allowed)))
    };
    found.ok_or_else(|| {
        let what = "has not the words of integers of 2, 3, 4 or 8 bits for the columns of g_idx, or without it quantization_config has other bits";
        reader.wrong("qweight", what)
    })
}

pub(super) fn shape(reader: &Reader<'_>) -> Result<[usize; 2]> {
    let [words, out] = reader.dims("qweight")?;
    Ok([out, words * 32 / bits(reader, words)? as usize])
}

pub(super) fn read(reader: &Reader<'_>) -> Result<Matrix> {
    let [words, out] = reader.dims("qweight")?;
    let (bits, [_, cols]) = (bits(reader, words)?, shape(reader)?);
    let [groups, _] = reader.dims("scales")?;
    let (scales, _) = reader.floats("scales", size_of([groups, out]).unwrap_or(usize::MAX))?;
    let zero_words = words_of(out, bits);
    let zeros = reader.words("qzeros", [groups, zero_words])?;
    let group_of = match reader.group_of("g_idx", cols, groups)? {
        Some(group_of) => group_of,
        None => reader.even_groups("scales", cols, groups)?,
    };
    let less = u8::from(version(reader.settings) != "gptq_v2");
    let qweight = reader.words("qweight", [words, out])?;
    let mut levels = vec![0; out * cols];
    (levels.par_chunks_mut(TILE * cols.max(1)).enumerate()).for_each(|(tile, levels)| {
        let first = tile * TILE;
        let width = TILE.min(out - first);
        let mut columns = vec![0; width * words];
        for (i, row) in qweight.chunks_exact(out).enumerate() {
            for (j, word) in row[first..first + width].iter().enumerate() {
                columns[j * words + i] = *word;
            }
        }
        for (column, levels) in columns.chunks(words.max(1)).zip(levels.chunks_mut(cols)) {
            unpack(column, bits, levels);
        }
    });
    let mut zero_points = vec![0; groups * out];
    let rows = zero_points.chunks_mut(out.max(1));
    for (row, words) in rows.zip(zeros.chunks(zero_words.max(1))) {
        unpack(words, bits, row);
    }
    let most = ((1u32 << bits) - 1) as u8;
    let zero_points: Vec<f32> = (zero_points.iter())
        .map(|z| f32::from(z.wrapping_add(less) & most))
        .collect();
    Ok(Matrix::Integers(Rounded {
        shape: [out, cols],
        bits,
        levels,
        scales: transposed(&scales, [groups, out]),
        zero_points: transposed(&zero_points, [groups, out]),
        group_of,
    }))
}

pub(super) fn write(
    matrix: &Matrix,
    survey: &Survey,
) -> Result<Vec<(&'static str, TensorData)>, String> {
    let rounded = integers_of(matrix)?;
    let ([out, cols], bits, groups) = (rounded.shape, rounded.bits, rounded.groups());
    for (what, size) in [("rows", out), ("columns", cols)] {
        if !(size * bits as usize).is_multiple_of(32) {
            return Err(format!(
                "{size} {what} of {bits} bits do not fill words of 32 bits"
            ));
        }
    }
    let zero_points = integer_zero_points(rounded)?;
    let less = u8::from(!survey.has_zero);
    let most = ((1u32 << bits) - 1) as u8;
    let rows: Vec<u32> = (rounded.levels.par_chunks_exact(cols))
        .flat_map_iter(|row| pack(row.iter().copied(), cols, bits))
        .collect();
    let words = words_of(cols, bits);
    let zeros = transposed(&zero_points, [out, groups]);
    let zeros: Vec<u32> = (zeros.chunks(out.max(1)))
        .flat_map(|row| pack(row.iter().map(|z| z.wrapping_sub(less) & most), out, bits))
        .collect();
    let all_scales = transposed(&rounded.scales, [out, groups]);
    let group_of: Vec<i32> = rounded.group_of.iter().map(|group| *group as i32).collect();
    Ok(vec![
        (
            "qweight",
            word_data(transposed(&rows, [out, words]), [words, out]),
        ),
        ("qzeros", word_data(zeros, [groups, words_of(out, bits)])),
        ("scales", scales(all_scales, &[groups, out], survey)?),
        ("g_idx", TensorData::new(group_of, [cols])),
    ])
}

pub(super) fn config(survey: &Survey) -> Value {
    let format = if survey.has_zero { "gptq_v2" } else { "gptq" };
    // GPTQModel and vLLM leave out layers whose path matches a pattern with `-:`, and output layers without `lm_head`.
    let blocks = survey.dense.iter().filter(|path| path.contains('.'));
    let dynamic: Map<String, Value> = blocks
        .map(|path| (format!("-:^{}$", path.replace('.', "\\.")), json!({})))
        .collect();
    let mut config = json!({
        "quant_method": "gptq",
        "bits": survey.bits,
        "group_size": survey.group_size,
        "desc_act": false,
        "sym": survey.symmetric,
        "checkpoint_format": format,
        "pack_dtype": "int32",
        "lm_head": survey.output,
    });
    if !dynamic.is_empty() {
        config["dynamic"] = Value::Object(dynamic);
    }
    config
}
