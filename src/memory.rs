//! How much memory the process has used.

/// Peak resident memory of this process in MB (2²⁰ bytes), if the system reports it (Linux).
pub fn peak_rss_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

/// Keeps memory that operations free in the process, for the next ones.
///
/// Outputs of a few megabytes are allocated and freed by every layer. By default glibc returns the largest of them to the system, which clears
/// their pages again for the next: a tenth of the time of encoding texts. Other allocators and systems are left as they are.
#[cfg(feature = "cpu")]
pub(crate) fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// The largest that glibc accepts.
        const MMAP_THRESHOLD: i32 = 32 << 20;
        const TRIM_THRESHOLD: i32 = 1 << 30;
        // SAFETY: both change when memory is returned to the system, and nothing that a program could rely on.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
        }
    }
}
