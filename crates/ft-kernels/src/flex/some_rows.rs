//! Products of a weight with some rows, as when many sequences are decoded together.
//!
//! `gemm` copies both factors into an order of its own. With few rows that copy of the weight takes as long as the product.
//! Here the weight is read once, where it is: the rows of `x` are put side by side, 16 at a time, and each number of a weight
//! row is multiplied with all of them.

/// Rows of `x` that are multiplied at the same time.
pub(super) const LANES: usize = 16;
/// Rows of the weight that are multiplied at the same time: with two registers each, they leave four of sixteen free.
pub(super) const TOGETHER: usize = 6;

/// Rows that are prepared for products with rows of a weight.
pub(super) trait SomeRows: Sync {
    /// Rows of the weight that are multiplied at the same time.
    const TOGETHER: usize;
    /// Of which rows of the weight consist.
    type Number: Copy + Default;

    /// `x` is `[rows, cols]`.
    fn new(x: &[f32], cols: usize) -> Self;

    /// How many numbers a row of the weight has.
    fn width(cols: usize) -> usize;

    /// `out[j, i] = ⟨wⱼ, xᵢ⟩` for `count` rows of a weight, of `TOGETHER` in `w`, each [`width`](Self::width) numbers; `out` is
    /// `[count, rows of x]`. The memory `next` is fetched into the cache meanwhile.
    fn times(&self, w: &[Self::Number], count: usize, next: &Memory, out: &mut [f32]);
}

/// Rows of a matrix side by side: entry `k` of 16 rows lies together. Rows that are missing in the last 16 are zero.
pub(super) struct SideBySide {
    /// `[blocks, cols]`
    numbers: Vec<[f32; LANES]>,
    cols: usize,
    rows: usize,
}

impl SomeRows for SideBySide {
    const TOGETHER: usize = TOGETHER;
    type Number = f32;

    fn new(x: &[f32], cols: usize) -> Self {
        let rows = x.len() / cols;
        let mut numbers = vec![[0.0; LANES]; rows.div_ceil(LANES) * cols];
        let blocks = numbers.chunks_exact_mut(cols);
        for (block, x) in blocks.zip(x.chunks(LANES * cols)) {
            put(x, cols, block);
        }
        Self {
            numbers,
            cols,
            rows,
        }
    }

    fn width(cols: usize) -> usize {
        cols
    }

    fn times(&self, w: &[f32], count: usize, next: &Memory, out: &mut [f32]) {
        assert_eq!(out.len(), count * self.rows, "the output has another size");
        let supported = supported();
        let mut rows = w.chunks_exact(self.cols);
        let w = [&w[..self.cols]; TOGETHER].map(|first| rows.next().unwrap_or(first));
        for (block, numbers) in self.numbers.chunks_exact(self.cols).enumerate() {
            let next = if block == 0 { next } else { &Memory::NONE };
            let sums = product(numbers, &w, next, supported);
            let first = block * LANES;
            let count = LANES.min(self.rows - first);
            for (out, sums) in out.chunks_exact_mut(self.rows).zip(&sums) {
                out[first..first + count].copy_from_slice(&sums[..count]);
            }
        }
    }
}

/// Adds `scale·x·Wᵀ` for a small weight `w`, `[out, cols]`; `out` is `[rows, out]`.
pub(super) fn add_product(x: &[f32], w: &[f32], cols: usize, scale: f32, out: &mut [f32]) {
    let features = w.len() / cols;
    let x = SideBySide::new(x, cols);
    let mut sums = vec![0.0; TOGETHER * x.rows];
    for (group, rows) in w.chunks(TOGETHER * cols).enumerate() {
        let first = group * TOGETHER;
        let count = rows.len() / cols;
        x.times(rows, count, &Memory::NONE, &mut sums[..count * x.rows]);
        for (i, out) in out.chunks_exact_mut(features).enumerate() {
            let out = &mut out[first..first + count];
            for (j, out) in out.iter_mut().enumerate() {
                *out += scale * sums[j * x.rows + i];
            }
        }
    }
}

/// Puts rows `x`, at most 16, side by side.
fn put(x: &[f32], cols: usize, block: &mut [[f32; LANES]]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if supported() {
        done = cols / 8 * 8;
        for (i, rows) in x.chunks_exact(8 * cols).enumerate() {
            // SAFETY: the processor has AVX2.
            unsafe { x86::put_eight(rows, cols, 8 * i, block) };
        }
    }
    let whole = match done {
        0 => 0,
        _ => x.len() / cols / 8 * 8,
    };
    for (row, values) in x.chunks_exact(cols).enumerate() {
        let first = if row < whole { done } else { 0 };
        let values = values[first..].iter();
        for (lanes, value) in block[first..].iter_mut().zip(values) {
            lanes[row] = *value;
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

    /// How far apart in bytes the lines are that are fetched in so many steps; none if there is nothing to fetch.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn stride(&self, steps: usize) -> Option<usize> {
        (self.bytes > 0).then(|| self.bytes.div_ceil(steps.max(1)))
    }

    /// Fetches the line of the cache at a place.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn fetch(&self, place: usize) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: fetching has no effect but on the cache, wherever it is.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(self.start.wrapping_add(place).cast()) };
    }

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

    use super::super::transposed::transposed;
    use super::{LANES, Memory, TOGETHER};

    /// Puts eight rows side by side, from the lane `lane`: whole eights of their columns.
    ///
    /// # Safety
    ///
    /// The processor has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn put_eight(
        rows: &[f32],
        cols: usize,
        lane: usize,
        block: &mut [[f32; LANES]],
    ) {
        assert!(rows.len() == 8 * cols && block.len() >= cols && lane + 8 <= LANES);
        for col in (0..cols / 8 * 8).step_by(8) {
            let mut words = [_mm256_setzero_si256(); 8];
            for (row, words) in words.iter_mut().enumerate() {
                // SAFETY: eight numbers of a row, as was just checked; the load needs no alignment.
                *words = unsafe { _mm256_loadu_si256(rows.as_ptr().add(row * cols + col).cast()) };
            }
            // SAFETY: the processor has AVX2.
            let words = unsafe { transposed(words) };
            for (lanes, words) in block[col..col + 8].iter_mut().zip(words) {
                // SAFETY: eight lanes, as was just checked; the store needs no alignment.
                unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().add(lane).cast(), words) };
            }
        }
    }

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
    fn a_product_is_added() {
        for (rows, out, cols) in [(1, 1, 1), (5, 7, 16), (16, 12, 3), (21, 64, 8)] {
            let number = |i: usize| ((i * 29 + cols) % 83) as f32 / 41.0 - 1.0;
            let x: Vec<f32> = (0..rows * cols).map(number).collect();
            let w: Vec<f32> = (0..out * cols).map(|i| number(i + 5)).collect();
            let mut found: Vec<f32> = (0..rows * out).map(|i| i as f32).collect();
            add_product(&x, &w, cols, 0.5, &mut found);
            for (i, x) in x.chunks_exact(cols).enumerate() {
                for (j, w) in w.chunks_exact(cols).enumerate() {
                    let dot: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                    let expected = (i * out + j) as f32 + 0.5 * dot;
                    assert!((found[i * out + j] - expected).abs() < 1e-3);
                }
            }
        }
    }

    #[test]
    fn rows_of_any_number_are_multiplied_alike() {
        for (rows, cols) in [(1, 3), (5, 64), (16, 33), (17, 100), (40, 7)] {
            let number = |i: usize| ((i * 37 + rows) % 101) as f32 / 50.0 - 1.0;
            let x: Vec<f32> = (0..rows * cols).map(number).collect();
            let flat: Vec<f32> = (0..TOGETHER * cols).map(|i| number(i + 13)).collect();
            let w: Vec<&[f32]> = flat.chunks_exact(cols).collect();
            let w: &[&[f32]; TOGETHER] = w[..].try_into().expect("six rows");
            let side_by_side = SideBySide::new(&x, cols);
            for (row, x) in x.chunks_exact(cols).enumerate() {
                let block = &side_by_side.numbers[row / LANES * cols..][..cols];
                assert!(
                    block
                        .iter()
                        .map(|lanes| lanes[row % LANES])
                        .eq(x.iter().copied())
                );
            }
            let mut found = vec![f32::NAN; TOGETHER * rows];
            side_by_side.times(&flat, TOGETHER, &Memory::of(&x), &mut found);
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
