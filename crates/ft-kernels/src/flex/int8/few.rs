//! Products with a few rows: each block of the weight is read once, where it is.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::super::one_row::Outputs;
use super::super::packed::Blocks;
use super::super::pieces::each;
use super::super::prefetch::prefetch;
use super::activations::{Activations, CHUNK};
use super::each_chunk;
use super::levels::{Reader, Scales, four_halves};
use super::{has_vnni, with_reader};

/// Up to this many rows. For more, putting the weight's rows side by side pays.
pub(super) const MOST: usize = 2;
/// How far memory is fetched ahead, in bytes.
const AHEAD: usize = 4096;
/// Rows of at most so many bytes are short.
const SHORT: usize = 2048;
/// The number of elements of the weight for each task.
const PIECE: usize = 1 << 16;

/// The output is `[rows of x, rows of the weight]`.
pub(super) fn product(weight: &Blocks<'_>, x: &Activations, out: &mut [f32]) {
    let [features, cols] = weight.shape;
    let (rows, count) = (rows(*weight, x), x.rows());
    let piece = (PIECE / cols).clamp(1, features).next_multiple_of(4);
    if count == 1 {
        let pieces = out.par_chunks_mut(piece).enumerate();
        return each(pieces, |(i, out)| rows(i * piece, out));
    }
    let mut by_row = vec![0.0; out.len()];
    let pieces = by_row.par_chunks_mut(piece * count).enumerate();
    each(pieces, |(i, out)| rows(i * piece, out));
    for (i, out) in out.chunks_exact_mut(features).enumerate() {
        for (out, row) in out.iter_mut().zip(by_row.chunks_exact(count)) {
            *out = row[i];
        }
    }
}

/// What computes the products of some rows of the weight from the first, `[rows of the weight, rows of x]`.
pub(super) fn rows<'a>(weight: Blocks<'a>, x: &'a Activations) -> Outputs<'a> {
    let vnni = has_vnni();
    with_reader!(weight.format, F => Box::new(move |first, out| {
        // SAFETY: the instructions are there: the caller has asked for the first, and those of VNNI were just asked for.
        unsafe {
            match vnni {
                true => vnni_rows::<F>(&weight, x, first, out),
                false => avx2_rows::<F>(&weight, x, first, out),
            }
        }
    }))
}

/// # Safety
///
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_rows<F: Reader>(
    weight: &Blocks<'_>,
    x: &Activations,
    first: usize,
    out: &mut [f32],
) {
    // SAFETY: as for this function.
    unsafe { some_rows::<F, false>(weight, x, first, out) }
}

/// # Safety
///
/// The processor has the instructions of [`avx2_rows`], and AVX-512 VNNI with vectors of 256 bits.
#[target_feature(enable = "avx2,fma,f16c,avx512bw,avx512vl,avx512vnni")]
unsafe fn vnni_rows<F: Reader>(
    weight: &Blocks<'_>,
    x: &Activations,
    first: usize,
    out: &mut [f32],
) {
    // SAFETY: as for this function.
    unsafe { some_rows::<F, true>(weight, x, first, out) }
}

/// `out` is `[some rows of the weight from the first, rows of x]`.
#[inline(always)]
unsafe fn some_rows<F: Reader, const VNNI: bool>(
    weight: &Blocks<'_>,
    x: &Activations,
    first: usize,
    out: &mut [f32],
) {
    // SAFETY: as for this function.
    unsafe {
        match x.rows() {
            1 if F::PAIRED => in_pairs::<F, VNNI>(weight, x, first, out),
            1 => columns::<F, VNNI, 1, 4>(weight, x, first, out),
            _ => columns::<F, VNNI, 2, 2>(weight, x, first, out),
        }
    }
}

/// The products with `N` rows of `x`, `R` rows of the weight at a time.
#[inline(always)]
unsafe fn columns<F: Reader, const VNNI: bool, const N: usize, const R: usize>(
    weight: &Blocks<'_>,
    x: &Activations,
    first: usize,
    out: &mut [f32],
) {
    let rows = out.len() / N;
    let blocks_of = weight.by_row();
    for row in (0..rows).step_by(R) {
        // The last row again in place of those that are missing.
        let rows_here: [&[u8]; R] =
            std::array::from_fn(|r| blocks_of(first + (row + r).min(rows - 1)));
        // SAFETY: as for this function; rows have the blocks of all columns.
        let dots = unsafe { dots::<F, VNNI, N, R>(rows_here, x) };
        for (r, dots) in dots.iter().enumerate().take(rows - row) {
            out[(row + r) * N..][..N].copy_from_slice(dots);
        }
    }
}

/// # Safety
///
/// The processor has the instructions.
#[inline(always)]
unsafe fn dots<F: Reader, const VNNI: bool, const N: usize, const R: usize>(
    rows: [&[u8]; R],
    x: &Activations,
) -> [[f32; N]; R] {
    let blocks = x.cols / CHUNK / F::CHUNKS;
    assert!(rows.iter().all(|row| row.len() == blocks * F::BYTES));
    assert!(x.rows() == N && x.group == F::GROUP);
    assert!(F::OFFSET == 0 || x.pairs.len() == x.levels.len() / 2);
    let (chunks, groups) = (x.cols / CHUNK, x.cols / F::GROUP);
    // SAFETY: chunks of all rows are below the lengths that were just checked; loads need no alignment.
    unsafe {
        let levels: [*const i8; N] = std::array::from_fn(|n| x.levels.as_ptr().add(n * x.cols));
        let scales: [*const f32; N] = std::array::from_fn(|n| x.scales.as_ptr().add(n * chunks));
        let sums_of_groups: [*const f32; N] =
            std::array::from_fn(|n| x.sums.as_ptr().add(n * groups));
        // Sums of two levels times the offset of the weight's levels.
        let pairs = x.pairs.as_ptr();
        // Those of even and of odd chunks.
        let mut sums = [[[_mm256_setzero_ps(); 2]; N]; R];
        let mut minima = [[_mm256_setzero_ps(); N]; R];
        for block in 0..blocks {
            fetch(&rows, block * F::BYTES, F::BYTES);
            for r in 0..R {
                let at = rows[r].as_ptr().add(block * F::BYTES);
                let of_block = F::scales(at);
                each_chunk!(F, chunk => {
                    let k = block * F::CHUNKS + chunk;
                    let parity = if F::CHUNKS == 1 { 0 } else { chunk % 2 };
                    let q = F::levels(at, chunk);
                    let s = of_block.of_chunk(chunk);
                    for n in 0..N {
                        let x = _mm256_loadu_si256(levels[n].add(32 * k).cast());
                        let dot = if F::SIGNED {
                            // The sign of the level moves to the input.
                            dot::<VNNI>(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q))
                        } else if F::OFFSET != 0 {
                            let less = pairs.add((n * chunks + k) * 16);
                            dot_less::<VNNI>(q, x, _mm256_loadu_si256(less.cast()))
                        } else {
                            dot::<VNNI>(q, x)
                        };
                        let scale = _mm256_mul_ps(s, _mm256_broadcast_ss(&*scales[n].add(k)));
                        let sum = &mut sums[r][n][parity];
                        *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
                    }
                });
                if F::MINIMA {
                    for n in 0..N {
                        let first = sums_of_groups[n].add(block * F::CHUNKS * CHUNK / F::GROUP);
                        minima[r][n] = of_block.add_minima(first, minima[r][n]);
                    }
                }
            }
        }
        let mut dots = [[0.0; N]; R];
        // Closures would not have the instructions.
        for r in 0..R {
            for n in 0..N {
                let [even, odd] = sums[r][n];
                dots[r][n] = total(_mm256_sub_ps(_mm256_add_ps(even, odd), minima[r][n]));
            }
        }
        dots
    }
}

/// The product with one row of `x`, four rows of the weight at a time, two of them in a register: half a register has half a
/// block of each, and its scale in all lanes.
#[inline(always)]
unsafe fn in_pairs<F: Reader, const VNNI: bool>(
    weight: &Blocks<'_>,
    x: &Activations,
    first: usize,
    out: &mut [f32],
) {
    let blocks = x.cols / CHUNK;
    assert!(F::PAIRED && F::CHUNKS == 1 && x.rows() == 1 && x.group == CHUNK);
    assert!(x.scales.len() == blocks && x.sums.len() == blocks);
    assert!(F::OFFSET == 0 || x.pairs.len() == x.levels.len() / 2);
    let last = out.len() - 1;
    let blocks_of = weight.by_row();
    for (row, out) in out.chunks_mut(4).enumerate() {
        // The last row again in place of those that are missing.
        let rows: [&[u8]; 4] = std::array::from_fn(|r| blocks_of(first + (4 * row + r).min(last)));
        assert!(rows.iter().all(|row| row.len() == blocks * F::BYTES));
        // SAFETY: as for this function; blocks are below the lengths that were just checked, and loads need no alignment.
        unsafe {
            let lanes = [
                _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1),
                _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3),
            ];
            let ones = _mm256_set1_epi16(1);
            let mut sums = [_mm256_setzero_ps(); 2];
            for block in 0..blocks {
                let at = rows.map(|row| row.as_ptr().add(block * F::BYTES));
                if block % 2 == 0 {
                    fetch(&rows, block * F::BYTES, 2 * F::BYTES);
                }
                let scale = _mm_broadcast_ss(&x.scales[block]);
                let s = _mm256_castps128_ps256(_mm_mul_ps(four_halves(at), scale));
                let levels = x.levels.as_ptr().add(CHUNK * block);
                let xs = [twice(levels.cast()), twice(levels.add(16).cast())];
                for pair in 0..2 {
                    let halves = F::pair(at[2 * pair], at[2 * pair + 1]);
                    let mut dots = _mm256_setzero_si256();
                    let mut pairs = _mm256_setzero_si256();
                    for half in 0..2 {
                        let (mut q, mut values) = (halves[half], xs[half]);
                        if F::SIGNED {
                            // The sign of the level moves to the input.
                            (q, values) = (_mm256_abs_epi8(q), _mm256_sign_epi8(values, q));
                        }
                        if VNNI {
                            dots = _mm256_dpbusd_epi32(dots, q, values);
                        } else if F::SIGNED {
                            let products = _mm256_maddubs_epi16(q, values);
                            dots = _mm256_add_epi32(dots, _mm256_madd_epi16(products, ones));
                        } else {
                            // Four products of levels up to 31 fit 16 bits.
                            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(q, values));
                        }
                        if F::OFFSET != 0 {
                            pairs = _mm256_sub_epi16(
                                pairs,
                                twice(x.pairs.as_ptr().add(16 * block + 8 * half).cast()),
                            );
                        }
                    }
                    if !F::SIGNED && (!VNNI || F::OFFSET != 0) {
                        dots = _mm256_add_epi32(dots, _mm256_madd_epi16(pairs, ones));
                    }
                    let s = _mm256_permutevar8x32_ps(s, lanes[pair]);
                    sums[pair] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), s, sums[pair]);
                }
                if F::MINIMA {
                    // A quarter of the sum for each lane of a block. The stored minimum is −t.
                    let t = _mm256_castps128_ps256(four_halves(at.map(|at| at.add(2))));
                    let sum = _mm256_set1_ps(0.25 * x.sums[block]);
                    for pair in 0..2 {
                        let t = _mm256_permutevar8x32_ps(t, lanes[pair]);
                        sums[pair] = _mm256_fmadd_ps(t, sum, sums[pair]);
                    }
                }
            }
            // Each half of a register is a row.
            let mut dots = [0.0; 4];
            for (pair, sums) in sums.into_iter().enumerate() {
                let two = _mm256_add_ps(sums, _mm256_movehdup_ps(sums));
                let low = _mm256_castps256_ps128(two);
                let high = _mm256_extractf128_ps::<1>(two);
                dots[2 * pair] = _mm_cvtss_f32(_mm_add_ss(low, _mm_movehl_ps(low, low)));
                dots[2 * pair + 1] = _mm_cvtss_f32(_mm_add_ss(high, _mm_movehl_ps(high, high)));
            }
            out.copy_from_slice(&dots[..out.len()]);
        }
    }
}

/// Fetches what will be read soon, when the rows have been read from here for some bytes. Short rows lie one behind the other and end
/// soon, so memory is fetched in its own order; of long rows the same place of the next ones is far enough ahead.
#[inline(always)]
fn fetch<const R: usize>(rows: &[&[u8]; R], from: usize, bytes: usize) {
    if rows[0].len() <= SHORT {
        return prefetch(rows[0].as_ptr().wrapping_add(R * from + AHEAD), R * bytes);
    }
    for row in rows {
        prefetch(row.as_ptr().wrapping_add(from + R * row.len()), bytes);
    }
}

/// 16 bytes in both halves of a register.
#[inline(always)]
unsafe fn twice(at: *const u8) -> __m256i {
    // SAFETY: the caller can read 16 bytes there, and the load needs no alignment.
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(at.cast())) }
}

/// Sums of four products of unsigned and signed bytes.
#[inline(always)]
unsafe fn dot<const VNNI: bool>(unsigned: __m256i, signed: __m256i) -> __m256i {
    // SAFETY: the instructions are there.
    unsafe {
        if VNNI {
            return _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsigned, signed);
        }
        // Two products are 2·128·127 at most, which fits 16 bits.
        let pairs = _mm256_maddubs_epi16(unsigned, signed);
        _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
    }
}

/// The same, less sums of two.
#[inline(always)]
unsafe fn dot_less<const VNNI: bool>(unsigned: __m256i, signed: __m256i, less: __m256i) -> __m256i {
    // SAFETY: the instructions are there.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        if VNNI {
            let dots = _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsigned, signed);
            return _mm256_sub_epi32(dots, _mm256_madd_epi16(less, ones));
        }
        // Levels up to 63 less 32, with inputs up to 127: differences of two fit 16 bits.
        let pairs = _mm256_sub_epi16(_mm256_maddubs_epi16(unsigned, signed), less);
        _mm256_madd_epi16(pairs, ones)
    }
}

#[inline(always)]
unsafe fn total(x: __m256) -> f32 {
    // SAFETY: the instructions are there.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}
