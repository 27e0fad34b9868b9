//! `pack-quantized` of compressed-tensors: `w[o, i] = weight_scale[o, g]·(q[o, i] − weight_zero_point[o, g])` with signed
//! integers, which are stored larger by `2ᵇ⁻¹`.
//!
//! - `weight_packed` `[out, ⌈in·bits/32⌉]`, 32-bit words: the integers of a row lie one after the other, lowest bits first;
//! - `weight_scale` `[out, groups]`; `weight_shape` `[2]`, `out` and `in`;
//! - `weight_zero_point` `[⌈out·bits/32⌉, groups]`, packed along `out`; none if all are 0;
//! - `weight_g_idx` `[in]`, the group of each column, if groups follow an order of their own.

use burn::tensor::TensorData;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::bit_stream::{pack, unpack, words_of};
use super::reader::{
    Reader, integer_zero_points, integers_of, scales, size_of, transposed, word_data,
};
use super::{Matrix, Rounded, Survey, one_of};
use crate::Result;

pub(super) const WRITTEN: &[u32] = &[2, 3, 4, 8];
pub(super) const MARKS: &[&str] = &["weight_packed"];
pub(super) const ENDS: &[&str] = &[
    "weight_scale",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
];

pub(super) fn check(settings: &Value) -> Result<(), String> {
    one_of(
        settings,
        "format",
        &["pack-quantized", "dense", "mixed-precision"],
    )?;
    let groups = settings["config_groups"].as_object();
    for (name, group) in groups.into_iter().flatten() {
        one_of(group, "format", &["pack-quantized", "dense"])?;
        one_of(&group["weights"], "type", &["int"])?;
        if !group["input_activations"].is_null() {
            return Err(format!(
                "quantization_config quantizes the input of layers ({name}.input_activations), which is not supported: dequantize \
                 the checkpoint with compressed-tensors"
            ));
        }
    }
    Ok(())
}

pub(super) fn shape(reader: &Reader<'_>) -> Result<[usize; 2]> {
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
    let [out, cols] = shape(reader)?;
    let bits = bits(reader, [out, cols])?;
    let (_, scale_shape, _) = reader.files.raw(&reader.name("weight_scale"))?;
    // A scale for each group of a row, for each row, or one.
    let groups = match scale_shape[..] {
        [rows, groups] if rows == out => groups,
        _ => 1,
    };
    let count = match scale_shape.iter().product() {
        1 => 1,
        _ => size_of([out, groups]).unwrap_or(usize::MAX),
    };
    let (mut scales, _) = reader.floats("weight_scale", count)?;
    if count == 1 {
        scales = vec![scales[0]; out];
    }
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

pub(super) fn write(
    matrix: &Matrix,
    survey: &Survey,
) -> Result<Vec<(&'static str, TensorData)>, String> {
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
    json!({
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "format": "pack-quantized",
                "targets": ["Linear"],
                "weights": {
                    "num_bits": survey.bits,
                    "type": "int",
                    "symmetric": survey.symmetric,
                    "strategy": "group",
                    "group_size": survey.group_size,
                    "dynamic": false,
                },
                "input_activations": null,
                "output_activations": null,
            }
        },
        "ignore": survey.dense,
    })
}
