//! Fisher's randomization test on paired scores.
//!
//! If two systems are equal, the scores of each item can be exchanged: the sign of each difference is random. The
//! p-value is the share of sign vectors with `|Σ ±dᵢ| ≥ |Σ dᵢ|` (Fisher, *The Design of Experiments*, 1935; Smucker,
//! Allan & Carterette, CIKM 2007).
//!
//! For speed, items are in groups of eight, and a table of 2 KB has the 256 signed sums of a group. One random word has
//! the signs of a group for eight permutations, and each permutation costs one look-up and one addition. Permutations
//! are drawn in blocks of 1,024, each with its own random stream, so the result does not depend on the number of
//! threads.

use rayon::prelude::*;
use serde::Serialize;

use super::differences;
use crate::random::SplitMix;
use crate::{Error, Result};

const BLOCK: usize = 1024;

/// Settings of the test.
#[derive(Clone, Debug, PartialEq)]
pub struct Randomization {
    /// The number of random permutations. If there are at most this many permutations (`2ⁿ`), each is used once.
    pub permutations: usize,
    /// The seed. It determines the p-value on any machine and with any number of threads.
    pub seed: u64,
    /// Whether the p-value of random permutations is `(count + 1) / (permutations + 1)` (Phipson & Smyth, 2010), as in
    /// SciPy. In ranx it is not, so that it can be 0.
    pub add_one: bool,
}

impl Default for Randomization {
    fn default() -> Self {
        Self {
            permutations: 10_000,
            seed: 0,
            add_one: true,
        }
    }
}

/// The result of [`randomization_test`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RandomizationTest {
    /// Mean of the differences, first minus second.
    pub difference: f64,
    /// Two-sided.
    pub p_value: f64,
    /// The number of permutations.
    pub permutations: usize,
    /// Whether these are all permutations.
    pub exact: bool,
}

/// Fisher's randomization test of whether two systems differ in their mean score.
///
/// The exact p-value equals `scipy.stats.permutation_test` with `permutation_type="samples"`. That of random
/// permutations differs from it only by chance. SciPy doubles the smaller tail; here, as in ranx, both tails are
/// counted. Sums are equal within `1e-14 Σ|dᵢ|`, so that ties of decimal scores are ties. SciPy allows `2e-14` of the
/// observed difference, which misses ties if it is close to 0.
///
/// # Errors
///
/// [`Error::Input`] if the lists differ in length, are empty or not finite, or the number of permutations is 0.
///
/// ```
/// # use ft_eval::significance::{Randomization, randomization_test};
/// // All eight signs of (1, 2, 3): ±6 are as far from 0 as 6.
/// let test = randomization_test(&[2.0, 4.0, 6.0], &[1.0, 2.0, 3.0], &Randomization::default())?;
/// assert!(test.exact && test.p_value == 0.25);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn randomization_test(
    first: &[f64],
    second: &[f64],
    settings: &Randomization,
) -> Result<RandomizationTest> {
    let differences = differences(first, second)?;
    if settings.permutations == 0 {
        return Err(Error::Input(
            "the number of permutations is 0: use at least one, such as 10,000".to_string(),
        ));
    }
    let n = differences.len();
    let sum: f64 = differences.iter().sum();
    let magnitude: f64 = differences.iter().map(|d| d.abs()).sum();
    let threshold = sum.abs() - 1e-14 * magnitude;
    let exact = n < usize::BITS as usize && 1 << n <= settings.permutations;
    let (permutations, p_value) = if exact {
        let all = 1 << n;
        (all, count_all(&differences, threshold) as f64 / all as f64)
    } else {
        let drawn = settings.permutations;
        let count = count_drawn(&differences, threshold, drawn, settings.seed);
        let one = usize::from(settings.add_one);
        (drawn, (count + one) as f64 / (drawn + one) as f64)
    };
    Ok(RandomizationTest {
        difference: sum / n as f64,
        p_value,
        permutations,
        exact,
    })
}

/// The signed sums of up to eight differences: bit `j` set means `+d[j]`, clear `-d[j]`.
fn signed_sums(group: &[f64]) -> [f64; 256] {
    let mut sums = [0.0; 256];
    sums[0] = -group.iter().sum::<f64>();
    let mut filled = 1;
    for j in 0..8 {
        let step = 2.0 * group.get(j).copied().unwrap_or(0.0);
        let (known, new) = sums.split_at_mut(filled);
        for (n, k) in new.iter_mut().zip(known) {
            *n = *k + step;
        }
        filled *= 2;
    }
    sums
}

/// The number of `drawn` random sign vectors that reach the threshold.
fn count_drawn(differences: &[f64], threshold: f64, drawn: usize, seed: u64) -> usize {
    (0..drawn.div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            let mut random = SplitMix::new(seed, block as u64);
            let mut sums = [0.0; BLOCK];
            let size = BLOCK.min(drawn - block * BLOCK);
            let used = size.next_multiple_of(8);
            for group in differences.chunks(8) {
                let table = signed_sums(group);
                for eight in sums[..used].as_chunks_mut::<8>().0 {
                    let signs = random.next().to_le_bytes();
                    for (sum, sign) in eight.iter_mut().zip(signs) {
                        *sum += table[usize::from(sign)];
                    }
                }
            }
            sums[..size].iter().filter(|s| s.abs() >= threshold).count()
        })
        .sum()
}

/// The number of all `2ⁿ` sign vectors that reach the threshold.
fn count_all(differences: &[f64], threshold: f64) -> usize {
    let tables: Vec<[f64; 256]> = differences.chunks(8).map(signed_sums).collect();
    (0..1_usize << differences.len())
        .into_par_iter()
        .filter(|signs| {
            let sum: f64 = (0..)
                .zip(&tables)
                .map(|(g, t)| t[(signs >> (8 * g)) & 255])
                .sum();
            sum.abs() >= threshold
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(n: usize) -> (Vec<f64>, Vec<f64>) {
        let of = |m: usize| (0..n).map(|i| (i * m % 17) as f64 / 7.0).collect();
        (of(5), of(11))
    }

    #[test]
    fn tables_have_all_signs() {
        let group = [1.0, 10.0, 100.0];
        let sums = signed_sums(&group);
        assert_eq!(sums[0b000], -111.0);
        assert_eq!(sums[0b101], 91.0);
        assert_eq!(sums[0b111], 111.0);
        assert_eq!(sums[0b1111_1101], 91.0);
    }

    #[test]
    fn drawn_signs_approach_all_of_them() {
        let (a, b) = scores(12);
        let all = randomization_test(&a, &b, &Randomization::default()).unwrap();
        assert!(all.exact);
        let differences = differences(&a, &b).unwrap();
        let sum: f64 = differences.iter().sum();
        let drawn = 400_000;
        let count = count_drawn(&differences, sum.abs() - 1e-9, drawn, 7);
        // Five standard deviations.
        let p = count as f64 / drawn as f64;
        let error = (all.p_value * (1.0 - all.p_value) / drawn as f64).sqrt();
        assert!((p - all.p_value).abs() < 5.0 * error, "{p} {}", all.p_value);
    }

    #[test]
    fn the_number_of_threads_does_not_change_the_result() {
        let (a, b) = scores(203);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap()
                .install(|| randomization_test(&a, &b, &Randomization::default()).unwrap())
        };
        assert_eq!(on(1), on(7));
        assert!(!on(1).exact);
    }

    #[test]
    fn equal_systems_have_a_p_value_of_one() {
        let a = vec![0.5; 40];
        let test = randomization_test(&a, &a, &Randomization::default()).unwrap();
        assert_eq!(test.p_value, 1.0);
    }

    #[test]
    fn the_smallest_p_value_is_that_of_the_draws() {
        let (a, b) = (vec![1.0; 100], vec![0.0; 100]);
        let p = |add_one| {
            let settings = Randomization {
                add_one,
                ..Default::default()
            };
            randomization_test(&a, &b, &settings).unwrap().p_value
        };
        assert_eq!(p(true), 1.0 / 10_001.0);
        assert_eq!(p(false), 0.0);
    }
}
