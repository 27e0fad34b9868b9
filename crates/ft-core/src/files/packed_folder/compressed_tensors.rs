//! compressed-tensors, `w[o, i] = weight_scale[o, g]·(q[o, i] − weight_zero_point[o, g])` with signed
//! integers.
//!
//! In `pack-quantized` integers are stored larger by `2ᵇ⁻¹`:
//!
//! - `weight_packed` `[out, ⌈in·bits/32⌉]`, 32-bit words: the integers of a row lie one after the other, lowest bits first;
//! - `weight_scale` `[out, groups]`; `weight_shape` `[2]`, `out` and `in`;
//! - `weight_zero_point` `[⌈out·bits/32⌉, groups]`, packed along `out`; none if all are 0;
//! - `weight_g_idx` `[in]`, the group of each column, if groups follow an order of their own.
//!
//! In `int-quantized` they have 8 bits: `weight` `[out, in]` and `weight_scale` `[out, groups]`. If inputs are quantized, too (W8A8),
//! they are to 8 bits, with a scale that each token has (`dynamic`).

use burn::tensor::TensorData;
use rayon::prelude::*;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::bit_stream::{pack, unpack, words_of};
use super::reader::{
    Reader, integer_zero_points, integers_of, scales, size_of, transposed, word_data,
};
use super::{Matrix, Rounded, Survey, one_of};
use crate::Result;

pub(super) const WRITTEN: &[u32] = &[2, 3, 4, 8];
pub(super) const MARKS: &[&str] = &["weight_packed", "weight_scale"];
pub(super) const ENDS: &[&str] = &[
    "weight",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
];

pub(super) fn check(settings: &Value) -> Result<(), String> {
    one_of(
        settings,
        "format",
        &[
            "pack-quantized",
            "int-quantized",
            "dense",
            "mixed-precision",
        ],
    )?;
    let groups = settings["config_groups"].as_object();
    // Whether inputs are rounded in the groups of `int-quantized` so far.
    let mut rounds = None;
    for (name, group) in groups.into_iter().flatten() {
        one_of(
            group,
            "format",
            &["pack-quantized", "int-quantized", "dense"],
        )?;
        one_of(&group["weights"], "type", &["int"])?;
        let inputs = &group["input_activations"];
        let per_token = json!({"num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true});
        let mut wanted = per_token.as_object().into_iter().flatten();
        let format = group["format"].as_str().or(settings["format"].as_str());
        let in_bytes = format == Some("int-quantized");
        let is_read = in_bytes && wanted.all(|(key, x)| inputs[key] == *x);
        if !inputs.is_null() && !is_read {
            return Err(format!(
                "quantization_config quantizes the input of layers ({name}.input_activations) in another way than int-quantized to 8 \
                 bits with a scale for each token, which is not supported: dequantize the checkpoint with compressed-tensors"
            ));
        }
        if in_bytes && *rounds.get_or_insert(!inputs.is_null()) == inputs.is_null() {
            return Err(format!(
                "quantization_config quantizes the input of some int-quantized layers and not of others \
                 ({name}.input_activations), which is not supported: dequantize the checkpoint with compressed-tensors"
            ));
        }
    }
    Ok(())
}

/// Whether inputs are rounded, too. `check` has seen that all groups of `int-quantized` are the same in this.
fn rounds_inputs(settings: &Value) -> bool {
    let groups = settings["config_groups"].as_object();
    let mut groups = groups.into_iter().flatten();
    groups.any(|(_, group)| !group["input_activations"].is_null())
}

pub(super) fn shape(reader: &Reader<'_>) -> Result<[usize; 2]> {
    if !reader.has("weight_packed") {
        return reader.dims("weight");
    }
    let [out, cols] = reader.sizes("weight_shape")?;
    bits(reader, [out, cols])?;
    Ok([out, cols])
}

/// Bits of an integer: those whose words a row has, since single layers may have their own.
fn bits(reader: &Reader<'_>, [out, cols]: [usize; 2]) -> Result<u32> {
    let [rows, words] = reader.dims("weight_packed")?;
    let fits = |bits: &u32| cols < usize::MAX / 8 && words_of(cols, *bits) == words;
    let mut fitting = (1..=8).filter(fits);
    // Few columns fill a word with several numbers of bits.
    let said = reader.settings["config_groups"].as_object();
    let said = said.and_then(|groups| groups.values().next());
    let said = said.and_then(|group| u32::try_from(group["weights"]["num_bits"].as_u64()?).ok());
    let bits = match said.filter(fits) {
        Some(bits) if (1..=8).contains(&bits) => Some(bits),
        _ => fitting.next(),
    };
    bits.filter(|_| rows == out && out > 0 && cols > 0)
        .ok_or_else(|| {
            let found = format!(
                "has shape {:?}, which does not fit weight_shape {:?}",
                [rows, words],
                [out, cols]
            );
            reader.wrong("weight_packed", found)
        })
}

pub(super) fn read(reader: &Reader<'_>) -> Result<Matrix> {
    if !reader.has("weight_packed") {
        return read_bytes(reader);
    }
    let [out, cols] = shape(reader)?;
    let bits = bits(reader, [out, cols])?;
    let (scales, groups) = read_scales(reader, out)?;
    let words = words_of(cols, bits);
    let packed = reader.words("weight_packed", [out, words])?;
    let mut levels = vec![0; out * cols];
    (levels
        .par_chunks_exact_mut(cols)
        .zip(packed.par_chunks_exact(words)))
    .for_each(|(levels, words)| unpack(words, bits, levels));
    let zero_points = if reader.has("weight_zero_point") {
        let words = words_of(out, bits);
        let packed = reader.words("weight_zero_point", [words, groups])?;
        let columns = transposed(&packed, [words, groups]);
        let mut zeros = vec![0; groups * out];
        for (zeros, words) in zeros.chunks_exact_mut(out).zip(columns.chunks_exact(words)) {
            unpack(words, bits, zeros);
        }
        transposed(&zeros, [groups, out])
            .into_iter()
            .map(f32::from)
            .collect()
    } else {
        vec![(1u32 << (bits - 1)) as f32; out * groups]
    };
    let group_of = match reader.group_of("weight_g_idx", cols, groups)? {
        Some(group_of) => group_of,
        None => reader.even_groups("weight_scale", cols, groups)?,
    };
    Ok(Matrix::Integers(Rounded {
        shape: [out, cols],
        bits,
        levels,
        scales,
        zero_points,
        group_of,
    }))
}

/// A scale for each group of a row, for each row, or one; and how many groups a row has.
fn read_scales(reader: &Reader<'_>, out: usize) -> Result<(Vec<f32>, usize)> {
    let (_, shape, _) = reader.files.raw(&reader.name("weight_scale"))?;
    let groups = match shape[..] {
        [rows, groups] if rows == out => groups,
        _ => 1,
    };
    let count = match shape.iter().product() {
        1 => 1,
        _ => size_of([out, groups]).unwrap_or(usize::MAX),
    };
    let (mut scales, _) = reader.floats("weight_scale", count)?;
    if count == 1 {
        scales = vec![scales[0]; out];
    }
    Ok((scales, groups))
}

/// A matrix of `int-quantized`.
fn read_bytes(reader: &Reader<'_>) -> Result<Matrix> {
    let [out, cols] = shape(reader)?;
    let (dtype, _, bytes) = reader.files.raw(&reader.name("weight"))?;
    if dtype != Dtype::I8 {
        return Err(reader.wrong("weight", format!("is {dtype:?} in place of I8")));
    }
    if reader.has("weight_zero_point") {
        return Err(reader.wrong(
            "weight_zero_point",
            "integers with zero points are read from pack-quantized only",
        ));
    }
    let (scales, groups) = read_scales(reader, out)?;
    let rounded = Rounded {
        shape: [out, cols],
        bits: 8,
        // From −128 to 127.
        levels: bytes.iter().map(|byte| byte ^ 0x80).collect(),
        zero_points: vec![128.0; scales.len()],
        scales,
        group_of: reader.even_groups("weight_scale", cols, groups)?,
    };
    Ok(match rounds_inputs(reader.settings) {
        true => Matrix::Rows(rounded),
        false => Matrix::Integers(rounded),
    })
}

pub(super) fn write(
    matrix: &Matrix,
    survey: &Survey,
) -> Result<Vec<(&'static str, TensorData)>, String> {
    if let Matrix::Rows(rounded) = matrix {
        let levels: Vec<i8> = (rounded.levels.iter())
            .map(|level| (level ^ 0x80).cast_signed())
            .collect();
        return Ok(vec![
            ("weight", TensorData::new(levels, rounded.shape)),
            (
                "weight_scale",
                scales(rounded.scales.clone(), &[rounded.shape[0], 1], survey)?,
            ),
        ]);
    }
    let rounded = integers_of(matrix)?;
    let ([out, cols], bits, groups) = (rounded.shape, rounded.bits, rounded.groups());
    let zero_points = integer_zero_points(rounded)?;
    let packed: Vec<u32> = (rounded.levels.par_chunks_exact(cols))
        .flat_map_iter(|row| pack(row.iter().copied(), cols, bits))
        .collect();
    let shape = vec![out as i64, cols as i64];
    let mut tensors = vec![
        (
            "weight_packed",
            word_data(packed, [out, words_of(cols, bits)]),
        ),
        (
            "weight_scale",
            scales(rounded.scales.clone(), &[out, groups], survey)?,
        ),
        ("weight_shape", TensorData::new(shape, [2])),
    ];
    if !survey.symmetric {
        let columns = transposed(&zero_points, [out, groups]);
        let words: Vec<u32> = (columns.chunks_exact(out))
            .flat_map(|column| pack(column.iter().copied(), out, bits))
            .collect();
        let size = words_of(out, bits);
        let words = transposed(&words, [groups, size]);
        tensors.push(("weight_zero_point", word_data(words, [size, groups])));
    }
    Ok(tensors)
}

pub(super) fn config(survey: &Survey) -> Value {
    let format = if survey.rows {
        "int-quantized"
    } else {
        "pack-quantized"
    };
    let mut weights = json!({
        "num_bits": survey.bits,
        "type": "int",
        "symmetric": survey.symmetric,
        "strategy": "group",
        "group_size": survey.group_size,
        "dynamic": false,
    });
    let mut inputs = Value::Null;
    if survey.rows {
        weights["strategy"] = "channel".into();
        weights["group_size"] = Value::Null;
        inputs = json!({
            "num_bits": 8,
            "type": "int",
            "symmetric": true,
            "strategy": "token",
            "group_size": null,
            "dynamic": true,
        });
    }
    json!({
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "format": format,
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": inputs,
                "output_activations": null,
            }
        },
        "ignore": survey.dense,
    })
}
