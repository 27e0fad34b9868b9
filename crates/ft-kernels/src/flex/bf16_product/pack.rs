//! Factors of a product, rounded and in the order of the instructions.
//!
//! An instruction adds two products to each sum, so terms are packed in pairs, of which each is one word: `[lines / n, pairs, n]`,
//! where lines are rows of the left factor or columns of the right one. Terms and lines that are missing in the last ones are zero.

use std::arch::x86_64::*;
use std::ops::Range;

use burn::tensor::{bf16, f16};

use super::super::product::Matrix;
use super::super::transposed::transposed;
use super::supported;
use super::tile::{LANES, ROWS, first_lanes};

/// A matrix of numbers that are rounded: the term `t` of line `i` is at `i * strides[0] + t * strides[1]`. One of the strides is 1.
#[derive(Clone, Copy)]
pub(in super::super) struct Terms<'a, T> {
    pub(in super::super) numbers: &'a [T],
    pub(in super::super) strides: [usize; 2],
}

impl<'a> Terms<'a, f32> {
    /// The rows of a matrix.
    pub(super) fn of_rows(matrix: Matrix<'a>) -> Self {
        Self {
            numbers: matrix.numbers(),
            strides: matrix.strides(),
        }
    }
}

/// A number that is rounded to `bf16`, or is one.
pub(in super::super) trait Number: Copy + Sync {
    /// The first 16 of `count` numbers, in pairs; what is missing is zero.
    ///
    /// # Safety
    ///
    /// The processor has the instructions, and `count` numbers are there.
    unsafe fn sixteen(from: *const Self, count: usize) -> __m256i;

    /// The first eight of `count` numbers; what is missing is zero.
    ///
    /// # Safety
    ///
    /// As [`sixteen`](Self::sixteen).
    unsafe fn eight(from: *const Self, count: usize) -> __m128i;
}

// Masked numbers are not read. Registers of `bf16` have the size of those of integers.
impl Number for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
    unsafe fn sixteen(from: *const Self, count: usize) -> __m256i {
        // SAFETY: as for this function.
        unsafe {
            let wide = _mm512_maskz_loadu_ps(first_lanes(count), from);
            std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(wide))
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
    unsafe fn eight(from: *const Self, count: usize) -> __m128i {
        // SAFETY: as for this function.
        unsafe {
            let wide = _mm256_maskz_loadu_ps(first_lanes(count) as u8, from);
            std::mem::transmute::<__m128bh, __m128i>(_mm256_cvtneps_pbh(wide))
        }
    }
}

impl Number for f16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
    unsafe fn sixteen(from: *const Self, count: usize) -> __m256i {
        // SAFETY: as for this function.
        unsafe {
            let narrow = _mm256_maskz_loadu_epi16(first_lanes(count), from.cast());
            std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(_mm512_cvtph_ps(narrow)))
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
    unsafe fn eight(from: *const Self, count: usize) -> __m128i {
        // SAFETY: as for this function.
        unsafe {
            let narrow = _mm_maskz_loadu_epi16(first_lanes(count) as u8, from.cast());
            std::mem::transmute::<__m128bh, __m128i>(_mm256_cvtneps_pbh(_mm256_cvtph_ps(narrow)))
        }
    }
}

impl Number for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
    unsafe fn sixteen(from: *const Self, count: usize) -> __m256i {
        // SAFETY: as for this function.
        unsafe { _mm256_maskz_loadu_epi16(first_lanes(count), from.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
    unsafe fn eight(from: *const Self, count: usize) -> __m128i {
        // SAFETY: as for this function.
        unsafe { _mm_maskz_loadu_epi16(first_lanes(count) as u8, from.cast()) }
    }
}

/// Packs some terms of some columns: `[columns / 16, pairs, 16]`.
///
/// # Panics
///
/// If there are no such columns and terms, or the processor has no such instructions.
pub(in super::super) fn pack_columns<T: Number>(
    lines: Terms<'_, T>,
    columns: Range<usize>,
    terms: Range<usize>,
    to: &mut [u32],
) {
    pack::<T, LANES>(lines, columns, terms, to);
}

/// Packs some terms of some rows: `[rows / 8, pairs, 8]`.
///
/// # Panics
///
/// As [`pack_columns`].
pub(super) fn pack_rows<T: Number>(
    lines: Terms<'_, T>,
    rows: Range<usize>,
    terms: Range<usize>,
    to: &mut [u32],
) {
    pack::<T, ROWS>(lines, rows, terms, to);
}

/// Packs some terms of some lines, `TOGETHER` lines beside each other.
fn pack<T: Number, const TOGETHER: usize>(
    Terms { numbers, strides }: Terms<'_, T>,
    lines: Range<usize>,
    terms: Range<usize>,
    to: &mut [u32],
) {
    let pairs = terms.len().div_ceil(2);
    assert!(supported(), "see `supported`");
    assert!(
        strides.contains(&1),
        "neither lines nor terms are contiguous"
    );
    assert_eq!(
        to.len(),
        lines.len().next_multiple_of(TOGETHER) * pairs,
        "a word for each pair"
    );
    if lines.is_empty() || terms.is_empty() {
        return;
    }
    let last = (lines.end - 1) * strides[0] + (terms.end - 1) * strides[1];
    assert!(last < numbers.len(), "there are no such lines and terms");
    for first in (0..to.len() / pairs).step_by(8) {
        let line = lines.start + first.min(lines.len() - 1);
        let eight = Eight {
            numbers: &numbers[line * strides[0] + terms.start * strides[1]..],
            strides,
            count: lines.len().saturating_sub(first).min(8),
            terms: terms.len(),
        };
        let group = first / TOGETHER * TOGETHER;
        let to = &mut to[group * pairs + first % TOGETHER..];
        // SAFETY: the processor has the instructions, as was just asked.
        unsafe {
            match strides {
                [_, 1] => eight.along_lines(to, TOGETHER),
                _ => eight.across_lines(to, TOGETHER),
            }
        }
    }
}

/// At most eight lines, some of their terms.
struct Eight<'a, T> {
    numbers: &'a [T],
    strides: [usize; 2],
    count: usize,
    terms: usize,
}

impl<T: Number> Eight<'_, T> {
    /// The number of pairs, if all lines, terms and words are there.
    fn checked_pairs(&self, to: &[u32], step: usize) -> usize {
        let pairs = self.terms.div_ceil(2);
        let last =
            self.count.saturating_sub(1) * self.strides[0] + (self.terms - 1) * self.strides[1];
        assert!(last < self.numbers.len() && (pairs - 1) * step + 8 <= to.len());
        pairs
    }

    /// Packs lines whose terms are beside each other in memory; `step` words are between pairs.
    ///
    /// # Safety
    ///
    /// The processor has the instructions.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
    unsafe fn along_lines(&self, to: &mut [u32], step: usize) {
        let pairs = self.checked_pairs(to, step);
        for first in (0..pairs).step_by(8) {
            let mut words = [_mm256_setzero_si256(); 8];
            // SAFETY: lines, terms and words are in the slices, as was just checked.
            unsafe {
                for (line, words) in words.iter_mut().enumerate().take(self.count) {
                    let from = self
                        .numbers
                        .as_ptr()
                        .add(line * self.strides[0] + 2 * first);
                    *words = T::sixteen(from, self.terms - 2 * first);
                }
                let words = transposed(words);
                let pairs = first..pairs.min(first + 8);
                for (pair, words) in pairs.zip(words) {
                    _mm256_storeu_si256(to.as_mut_ptr().add(pair * step).cast(), words);
                }
            }
        }
    }

    /// Packs lines that are beside each other in memory.
    ///
    /// # Safety
    ///
    /// The processor has the instructions.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
    unsafe fn across_lines(&self, to: &mut [u32], step: usize) {
        let pairs = self.checked_pairs(to, step);
        for pair in 0..pairs {
            // SAFETY: lines, terms and words are in the slices, as was just checked.
            unsafe {
                let from = self.numbers.as_ptr().add(2 * pair * self.strides[1]);
                let even = T::eight(from, self.count);
                let odd = match 2 * pair + 1 < self.terms {
                    true => T::eight(from.add(self.strides[1]), self.count),
                    false => _mm_setzero_si128(),
                };
                let to = to.as_mut_ptr().add(pair * step);
                _mm_storeu_si128(to.cast(), _mm_unpacklo_epi16(even, odd));
                _mm_storeu_si128(to.add(4).cast(), _mm_unpackhi_epi16(even, odd));
            }
        }
    }
}

/// Rounds numbers to pairs; the last of an odd number of them has a zero beside it.
///
/// # Panics
///
/// If there is not a word for each pair, or the processor has no such instructions.
pub(in super::super) fn round<T: Number>(numbers: &[T], to: &mut [u32]) {
    assert!(supported(), "see `supported`");
    assert_eq!(to.len(), numbers.len().div_ceil(2), "a word for each pair");
    // SAFETY: the processor has the instructions, and there is a word for each pair.
    unsafe { round_with(numbers, to) };
}

/// # Safety
///
/// The processor has the instructions, and there is a word for each pair.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
unsafe fn round_with<T: Number>(numbers: &[T], to: &mut [u32]) {
    for first in (0..to.len()).step_by(8) {
        // SAFETY: numbers and words are in the slices; masked words are not written.
        unsafe {
            let from = numbers.as_ptr().add(2 * first);
            let pairs = T::sixteen(from, numbers.len() - 2 * first);
            let mask = first_lanes((to.len() - first).min(8)) as u8;
            _mm256_mask_storeu_epi32(to.as_mut_ptr().add(first).cast(), mask, pairs);
        }
    }
}
