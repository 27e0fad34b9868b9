//! Orders that depend on a seed and an epoch, and on nothing else.
//!
//! No generator is carried along: whoever knows the seed and the epoch knows the order, so a run that
//! is resumed in the middle of an epoch sees the same batches as one that was never stopped.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// The numbers `0..len` in an order drawn from `seed` and `epoch`.
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
        let mut sorted = shuffled(50, 7, 1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
}
