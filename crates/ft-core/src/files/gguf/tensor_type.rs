//! The types of tensors in a file.

use std::fmt;

use ft_kernels::PackedFormat;

/// A type of tensor: plain numbers, or blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    id: u32,
    name: &'static str,
    block: usize,
    bytes: usize,
}

/// Number, name, numbers in a block, bytes of a block: those of ggml.
const TYPES: &[TensorType] = &[
    of(0, "F32", 1, 4),
    of(1, "F16", 1, 2),
    of(2, "Q4_0", 32, 18),
    of(3, "Q4_1", 32, 20),
    of(6, "Q5_0", 32, 22),
    of(7, "Q5_1", 32, 24),
    of(8, "Q8_0", 32, 34),
    of(9, "Q8_1", 32, 36),
    of(10, "Q2_K", 256, 84),
    of(11, "Q3_K", 256, 110),
    of(12, "Q4_K", 256, 144),
    of(13, "Q5_K", 256, 176),
    of(14, "Q6_K", 256, 210),
    of(15, "Q8_K", 256, 292),
    of(16, "IQ2_XXS", 256, 66),
    of(17, "IQ2_XS", 256, 74),
    of(18, "IQ3_XXS", 256, 98),
    of(19, "IQ1_S", 256, 50),
    of(20, "IQ4_NL", 32, 18),
    of(21, "IQ3_S", 256, 110),
    of(22, "IQ2_S", 256, 82),
    of(23, "IQ4_XS", 256, 136),
    of(24, "I8", 1, 1),
    of(25, "I16", 1, 2),
    of(26, "I32", 1, 4),
    of(27, "I64", 1, 8),
    of(28, "F64", 1, 8),
    of(29, "IQ1_M", 256, 56),
    of(30, "BF16", 1, 2),
    of(34, "TQ1_0", 256, 54),
    of(35, "TQ2_0", 256, 66),
    of(39, "MXFP4", 32, 17),
];

const fn of(id: u32, name: &'static str, block: usize, bytes: usize) -> TensorType {
    TensorType {
        id,
        name,
        block,
        bytes,
    }
}

impl TensorType {
    /// 32-bit floats.
    pub const F32: Self = TYPES[0];
    /// 16-bit floats of IEEE 754.
    pub const F16: Self = TYPES[1];
    /// The upper halves of 32-bit floats.
    pub const BF16: Self = of(30, "BF16", 1, 2);

    /// The type of a number in a file.
    pub fn from_id(id: u32) -> Option<Self> {
        TYPES.iter().copied().find(|one| one.id == id)
    }

    /// The type of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut types = TYPES.iter().copied();
        types.find(|one| one.name.eq_ignore_ascii_case(name))
    }

    /// Its number in a file.
    pub fn id(self) -> u32 {
        self.id
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The number of numbers in a block; 1 for plain numbers.
    pub fn block(self) -> usize {
        self.block
    }

    /// The number of bytes of a block, or a number.
    pub fn block_bytes(self) -> usize {
        self.bytes
    }

    /// The format of its blocks, if there is a decoder for them.
    pub fn packed(self) -> Option<PackedFormat> {
        let mut formats = PackedFormat::GGUF.iter().copied();
        formats.find(|format| format.name() == self.name)
    }
}

impl From<PackedFormat> for TensorType {
    fn from(format: PackedFormat) -> Self {
        Self::from_name(format.name()).expect("formats of blocks are on the list")
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_blocks_have_the_sizes_of_ggml() {
        for &format in PackedFormat::GGUF {
            let of_file = TensorType::from(format);
            assert_eq!(of_file.packed(), Some(format));
            assert_eq!(
                (of_file.block(), of_file.block_bytes()),
                (format.block(), format.block_bytes())
            );
        }
        assert_eq!(TensorType::from_id(30), Some(TensorType::BF16));
        assert_eq!(TensorType::from_id(4), None);
    }
}
