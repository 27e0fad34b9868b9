//! The block formats, and what is the same for all of them.

use std::fmt;
use std::str::FromStr;

use super::bits::half;
use super::{
    int_groups, int8_rows, iq4_nl, nf4, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0,
};

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
    /// 256 numbers `d·(s − 32)·(q − 4)` with 3 bits each, 110 bytes: `s` has 6 bits for every 16 numbers.
    Q3_K,
    /// 256 numbers `d·s·q − m·t` with 4 bits each, 144 bytes: `s` and `t` have 6 bits for every 32 numbers.
    Q4_K,
    /// 256 numbers `d·s·q − m·t` with 5 bits each, 176 bytes: `s` and `t` have 6 bits for every 32 numbers.
    Q5_K,
    /// 256 numbers `d·s·(q − 32)` with 6 bits each, 210 bytes: `s` has 8 bits for every 16 numbers.
    Q6_K,
    /// 32 numbers `d·table[q]` with 4 bits each, 18 bytes.
    IQ4_NL,
    /// 64 numbers `absmax·table[q]` of bitsandbytes with 4 bits each, 36 bytes: quantiles of a normal distribution.
    NF4,
    /// The same with a table of floats of 4 bits.
    FP4,
    /// 32 numbers `s·(q − z)` with 4 bits each, 22 bytes.
    INT4_G32,
    /// 64 numbers `s·(q − z)` with 4 bits each, 38 bytes.
    INT4_G64,
    /// 128 numbers `s·(q − z)` with 4 bits each, 70 bytes.
    INT4_G128,
    /// 32 numbers `s·(q − z)` with 8 bits each, 38 bytes.
    INT8_G32,
    /// 64 numbers `s·(q − z)` with 8 bits each, 70 bytes.
    INT8_G64,
    /// 128 numbers `s·(q − z)` with 8 bits each, 134 bytes.
    INT8_G128,
    /// A row `s·(q − 128)` of any length with 8 bits for each number, and 4 bytes for its scale. Products round their inputs to
    /// 8 bits, too, forward and backward.
    INT8,
}

/// The mathematics of the formats: one line a format, with numbers and bytes of a block, the bytes at which it has 16-bit floats,
/// decoder, encoder, and encoder with the importance of columns.
macro_rules! formats {
    ($($format:ident: $block:expr, $bytes:expr, $halves:expr, $decode:expr, $encode:expr, $encode_weighted:expr;)*) => {
        impl PackedFormat {
            /// All formats.
            pub const ALL: &[Self] = &[$(Self::$format),*];

            /// The name in llama.cpp: `Q4_0`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$format => stringify!($format),)* }
            }

            /// The number of numbers in a block; 1 for [`INT8`](Self::INT8), whose scale is that of a row.
            pub fn block(self) -> usize {
                match self { $(Self::$format => $block,)* }
            }

            /// The number of bytes of a block.
            pub fn block_bytes(self) -> usize {
                match self { $(Self::$format => $bytes,)* }
            }

            /// Where a block has scales of 16 bits.
            pub(super) fn halves(self) -> &'static [usize] {
                match self { $(Self::$format => &$halves,)* }
            }

            /// The numbers of whole blocks, those of ggml's decoders to the bit, and of bitsandbytes'; of [`INT8`](Self::INT8),
            /// of one row.
            ///
            /// # Panics
            ///
            /// If the sizes do not match.
            pub fn decode(self, bytes: &[u8], numbers: &mut [f32]) {
                self.check_sizes(bytes.len(), numbers.len());
                match self { $(Self::$format => $decode(bytes, numbers),)* }
            }

            /// Whole blocks of these numbers, those of ggml's encoders (`ggml_quantize_chunk`) to the bit, and of bitsandbytes'.
            /// Groups of integers get the grid from the least to the greatest number. The numbers of [`INT8`](Self::INT8) are one
            /// row.
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
                self.check_sizes_of_numbers(numbers)?;
                match self { $(Self::$format => $encode(numbers, bytes),)* }
                self.check_scales(numbers, bytes, self.block())
            }

            /// The same with small errors where `importance` is large: the mean square of each column's input, as in an
            /// importance matrix of llama.cpp. `Q8_0` and the formats that GGUF does not have ignore it.
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
                self.check_sizes_of_numbers(row)?;
                self.check_sizes_of_numbers(importance)?;
                match self { $(Self::$format => $encode_weighted(row, importance, bytes),)* }
                // All blocks of a row share its variance.
                self.check_scales(row, bytes, row.len())
            }
        }
    };
}

formats! {
    Q4_0: q4_0::BLOCK, q4_0::BYTES, [0], q4_0::decode, q4_0::encode, q4_0::encode_weighted;
    Q4_1: q4_1::BLOCK, q4_1::BYTES, [0, 2], q4_1::decode, q4_1::encode, q4_1::encode_weighted;
    Q5_0: q5_0::BLOCK, q5_0::BYTES, [0], q5_0::decode, q5_0::encode, q5_0::encode_weighted;
    Q5_1: q5_1::BLOCK, q5_1::BYTES, [0, 2], q5_1::decode, q5_1::encode, q5_1::encode_weighted;
    Q8_0: q8_0::BLOCK, q8_0::BYTES, [0], q8_0::decode, q8_0::encode, |row, _, bytes| q8_0::encode(row, bytes);
    Q2_K: q2_k::BLOCK, q2_k::BYTES, [80, 82], q2_k::decode, q2_k::encode, q2_k::encode_weighted;
    Q3_K: q3_k::BLOCK, q3_k::BYTES, [108], q3_k::decode, q3_k::encode, q3_k::encode_weighted;
    Q4_K: q4_k::BLOCK, q4_k::BYTES, [0, 2], q4_k::decode, q4_k::encode, q4_k::encode_weighted;
    Q5_K: q5_k::BLOCK, q5_k::BYTES, [0, 2], q5_k::decode, q5_k::encode, q5_k::encode_weighted;
    Q6_K: q6_k::BLOCK, q6_k::BYTES, [208], q6_k::decode, q6_k::encode, q6_k::encode_weighted;
    IQ4_NL: iq4_nl::BLOCK, iq4_nl::BYTES, [0], iq4_nl::decode, iq4_nl::encode, iq4_nl::encode_weighted;
    NF4: nf4::BLOCK, nf4::BYTES, [], nf4::decode_nf4, nf4::encode_nf4, |row, _, bytes| nf4::encode_nf4(row, bytes);
    FP4: nf4::BLOCK, nf4::BYTES, [], nf4::decode_fp4, nf4::encode_fp4, |row, _, bytes| nf4::encode_fp4(row, bytes);
    INT4_G32: 32, int_groups::bytes(4, 32), [4], int_groups::decode_4::<32, { int_groups::bytes(4, 32) }>, int_groups::encode::<4, 32, { int_groups::bytes(4, 32) }>, |row, _, bytes| int_groups::encode::<4, 32, { int_groups::bytes(4, 32) }>(row, bytes);
    INT4_G64: 64, int_groups::bytes(4, 64), [4], int_groups::decode_4::<64, { int_groups::bytes(4, 64) }>, int_groups::encode::<4, 64, { int_groups::bytes(4, 64) }>, |row, _, bytes| int_groups::encode::<4, 64, { int_groups::bytes(4, 64) }>(row, bytes);
    INT4_G128: 128, int_groups::bytes(4, 128), [4], int_groups::decode_4::<128, { int_groups::bytes(4, 128) }>, int_groups::encode::<4, 128, { int_groups::bytes(4, 128) }>, |row, _, bytes| int_groups::encode::<4, 128, { int_groups::bytes(4, 128) }>(row, bytes);
    INT8_G32: 32, int_groups::bytes(8, 32), [4], int_groups::decode_8::<32, { int_groups::bytes(8, 32) }>, int_groups::encode::<8, 32, { int_groups::bytes(8, 32) }>, |row, _, bytes| int_groups::encode::<8, 32, { int_groups::bytes(8, 32) }>(row, bytes);
    INT8_G64: 64, int_groups::bytes(8, 64), [4], int_groups::decode_8::<64, { int_groups::bytes(8, 64) }>, int_groups::encode::<8, 64, { int_groups::bytes(8, 64) }>, |row, _, bytes| int_groups::encode::<8, 64, { int_groups::bytes(8, 64) }>(row, bytes);
    INT8_G128: 128, int_groups::bytes(8, 128), [4], int_groups::decode_8::<128, { int_groups::bytes(8, 128) }>, int_groups::encode::<8, 128, { int_groups::bytes(8, 128) }>, |row, _, bytes| int_groups::encode::<8, 128, { int_groups::bytes(8, 128) }>(row, bytes);
    INT8: 1, 1, [], int8_rows::decode, int8_rows::encode, |row, _, bytes| int8_rows::encode(row, bytes);
}

impl PackedFormat {
    /// The number of bytes of so many numbers: whole blocks, or one row of [`INT8`](Self::INT8).
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
        let head = if self == Self::INT8 {
            int8_rows::HEAD
        } else {
            0
        };
        head + numbers / self.block() * self.block_bytes()
    }

    /// The formats of GGUF files.
    pub const GGUF: &[Self] = Self::ALL.split_at(11).0;

    /// Whether GGUF files have it.
    pub fn is_gguf(self) -> bool {
        Self::GGUF.contains(&self)
    }

    /// Groups of integers with a scale and a zero point each: `bits` is 4 or 8, `group` 32, 64 or 128.
    pub fn integers(bits: u32, group: usize) -> Option<Self> {
        Some(match (bits, group) {
            (4, 32) => Self::INT4_G32,
            (4, 64) => Self::INT4_G64,
            (4, 128) => Self::INT4_G128,
            (8, 32) => Self::INT8_G32,
            (8, 64) => Self::INT8_G64,
            (8, 128) => Self::INT8_G128,
            _ => return None,
        })
    }

    /// Writes a block of integers `w = s·(q − z)`, which are not negative. `z` is stored in 16 bits.
    ///
    /// # Panics
    ///
    /// If the format is not one of [`integers`](Self::integers), or a size does not match.
    ///
    /// ```
    /// use ft_kernels::PackedFormat;
    ///
    /// let format = PackedFormat::integers(4, 32).unwrap();
    /// let levels: Vec<u8> = (0..32).map(|i| i % 16).collect();
    /// let mut block = vec![0; format.block_bytes()];
    /// format.put_integers(0.5, 8.0, &levels, &mut block);
    /// let mut numbers = [0.0; 32];
    /// format.decode(&block, &mut numbers);
    /// assert_eq!(numbers[..3], [-4.0, -3.5, -3.0]);
    /// ```
    pub fn put_integers(self, scale: f32, zero_point: f32, levels: &[u8], block: &mut [u8]) {
        assert_eq!(levels.len(), self.block(), "integers of a block");
        int_groups::put_group(self.bits_of_integers(), scale, zero_point, levels, block);
    }

    /// Reads a block of integers `w = s·(q − z)`, and returns `s` and `z`.
    ///
    /// # Panics
    ///
    /// If the format is not one of [`integers`](Self::integers), or a size does not match.
    pub fn get_integers(self, block: &[u8], levels: &mut [u8]) -> (f32, f32) {
        assert_eq!(levels.len(), self.block(), "integers of a block");
        int_groups::get_group(self.bits_of_integers(), block, levels)
    }

    /// 4 or 8 if the format is one of [`integers`](Self::integers).
    pub fn integer_bits(self) -> Option<u32> {
        match self {
            Self::INT4_G32 | Self::INT4_G64 | Self::INT4_G128 => Some(4),
            Self::INT8_G32 | Self::INT8_G64 | Self::INT8_G128 => Some(8),
            _ => None,
        }
    }

    fn bits_of_integers(self) -> usize {
        match self.integer_bits() {
            Some(bits) => bits as usize,
            None => panic!("{self} has no integers with a scale and a zero point"),
        }
    }

    /// Bits for each number, with its share of the scales of a block.
    pub fn bits(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block() as f64
    }

    fn check_sizes(self, bytes: usize, numbers: usize) {
        let wanted = self.bytes_of(numbers);
        assert_eq!(bytes, wanted, "{numbers} numbers in {self}");
    }

    /// Squares of numbers above 1e18 are infinite, so searches of scales end with no number, which would not be found.
    fn check_sizes_of_numbers(self, numbers: &[f32]) -> Result<(), EncodeError> {
        let most = if self.is_gguf() { 1e18 } else { f32::MAX };
        let outside = |x: &f32| x.is_nan() || x.abs() > most;
        match numbers.iter().position(outside) {
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
    fn the_formats_of_gguf_come_first() {
        assert_eq!(PackedFormat::GGUF.last(), Some(&PackedFormat::IQ4_NL));
        assert!(!PackedFormat::NF4.is_gguf());
    }

    #[test]
    fn what_has_no_scale_is_refused_with_its_place() {
        for &format in PackedFormat::ALL {
            let mut bytes = vec![0; format.bytes_of(512)];
            for number in [f32::NAN, f32::INFINITY, -1e30, 1e20, 1e15, -1e10] {
                if number.is_finite() && !format.is_gguf() {
                    // Their scales have 32 bits.
                    continue;
                }
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
