//! Weights in blocks of few bits: the block formats of GGUF files.
//!
//! A [`Packed`] is a matrix `[out, in]` whose rows are sequences of blocks. A block holds 32 or 256 numbers as small
//! integers and the scales that they share. Its bytes are those of the file, so that a model is mapped and not read.
//! Packed weights are constants: the gradient of a product goes to its input only.

mod q4_0;
mod q4_1;
mod q8_0;

use std::fmt;
use std::str::FromStr;

use burn::tensor::{Bytes, DType, Device, Int, Tensor, TensorData};

use crate::graph::constant;

/// How the numbers of a block are stored. Names are those of llama.cpp.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PackedFormat {
    /// 32 numbers `(q − 8)·d` with 4 bits each, 18 bytes.
    Q4_0,
    /// 32 numbers `q·d + m` with 4 bits each, 20 bytes.
    Q4_1,
    /// 32 numbers `q·d` with 8 bits each, 34 bytes.
    Q8_0,
}

/// The mathematics of a format: one line a format.
macro_rules! formats {
    ($($format:ident: $name:literal, $codec:ident;)*) => {
        impl PackedFormat {
            /// All formats.
            pub const ALL: &[Self] = &[$(Self::$format),*];

            /// The name in llama.cpp: `Q4_0`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$format => $name,)* }
            }

            /// The number of numbers in a block.
            pub fn block(self) -> usize {
                match self { $(Self::$format => $codec::BLOCK,)* }
            }

            /// The number of bytes of a block.
            pub fn block_bytes(self) -> usize {
                match self { $(Self::$format => $codec::BYTES,)* }
            }

            /// The numbers of whole blocks.
            ///
            /// # Panics
            ///
            /// If the sizes do not match.
            pub fn decode(self, bytes: &[u8], numbers: &mut [f32]) {
                self.check_sizes(bytes.len(), numbers.len());
                match self { $(Self::$format => $codec::decode(bytes, numbers),)* }
            }
        }
    };
}

formats! {
    Q4_0: "Q4_0", q4_0;
    Q4_1: "Q4_1", q4_1;
    Q8_0: "Q8_0", q8_0;
}

impl PackedFormat {
    /// The number of bytes of so many numbers.
    ///
    /// # Panics
    ///
    /// If they are no whole blocks.
    pub fn bytes_of(self, numbers: usize) -> usize {
        assert_eq!(
            numbers % self.block(),
            0,
            "{self} has blocks of {} numbers, which {numbers} are not",
            self.block()
        );
        numbers / self.block() * self.block_bytes()
    }

    /// Bits for each number, with its share of the scales.
    pub fn bits(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block() as f64
    }

    fn check_sizes(self, bytes: usize, numbers: usize) {
        let wanted = self.bytes_of(numbers);
        assert_eq!(bytes, wanted, "{numbers} numbers in {self}");
    }
}

impl fmt::Display for PackedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PackedFormat {
    type Err = String;

    /// Reads a name in any case.
    fn from_str(name: &str) -> Result<Self, String> {
        let found = (Self::ALL.iter()).find(|format| format.name().eq_ignore_ascii_case(name));
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|format| format.name()).collect();
            format!(
                "no format is called {name:?}; there are: {}",
                names.join(", ")
            )
        })
    }
}

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
    /// If a row is not a number of whole blocks, or there are not as many words as the blocks need.
    pub fn new(format: PackedFormat, words: Tensor<1, Int>, shape: [usize; 2]) -> Self {
        let wanted = format.bytes_of(shape[1]) * shape[0];
        assert_eq!(
            words.dims()[0],
            wanted.div_ceil(4),
            "words of {format} of {shape:?}"
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
        let mut numbers = vec![0.0; self.shape[0] * self.shape[1]];
        self.with_bytes(|bytes| self.format.decode(bytes, &mut numbers));
        let data = TensorData::new(numbers, self.shape);
        Tensor::from_data(data, &self.words.device().inner())
    }

    /// Some of its rows in `f32`, `[ids, in]`, outside any graph.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    pub fn rows(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        let ids = ids.into_data().convert::<i64>();
        let ids = ids.as_slice::<i64>().expect("converted to i64");
        let (width, size) = (self.shape[1], self.row_bytes());
        let mut numbers = vec![0.0; ids.len() * width];
        self.with_bytes(|bytes| {
            for (id, row) in ids.iter().zip(numbers.chunks_exact_mut(width.max(1))) {
                let id = usize::try_from(*id).ok().filter(|id| *id < self.shape[0]);
                let id = id.unwrap_or_else(|| panic!("no such row: {ids:?} of {:?}", self.shape));
                self.format.decode(&bytes[id * size..][..size], row);
            }
        });
        let data = TensorData::new(numbers, [ids.len(), width]);
        Tensor::from_data(data, &self.words.device().inner())
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

    /// A block of each format, with numbers that the formulas give.
    #[test]
    fn rows_are_those_of_the_whole_matrix() {
        let device = Device::default();
        for &format in PackedFormat::ALL {
            let shape = [5, 2 * format.block()];
            let size = format.bytes_of(shape[1]) * shape[0];
            // Small exponents in all bytes, so that no scale is infinite.
            let bytes: Vec<u8> = (0..size).map(|i| (i * 37 % 60) as u8).collect();
            let packed = Packed::from_bytes(format, Bytes::from_bytes_vec(bytes), shape, &device);
            let whole = packed.dequantize();
            assert_eq!(whole.dims(), shape);
            let ids = Tensor::<1, Int>::from_data([4i64, 0, 4], &device);
            let expected = whole.select(0, ids.clone());
            assert_eq!(
                packed.rows(ids).into_data(),
                expected.into_data(),
                "{format}"
            );
        }
    }

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!("q4_0".parse(), Ok(PackedFormat::Q4_0));
        let error = "q9_0".parse::<PackedFormat>().expect_err("no format");
        assert!(error.contains("Q8_0"), "{error}");
    }
}
