//! Shuffled orders that depend on a seed and an epoch only.
//!
//! No state of a generator is kept, so a run that is resumed in the middle of an epoch gets the same
//! batches as a run without interruption. Seed and epoch fill different bytes of the generator's key:
//! no two pairs of them share a stream, as `seed + epoch` would.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// The numbers `0..len`, shuffled by `seed` and `epoch`.
pub(crate) fn shuffled(len: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(epoch as u64).to_le_bytes());
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut StdRng::from_seed(key));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_depends_on_seed_and_epoch_only() {
        assert_eq!(shuffled(50, 7, 1), shuffled(50, 7, 1));
        assert_ne!(shuffled(50, 7, 1), shuffled(50, 7, 2));
        assert_ne!(shuffled(50, 7, 1), shuffled(50, 8, 1));
        assert_ne!(shuffled(50, 7, 1), shuffled(50, 8, 0));
        let mut sorted = shuffled(50, 7, 1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
}
