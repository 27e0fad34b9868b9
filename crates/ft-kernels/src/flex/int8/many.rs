//! Products with many rows: the levels of eight rows of the weight are put side by side, and each row of the input is
//! multiplied with all eight, whose sums are the lanes of a register.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::super::columns::Columns;
use super::super::packed::Blocks;
use super::super::pieces::each;
use super::super::transposed::transposed;
use super::activations::{Activations, CHUNK};
use super::levels::{Reader, Scales};
use super::{each_chunk, has_vnni, with_reader};

/// Rows of the weight that are multiplied at the same time.
const LANES: usize = 8;
/// Rows of the input that are multiplied at the same time.
const TOGETHER: usize = 4;
/// The number of elements of the weight for each task.
const PIECE: usize = 1 << 15;
/// Bytes of the input's rows that are multiplied with a panel before the next panel: half of a second-level cache.
const CACHED: usize = 1 << 18;

/// The output is `[rows of x, rows of the weight]`.
pub(super) fn product(weight: &Blocks<'_>, x: &Activations, out: &mut [f32]) {
    let [features, cols] = weight.shape;
    let out = Columns::new(out, features);
    let piece = (PIECE / cols).clamp(1, features).next_multiple_of(LANES);
    let vnni = has_vnni();
    let pieces = (0..features.div_ceil(piece)).into_par_iter();
    with_reader!(weight.format, F => each(pieces, |i| {
        let rows = i * piece..((i + 1) * piece).min(features);
        // SAFETY: the instructions are there, as was asked, and other tasks write to other columns.
        unsafe {
            match vnni {
                true => vnni_rows::<F>(weight, x, rows, &out),
                false => avx2_rows::<F>(weight, x, rows, &out),
            }
        }
    }));
}

/// Eight rows of a weight side by side.
struct Panel {
    /// For every four columns those of the first row, of the second, ...: `[cols / 4, 8, 4]`.
    levels: Vec<[u8; 32]>,
    /// `[groups, 8]`
    scales: Vec<[f32; LANES]>,
    /// `[groups, 8]`
    minima: Vec<[f32; LANES]>,
}

/// # Safety
///
/// The processor has AVX2, FMA and F16C, and no other thread writes to the output's columns of these rows.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_rows<F: Reader>(
    weight: &Blocks<'_>,
    x: &Activations,
    rows: std::ops::Range<usize>,
    out: &Columns<'_>,
) {
    // SAFETY: as for this function.
    unsafe { some_rows::<F, false>(weight, x, rows, out) }
}

/// # Safety
///
/// As [`avx2_rows`], and the processor has AVX-512 VNNI with vectors of 256 bits.
#[target_feature(enable = "avx2,fma,f16c,avx512bw,avx512vl,avx512vnni")]
unsafe fn vnni_rows<F: Reader>(
    weight: &Blocks<'_>,
    x: &Activations,
    rows: std::ops::Range<usize>,
    out: &Columns<'_>,
) {
    // SAFETY: as for this function.
    unsafe { some_rows::<F, true>(weight, x, rows, out) }
}

#[inline(always)]
unsafe fn some_rows<F: Reader, const VNNI: bool>(
    weight: &Blocks<'_>,
    x: &Activations,
    rows: std::ops::Range<usize>,
    out: &Columns<'_>,
) {
    let groups = x.cols / F::GROUP;
    let mut panel = Panel {
        levels: vec![[0; 32]; x.cols / 4],
        scales: vec![[0.0; LANES]; groups],
        minima: vec![[0.0; LANES]; groups],
    };
    let cached = (CACHED / x.cols).max(1).next_multiple_of(TOGETHER);
    for start in (0..x.rows()).step_by(cached) {
        let end = (start + cached).min(x.rows());
        for first in rows.clone().step_by(LANES) {
            let lanes = LANES.min(rows.end - first);
            // The last row again in place of those that are missing.
            let sources = std::array::from_fn(|lane| weight.row(first + lane.min(lanes - 1)));
            // SAFETY: as for this function.
            unsafe {
                fill::<F, VNNI>(&mut panel, sources);
                for row in (start..end).step_by(TOGETHER) {
                    match end - row {
                        1 => tile::<F, VNNI, 1>(&panel, x, row, out, first, lanes),
                        2 => tile::<F, VNNI, 2>(&panel, x, row, out, first, lanes),
                        3 => tile::<F, VNNI, 3>(&panel, x, row, out, first, lanes),
                        _ => tile::<F, VNNI, 4>(&panel, x, row, out, first, lanes),
                    }
                }
            }
        }
    }
}

/// # Safety
///
/// The processor has the instructions.
#[inline(always)]
unsafe fn fill<F: Reader, const VNNI: bool>(panel: &mut Panel, rows: [&[u8]; LANES]) {
    let chunks = panel.levels.len() / 8;
    let blocks = chunks / F::CHUNKS;
    assert!(rows.iter().all(|row| row.len() == blocks * F::BYTES));
    let groups = CHUNK / F::GROUP;
    for block in 0..blocks {
        // SAFETY: blocks are in the rows, whose lengths were just checked.
        let at: [*const u8; LANES] = rows.map(|row| unsafe { row.as_ptr().add(block * F::BYTES) });
        for (lane, at) in at.iter().enumerate() {
            // SAFETY: the block can be read.
            let scales = unsafe { F::scales(*at) };
            let first = block * F::CHUNKS * groups;
            for group in 0..F::CHUNKS * groups {
                let (s, t) = scales.of_group(group);
                panel.scales[first + group][lane] = s;
                // Levels are stored plus 128.
                panel.minima[first + group][lane] =
                    if VNNI && F::SIGNED { t + 128.0 * s } else { t };
            }
        }
        each_chunk!(F, chunk => {
            // SAFETY: the block can be read; stores are to arrays of 32 bytes and need no alignment.
            unsafe {
                let mut rows = [_mm256_setzero_si256(); LANES];
                for (row, at) in rows.iter_mut().zip(at) {
                    *row = F::levels(at, chunk);
                    if VNNI && F::SIGNED {
                        *row = _mm256_xor_si256(*row, _mm256_set1_epi8(-128));
                    }
                }
                let first = (block * F::CHUNKS + chunk) * 8;
                let out = &mut panel.levels[first..first + 8];
                for (out, fours) in out.iter_mut().zip(transposed(rows)) {
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), fours);
                }
            }
        });
    }
}

/// The products of a panel with `N` rows of `x`, of which the first `lanes` are written.
///
/// # Safety
///
/// The processor has the instructions, and no other thread writes to the output's columns.
#[inline(always)]
unsafe fn tile<F: Reader, const VNNI: bool, const N: usize>(
    panel: &Panel,
    x: &Activations,
    row: usize,
    out: &Columns<'_>,
    first: usize,
    lanes: usize,
) {
    let chunks = x.cols / CHUNK;
    let groups = x.cols / F::GROUP;
    assert!(row + N <= x.rows() && x.group == F::GROUP && panel.levels.len() == chunks * 8);
    assert!(panel.scales.len() == groups && panel.minima.len() == panel.scales.len());
    let has_minima = F::MINIMA || F::OFFSET != 0 || (VNNI && F::SIGNED);
    // SAFETY: chunks are below the lengths that were just checked; loads need no alignment.
    unsafe {
        let levels: [*const i8; N] =
            std::array::from_fn(|n| x.levels.as_ptr().add((row + n) * x.cols));
        let scales: [*const f32; N] =
            std::array::from_fn(|n| x.scales.as_ptr().add((row + n) * chunks));
        let group_sums: [*const f32; N] =
            std::array::from_fn(|n| x.sums.as_ptr().add((row + n) * groups));
        let mut sums = [_mm256_setzero_ps(); N];
        for k in 0..chunks {
            let panel_levels = panel.levels.as_ptr().add(8 * k);
            let x_levels = levels.map(|levels| levels.add(CHUNK * k));
            let mut dots = [_mm256_setzero_si256(); N];
            add_four::<F, VNNI, N>(panel_levels, x_levels, &mut dots);
            if F::GROUP == 32 {
                add_four::<F, VNNI, N>(panel_levels.add(4), x_levels.map(|x| x.add(16)), &mut dots);
                let s = _mm256_loadu_ps(panel.scales.as_ptr().add(k).cast());
                let t = _mm256_loadu_ps(panel.minima.as_ptr().add(k).cast());
                for n in 0..N {
                    let scale = _mm256_mul_ps(s, _mm256_broadcast_ss(&*scales[n].add(k)));
                    sums[n] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[n]), scale, sums[n]);
                    if has_minima {
                        let sum = _mm256_broadcast_ss(&*group_sums[n].add(k));
                        sums[n] = _mm256_fnmadd_ps(t, sum, sums[n]);
                    }
                }
            } else {
                let mut second = [_mm256_setzero_si256(); N];
                add_four::<F, VNNI, N>(
                    panel_levels.add(4),
                    x_levels.map(|x| x.add(16)),
                    &mut second,
                );
                for (half, dots) in [dots, second].into_iter().enumerate() {
                    let s = _mm256_loadu_ps(panel.scales.as_ptr().add(2 * k + half).cast());
                    let t = _mm256_loadu_ps(panel.minima.as_ptr().add(2 * k + half).cast());
                    for n in 0..N {
                        let scale = _mm256_mul_ps(s, _mm256_broadcast_ss(&*scales[n].add(k)));
                        sums[n] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[n]), scale, sums[n]);
                        if has_minima {
                            let sum = _mm256_broadcast_ss(&*group_sums[n].add(2 * k + half));
                            sums[n] = _mm256_fnmadd_ps(t, sum, sums[n]);
                        }
                    }
                }
            }
        }
        for (n, sums) in sums.into_iter().enumerate() {
            let mut numbers = [0.0; LANES];
            _mm256_storeu_ps(numbers.as_mut_ptr(), sums);
            out.write(row + n, first, &numbers[..lanes]);
        }
    }
}

/// Adds the products of 16 columns.
#[inline(always)]
unsafe fn add_four<F: Reader, const VNNI: bool, const N: usize>(
    panel: *const [u8; 32],
    x: [*const i8; N],
    dots: &mut [__m256i; N],
) {
    // SAFETY: the caller can read the levels of 16 columns; loads need no alignment.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let mut pairs = [_mm256_setzero_si256(); N];
        for j in 0..4 {
            let w = _mm256_loadu_si256(panel.add(j).cast());
            let magnitudes = if F::SIGNED { _mm256_abs_epi8(w) } else { w };
            for n in 0..N {
                let x = _mm256_set1_epi32(x[n].add(4 * j).cast::<i32>().read_unaligned());
                if VNNI {
                    dots[n] = _mm256_dpbusd_epi32(dots[n], w, x);
                } else if F::SIGNED {
                    let products = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(x, w));
                    dots[n] = _mm256_add_epi32(dots[n], _mm256_madd_epi16(products, ones));
                } else {
                    pairs[n] = _mm256_add_epi16(pairs[n], _mm256_maddubs_epi16(w, x));
                    // Sums of products of levels up to 31 fit 16 bits four times, of up to 63 twice.
                    if j == 3 || (j == 1 && F::MOST > 31) {
                        dots[n] = _mm256_add_epi32(dots[n], _mm256_madd_epi16(pairs[n], ones));
                        pairs[n] = _mm256_setzero_si256();
                    }
                }
            }
        }
    }
}
