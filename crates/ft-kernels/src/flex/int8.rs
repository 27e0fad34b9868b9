//! Products of packed weights with inputs that are rounded to 8 bits, as llama.cpp computes them: sums of products of
//! small integers, times the scales of both.
//!
//! Every 32 numbers of the input share a scale, their largest magnitude divided by 127. So the error of a number is at most 1/254
//! of the largest of its 32, and the error of a sum of n products grows as √n, while the sum of their magnitudes grows as n. Few rows are multiplied where the blocks are; for many
//! rows the levels of eight rows of the weight are put side by side first.
//!
//! There is no gradient here: what trains is multiplied with the exact numbers of the blocks.

mod activations;
#[cfg(target_arch = "x86_64")]
mod few;
#[cfg(target_arch = "x86_64")]
mod levels;
#[cfg(target_arch = "x86_64")]
mod many;

use super::one_row::Outputs;
use super::packed::Blocks;
use crate::PackedFormat;

/// Calls a generic function with the reader of a format.
#[cfg(target_arch = "x86_64")]
macro_rules! with_reader {
    ($format:expr, $F:ident => $call:expr) => {{
        use crate::PackedFormat;
        #[allow(unused_imports)]
        use crate::flex::int8::levels;
        match $format {
            PackedFormat::Q4_0 => {
                type $F = levels::Q4_0;
                $call
            }
            PackedFormat::Q4_1 => {
                type $F = levels::Q4_1;
                $call
            }
            PackedFormat::Q5_0 => {
                type $F = levels::Q5_0;
                $call
            }
            PackedFormat::Q5_1 => {
                type $F = levels::Q5_1;
                $call
            }
            PackedFormat::Q8_0 => {
                type $F = levels::Q8_0;
                $call
            }
            PackedFormat::Q2_K => {
                type $F = levels::Q2K;
                $call
            }
            PackedFormat::Q3_K => {
                type $F = levels::Q3K;
                $call
            }
            PackedFormat::Q4_K => {
                type $F = levels::Q4K;
                $call
            }
            PackedFormat::Q5_K => {
                type $F = levels::Q5K;
                $call
            }
            PackedFormat::Q6_K => {
                type $F = levels::Q6K;
                $call
            }
            PackedFormat::IQ4_NL => {
                type $F = levels::Iq4Nl;
                $call
            }
            PackedFormat::INT4_G32 => {
                type $F = levels::Int4<1>;
                $call
            }
            PackedFormat::INT4_G64 => {
                type $F = levels::Int4<2>;
                $call
            }
            PackedFormat::INT4_G128 => {
                type $F = levels::Int4<4>;
                $call
            }
            PackedFormat::INT8_G32 => {
                type $F = levels::Int8<1>;
                $call
            }
            PackedFormat::INT8_G64 => {
                type $F = levels::Int8<2>;
                $call
            }
            PackedFormat::INT8_G128 => {
                type $F = levels::Int8<4>;
                $call
            }
            PackedFormat::NF4 | PackedFormat::FP4 | PackedFormat::INT8 => {
                unreachable!("see `supports`")
            }
        }
    }};
}

/// The body for every chunk of a block, with constant indices.
#[cfg(target_arch = "x86_64")]
macro_rules! each_chunk {
    ($F:ident, $chunk:ident => $body:expr) => {{
        let mut each = {
            #[inline(always)]
            |$chunk: usize| $body
        };
        each(0);
        if $F::CHUNKS > 1 {
            each(1);
        }
        if $F::CHUNKS > 2 {
            each(2);
            each(3);
        }
        if $F::CHUNKS > 4 {
            each(4);
            each(5);
            each(6);
            each(7);
        }
    }};
}
#[cfg(target_arch = "x86_64")]
use {each_chunk, with_reader};

/// Whether the format has levels of 8 bits, and the processor the instructions.
pub(super) fn supports(format: PackedFormat) -> bool {
    // Products with their tables are no integers, and those with rows of one scale are in `vector_wise`.
    if matches!(
        format,
        PackedFormat::NF4 | PackedFormat::FP4 | PackedFormat::INT8
    ) {
        return false;
    }
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether it has those for sums of four products, too.
#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
}

/// `out = x·Wᵀ`; `x` is `[rows, in]`, `out` is `[rows, out]`.
///
/// # Panics
///
/// If the sizes do not match, or the format is not supported.
pub(super) fn times_transposed(weight: &Blocks<'_>, x: &[f32], out: &mut [f32]) {
    assert!(supports(weight.format), "see `supports`");
    let [features, cols] = weight.shape;
    assert!(
        cols > 0 && features > 0 && !out.is_empty(),
        "empty products are the caller's"
    );
    assert_eq!(
        x.len() / cols * features,
        out.len(),
        "the output has another size"
    );
    assert_eq!(x.len() % cols, 0, "whole rows");
    #[cfg(target_arch = "x86_64")]
    {
        let x = rounded(weight.format, x, cols);
        if x.rows() <= few::MOST {
            few::product(weight, &x, out);
        } else {
            many::product(weight, &x, out);
        }
    }
}

/// A row of an input as the products with these formats need it: those that need the same share it.
#[derive(Default)]
pub(super) struct RoundedRow {
    #[cfg(target_arch = "x86_64")]
    kinds: Vec<((usize, i16), activations::Activations)>,
}

impl RoundedRow {
    /// # Panics
    ///
    /// If a format is not supported.
    pub(super) fn new(x: &[f32], formats: impl Iterator<Item = PackedFormat>) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let mut this = Self::default();
            for format in formats {
                assert!(supports(format), "see `supports`");
                if this.of(format).is_none() {
                    this.kinds
                        .push((needs(format), rounded(format, x, x.len())));
                }
            }
            this
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            assert!(
                formats.count() == 0,
                "no format is supported: {} numbers",
                x.len()
            );
            Self::default()
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn of(&self, format: PackedFormat) -> Option<&activations::Activations> {
        let mut kinds = self.kinds.iter();
        kinds.find_map(|(kind, x)| (*kind == needs(format)).then_some(x))
    }

    /// What computes some outputs of a weight, from the first.
    ///
    /// # Panics
    ///
    /// If the weight has a format that it was not rounded for.
    pub(super) fn outputs<'a>(&'a self, weight: Blocks<'a>) -> Outputs<'a> {
        #[cfg(target_arch = "x86_64")]
        return few::rows(weight, self.of(weight.format).expect("rounded for it"));
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("no format is supported: {:?}", weight.format)
    }
}

/// Numbers that share a scale in the weight, and the factor of the sums of pairs.
#[cfg(target_arch = "x86_64")]
fn needs(format: PackedFormat) -> (usize, i16) {
    use levels::Reader;
    with_reader!(format, F => (F::GROUP, F::OFFSET))
}

#[cfg(target_arch = "x86_64")]
fn rounded(format: PackedFormat, x: &[f32], cols: usize) -> activations::Activations {
    let (group, offset) = needs(format);
    let few = x.len() / cols <= few::MOST;
    activations::Activations::new(x, cols, group, if few { offset } else { 0 })
}
