//! The tensors of bitsandbytes for `NF4` and `FP4`: numbers of 4 bits, and the largest magnitude of every 64, which may be
//! rounded to 8 bits in turn ("double quantization", Dettmers et al., 2023, arXiv:2305.14314, section 3).

use ft_kernels::{DynamicMap, PackedFormat};

/// Largest magnitudes that share a scale of their own.
const NESTED_BLOCK: usize = 256;

/// Largest magnitudes in 8 bits: `absmax = nested·map[code] + offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct NestedAbsmax {
    /// `weight.absmax`, `[blocks]`.
    pub codes: Vec<u8>,
    /// `weight.nested_absmax`, `[⌈blocks / 256⌉]`.
    pub nested: Vec<f32>,
    /// The mean, `nested_offset` of the state.
    pub offset: f32,
    /// The numbers of the codes, `weight.nested_quant_map`, `[256]`. Those of bitsandbytes differ from
    /// [`DynamicMap::Signed`] in the last bit.
    pub map: Vec<f32>,
}

impl NestedAbsmax {
    /// Rounds to the nearest codes of the dynamic map, after the mean is subtracted.
    ///
    /// ```
    /// use ft_core::packed_folder::NestedAbsmax;
    ///
    /// let absmax = [1.0, 2.0, 3.0, 2.0];
    /// let nested = NestedAbsmax::new(&absmax);
    /// assert_eq!((nested.offset, nested.nested[0]), (2.0, 1.0));
    /// for (found, expected) in nested.dequantize().iter().zip(absmax) {
    ///     assert!((found - expected).abs() < 0.01);
    /// }
    /// ```
    pub fn new(absmax: &[f32]) -> Self {
        let sum: f64 = absmax.iter().map(|x| f64::from(*x)).sum();
        let offset = (sum / absmax.len().max(1) as f64) as f32;
        let map = DynamicMap::Signed.values();
        let (mut codes, mut nested) = (Vec::with_capacity(absmax.len()), Vec::new());
        for part in absmax.chunks(NESTED_BLOCK) {
            let most = part
                .iter()
                .fold(0.0f32, |most, x| most.max((x - offset).abs()));
            nested.push(most);
            let inverse = 1.0 / most.max(1e-38);
            codes.extend(part.iter().map(|x| {
                let x = ((x - offset) * inverse).clamp(-1.0, 1.0);
                let above = map.partition_point(|number| *number < x).clamp(1, 255);
                let nearer_below = x - map[above - 1] <= map[above] - x;
                (above - usize::from(nearer_below)) as u8
            }));
        }
        Self {
            codes,
            nested,
            offset,
            map: map.to_vec(),
        }
    }

    /// The magnitudes, `[blocks]`.
    ///
    /// # Panics
    ///
    /// If there are too few `nested`, or a code is not in the map.
    pub fn dequantize(&self) -> Vec<f32> {
        let map = &self.map;
        let blocks = self.codes.chunks(NESTED_BLOCK).zip(&self.nested);
        let numbers: Vec<f32> = blocks
            .flat_map(|(codes, nested)| {
                codes
                    .iter()
                    .map(move |code| map[usize::from(*code)] * nested + self.offset)
            })
            .collect();
        assert_eq!(
            numbers.len(),
            self.codes.len(),
            "a nested magnitude for every 256"
        );
        numbers
    }
}

/// Blocks of [`PackedFormat::NF4`] or [`FP4`](PackedFormat::FP4), given `weight` and the magnitudes of bitsandbytes.
///
/// # Panics
///
/// If sizes do not match: there are 32 bytes for each magnitude.
pub fn join_bitsandbytes(packed: &[u8], absmax: &[f32]) -> Vec<u8> {
    let (packed, rest) = packed.as_chunks::<32>();
    assert!(
        rest.is_empty() && packed.len() == absmax.len(),
        "32 bytes for each magnitude"
    );
    let blocks = packed.iter().zip(absmax);
    blocks
        .flat_map(|(q, absmax)| absmax.to_le_bytes().into_iter().chain(*q))
        .collect()
}

/// `weight` and the magnitudes of bitsandbytes, given blocks.
///
/// # Panics
///
/// If there are no whole blocks.
pub fn split_bitsandbytes(blocks: &[u8]) -> (Vec<u8>, Vec<f32>) {
    let (blocks, rest) = blocks.as_chunks::<36>();
    assert!(
        rest.is_empty() && PackedFormat::NF4.block_bytes() == 36,
        "whole blocks"
    );
    let absmax = blocks
        .iter()
        .map(|block| f32::from_le_bytes([block[0], block[1], block[2], block[3]]));
    let packed = blocks.iter().flat_map(|block| block[4..].iter().copied());
    (packed.collect(), absmax.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_split_and_joined() {
        let blocks: Vec<u8> = (0..108).collect();
        let (packed, absmax) = split_bitsandbytes(&blocks);
        assert_eq!((packed.len(), absmax.len()), (96, 3));
        // NaN would not be equal.
        assert_eq!(join_bitsandbytes(&packed, &absmax), blocks);
    }

    #[test]
    fn equal_magnitudes_are_exact() {
        let nested = NestedAbsmax::new(&[0.5; 300]);
        assert_eq!(
            (nested.nested.len(), nested.dequantize()),
            (2, vec![0.5; 300])
        );
    }
}
