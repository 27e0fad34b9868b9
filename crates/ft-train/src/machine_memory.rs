//! The memory of the machine and of the process, as Linux reports them.

use std::fs;

/// Resident memory of this process in bytes, if the system reports it.
pub fn resident_memory() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The bytes that this process can have in all: what it has and what is available, within the limit of its control group. None if the
/// system does not report it.
pub fn machine_memory() -> Option<u64> {
    let available = kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let machine = available + resident_memory()?;
    let group = |limit: &str, used: &str| {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        Some(number(limit)?.saturating_sub(number(used)?) + resident_memory()?)
    };
    let limits = [
        group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        group(
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ];
    limits.into_iter().flatten().chain([machine]).min()
}

/// The number of a line of `name: number kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_name() {
        let text = "MemTotal:       16 kB\nMemAvailable:    3 kB\n";
        assert_eq!(kilobytes(text, "MemAvailable:"), Some(3072));
        assert_eq!(kilobytes(text, "VmRSS:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_has_less_than_its_machine() {
        let own = resident_memory().expect("is reported");
        assert!(own > 1 << 20 && own < machine_memory().expect("is reported"));
    }
}
