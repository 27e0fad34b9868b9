//! AWQ's layout `gemm`, of AutoAWQ: `w[o, i] = scales[g, o]·(q[i, o] − zeros[g, o])` with integers of 4 bits and groups of
//! neighbours.
//!
//! `qweight` is `[in, out/8]` and `qzeros` `[groups, out/8]`, 32-bit words. The eight integers of a word, lowest bits first, are
//! those of the columns 0, 2, 4, 6, 1, 3, 5 and 7 of the eight. `scales` is `[groups, out]` in 16 bits.

use burn::tensor::TensorData;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::reader::{
    Reader, integer_zero_points, integers_of, scales, size_of, transposed, word_data,
};
use super::{Matrix, Rounded, Survey, one_of};
use crate::Result;

pub(super) const WRITTEN: &[u32] = &[BITS];
pub(super) const MARKS: &[&str] = &["qweight"];
pub(super) const ENDS: &[&str] = &["qzeros", "scales"];

/// Bits of an integer.
const BITS: u32 = 4;
/// The column of each integer of a word.
const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

pub(super) fn check(settings: &Value) -> Result<(), String> {
    one_of(settings, "version", &["gemm", "GEMM"])?;
    one_of(settings, "format", &["gemm"])?;
    match settings["bits"].as_u64() {
        Some(4) | None => Ok(()),
        Some(bits) => Err(format!("quantization_config has bits: {bits}; AWQ has 4")),
    }
}

pub(super) fn shape(reader: &Reader<'_>) -> Result<[usize; 2]> {
    let [cols, words] = reader.dims("qweight")?;
    Ok([words * 8, cols])
}

/// Integers `[rows, words·8]`, given words.
fn unpack(words: &[u32]) -> Vec<u8> {
    let of_word = |word: &u32| {
        let mut eight = [0; 8];
        for (i, column) in ORDER.into_iter().enumerate() {
            eight[column] = (word >> (4 * i) & 15) as u8;
        }
        eight
    };
    words.par_iter().flat_map_iter(of_word).collect()
}

fn pack(levels: &[u8]) -> Vec<u32> {
    let word = |eight: &[u8; 8]| {
        let parts = ORDER.into_iter().enumerate();
        parts.fold(0, |word, (i, column)| {
            word | u32::from(eight[column]) << (4 * i)
        })
    };
    levels.as_chunks::<8>().0.iter().map(word).collect()
}

pub(super) fn read(reader: &Reader<'_>) -> Result<Matrix> {
    let [cols, words] = reader.dims("qweight")?;
    let [out, _] = shape(reader)?;
    let [groups, _] = reader.dims("scales")?;
    let (scales, _) = reader.floats("scales", size_of([groups, out]).unwrap_or(usize::MAX))?;
    let levels = unpack(&reader.words("qweight", [cols, words])?);
    let zeros = unpack(&reader.words("qzeros", [groups, words])?);
    let zero_points: Vec<f32> = zeros.into_iter().map(f32::from).collect();
    Ok(Matrix::Integers(Rounded {
        shape: [out, cols],
        bits: BITS,
        levels: transposed(&levels, [cols, out]),
        scales: transposed(&scales, [groups, out]),
        zero_points: transposed(&zero_points, [groups, out]),
        group_of: reader.even_groups("scales", cols, groups)?,
    }))
}

pub(super) fn write(
    matrix: &Matrix,
    survey: &Survey,
) -> Result<Vec<(&'static str, TensorData)>, String> {
    let rounded = integers_of(matrix)?;
    let ([out, cols], groups) = (rounded.shape, rounded.groups());
    if rounded.bits != BITS {
        return Err(format!("it has {} bits, and AWQ has 4", rounded.bits));
    }
    if !out.is_multiple_of(8) {
        return Err(format!("{out} rows are no multiple of 8"));
    }
    let zero_points = transposed(&integer_zero_points(rounded)?, [out, groups]);
    let levels = transposed(&rounded.levels, [out, cols]);
    let all_scales = transposed(&rounded.scales, [out, groups]);
    Ok(vec![
        ("qweight", word_data(pack(&levels), [cols, out / 8])),
        ("qzeros", word_data(pack(&zero_points), [groups, out / 8])),
        ("scales", scales(all_scales, &[groups, out], survey)?),
    ])
}

pub(super) fn config(survey: &Survey) -> Value {
    json!({
        "quant_method": "awq",
        "bits": BITS,
        "group_size": survey.group_size,
        "zero_point": true,
        "version": "gemm",
        "modules_to_not_convert": survey.dense,
    })
}
