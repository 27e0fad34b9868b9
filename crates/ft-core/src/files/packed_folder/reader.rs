//! The tensors of one matrix, checked.

use burn::tensor::{DType, FloatDType, TensorData};
use safetensors::tensor::Dtype;
use serde_json::Value;

use super::{Matrix, Rounded, Survey};
use crate::files::safetensors_folder::WeightFiles;
use crate::{Error, Result};

/// The tensors of the matrix of one layer.
pub(super) struct Reader<'a> {
    pub(super) files: &'a WeightFiles,
    /// The path of the layer.
    pub(super) path: &'a str,
    /// `quantization_config`.
    pub(super) settings: &'a Value,
}

impl Reader<'_> {
    /// The name of a tensor.
    pub(super) fn name(&self, end: &str) -> String {
        format!("{}.{end}", self.path)
    }

    /// Whether there is such a tensor.
    pub(super) fn has(&self, end: &str) -> bool {
        self.files.contains(&self.name(end))
    }

    /// An error about a tensor.
    pub(super) fn wrong(&self, end: &str, reason: impl std::fmt::Display) -> Error {
        let name = self.name(end);
        Error::invalid(self.files.path(), format!("{name}: {reason}"))
    }

    /// The shape of a tensor with two dimensions and some numbers.
    pub(super) fn dims(&self, end: &str) -> Result<[usize; 2]> {
        let (_, shape, _) = self.files.raw(&self.name(end))?;
        match shape[..] {
            [rows, cols] if rows > 0 && cols > 0 => Ok([rows, cols]),
            _ => Err(self.wrong(end, format!("has shape {shape:?}, which is no matrix"))),
        }
    }

    /// The words of a tensor of 32-bit integers with this shape.
    pub(super) fn words(&self, end: &str, shape: [usize; 2]) -> Result<Vec<u32>> {
        let (dtype, found, bytes) = self.files.raw(&self.name(end))?;
        if dtype != Dtype::I32 || found != shape {
            return Err(self.wrong(
                end,
                format!("is {dtype:?} {found:?} in place of I32 {shape:?}"),
            ));
        }
        let (words, _) = bytes.as_chunks::<4>();
        Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    /// A tensor of floats with so many numbers, and its type.
    pub(super) fn floats(&self, end: &str, count: usize) -> Result<(Vec<f32>, FloatDType)> {
        let (dtype, found, _) = self.files.raw(&self.name(end))?;
        let kind = match dtype {
            Dtype::F16 => FloatDType::F16,
            Dtype::BF16 => FloatDType::BF16,
            Dtype::F32 => FloatDType::F32,
            _ => return Err(self.wrong(end, format!("is {dtype:?} in place of floats"))),
        };
        if found.iter().product::<usize>() != count {
            return Err(self.wrong(
                end,
                format!("has shape {found:?} in place of {count} numbers"),
            ));
        }
        let numbers = self.files.tensor(&self.name(end))?;
        let numbers = numbers.try_into_vec::<f32>();
        Ok((numbers.map_err(|e| self.wrong(end, e))?, kind))
    }

    /// A tensor of integers, if it is there, as groups of columns below `groups`.
    pub(super) fn group_of(
        &self,
        end: &str,
        cols: usize,
        groups: usize,
    ) -> Result<Option<Vec<usize>>> {
        if !self.has(end) {
            return Ok(None);
        }
        let numbers = self.integers(end)?;
        if numbers.len() != cols {
            return Err(self.wrong(end, format!("has {} of {cols} columns", numbers.len())));
        }
        // compressed-tensors: no order of its own.
        if numbers.iter().all(|group| *group == -1) {
            return Ok(None);
        }
        let group = |group: &i64| usize::try_from(*group).ok().filter(|group| *group < groups);
        let found: Option<Vec<_>> = numbers.iter().map(group).collect();
        found
            .map(Some)
            .ok_or_else(|| self.wrong(end, format!("names a group that is not one of {groups}")))
    }

    /// A tensor of integers.
    pub(super) fn integers(&self, end: &str) -> Result<Vec<i64>> {
        let numbers = self.files.tensor(&self.name(end))?;
        let numbers = numbers.try_into_vec::<i64>();
        numbers.map_err(|_| self.wrong(end, "has other numbers than integers"))
    }

    /// The shape of a matrix as a tensor of two integers has it.
    pub(super) fn sizes(&self, end: &str) -> Result<[usize; 2]> {
        let numbers = self.integers(end)?;
        let size = |x: i64| usize::try_from(x).ok().filter(|x| *x > 0);
        let found = match numbers[..] {
            [out, cols] => size(out).zip(size(cols)),
            _ => None,
        };
        let found = found.map(|(out, cols)| [out, cols]);
        found
            .filter(|shape| size_of(*shape).is_some())
            .ok_or_else(|| {
                self.wrong(
                    end,
                    format!("is {numbers:?}, not the two sizes of a matrix"),
                )
            })
    }

    /// Neighbours in groups of the same size, as many as there are scales.
    pub(super) fn even_groups(&self, end: &str, cols: usize, groups: usize) -> Result<Vec<usize>> {
        let size = match self.settings["group_size"].as_u64() {
            // The last group may be smaller.
            Some(size) if cols.div_ceil((size as usize).max(1)) == groups => size as usize,
            _ if groups > 0 && cols.is_multiple_of(groups) => cols / groups,
            _ => {
                return Err(self.wrong(
                    end,
                    format!("has {groups} groups, which do not divide {cols} columns"),
                ));
            }
        };
        Ok((0..cols).map(|col| col / size.max(1)).collect())
    }
}

/// The product of a matrix's numbers, unless it overflows.
pub(super) fn size_of([rows, cols]: [usize; 2]) -> Option<usize> {
    rows.checked_mul(cols)
}

/// Integers, for layouts that have nothing else.
pub(super) fn integers_of(matrix: &Matrix) -> Result<&Rounded, String> {
    match matrix {
        Matrix::Integers(rounded) => Ok(rounded),
        Matrix::Rows(_) => Err(
            "it has rows of 8 bits whose inputs are rounded, too, which only compressed-tensors has"
                .to_string(),
        ),
        Matrix::Table { format, .. } => Err(format!(
            "it has numbers of {format}, which only bitsandbytes has"
        )),
    }
}

/// Zero points as integers from 0 to `2ᵇ − 1`.
pub(super) fn integer_zero_points(rounded: &Rounded) -> Result<Vec<u8>, String> {
    let most = ((1u32 << rounded.bits) - 1) as f32;
    let integer = |z: &f32| {
        let fits = z.fract() == 0.0 && (0.0..=most).contains(z);
        fits.then_some(*z as u8)
            .ok_or_else(|| format!("a zero point is {z}, and files have integers from 0 to {most}; fitted ones have a place in the layout hqq only"))
    };
    rounded.zero_points.iter().map(integer).collect()
}

/// Scales in the type of the file.
pub(super) fn scales(
    values: Vec<f32>,
    shape: &[usize],
    survey: &Survey,
) -> Result<TensorData, String> {
    let data = TensorData::new(values.clone(), shape.to_vec());
    let stored = data.convert_dtype(survey.dtype.into());
    for (found, scale) in stored.iter::<f32>().zip(values) {
        if !found.is_finite() || (found == 0.0) != (scale == 0.0) {
            let name = survey.dtype_name();
            return Err(format!(
                "a scale of {scale} would be {found} in {name}: write bfloat16"
            ));
        }
    }
    Ok(stored)
}

/// Words of 32 bits.
pub(super) fn word_data(words: Vec<u32>, shape: [usize; 2]) -> TensorData {
    let words: Vec<i32> = words.into_iter().map(u32::cast_signed).collect();
    let data = TensorData::new(words, shape);
    debug_assert_eq!(data.dtype(), DType::I32);
    data
}

/// `[rows, cols]` as `[cols, rows]`.
pub(super) fn transposed<T: Copy>(values: &[T], [rows, cols]: [usize; 2]) -> Vec<T> {
    let column = |col: usize| (0..rows).map(move |row| values[row * cols + col]);
    (0..cols).flat_map(column).collect()
}
