//! Memory that is fetched into the cache before it is read.

/// Fetches memory that will be read soon. It comes while other work is done, and not line by line when it is read.
#[inline(always)]
pub(super) fn fetch<T>(numbers: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = numbers.as_ptr().cast::<i8>();
        for byte in (0..size_of_val(numbers)).step_by(64) {
            // SAFETY: every processor with 64 bits has it, and the memory is in the slice.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(byte)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = numbers;
}
