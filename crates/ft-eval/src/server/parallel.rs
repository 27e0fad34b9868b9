//! Concurrent requests with answers in order.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `answer(i)` for every `i` below `count`, on so many threads. `progress` receives the number of finished answers and of all.
///
/// # Panics
///
/// If `answer` or `progress` panics.
pub fn in_parallel<T: Send>(
    count: usize,
    threads: usize,
    answer: impl Fn(usize) -> T + Sync,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let answers: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let progress = Mutex::new((0, progress));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, count.max(1)) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(slot) = answers.get(i) else { break };
                    let found = answer(i);
                    *lock(slot) = Some(found);
                    let mut progress = lock(&progress);
                    progress.0 += 1;
                    let done = progress.0;
                    (progress.1)(done, count);
                }
            });
        }
    });
    answers
        .into_iter()
        .map(|slot| {
            slot.into_inner()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
        })
        .map(|answer| answer.expect("every index was taken by a thread"))
        .collect()
}

/// The value of a lock, also after a thread panicked: the value stays valid.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_order_and_progress_counts() {
        let mut last = Vec::new();
        let found = in_parallel(50, 7, |i| i * i, &mut |done, total| {
            last.push((done, total))
        });
        assert_eq!(found, (0..50).map(|i| i * i).collect::<Vec<_>>());
        assert_eq!(last.len(), 50);
        assert_eq!(last[49], (50, 50));
        assert!(in_parallel(0, 3, |i| i, &mut |_, _| ()).is_empty());
    }
}
