//! Seeds of dropouts. What runs again in the backward pass begins at the same seed, and so drops the same numbers.

use std::cell::Cell;

use burn::tensor::{Device, Distribution, Tensor};

use crate::mix_seed;

thread_local! {
    /// The seed of the part that runs, and how many dropouts it has had.
    static PART: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// The seed of one dropout, for kernels that compute masks themselves.
///
/// In a part of a model that [`run_blocks`](crate::layers::run_blocks) runs it follows from the part's seed; elsewhere the
/// device's generator draws it.
pub fn dropout_seed(device: &Device) -> u64 {
    match PART.get() {
        Some((seed, count)) => {
            PART.set(Some((seed, count + 1)));
            mix_seed(seed, count)
        }
        None => draw_seed(device),
    }
}

/// `part()`, whose dropouts all follow from `seed`, if there is one.
pub(crate) fn seeded<T>(device: &Device, seed: Option<u64>, part: impl FnOnce() -> T) -> T {
    let Some(seed) = seed else {
        return part();
    };
    struct Restore(Option<(u64, u64)>);
    impl Drop for Restore {
        fn drop(&mut self) {
            PART.set(self.0);
        }
    }
    device.seed(seed);
    let _restore = Restore(PART.replace(Some((seed, 0))));
    part()
}

/// A seed from the device's generator.
pub(crate) fn draw_seed(device: &Device) -> u64 {
    // Sixteen bits each: a loop that does not seed must not come round again.
    let numbers = Tensor::<1>::random([4], Distribution::Uniform(0.0, 65536.0), device);
    let numbers = numbers.into_data().convert::<f32>();
    (numbers.iter::<f32>()).fold(0, |seed, number| (seed << 16) | (number as u64 & 0xffff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_runs_again_has_the_same_seeds() {
        let device = Device::default();
        let run = |seed| {
            seeded(&device, Some(seed), || {
                [(); 3].map(|()| dropout_seed(&device))
            })
        };
        let seeds = run(5);
        assert_eq!(run(5), seeds);
        assert_ne!(run(6), seeds);
        assert!(seeds[0] != seeds[1] && seeds[1] != seeds[2]);
        // A part within a part does not change the seeds of the outer one.
        let nested = seeded(&device, Some(5), || {
            let first = dropout_seed(&device);
            run(6);
            [first, dropout_seed(&device), dropout_seed(&device)]
        });
        assert_eq!(nested, seeds);
    }
}
