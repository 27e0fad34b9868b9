//! Sums of products of 16-bit and `f32` numbers. Numbers are widened in registers, which is exact.

use burn::tensor::{bf16, f16};
use multiversion::multiversion;

use super::exp::total;

#[inline(always)]
fn from_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// Exponent and mantissa are shifted to their positions in `f32`. A product changes the exponent's bias from 15 to 127;
/// it is exact, also for subnormal numbers.
#[inline(always)]
fn from_f16(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    let finite = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let infinite = f32::from_bits(magnitude | 0x7f80_0000);
    let magnitude = if bits & 0x7c00 == 0x7c00 {
        infinite
    } else {
        finite
    };
    f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn widen_bf16(narrow: &[bf16], wide: &mut [f32]) {
    for (wide, narrow) in wide.iter_mut().zip(narrow) {
        *wide = from_bf16(*narrow);
    }
}

pub(super) fn widen_f16(narrow: &[f16], wide: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if x86::supported() {
        // SAFETY: the instructions are there, as was just asked.
        return unsafe { x86::widen_f16(narrow, wide) };
    }
    for (wide, narrow) in wide.iter_mut().zip(narrow) {
        *wide = from_f16(*narrow);
    }
}

/// `⟨w, x⟩` in 64 partial sums, which hide the latency of the addition.
#[inline(always)]
pub(super) fn dot_by<T: Copy>(w: &[T], x: &[f32], widen: impl Fn(T) -> f32) -> f32 {
    let (w_chunks, w_rest) = w.as_chunks::<64>();
    let (x_chunks, x_rest) = x.as_chunks::<64>();
    let (mut a, mut b, mut c, mut d) = ([0.0f32; 16], [0.0f32; 16], [0.0f32; 16], [0.0f32; 16]);
    for (w, x) in w_chunks.iter().zip(x_chunks) {
        // Loops over one array each are vectorized; a loop over all four is not.
        for i in 0..16 {
            a[i] += widen(w[i]) * x[i];
        }
        for i in 0..16 {
            b[i] += widen(w[16 + i]) * x[16 + i];
        }
        for i in 0..16 {
            c[i] += widen(w[32 + i]) * x[32 + i];
        }
        for i in 0..16 {
            d[i] += widen(w[48 + i]) * x[48 + i];
        }
    }
    let mut sum = [0.0; 16];
    for i in 0..16 {
        sum[i] = (a[i] + b[i]) + (c[i] + d[i]);
    }
    let rest: f32 = w_rest.iter().zip(x_rest).map(|(w, x)| widen(*w) * x).sum();
    total(sum) + rest
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn dot(w: &[f32], x: &[f32]) -> f32 {
    dot_by(w, x, |w| w)
}

pub(super) fn dot_bf16(w: &[bf16], x: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if x86::supported() {
        // SAFETY: the instructions are there, as was just asked.
        return unsafe { x86::dot_bf16(w, x) };
    }
    dot_by(w, x, from_bf16)
}

pub(super) fn dot_f16(w: &[f16], x: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if x86::supported() {
        // SAFETY: the instructions are there, as was just asked.
        return unsafe { x86::dot_f16(w, x) };
    }
    dot_by(w, x, from_f16)
}

/// The processor's instruction for `f16`, which the compiler does not generate: a third of the instructions of
/// [`from_f16`]. Processors with AVX2 have it in 256 bits, those with AVX-512 in 512. The compiler
/// does not vectorize the loop with [`from_bf16`] well either.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{bf16, dot_by, f16, from_bf16, from_f16, total};

    pub(super) fn supported() -> bool {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn eight(narrow: &[f16; 8]) -> __m256 {
        // SAFETY: reads the 16 bytes of the array; the load needs no alignment.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(narrow.as_ptr().cast()) })
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn eight_bf16(narrow: &[bf16; 8]) -> __m256 {
        // SAFETY: reads the 16 bytes of the array; the load needs no alignment.
        let words = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(narrow.as_ptr().cast()) });
        _mm256_castsi256_ps(_mm256_slli_epi32(words, 16))
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn widen_f16(narrow: &[f16], wide: &mut [f32]) {
        let (narrow, narrow_rest) = narrow.as_chunks::<8>();
        let (wide, wide_rest) = wide.as_chunks_mut::<8>();
        for (narrow, wide) in narrow.iter().zip(wide) {
            // SAFETY: writes the 32 bytes of the array; the store needs no alignment.
            unsafe { _mm256_storeu_ps(wide.as_mut_ptr(), eight(narrow)) };
        }
        for (narrow, wide) in narrow_rest.iter().zip(wide_rest) {
            *wide = from_f16(*narrow);
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn dot_f16(w: &[f16], x: &[f32]) -> f32 {
        dot_eights(w, x, |w| eight(w), from_f16)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn dot_bf16(w: &[bf16], x: &[f32]) -> f32 {
        dot_eights(w, x, |w| eight_bf16(w), from_bf16)
    }

    /// `⟨w, x⟩`, eight numbers of 16 bits at a time.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn dot_eights<T: Copy>(
        w: &[T],
        x: &[f32],
        eight: impl Fn(&[T; 8]) -> __m256,
        widen: impl Fn(T) -> f32,
    ) -> f32 {
        let (w_chunks, w_rest) = w.as_chunks::<32>();
        let (x_chunks, x_rest) = x.as_chunks::<32>();
        let mut sums = [_mm256_setzero_ps(); 4];
        for (w, x) in w_chunks.iter().zip(x_chunks) {
            let parts = w.as_chunks::<8>().0.iter().zip(x.as_chunks::<8>().0);
            for (sum, (w, x)) in sums.iter_mut().zip(parts) {
                // SAFETY: reads the 32 bytes of the array; the load needs no alignment.
                let x = unsafe { _mm256_loadu_ps(x.as_ptr()) };
                *sum = _mm256_fmadd_ps(eight(w), x, *sum);
            }
        }
        let (even, odd) = (
            _mm256_add_ps(sums[0], sums[2]),
            _mm256_add_ps(sums[1], sums[3]),
        );
        let mut sums = [0.0; 16];
        let (first, second) = sums.split_at_mut(8);
        // SAFETY: each half has the 32 bytes that are written; the store needs no alignment.
        unsafe {
            _mm256_storeu_ps(first.as_mut_ptr(), even);
            _mm256_storeu_ps(second.as_mut_ptr(), odd);
        }
        total(sums) + dot_by(w_rest, x_rest, widen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_16_bits_widens_exactly() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            // Eight numbers and one more: both paths.
            let mut wide = [0.0; 9];
            widen_f16(&[half; 9], &mut wide);
            for found in [from_f16(half), wide[0], wide[8]] {
                if half.is_nan() {
                    assert!(found.is_nan());
                } else {
                    assert_eq!(found.to_bits(), half.to_f32().to_bits(), "{half}");
                }
            }
            if brain.is_nan() {
                assert!(from_bf16(brain).is_nan());
            } else {
                assert_eq!(from_bf16(brain).to_bits(), brain.to_f32().to_bits());
            }
        }
    }

    #[test]
    fn dot_products_of_any_length() {
        for n in [0, 1, 7, 8, 31, 32, 33, 64, 100, 577] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 7) % 13) as f32 - 4.0).collect();
            let half: Vec<f16> = x.iter().map(|x| f16::from_f32(x + 1.0)).collect();
            let brain: Vec<bf16> = x.iter().map(|x| bf16::from_f32(x + 1.0)).collect();
            let expected: f32 = x.iter().map(|x| x * (x + 1.0)).sum();
            assert_eq!(dot_f16(&half, &x), expected);
            assert_eq!(dot_bf16(&brain, &x), expected);
            assert_eq!(dot(&x, &x), x.iter().map(|x| x * x).sum::<f32>());
        }
    }
}
