//! The block formats, and what is the same for all of them.

use std::fmt;
use std::str::FromStr;

use super::bits::half;
use super::{iq4_nl, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0};

/// How the numbers of a block are stored. Names are those of llama.cpp.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PackedFormat {
    /// 32 numbers `d·(q − 8)` with 4 bits each, 18 bytes.
    Q4_0,
    /// 32 numbers `d·q + m` with 4 bits each, 20 bytes.
    Q4_1,
    /// 32 numbers `d·(q − 16)` with 5 bits each, 22 bytes.
    Q5_0,
    /// 32 numbers `d·q + m` with 5 bits each, 24 bytes.
    Q5_1,
    /// 32 numbers `d·q` with 8 bits each, 34 bytes.
    Q8_0,
    /// 256 numbers `d·s·q − m·t` with 2 bits each, 84 bytes: `s` and `t` have 4 bits for every 16 numbers.
    Q2_K,
    /// 256 numbers `d·s·(q − 4)` with 3 bits each, 110 bytes: `s` has 6 bits for every 16 numbers.
    Q3_K,
    /// 256 numbers `d·s·q − m·t` with 4 bits each, 144 bytes: `s` and `t` have 6 bits for every 32 numbers.
    Q4_K,
    /// 256 numbers `d·s·q − m·t` with 5 bits each, 176 bytes: `s` and `t` have 6 bits for every 32 numbers.
    Q5_K,
    /// 256 numbers `d·s·(q − 32)` with 6 bits each, 210 bytes: `s` has 8 bits for every 16 numbers.
    Q6_K,
    /// 32 numbers `d·table[q]` with 4 bits each, 18 bytes.
    IQ4_NL,
}

/// The mathematics of the formats: one line a format, with the bytes at which a block has 16-bit floats.
macro_rules! formats {
    ($($format:ident: $codec:ident, $halves:expr, $encode_weighted:expr;)*) => {
        impl PackedFormat {
            /// All formats.
            pub const ALL: &[Self] = &[$(Self::$format),*];

            /// The name in llama.cpp: `Q4_0`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$format => stringify!($format),)* }
            }

            /// The number of numbers in a block.
            pub fn block(self) -> usize {
                match self { $(Self::$format => $codec::BLOCK,)* }
            }

            /// The number of bytes of a block.
            pub fn block_bytes(self) -> usize {
                match self { $(Self::$format => $codec::BYTES,)* }
            }

            /// Where a block has scales of 16 bits.
            fn halves(self) -> &'static [usize] {
                match self { $(Self::$format => &$halves,)* }
            }

            /// The numbers of whole blocks, those of ggml's decoders to the bit.
            ///
            /// # Panics
            ///
            /// If the sizes do not match.
            pub fn decode(self, bytes: &[u8], numbers: &mut [f32]) {
                self.check_sizes(bytes.len(), numbers.len());
                match self { $(Self::$format => $codec::decode(bytes, numbers),)* }
            }

            /// Whole blocks of these numbers, those of ggml's encoders (`ggml_quantize_chunk`) to the bit.
            ///
            /// # Errors
            ///
            /// If a number is not finite, or too large for a scale of 16 bits.
            ///
            /// # Panics
            ///
            /// If the sizes do not match.
            ///
            /// ```
            /// use ft_kernels::PackedFormat;
            ///
            /// let numbers: Vec<f32> = (0..32).map(|i| i as f32 - 16.0).collect();
            /// let mut bytes = [0; 18];
            /// PackedFormat::Q4_0.encode(&numbers, &mut bytes).unwrap();
            /// // d = −16 / −8 = 2, and −16 is 2·(0 − 8); 0 is 2·(8 − 8), 15 is near 2·(15 − 8).
            /// assert_eq!(bytes[..3], [0x00, 0x40, 0x80]);
            /// assert_eq!(bytes[17], 0xf8);
            ///
            /// let mut decoded = [0.0; 32];
            /// PackedFormat::Q4_0.decode(&bytes, &mut decoded);
            /// assert_eq!([decoded[0], decoded[16], decoded[31]], [-16.0, 0.0, 14.0]);
            /// ```
            pub fn encode(self, numbers: &[f32], bytes: &mut [u8]) -> Result<(), EncodeError> {
                self.check_sizes(bytes.len(), numbers.len());
                self.check_finite(numbers)?;
                match self { $(Self::$format => $codec::encode(numbers, bytes),)* }
                self.check_scales(numbers, bytes, self.block())
            }

            /// The same with small errors where `importance` is large: the mean square of each column's input, as in an
            /// importance matrix of llama.cpp. `Q8_0` does not use it.
            ///
            /// # Shapes
            ///
            /// - `row` and `importance`: `[in]`
            ///
            /// # Errors
            ///
            /// If a number is not finite, or too large for a scale of 16 bits.
            ///
            /// # Panics
            ///
            /// If the sizes do not match.
            pub fn encode_weighted(
                self,
                row: &[f32],
                importance: &[f32],
                bytes: &mut [u8],
            ) -> Result<(), EncodeError> {
                self.check_sizes(bytes.len(), row.len());
                assert_eq!(row.len(), importance.len(), "every column has an importance");
                self.check_finite(row)?;
                self.check_finite(importance)?;
                match self { $(Self::$format => $encode_weighted(row, importance, bytes),)* }
                // All blocks of a row share its variance.
                self.check_scales(row, bytes, row.len())
            }
        }
    };
}

formats! {
    Q4_0: q4_0, [0], q4_0::encode_weighted;
    Q4_1: q4_1, [0, 2], q4_1::encode_weighted;
    Q5_0: q5_0, [0], q5_0::encode_weighted;
    Q5_1: q5_1, [0, 2], q5_1::encode_weighted;
    Q8_0: q8_0, [0], |row, _, bytes| q8_0::encode(row, bytes);
    Q2_K: q2_k, [80, 82], q2_k::encode_weighted;
    Q3_K: q3_k, [108], q3_k::encode_weighted;
    Q4_K: q4_k, [0, 2], q4_k::encode_weighted;
    Q5_K: q5_k, [0, 2], q5_k::encode_weighted;
    Q6_K: q6_k, [208], q6_k::encode_weighted;
    IQ4_NL: iq4_nl, [0], iq4_nl::encode_weighted;
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

    fn check_finite(self, numbers: &[f32]) -> Result<(), EncodeError> {
        match numbers.iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(index) => Err(self.error(numbers, index)),
        }
    }

    /// The error names the largest of the `span` numbers around a block whose scale is not finite.
    fn check_scales(self, numbers: &[f32], bytes: &[u8], span: usize) -> Result<(), EncodeError> {
        let finite = |block: &[u8]| self.halves().iter().all(|at| half(block, *at).is_finite());
        let mut blocks = bytes.chunks_exact(self.block_bytes());
        let Some(block) = blocks.position(|block| !finite(block)) else {
            return Ok(());
        };
        let first = block * self.block() / span * span;
        let around = numbers[first..][..span].iter().enumerate();
        let most = around.max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()));
        Err(self.error(numbers, first + most.map_or(0, |(i, _)| i)))
    }

    fn error(self, numbers: &[f32], index: usize) -> EncodeError {
        EncodeError {
            format: self,
            index,
            number: numbers[index],
        }
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

/// A number that a format cannot store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncodeError {
    /// The format.
    pub format: PackedFormat,
    /// The place of the number in the slice.
    pub index: usize,
    /// The number.
    pub number: f32,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            format,
            index,
            number,
        } = self;
        let why = if number.is_finite() {
            "too large for a scale of 16 bits"
        } else {
            "not finite"
        };
        write!(
            f,
            "{format} cannot store {number} at {index}, which is {why}"
        )
    }
}

impl std::error::Error for EncodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!("q4_0".parse(), Ok(PackedFormat::Q4_0));
        let error = "q9_0".parse::<PackedFormat>().expect_err("no format");
        assert!(error.contains("Q8_0"), "{error}");
    }

    #[test]
    fn what_has_no_scale_is_refused_with_its_place() {
        for &format in PackedFormat::ALL {
            let mut bytes = vec![0; format.bytes_of(512)];
            for number in [f32::NAN, f32::INFINITY, -1e30] {
                let mut numbers = vec![0.25; 512];
                numbers[300] = number;
                let error = format.encode(&numbers, &mut bytes).expect_err("no scale");
                assert_eq!((error.format, error.index), (format, 300));
                let error = format.encode_weighted(&numbers, &[1.0; 512], &mut bytes);
                assert_eq!(error.expect_err("no scale").index, 300);
            }
        }
    }
}
