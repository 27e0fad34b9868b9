//! Scores and values of a query alone, as when text is generated. A matrix product would copy the keys first.

use multiversion::multiversion;

use super::super::half::dot_by;
use super::super::product::Matrix;

/// Columns of the values that are summed in registers, and those of the rest.
const COLUMNS: usize = 64;
const FEW_COLUMNS: usize = 16;

/// `s = scale·⟨q, kⱼ⟩`
pub(super) fn scores(query: &[f32], keys: Matrix<'_>, scale: f32, scores: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if x86::supported() && query.len().is_multiple_of(x86::STEP) {
        let (groups, rest) = scores.as_chunks_mut::<{ x86::KEYS }>();
        let first_of_rest = x86::KEYS * groups.len();
        for (group, scores) in groups.iter_mut().enumerate() {
            let keys = std::array::from_fn(|i| row(keys, group * x86::KEYS + i));
            // SAFETY: the instructions are there, as was just asked.
            *scores = unsafe { x86::dots(query, keys) }.map(|dot| scale * dot);
        }
        return one_by_one(query, keys, first_of_rest, scale, rest);
    }
    one_by_one(query, keys, 0, scale, scores);
}

/// The scores of the keys from `first` on.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn one_by_one(query: &[f32], keys: Matrix<'_>, first: usize, scale: f32, scores: &mut [f32]) {
    for (key, score) in scores.iter_mut().enumerate() {
        *score = scale * dot_by(row(keys, first + key), query, |x| x);
    }
}

/// `out += Σ pⱼ vⱼ`
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
pub(super) fn add_values(probabilities: &[f32], values: Matrix<'_>, out: &mut [f32]) {
    let most = add_columns::<COLUMNS>(probabilities, values, 0, out);
    let most = add_columns::<FEW_COLUMNS>(probabilities, values, most, out);
    add_columns::<1>(probabilities, values, most, out);
}

/// The columns from `first` on, as far as they are whole groups of `N`. Returns the first of the rest.
#[inline(always)]
fn add_columns<const N: usize>(
    probabilities: &[f32],
    values: Matrix<'_>,
    first: usize,
    out: &mut [f32],
) -> usize {
    let (groups, _) = out[first..].as_chunks_mut::<N>();
    let mut column = first;
    for out in groups {
        let mut sums = *out;
        for (key, probability) in probabilities.iter().enumerate() {
            let value = &row(values, key)[column..][..N];
            for i in 0..N {
                sums[i] += probability * value[i];
            }
        }
        *out = sums;
        column += N;
    }
    column
}

#[inline(always)]
fn row<'a>(matrix: Matrix<'a>, row: usize) -> &'a [f32] {
    (matrix.row(row)).expect("the width of a head is contiguous")
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// Keys that are multiplied together, so that their sums are added across lanes together: a quarter of the time of one
    /// after the other with heads of 64.
    pub(super) const KEYS: usize = 8;
    /// What the width of a head must be a multiple of.
    pub(super) const STEP: usize = 16;

    pub(super) fn supported() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    /// # Panics
    ///
    /// If a key is shorter than the query.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dots(query: &[f32], keys: [&[f32]; KEYS]) -> [f32; KEYS] {
        let (query, _) = query.as_chunks::<STEP>();
        let load = |numbers: &[f32; STEP], half: usize| {
            // SAFETY: eight of the sixteen numbers; the load needs no alignment.
            unsafe { _mm256_loadu_ps(numbers.as_ptr().add(8 * half)) }
        };
        let mut sums = [_mm256_setzero_ps(); KEYS];
        // Not by `map`, which does not have the instructions, so that it would call a function for each key.
        for (sum, key) in sums.iter_mut().zip(keys) {
            let (key, _) = key.as_chunks::<STEP>();
            let (mut low, mut high) = (*sum, *sum);
            for (query, key) in query.iter().zip(&key[..query.len()]) {
                low = _mm256_fmadd_ps(load(key, 0), load(query, 0), low);
                high = _mm256_fmadd_ps(load(key, 1), load(query, 1), high);
            }
            *sum = _mm256_add_ps(low, high);
        }
        let [a, b, c, d, e, f, g, h] = sums;
        let pairs = |a, b, c, d| _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        let (first, last) = (pairs(a, b, c, d), pairs(e, f, g, h));
        let low = _mm256_permute2f128_ps::<0x20>(first, last);
        let high = _mm256_permute2f128_ps::<0x31>(first, last);
        let mut dots = [0.0; KEYS];
        // SAFETY: as many numbers as the array has; the store needs no alignment.
        unsafe { _mm256_storeu_ps(dots.as_mut_ptr(), _mm256_add_ps(low, high)) };
        dots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_any_width_and_any_number_of_keys() {
        for (keys, width) in [
            (1, 64),
            (7, 16),
            (8, 32),
            (21, 80),
            (19, 20),
            (9, 3),
            (16, 128),
        ] {
            // Rows are further apart than they are wide, as in a cache of several heads.
            let stride = width + 5;
            let number = |i: usize| ((i * 37 + keys) % 101) as f32 / 50.0 - 1.0;
            let data: Vec<f32> = (0..keys * stride).map(number).collect();
            let matrix = Matrix::strided(&data, keys, width, stride, 1);
            let query: Vec<f32> = (0..width).map(|i| number(i + 13)).collect();
            let mut found = vec![f32::NAN; keys];
            scores(&query, matrix, 0.5, &mut found);
            for (key, found) in found.iter().enumerate() {
                let expected: f32 = row(matrix, key)
                    .iter()
                    .zip(&query)
                    .map(|(k, q)| k * q)
                    .sum();
                assert!((found - 0.5 * expected).abs() < 1e-5, "{keys} × {width}");
            }
            let mut out = vec![1.0; width];
            add_values(&found, matrix, &mut out);
            for (column, out) in out.iter().enumerate() {
                let sum: f32 = (0..keys)
                    .map(|key| found[key] * row(matrix, key)[column])
                    .sum();
                assert!((out - 1.0 - sum).abs() < 1e-4, "{keys} × {width}");
            }
        }
    }
}
