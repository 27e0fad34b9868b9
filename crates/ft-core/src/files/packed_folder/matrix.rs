//! A packed matrix, whatever the layout of its file.

use burn::tensor::Bytes;
use ft_kernels::PackedFormat;

use super::Rounded;
use crate::PackedBytes;

/// A packed matrix `[out, in]`.
#[derive(Clone, Debug)]
pub enum Matrix {
    /// Integers with a grid for each group.
    Integers(Rounded),
    /// Integers of 8 bits with a scale for each row, whose inputs are rounded to 8 bits with a scale for each token.
    Rows(Rounded),
    /// Numbers of 4 bits of a table, in blocks of the flattened matrix. The last block may be padded.
    Table {
        /// [`NF4`](PackedFormat::NF4) or [`FP4`](PackedFormat::FP4).
        format: PackedFormat,
        /// The blocks.
        blocks: Vec<u8>,
        /// `[out, in]`.
        shape: [usize; 2],
    },
}

impl Matrix {
    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Integers(rounded) | Self::Rows(rounded) => rounded.shape,
            Self::Table { shape, .. } => *shape,
        }
    }

    /// The matrix in blocks that products read. None if the rows are not whole blocks, groups follow an order of their own, or
    /// a block cannot hold a zero point.
    pub fn blocks(self) -> Option<PackedBytes> {
        match self {
            Self::Integers(rounded) => rounded.blocks(),
            Self::Rows(rounded) => rounded.row_bytes(),
            Self::Table {
                format,
                blocks,
                shape,
            } => (shape[1].is_multiple_of(format.block())).then(|| PackedBytes {
                format,
                bytes: Bytes::from_bytes_vec(blocks),
                shape,
            }),
        }
    }

    /// The numbers, `[out, in]`.
    pub fn dequantize(&self) -> Vec<f32> {
        match self {
            Self::Integers(rounded) | Self::Rows(rounded) => rounded.dequantize(),
            Self::Table {
                format,
                blocks,
                shape,
            } => {
                let mut numbers = vec![0.0; blocks.len() / format.block_bytes() * format.block()];
                format.decode(blocks, &mut numbers);
                numbers.truncate(shape[0] * shape[1]);
                numbers
            }
        }
    }

    /// A matrix that products read; none for the formats of GGUF files, whose scales no layout has.
    pub fn from_blocks(format: PackedFormat, bytes: &[u8], shape: [usize; 2]) -> Option<Self> {
        match format {
            PackedFormat::NF4 | PackedFormat::FP4 => Some(Self::Table {
                format,
                blocks: bytes.to_vec(),
                shape,
            }),
            PackedFormat::INT8 => Some(Self::Rows(Rounded::from_row_bytes(bytes, shape))),
            _ => Rounded::from_blocks(format, bytes, shape).map(Self::Integers),
        }
    }
}
