//! Work in pieces: on all threads, or on the current one if there is only one piece.
//!
//! A thread outside the pool passes work to it and sleeps until it is done, which takes longer than the norm or the
//! activation of one token. In decoding most operations are one piece.

use rayon::iter::plumbing::{Producer, ProducerCallback};
use rayon::prelude::*;

/// Calls `f` with every piece.
pub(super) fn each<I>(pieces: I, f: impl Fn(I::Item) + Send + Sync)
where
    I: IndexedParallelIterator,
{
    if pieces.len() > 1 {
        pieces.for_each(f);
    } else {
        pieces.with_producer(Here(f));
    }
}

struct Here<F>(F);

impl<T, F: Fn(T)> ProducerCallback<T> for Here<F> {
    type Output = ();

    fn callback<P: Producer<Item = T>>(self, pieces: P) {
        pieces.into_iter().for_each(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_piece_is_processed_once_and_a_single_one_on_this_thread() {
        for count in [0, 1, 2, 7] {
            let seen = Mutex::new(Vec::new());
            let numbers: Vec<usize> = (0..count).collect();
            each(numbers.par_chunks(1), |piece| {
                let here = rayon::current_thread_index().is_none();
                seen.lock().expect("not poisoned").push((piece[0], here));
            });
            let mut seen = seen.into_inner().expect("not poisoned");
            seen.sort_unstable();
            let pieces: Vec<usize> = seen.iter().map(|(piece, _)| *piece).collect();
            assert_eq!(pieces, numbers);
            assert!(count != 1 || seen[0].1);
        }
    }
}
