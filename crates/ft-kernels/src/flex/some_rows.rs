//! Products of a weight with some rows, as when many sequences are decoded together.
//!
//! `gemm` copies both factors into an order of its own. With few rows that copy of the weight takes as long as the product.
//! Here the weight is read once, where it is: the rows of `x` are put side by side, 16 at a time, and each number of a weight
//! row is multiplied with all of them.

/// Rows of `x` that are multiplied at the same time.
pub(super) const LANES: usize = 16;
/// Rows of the weight that are multiplied at the same time: with two registers each, they leave four of sixteen free.
pub(super) const TOGETHER: usize = 6;

/// Rows of a matrix side by side: entry `k` of 16 rows lies together. Rows that are missing in the last 16 are zero.
pub(super) struct SideBySide {
    /// `[blocks, cols]`
    numbers: Vec<[f32; LANES]>,
    cols: usize,
    rows: usize,
}

impl SideBySide {
    /// `x` is `[rows, cols]`.
    pub(super) fn new(x: &[f32], cols: usize) -> Self {
        let rows = x.len() / cols;
        let mut numbers = vec![[0.0; LANES]; rows.div_ceil(LANES) * cols];
        for (row, values) in x.chunks_exact(cols).enumerate() {
            let block = &mut numbers[row / LANES * cols..][..cols];
            for (lanes, value) in block.iter_mut().zip(values) {
                lanes[row % LANES] = *value;
            }
        }
        Self {
            numbers,
            cols,
            rows,
        }
    }

    /// `out[j, i] = ⟨wⱼ, xᵢ⟩` for some rows `w` of a weight; `out` is `[rows of w, rows of x]`. The memory `next` is fetched into
    /// the cache meanwhile.
    pub(super) fn times(&self, w: &[&[f32]; TOGETHER], next: &Memory, out: &mut [f32]) {
        let supported = supported();
        for (block, numbers) in self.numbers.chunks_exact(self.cols).enumerate() {
            let next = if block == 0 { next } else { &Memory::NONE };
            let sums = product(numbers, w, next, supported);
            let first = block * LANES;
            let count = LANES.min(self.rows - first);
            for (out, sums) in out.chunks_exact_mut(self.rows).zip(&sums) {
                out[first..first + count].copy_from_slice(&sums[..count]);
            }
        }
    }
}

/// A piece of memory that will be read soon.
pub(super) struct Memory {
    start: *const u8,
    bytes: usize,
}

impl Memory {
    pub(super) const NONE: Self = Self {
        start: std::ptr::null(),
        bytes: 0,
    };

    pub(super) fn of<T>(numbers: &[T]) -> Self {
        Self {
            start: numbers.as_ptr().cast(),
            bytes: size_of_val(numbers),
        }
    }
}

fn supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The products of six weight rows with 16 rows.
fn product(
    x: &[[f32; LANES]],
    w: &[&[f32]; TOGETHER],
    next: &Memory,
    supported: bool,
) -> [[f32; LANES]; TOGETHER] {
    let w = w.map(|row| &row[..x.len()]);
    #[cfg(target_arch = "x86_64")]
    if supported {
        // SAFETY: the caller has asked for the instructions, and every row of `w` is as long as `x`.
        return unsafe { x86::product(x, w, next) };
    }
    let _ = (next, supported);
    let mut sums = [[0.0; LANES]; TOGETHER];
    for (k, x) in x.iter().enumerate() {
        for (sums, w) in sums.iter_mut().zip(w) {
            let w = w[k];
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum += w * x;
            }
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Memory, TOGETHER};

    /// # Safety
    ///
    /// The processor has AVX2 and FMA, and every row of `w` is at least as long as `x`.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn product(
        x: &[[f32; LANES]],
        w: [&[f32]; TOGETHER],
        next: &Memory,
    ) -> [[f32; LANES]; TOGETHER] {
        // Without this the next rows of the weight, which are read when this product is done, come from memory one after the other.
        let (step, lines) = (next.bytes.div_ceil(x.len().max(1)), next.bytes > 0);
        let mut low = [_mm256_setzero_ps(); TOGETHER];
        let mut high = low;
        for (k, x) in x.iter().enumerate() {
            if lines && k % 2 == 0 {
                _mm_prefetch::<_MM_HINT_T0>(next.start.wrapping_add(k * step).cast());
            }
            // SAFETY: the loads are of the 16 numbers of an array, and need no alignment.
            let (x_low, x_high) = unsafe {
                (
                    _mm256_loadu_ps(x.as_ptr()),
                    _mm256_loadu_ps(x.as_ptr().add(8)),
                )
            };
            for j in 0..TOGETHER {
                // SAFETY: `k` is below the length of `x`, which is that of the row at most.
                let w = unsafe { _mm256_set1_ps(*w[j].get_unchecked(k)) };
                low[j] = _mm256_fmadd_ps(w, x_low, low[j]);
                high[j] = _mm256_fmadd_ps(w, x_high, high[j]);
            }
        }
        let mut sums = [[0.0; LANES]; TOGETHER];
        for ((sums, low), high) in sums.iter_mut().zip(low).zip(high) {
            // SAFETY: the stores are to the 16 numbers of an array, and need no alignment.
            unsafe {
                _mm256_storeu_ps(sums.as_mut_ptr(), low);
                _mm256_storeu_ps(sums.as_mut_ptr().add(8), high);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_any_number_are_multiplied_alike() {
        for (rows, cols) in [(1, 3), (5, 64), (16, 33), (17, 100), (40, 7)] {
            let number = |i: usize| ((i * 37 + rows) % 101) as f32 / 50.0 - 1.0;
            let x: Vec<f32> = (0..rows * cols).map(number).collect();
            let w: Vec<f32> = (0..TOGETHER * cols).map(|i| number(i + 13)).collect();
            let w: Vec<&[f32]> = w.chunks_exact(cols).collect();
            let w: &[&[f32]; TOGETHER] = w[..].try_into().expect("six rows");
            let side_by_side = SideBySide::new(&x, cols);
            let mut found = vec![f32::NAN; TOGETHER * rows];
            side_by_side.times(w, &Memory::of(&x), &mut found);
            for (j, w) in w.iter().enumerate() {
                for (i, x) in x.chunks_exact(cols).enumerate() {
                    let expected: f64 = w
                        .iter()
                        .zip(x)
                        .map(|(w, x)| f64::from(*w) * f64::from(*x))
                        .sum();
                    let found = f64::from(found[j * rows + i]);
                    assert!(
                        (found - expected).abs() < 1e-4,
                        "{rows} × {cols}: {found} {expected}"
                    );
                }
            }
            // The fallback computes the same.
            for numbers in side_by_side.numbers.chunks_exact(cols) {
                let of = |supported| product(numbers, w, &Memory::NONE, supported);
                let (fast, plain) = (of(supported()), of(false));
                for (fast, plain) in fast.iter().flatten().zip(plain.iter().flatten()) {
                    assert!((fast - plain).abs() < 1e-4);
                }
            }
        }
    }
}
