//! The threads that compute on the CPU.

/// Sets how many threads compute on the CPU, including the calling thread. The default is `RAYON_NUM_THREADS`, or the
/// number of threads that the machine runs in parallel.
///
/// Call this once at the beginning of `main`, before any computation. Without it there is an additional thread, which
/// passes every operation to the pool and sleeps until it is done. Decoding, whose operations take microseconds, then
/// spends a third of its time on this.
///
/// It also lets glibc, where that is the allocator, keep up to a gigabyte of memory that operations have freed.
///
/// Returns false if the pool of threads existed already, or the feature `cpu` is off.
pub fn compute_threads(count: Option<usize>) -> bool {
    #[cfg(feature = "cpu")]
    return build_pool(count);
    #[cfg(not(feature = "cpu"))]
    {
        let _ = count;
        false
    }
}

#[cfg(feature = "cpu")]
fn build_pool(count: Option<usize>) -> bool {
    crate::memory::keep_freed();
    let count = count
        .or_else(|| std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok())
        .filter(|&count| count > 0)
        .or_else(|| {
            std::thread::available_parallelism()
                .ok()
                .map(std::num::NonZero::get)
        })
        .unwrap_or(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count);
    // A single thread must be free for operations of other threads of the program.
    let pool = if count > 1 {
        pool.use_current_thread()
    } else {
        pool
    };
    pool.build_global().is_ok()
}
