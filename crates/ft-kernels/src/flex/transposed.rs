//! A square of words, transposed in registers.

use std::arch::x86_64::*;

/// Eight rows of eight words as eight columns.
///
/// # Safety
///
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn transposed(rows: [__m256i; 8]) -> [__m256i; 8] {
    // SAFETY: the caller's processor has AVX2.
    unsafe {
        let [a, b, c, d, e, f, g, h] = rows;
        let pairs = |a, b| (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let ((ab0, ab1), (cd0, cd1)) = (pairs(a, b), pairs(c, d));
        let ((ef0, ef1), (gh0, gh1)) = (pairs(e, f), pairs(g, h));
        let fours = |a, b| (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        let ((abcd0, abcd1), (abcd2, abcd3)) = (fours(ab0, cd0), fours(ab1, cd1));
        let ((efgh0, efgh1), (efgh2, efgh3)) = (fours(ef0, gh0), fours(ef1, gh1));
        [
            _mm256_permute2x128_si256(abcd0, efgh0, 0x20),
            _mm256_permute2x128_si256(abcd1, efgh1, 0x20),
            _mm256_permute2x128_si256(abcd2, efgh2, 0x20),
            _mm256_permute2x128_si256(abcd3, efgh3, 0x20),
            _mm256_permute2x128_si256(abcd0, efgh0, 0x31),
            _mm256_permute2x128_si256(abcd1, efgh1, 0x31),
            _mm256_permute2x128_si256(abcd2, efgh2, 0x31),
            _mm256_permute2x128_si256(abcd3, efgh3, 0x31),
        ]
    }
}
