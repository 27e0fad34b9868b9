//! AdamW on slices: one pass, split over threads, in place if the storage is not shared.
//!
//! Every number depends only on its own four inputs (in 8 bits, on its block), so neither the number of threads nor
//! the width of SIMD changes the result.

use std::sync::LazyLock;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Int, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;

use super::{contiguous, to_change};
use crate::adamw::Factors;
use crate::blockwise::{BLOCK, Blockwise, DynamicMap};

/// The number of elements of a piece, a multiple of the block.
const PIECE: usize = 1 << 14;

/// Whether these kernels support the device and type of 8-bit moments.
pub(crate) fn takes(moment: &Blockwise) -> bool {
    super::takes(&moment.absmax) && moment.codes.dtype() == DType::U8
}

pub(crate) fn adamw<const D: usize>(
    param: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    factors: &Factors,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let shape = param.shape();
    for other in [&gradient, &first, &second] {
        assert_eq!(
            other.shape(),
            shape,
            "gradient and moments must have the shape of the parameter"
        );
    }
    let gradient = contiguous(flex(gradient));
    let [mut p, mut m, mut v] = [param, first, second].map(|tensor| to_change(flex(tensor)));
    (
        p.storage_mut::<f32>().par_chunks_mut(PIECE),
        super::slice(&gradient).par_chunks(PIECE),
        m.storage_mut::<f32>().par_chunks_mut(PIECE),
        v.storage_mut::<f32>().par_chunks_mut(PIECE),
    )
        .into_par_iter()
        .for_each(|(p, g, m, v)| update(p, g, m, v, factors));
    (float(p), [float(m), float(v)])
}

pub(crate) fn adamw_8bit<const D: usize>(
    param: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Blockwise; 2],
    factors: &Factors,
) -> (Tensor<D>, [Blockwise; 2]) {
    let shape = param.shape();
    assert_eq!(gradient.shape(), shape, "gradient as the parameter");
    let numbers = shape.num_elements();
    for moment in [&first, &second] {
        assert_eq!(moment.codes.dims(), [numbers], "a code for every number");
        assert_eq!(
            moment.absmax.dims(),
            [numbers.div_ceil(BLOCK)],
            "there must be a maximum for every block"
        );
    }
    let gradient = contiguous(flex(gradient));
    let mut p = to_change(flex(param));
    let [(mut m, mut m_max), (mut v, mut v_max)] = [first, second].map(|moment| {
        let codes = moment.codes.try_into_primitive::<Flex>();
        let codes = to_change(codes.expect("on Flex"));
        (codes, to_change(flex(moment.absmax)))
    });
    (
        p.storage_mut::<f32>().par_chunks_mut(PIECE),
        super::slice(&gradient).par_chunks(PIECE),
        m.storage_mut::<u8>().par_chunks_mut(PIECE),
        m_max.storage_mut::<f32>().par_chunks_mut(PIECE / BLOCK),
        v.storage_mut::<u8>().par_chunks_mut(PIECE),
        v_max.storage_mut::<f32>().par_chunks_mut(PIECE / BLOCK),
    )
        .into_par_iter()
        .for_each(|(p, g, m, m_max, v, v_max)| {
            update_8bit(p, g, (m, m_max), (v, v_max), factors, &SIGNED, &UNSIGNED);
        });
    let moment = |codes, absmax| Blockwise {
        codes: Tensor::<1, Int>::from_primitive::<Flex>(codes),
        absmax: float(absmax),
    };
    (float(p), [moment(m, m_max), moment(v, v_max)])
}

fn flex<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    let primitive = tensor.inner().try_into_primitive::<Flex>();
    primitive.expect("on Flex")
}

fn float<const D: usize>(tensor: FlexTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(tensor)
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn update(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], factors: &Factors) {
    adamw_of(p, g, m, v, factors);
}

#[inline(always)]
fn adamw_of(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: &Factors) {
    let f = *f;
    for ((p, g), (m, v)) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
        let g = g * f.scale;
        *m = f.first.0 * *m + f.first.1 * g;
        *v = f.second.0 * *v + f.second.1 * (g * g);
        *p = f.kept * *p - f.rate * *m / (f.root * v.sqrt() + f.eps);
    }
}

/// Codes and absolute maxima of a piece.
type Codes<'a> = (&'a mut [u8], &'a mut [f32]);

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn update_8bit(
    p: &mut [f32],
    g: &[f32],
    first: Codes<'_>,
    second: Codes<'_>,
    factors: &Factors,
    signed: &Coder,
    unsigned: &Coder,
) {
    let (mut m, mut v) = ([0.0; BLOCK], [0.0; BLOCK]);
    let first = first.0.chunks_mut(BLOCK).zip(first.1);
    let second = second.0.chunks_mut(BLOCK).zip(second.1);
    let numbers = p.chunks_mut(BLOCK).zip(g.chunks(BLOCK));
    for ((p, g), ((m_codes, m_max), (v_codes, v_max))) in numbers.zip(first.zip(second)) {
        let (m, v) = (&mut m[..p.len()], &mut v[..p.len()]);
        signed.decode(m_codes, *m_max, m);
        unsigned.decode(v_codes, *v_max, v);
        adamw_of(p, g, m, v, factors);
        *m_max = signed.encode(m, m_codes);
        *v_max = unsigned.encode(v, v_codes);
        for (code, v) in v_codes.iter_mut().zip(v) {
            *code = (*code).max(u8::from(*v > 0.0));
        }
    }
}

static SIGNED: LazyLock<Coder> = LazyLock::new(|| Coder::new(DynamicMap::Signed));
static UNSIGNED: LazyLock<Coder> = LazyLock::new(|| Coder::new(DynamicMap::Unsigned));

/// Converts numbers to the codes of a map and back.
///
/// The upper 16 bits of an `f32` (sign, exponent, 7 bits of the fraction) determine its code up to one comparison: no
/// two bounds share them. A table has the number of bounds below all numbers with these bits.
struct Coder {
    values: &'static [f32; 256],
    /// The last bound is above all numbers.
    bounds: [f32; 256],
    below: Box<[u8; 1 << 16]>,
}

impl Coder {
    fn new(map: DynamicMap) -> Self {
        let mut bounds = [f32::INFINITY; 256];
        bounds[..255].copy_from_slice(&map.bounds());
        let mut below = Box::new([0; 1 << 16]);
        for (upper, below) in below.iter_mut().enumerate() {
            // The least of the negative numbers with these bits has the largest fraction.
            let negative = upper >> 15 == 1;
            let least = f32::from_bits((upper as u32) << 16 | if negative { 0xFFFF } else { 0 });
            *below = bounds.partition_point(|bound| *bound < least) as u8;
        }
        Self {
            values: map.values(),
            bounds,
            below,
        }
    }

    #[inline(always)]
    fn code(&self, x: f32) -> u8 {
        let code = self.below[(x.to_bits() >> 16) as usize];
        code + u8::from(x > self.bounds[usize::from(code)])
    }

    #[inline(always)]
    fn decode(&self, codes: &[u8], absmax: f32, x: &mut [f32]) {
        for (x, code) in x.iter_mut().zip(codes) {
            *x = self.values[usize::from(*code)] * absmax;
        }
    }

    /// The absolute maximum of `x`.
    #[inline(always)]
    fn encode(&self, x: &[f32], codes: &mut [u8]) -> f32 {
        let absmax = absmax(x);
        let scale = 1.0 / absmax.max(f32::MIN_POSITIVE);
        for (code, x) in codes.iter_mut().zip(x) {
            *code = self.code(x * scale);
        }
        absmax
    }
}

/// In 16 lanes, for SIMD.
#[inline(always)]
fn absmax(x: &[f32]) -> f32 {
    let mut most = [0.0f32; 16];
    let (lanes, rest) = x.as_chunks::<16>();
    for x in lanes {
        for (most, x) in most.iter_mut().zip(x) {
            *most = most.max(x.abs());
        }
    }
    let most = most.into_iter().fold(0.0, f32::max);
    rest.iter().fold(most, |most, x| most.max(x.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_the_code_that_counting_bounds_gives() {
        for (map, coder) in [
            (DynamicMap::Signed, &SIGNED),
            (DynamicMap::Unsigned, &UNSIGNED),
        ] {
            let bounds = map.bounds();
            let around = |x: f32| [x.next_down(), x, x.next_up(), -x];
            let near = bounds.into_iter().chain(*map.values()).flat_map(around);
            let spread = (0..100_000).map(|i| (i as f32 * 0.7).sin().powi(1 + i % 40));
            for x in near.chain(spread).chain([0.0, -0.0, 1.0, -1.0, 1e-40]) {
                let counted = bounds.iter().filter(|bound| **bound < x).count();
                assert_eq!(usize::from(coder.code(x)), counted, "{map:?} {x}");
            }
        }
    }
}
