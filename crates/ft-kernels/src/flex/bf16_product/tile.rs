//! A tile of a product: sums in registers.

use std::arch::x86_64::*;

use super::super::some_rows::Memory;
use super::supported;

/// Rows of a tile: with three registers of columns each, they leave eight of 32 free.
pub(super) const ROWS: usize = 8;
/// Columns in a register.
pub(super) const LANES: usize = 16;
/// Columns of a tile, at most.
pub(super) const COLS: usize = 3 * LANES;

/// Where products are written, or added.
pub(super) struct Out<'a> {
    pub(super) numbers: &'a mut [f32],
    pub(super) row_stride: usize,
    pub(super) scale: f32,
    pub(super) add: bool,
}

/// All tiles of packed factors, `rows × cols` numbers.
///
/// # Panics
///
/// If the sizes do not match, or the processor has no such instructions.
pub(super) fn tiles(a: &[u32], b: &[u32], pairs: usize, [rows, cols]: [usize; 2], out: Out<'_>) {
    assert!(supported(), "see `supported`");
    for (j, columns) in b.chunks(COLS * pairs).enumerate() {
        for (i, lines) in a.chunks_exact(ROWS * pairs).enumerate() {
            let [row, col] = [i * ROWS, j * COLS];
            let size = [ROWS.min(rows - row), COLS.min(cols - col)];
            let numbers = &mut out.numbers[row * out.row_stride + col..];
            let out = Out { numbers, ..out };
            // SAFETY: the processor has the instructions, as was just asked.
            unsafe { tile::<true>(lines, columns, pairs, &Memory::NONE, size, out) };
        }
    }
}

/// A tile of `rows × cols` numbers. Rows of `a` are packed together, or each is `pairs` words. The memory `next` is fetched into the
/// cache meanwhile.
///
/// # Safety
///
/// The processor has the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
pub(super) unsafe fn tile<const TOGETHER: bool>(
    a: &[u32],
    b: &[u32],
    pairs: usize,
    next: &Memory,
    size: [usize; 2],
    out: Out<'_>,
) {
    // SAFETY: as for this function.
    unsafe {
        match b.len() / (LANES * pairs) {
            1 => tile_of::<TOGETHER, 1>(a, b, pairs, next, size, out),
            2 => tile_of::<TOGETHER, 2>(a, b, pairs, next, size, out),
            _ => tile_of::<TOGETHER, 3>(a, b, pairs, next, size, out),
        }
    }
}

/// The same with `V` registers of columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
unsafe fn tile_of<const TOGETHER: bool, const V: usize>(
    a: &[u32],
    b: &[u32],
    pairs: usize,
    next: &Memory,
    [rows, cols]: [usize; 2],
    out: Out<'_>,
) {
    assert!(a.len() == ROWS * pairs && b.len() == V * LANES * pairs);
    assert!((1..=ROWS).contains(&rows) && cols <= V * LANES);
    assert!((rows - 1) * out.row_stride + cols <= out.numbers.len());
    let stride = if TOGETHER { None } else { next.stride(pairs) };
    let mut sums = [[_mm512_setzero_ps(); V]; ROWS];
    // SAFETY: all places are in the slices, as was just checked: `pairs` words for each line. Loads and stores need no alignment.
    // Words of two `bf16` have the type of a register of `bf16`.
    unsafe {
        let (a, b) = (a.as_ptr(), b.as_ptr());
        for pair in 0..pairs {
            if let Some(stride) = stride {
                next.fetch(pair * stride);
            }
            let b: [__m512bh; V] = std::array::from_fn(|v| {
                let b = b.add((v * pairs + pair) * LANES);
                std::mem::transmute(_mm512_loadu_si512(b.cast()))
            });
            for (row, sums) in sums.iter_mut().enumerate() {
                let place = match TOGETHER {
                    true => pair * ROWS + row,
                    false => row * pairs + pair,
                };
                let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(*a.add(place) as i32));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_dpbf16_ps(*sum, x, b);
                }
            }
        }
        let scale = _mm512_set1_ps(out.scale);
        for (row, sums) in sums.iter().enumerate() {
            if row < rows {
                let to = out.numbers.as_mut_ptr().add(row * out.row_stride);
                for (v, sum) in sums.iter().enumerate() {
                    let mask = first_lanes(cols.saturating_sub(v * LANES));
                    let to = to.wrapping_add(v * LANES);
                    let sum = match out.add {
                        true => {
                            let old = _mm512_maskz_loadu_ps(mask, to);
                            _mm512_fmadd_ps(*sum, scale, old)
                        }
                        false => _mm512_mul_ps(*sum, scale),
                    };
                    _mm512_mask_storeu_ps(to, mask, sum);
                }
            }
        }
    }
}

/// The first lanes of 16.
pub(super) fn first_lanes(count: usize) -> u16 {
    match count {
        LANES.. => u16::MAX,
        count => (1 << count) - 1,
    }
}
