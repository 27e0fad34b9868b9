//! PyTorch's generator of random numbers on the CPU, `torch.Generator().manual_seed(seed)`: some files of PEFT have only the
//! seed of random tensors.
//!
//! It is MT19937 (Matsumoto and Nishimura, 1998, doi:10.1145/272991.272995), initialized with the low 32 bits of the seed.

use std::collections::HashMap;

const SIZE: usize = 624;
const SHIFT: usize = 397;

/// A generator of random numbers.
pub(crate) struct TorchRandom {
    state: [u32; SIZE],
    next: usize,
}

impl TorchRandom {
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = [seed as u32; SIZE];
        for i in 1..SIZE {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32);
        }
        Self { state, next: SIZE }
    }

    fn next(&mut self) -> u32 {
        if self.next == SIZE {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..SIZE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % SIZE] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + SHIFT) % SIZE] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// `torch.empty(count).uniform_(-bound, bound)`: of 24 bits, rounded once.
    pub(crate) fn uniform(&mut self, count: usize, bound: f64) -> Vec<f32> {
        let bound = bound as f32;
        let width = bound - -bound;
        let unit = || (self.next() & 0xff_ffff) as f32 / (1 << 24) as f32;
        std::iter::repeat_with(unit)
            .take(count)
            .map(|x| x.mul_add(width, -bound))
            .collect()
    }

    /// The first `count` numbers of `torch.randperm(n)`, for `n` below [`LONGEST`](Self::LONGEST): the steps of Fisher and
    /// Yates' shuffle that determine them.
    pub(crate) fn permutation(&mut self, n: usize, count: usize) -> Vec<usize> {
        // The numbers at places where a number other than the place's own is.
        let mut moved = HashMap::new();
        let at = |moved: &HashMap<usize, usize>, i: usize| moved.get(&i).copied().unwrap_or(i);
        let numbers = (0..count.min(n)).map(|i| {
            let place = match i + 1 < n {
                true => i + self.next() as usize % (n - i),
                false => i,
            };
            let (here, there) = (at(&moved, i), at(&moved, place));
            moved.insert(place, here);
            there
        });
        numbers.collect()
    }

    /// From here on PyTorch shuffles in another way.
    pub(crate) const LONGEST: usize = (u32::MAX / 20) as usize;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of PyTorch 2.15.0.
    #[test]
    fn numbers_are_those_of_pytorch() {
        let expected = [
            -0.003_743_410_110_473_633,
            0.268_221_795_558_929_44,
            -0.411_522_567_272_186_3,
            -0.367_969_512_939_453_1,
        ];
        assert_eq!(
            TorchRandom::new(0).uniform(4, 0.5),
            expected.map(|x: f64| x as f32)
        );
        assert_eq!(
            TorchRandom::new(777).permutation(576 * 576, 8),
            [96359, 187360, 48337, 166427, 31463, 225426, 58323, 97905]
        );
        let first = [735, 819, 201, 799, 435, 497, 175, 590];
        let mut all = TorchRandom::new(777).permutation(1000, 1000);
        assert_eq!(all[..8], first);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
    }
}
