//! Work in pieces: on all threads, or on the current one if there is only one piece.
//!
//! A thread outside the pool passes work to it and sleeps until it is done, which takes longer than the norm or the
//! activation of one token. In decoding most operations are one piece.

use std::mem::MaybeUninit;

use rayon::iter::plumbing::{Producer, ProducerCallback};
use rayon::prelude::*;

/// Zeros that a thread writes at a time.
const ZEROS: usize = 1 << 17;

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

/// So many zeros. If they are many, all threads write them: one thread takes as long for the output of a large layer as for a tenth of its
/// product.
pub(super) fn zeros(len: usize) -> Vec<f32> {
    if len <= ZEROS {
        return vec![0.0; len];
    }
    let mut numbers = Vec::with_capacity(len);
    let all = &mut numbers.spare_capacity_mut()[..len];
    (all.par_chunks_mut(ZEROS)).for_each(|part| part.fill(MaybeUninit::new(0.0)));
    // SAFETY: the capacity is at least that large, and all of them were just written.
    unsafe { numbers.set_len(len) };
    numbers
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
    fn zeros_are_zeros() {
        for len in [0, 5, ZEROS, ZEROS + 1, 3 * ZEROS + 7] {
            let found = zeros(len);
            assert!(found.len() == len && found.iter().all(|number| *number == 0.0));
        }
    }

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
