//! Weights in blocks of few bits: the block formats of GGUF files, `NF4` and `FP4` of bitsandbytes, and groups of integers.
//!
//! A [`Packed`] is a matrix `[out, in]` whose rows are sequences of blocks. A block holds 32 or 256 numbers as small
//! integers and the scales that they share; [`INT8`](PackedFormat::INT8) has one scale a row. Its bytes are those of the file, so that a model is mapped and not read.
//! Packed weights are constants: the gradient of a product goes to its input only.

mod bits;
mod format;
pub(crate) mod int8_rows;
pub(crate) mod int_groups;
pub(crate) mod iq4_nl;
pub(crate) mod nf4;
mod portable;
pub(crate) mod q2_k;
pub(crate) mod q3_k;
pub(crate) mod q4_0;
pub(crate) mod q4_1;
pub(crate) mod q4_k;
pub(crate) mod q5_0;
pub(crate) mod q5_1;
pub(crate) mod q5_k;
pub(crate) mod q6_k;
pub(crate) mod q8_0;
mod search;

use burn::tensor::{Bytes, DType, Device, Int, Tensor, TensorData};

pub use format::{EncodeError, PackedFormat};

use crate::graph::constant;

/// Numbers that are decoded at a time with Burn's operations.
const PANEL: usize = 1 << 24;

/// A matrix `[out, in]` in blocks.
#[derive(Clone, Debug)]
pub struct Packed {
    format: PackedFormat,
    words: Tensor<1, Int>,
    shape: [usize; 2],
}

impl Packed {
    /// A matrix whose bytes are these words of 32 bits, little end first. The last word may be padded.
    ///
    /// # Panics
    ///
    /// If a row is not a number of whole blocks, there are not as many words as the blocks need, or words are integers of
    /// another size than 32 bits.
    pub fn new(format: PackedFormat, words: Tensor<1, Int>, shape: [usize; 2]) -> Self {
        let wanted = format.bytes_of(shape[1]) * shape[0];
        assert_eq!(
            words.dims()[0],
            wanted.div_ceil(4),
            "words of {format} of {shape:?}"
        );
        assert_eq!(
            words.dtype().size(),
            4,
            "words of {format} are {:?}, not of 32 bits",
            words.dtype()
        );
        Self {
            format,
            words,
            shape,
        }
    }

    /// A matrix of these bytes, which are not copied on the CPU if they are aligned and whole words: there may be up to
    /// three bytes of padding behind them.
    ///
    /// # Panics
    ///
    /// If a row is not a number of whole blocks, or there are not as many bytes as the blocks need.
    pub fn from_bytes(
        format: PackedFormat,
        bytes: Bytes,
        shape: [usize; 2],
        device: &Device,
    ) -> Self {
        let wanted = format.bytes_of(shape[1]) * shape[0];
        let words = wanted.div_ceil(4);
        assert!(
            (wanted..=words * 4).contains(&bytes.len()),
            "{} bytes in place of {wanted} of {format} of {shape:?}",
            bytes.len()
        );
        let aligned = bytes.as_ptr().addr().is_multiple_of(4);
        let bytes = match bytes.len() == words * 4 && aligned {
            true => bytes,
            false => {
                let mut padded: Vec<u32> = vec![0; words];
                for (word, chunk) in padded.iter_mut().zip(bytes.chunks(4)) {
                    let mut four = [0; 4];
                    four[..chunk.len()].copy_from_slice(chunk);
                    *word = u32::from_ne_bytes(four);
                }
                Bytes::from_elems(padded)
            }
        };
        let data = TensorData::from_bytes(bytes, [words], DType::U32);
        Self::new(format, Tensor::from_data(data, (device, DType::U32)), shape)
    }

    /// How its numbers are stored.
    pub fn format(&self) -> PackedFormat {
        self.format
    }

    /// `[out, in]`.
    pub fn dims(&self) -> [usize; 2] {
        self.shape
    }

    /// Its words.
    pub fn words(&self) -> &Tensor<1, Int> {
        &self.words
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.words.device()
    }

    /// Whether both are the same blocks in the same memory; see [`is_same`](crate::is_same).
    pub fn is_same(&self, other: &Self) -> bool {
        #[cfg(feature = "cpu")]
        return (self.format, self.shape) == (other.format, other.shape)
            && crate::flex::are_same_words(&self.words, &other.words);
        #[cfg(not(feature = "cpu"))]
        {
            let _ = other;
            false
        }
    }

    /// The size of its blocks.
    pub fn num_bytes(&self) -> usize {
        self.row_bytes() * self.shape[0]
    }

    fn row_bytes(&self) -> usize {
        self.format.bytes_of(self.shape[1])
    }

    /// What `f` makes of its bytes, which are not copied on the CPU.
    pub fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        let words = self.words.clone().inner();
        #[cfg(feature = "cpu")]
        if let Ok(words) = words.clone().try_into_primitive::<burn::backend::Flex>()
            && words.layout().start_offset() == 0
            && words.layout().contiguous_offsets().is_some()
        {
            return f(&words.bytes()[..self.num_bytes()]);
        }
        f(&words.into_data().as_bytes()[..self.num_bytes()])
    }

    /// The matrix in `f32`, `[out, in]`, outside any graph.
    pub fn dequantize(&self) -> Tensor<2> {
        #[cfg(feature = "cpu")]
        if crate::flex::is_flex(&self.device()) {
            let ids: Vec<usize> = (0..self.shape[0]).collect();
            return self.rows_on_flex(&ids);
        }
        self.decoded_by_panels(PANEL)
    }

    /// Decodes so many numbers at a time, since Burn's operations take several words of 32 bits for each.
    fn decoded_by_panels(&self, numbers: usize) -> Tensor<2> {
        let [rows, cols] = self.shape;
        let words = self.words.clone().inner();
        // The bytes of four rows are whole words.
        let panel = (numbers / cols.max(1)).max(1).next_multiple_of(4);
        let panels = (0..rows).step_by(panel).map(|first| {
            let count = panel.min(rows - first);
            let (start, size) = (first * self.row_bytes(), count * self.row_bytes());
            let words = words.clone().narrow(0, start / 4, size.div_ceil(4));
            let bytes = portable::bytes(words).narrow(0, 0, size);
            portable::decode(self.format, bytes, cols).reshape([count, cols])
        });
        Tensor::cat(panels.collect(), 0)
    }

    /// Some of its rows in `f32`, `[ids, in]`, outside any graph.
    ///
    /// # Panics
    ///
    /// If there is no such row, on the CPU. On other devices such a row has any numbers.
    pub fn rows(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        let ids = ids.inner();
        #[cfg(feature = "cpu")]
        if crate::flex::is_flex(&self.device()) {
            let ids = ids.into_data().convert::<i64>();
            let ids = ids.as_slice::<i64>().expect("converted to i64");
            let row = |id: &i64| usize::try_from(*id).ok().filter(|id| *id < self.shape[0]);
            let Some(rows) = ids.iter().map(row).collect::<Option<Vec<_>>>() else {
                panic!("no such row: {ids:?} of {:?}", self.shape);
            };
            return self.rows_on_flex(&rows);
        }
        let [count] = ids.dims();
        let bytes = portable::bytes_of_rows(self.words.clone().inner(), ids, self.row_bytes());
        portable::decode(self.format, bytes, self.shape[1]).reshape([count, self.shape[1]])
    }

    #[cfg(feature = "cpu")]
    fn rows_on_flex(&self, ids: &[usize]) -> Tensor<2> {
        use rayon::prelude::*;
        let (width, size) = (self.shape[1], self.row_bytes());
        let mut numbers = vec![0.0; ids.len() * width];
        self.with_bytes(|bytes| {
            (numbers.par_chunks_exact_mut(width.max(1)).zip(ids))
                .with_min_len(16)
                .for_each(|(row, id)| self.format.decode(&bytes[id * size..][..size], row));
        });
        Tensor::from_data(
            TensorData::new(numbers, [ids.len(), width]),
            &self.device().inner(),
        )
    }
}

/// The weight of a product, `[out, in]`: numbers, or blocks.
#[derive(Clone, Debug)]
pub enum Weight {
    /// A tensor, possibly a transposed view, in the type of the other factor or, if it is frozen, in 16 bits.
    Dense(Tensor<2>),
    /// Blocks. They never train.
    Packed(Packed),
}

impl From<Tensor<2>> for Weight {
    fn from(weight: Tensor<2>) -> Self {
        Self::Dense(weight)
    }
}

impl From<Packed> for Weight {
    fn from(weight: Packed) -> Self {
        Self::Packed(weight)
    }
}

impl Weight {
    /// `[out, in]`.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.dims(),
            Self::Packed(weight) => weight.dims(),
        }
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.dims()[0]
    }

    /// Whether it has a gradient.
    pub(crate) fn is_tracked(&self) -> bool {
        match self {
            Self::Dense(weight) => weight.is_tracked(),
            Self::Packed(_) => false,
        }
    }

    /// The weight as a tensor, for a product with `x`. Blocks are decoded, as constants in the graph of `x`.
    pub(crate) fn dense<const D: usize>(self, x: &Tensor<D>) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight,
            Self::Packed(weight) => constant(weight.dequantize(), x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of any bytes.
    #[test]
    fn rows_are_those_of_the_whole_matrix() {
        let device = Device::default();
        for &format in PackedFormat::ALL {
            let shape = [5, 2 * format.block()];
            let size = format.bytes_of(shape[1]) * shape[0];
            let mut bytes: Vec<u8> = (0..size as u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect();
            // Scales without the highest bit of the exponent, so that none is infinite.
            let with_scale = match format {
                PackedFormat::INT8 => format.bytes_of(shape[1]),
                _ => format.block_bytes(),
            };
            for block in bytes.chunks_exact_mut(with_scale) {
                format.halves().iter().for_each(|at| block[at + 1] &= 0xbf);
                if !format.is_gguf() {
                    block[3] &= 0xbf;
                }
            }
            let packed = Packed::from_bytes(format, Bytes::from_bytes_vec(bytes), shape, &device);
            let whole = packed.dequantize();
            assert_eq!(whole.dims(), shape);
            // With Burn's operations on integers.
            let words = packed.words().clone();
            let size = packed.num_bytes();
            // Four rows at a time, and all at once.
            for numbers in [1, PANEL] {
                assert_eq!(
                    packed.decoded_by_panels(numbers).into_data(),
                    whole.clone().into_data(),
                    "{format}"
                );
            }
            let ids = Tensor::<1, Int>::from_data([4i64, 0, 4], &device);
            let some = portable::bytes_of_rows(words, ids.clone(), size / 5);
            let some = portable::decode(format, some, shape[1]).reshape([3, shape[1]]);
            assert_eq!(
                some.into_data(),
                whole.clone().select(0, ids).into_data(),
                "{format}"
            );
            let ids = Tensor::<1, Int>::from_data([4i64, 0, 4], &device);
            let expected = whole.select(0, ids.clone());
            assert_eq!(
                packed.rows(ids).into_data(),
                expected.into_data(),
                "{format}"
            );
        }
    }
}
