//! Numbers in 8 bits: a code for each number, and an absolute maximum for every block of 256 numbers (Dettmers
//! et al., 2021, arXiv:2110.02861, section 2.1: an outlier affects only the precision of its block).
//!
//! A number `x` of a block with the absolute maximum `a` is stored as the code of the number in the map
//! that is nearest to `x/a`. The map is that of dynamic tree quantization (sections 1.3 and 2.2): seven
//! decades, each with twice as many numbers as the one below. The error is at most 0.71% of the maximum
//! (unsigned: 0.36%), and a millionth of the maximum is still represented. It is `create_dynamic_map` of bitsandbytes.

use std::sync::LazyLock;

use burn::tensor::{DType, Device, Int, Tensor};

/// The number of elements of a block.
pub const BLOCK: usize = 256;

/// The numbers of the 256 codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamicMap {
    /// From about −1 to 1.
    Signed,
    /// From 0 to 1, with twice the precision.
    Unsigned,
}

impl DynamicMap {
    /// The number of every code, in ascending order.
    ///
    /// Decade `i` of 0 to 6 has the middles of `2^i` (unsigned: `2^(i+1)`) equal parts of
    /// `[0.1, 1]·10^(i−6)`; 0 and 1 complete the 256.
    ///
    /// ```
    /// use ft_kernels::DynamicMap;
    ///
    /// let map = DynamicMap::Unsigned.values();
    /// // The lowest decade has two parts: [1, 5.5]·10⁻⁷ and [5.5, 10]·10⁻⁷.
    /// assert_eq!(map[..3], [0.0, 3.25e-7, 7.75e-7]);
    /// assert_eq!(map[255], 1.0);
    /// ```
    pub fn values(self) -> &'static [f32; 256] {
        static SIGNED: LazyLock<[f32; 256]> = LazyLock::new(|| dynamic_map(true));
        static UNSIGNED: LazyLock<[f32; 256]> = LazyLock::new(|| dynamic_map(false));
        match self {
            Self::Signed => &SIGNED,
            Self::Unsigned => &UNSIGNED,
        }
    }

    /// The bounds between codes. The code of a number is the number of bounds below it.
    pub(crate) fn bounds(self) -> [f32; 255] {
        let values = self.values();
        std::array::from_fn(|code| (values[code] + values[code + 1]) / 2.0)
    }
}

fn dynamic_map(signed: bool) -> [f32; 256] {
    let mut values = vec![0.0, 1.0];
    for decade in 0..7 {
        let parts = if signed { 1 << decade } else { 2 << decade };
        for part in 0..parts {
            let middle = 0.1 + 0.9 * (f64::from(part) + 0.5) / f64::from(parts);
            let value = middle * 10f64.powi(decade - 6);
            values.push(value);
            if signed {
                values.push(-value);
            }
        }
    }
    values.sort_by(f64::total_cmp);
    std::array::from_fn(|code| values[code] as f32)
}

/// A tensor of numbers in 8 bits.
#[derive(Clone, Debug)]
pub struct Blockwise {
    /// A code for every number, `[numbers]`, of type `u8`.
    pub codes: Tensor<1, Int>,
    /// The absolute maximum of every block, `[⌈numbers / 256⌉]`, of type `f32`.
    pub absmax: Tensor<1>,
}

impl Blockwise {
    /// A tensor of zeros.
    pub fn zeros(numbers: usize, device: &Device) -> Self {
        Self {
            codes: Tensor::zeros([numbers], (device, DType::U8)),
            absmax: Tensor::zeros([numbers.div_ceil(BLOCK)], (device, DType::F32)),
        }
    }

    /// Whether a device supports the type of the codes.
    pub fn fits(device: &Device) -> bool {
        device.supports_dtype(DType::U8)
    }

    /// The nearest codes of the map for `x`, `[numbers]`.
    pub fn quantize(x: Tensor<1>, map: DynamicMap) -> Self {
        let device = x.device();
        let [numbers] = x.dims();
        let blocks = numbers.div_ceil(BLOCK);
        let x = x.cast(DType::F32);
        let x = match blocks * BLOCK - numbers {
            0 => x,
            rest => Tensor::cat(vec![x, Tensor::zeros([rest], (&device, DType::F32))], 0),
        };
        let x = x.reshape([blocks, BLOCK]);
        let absmax = x.clone().abs().max_dim(1);
        let parts = x * absmax.clone().clamp_min(f32::MIN_POSITIVE).recip();
        let parts = parts.reshape([blocks * BLOCK]);
        // Counts the bounds below each number, one bit of the count at a time, from the highest.
        let bounds = Tensor::<1>::from_data(map.bounds(), (&device, DType::F32));
        let mut codes = Tensor::<1, Int>::zeros([blocks * BLOCK], &device);
        for bit in (0..8).rev().map(|bit| 1 << bit) {
            let bound = bounds.clone().select(0, codes.clone() + (bit - 1));
            codes = codes + parts.clone().greater(bound).int() * bit;
        }
        Self {
            codes: codes.narrow(0, 0, numbers).cast(DType::U8),
            absmax: absmax.reshape([blocks]),
        }
    }

    /// The numbers of the codes, `[numbers]`.
    pub fn dequantize(&self, map: DynamicMap) -> Tensor<1> {
        let device = self.codes.device();
        let [numbers] = self.codes.dims();
        let [blocks] = self.absmax.dims();
        let values = Tensor::<1>::from_data(*map.values(), (&device, DType::F32));
        let parts = values.select(0, self.codes.clone().cast(DType::I32));
        let absmax = self.absmax.clone().reshape([blocks, 1]);
        let absmax = absmax.expand([blocks, BLOCK]).reshape([blocks * BLOCK]);
        parts * absmax.narrow(0, 0, numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_ascending_from_its_least_number_to_one() {
        for (map, least) in [
            (DynamicMap::Signed, -0.992_968_75),
            (DynamicMap::Unsigned, 0.0),
        ] {
            let values = map.values();
            assert!(values.is_sorted_by(|a, b| a < b));
            assert_eq!((values[0], values[255]), (least, 1.0));
        }
    }

    /// There are 127 negative numbers below zero.
    #[test]
    fn zero_has_a_code() {
        assert_eq!(DynamicMap::Signed.values()[127], 0.0);
        assert_eq!(DynamicMap::Unsigned.values()[0], 0.0);
    }
}
