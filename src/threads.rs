//! The threads that compute on the CPU.

/// Sets how many threads compute on the CPU, the calling thread being one of them; by default as many as
/// the machine runs at once, or `RAYON_NUM_THREADS` of them.
///
/// To be called once, at the beginning of `main`, before anything is computed. Without it there is one
/// thread more, which hands every operation over and sleeps until it is done: decoding, whose operations
/// take microseconds, then spends a third of its time on that.
///
/// Whether it was so set: false if the pool of threads existed already, or the feature `cpu` is off.
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
    // One thread alone must be free for what other threads of the program hand over.
    let pool = if count > 1 {
        pool.use_current_thread()
    } else {
        pool
    };
    pool.build_global().is_ok()
}
