//! A model whose linear layers are rounded to nearest in one block format: the base of QLoRA (Dettmers et al., 2023,
//! arXiv:2305.14314).

use burn::tensor::Bytes;
use ft_core::{PackedBytes, Parts};
use ft_kernels::{EncodeError, PackedFormat};
use rayon::prelude::*;

use crate::cholesky::numbers;
use crate::fold::matrix;
use crate::mix::fitting;
use crate::{Error, Result, relative_error};

/// Numbers that a task rounds.
const PIECE: usize = 1 << 16;

/// A layer that was rounded.
#[derive(Clone, Debug)]
pub struct PackedLayer {
    /// Its path.
    pub path: String,
    /// Its format. Rows that are no whole blocks of the one that was wanted get a smaller one, as in llama.cpp.
    pub format: PackedFormat,
    /// How many numbers it has.
    pub numbers: usize,
    /// `‖W − Ŵ‖ / ‖W‖`.
    pub error: f64,
}

/// Puts blocks of a format in the place of the weights of all linear layers but the output layer. Norms, embedding and output
/// layer stay.
///
/// Adapters of any method can be attached to the result, whose gradients are those on the decoded weights.
///
/// # Errors
///
/// If a layer's rows are no whole blocks of the format, nor of the one that llama.cpp takes instead; a number is not finite or
/// too large for a scale; a layer carries adapters, whose base would change; or a layer is held in blocks already, and would be
/// rounded a second time: [`dequantize`](ft_core::dequantize) such a model first.
pub fn pack_model(model: &mut impl Parts, format: PackedFormat) -> Result<Vec<PackedLayer>> {
    let output = model.output_layer();
    let mut layers = Vec::new();
    let mut failure = None;
    model.for_each_linear_mut(&mut |path, linear| {
        if path == output || failure.is_some() {
            return;
        }
        let shape = [linear.out_features(), linear.in_features()];
        let packed = if !linear.adapters.is_empty() {
            Err(Error::Settings(format!(
                "{path} carries an adapter: pack the model before adapters are attached"
            )))
        } else if let Some(held) = linear.weight.packed() {
            Err(Error::Settings(format!(
                "{path} is held in {} already, and {format} would round it a second time: leave the format out, or take the \
                 model that was not rounded",
                held.packed().format()
            )))
        } else {
            let weight = numbers(matrix(linear));
            encoded(path, &weight, shape, format)
        };
        match packed {
            Ok((blocks, error)) => {
                layers.push(PackedLayer {
                    path: path.to_string(),
                    format: blocks.format,
                    numbers: shape[0] * shape[1],
                    error,
                });
                linear.set_packed(&blocks.on(&linear.weight.lazy_device()));
            }
            Err(error) => failure = Some(error),
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(layers),
    }
}

pub(crate) fn encoded(
    path: &str,
    weight: &[f32],
    shape: [usize; 2],
    wanted: PackedFormat,
) -> Result<(PackedBytes, f64)> {
    let [_, cols] = shape;
    let whole = cols.is_multiple_of(wanted.block());
    let smaller = || {
        wanted
            .is_gguf()
            .then(|| fitting(wanted, cols).packed())
            .flatten()
    };
    let Some(format) = whole.then_some(wanted).or_else(smaller) else {
        return Err(Error::Settings(format!(
            "rows of {cols} numbers of {path} are no whole blocks of {wanted}, which have {}: choose a format with smaller blocks",
            wanted.block()
        )));
    };
    let size = format.bytes_of(cols);
    let mut bytes = vec![0; size * shape[0]];
    let mut decoded = vec![0.0; weight.len()];
    (bytes.par_chunks_mut(size.max(1)))
        .zip(weight.par_chunks(cols.max(1)))
        .zip(decoded.par_chunks_mut(cols.max(1)))
        .enumerate()
        .with_min_len((PIECE / cols.max(1)).max(1))
        .try_for_each(|(row, ((bytes, weight), decoded))| {
            let place = |error: EncodeError| EncodeError {
                index: row * cols + error.index,
                ..error
            };
            format.encode(weight, bytes).map_err(place)?;
            format.decode(bytes, decoded);
            Ok(())
        })
        .map_err(|source| Error::Numbers {
            tensor: path.to_string(),
            source,
        })?;
    let blocks = PackedBytes {
        format,
        bytes: Bytes::from_bytes_vec(bytes),
        shape,
    };
    Ok((blocks, relative_error(weight, &decoded)))
}
