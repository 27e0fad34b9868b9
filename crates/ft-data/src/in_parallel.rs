//! Work on rows on all cores.

use std::num::NonZero;
use std::thread;

use crate::Result;

/// `work` on every row. If rows have errors, the first row's is returned, with its number.
pub(crate) fn in_parallel<R: Sync, T: Send>(
    rows: &[R],
    work: impl Fn(&R) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let size = rows.len().div_ceil(threads).max(1);
    let work = &work;
    let parts: Vec<Result<Vec<T>>> = thread::scope(|scope| {
        let workers: Vec<_> = (rows.chunks(size).enumerate())
            .map(|(part, chunk)| {
                scope.spawn(move || {
                    let rows = chunk.iter().enumerate();
                    rows.map(|(index, row)| {
                        work(row).map_err(|error| error.in_row(part * size + index + 1))
                    })
                    .collect()
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| match worker.join() {
                Ok(part) => part,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    let mut all = Vec::with_capacity(rows.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}
