//! One of several choices for each part, so that the sum of errors is least within a budget: the knapsack problem with choices
//! (Sinha and Zoltners, 1979, "The multiple-choice knapsack problem", Operations Research 27).

/// A way to hold a part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Its size.
    pub bytes: u64,
    /// What it adds to the sum of errors.
    pub error: f64,
}

/// Largest number of different sizes. Above it, sizes are rounded up.
const STEPS: u64 = 1 << 17;

/// The choice of each part with which the sum of errors is least, among those whose sum of sizes is not above the budget. None if
/// there is none.
///
/// Found by dynamic programming over sizes, in the largest unit that all differences of sizes are multiples of. The choice is then
/// optimal. If the sizes spread over more than 2¹⁷ such units, the unit is larger and sizes are rounded up to it: the budget holds,
/// and at most a unit a part is left unused. In both cases a larger budget never has a larger error.
///
/// # Panics
///
/// If a part has no choices, or an error is not finite.
///
/// ```
/// use ft_quant::{Choice, allocate};
///
/// let choice = |bytes, error| Choice { bytes, error };
/// // Both parts can have 4 or 6 bytes. They matter more for the second.
/// let parts = [vec![choice(4, 1.0), choice(6, 0.2)], vec![choice(4, 3.0), choice(6, 0.5)]];
/// assert_eq!(allocate(&parts, 10), Some(vec![0, 1]));
/// assert_eq!(allocate(&parts, 12), Some(vec![1, 1]));
/// assert_eq!(allocate(&parts, 7), None);
/// ```
pub fn allocate(parts: &[Vec<Choice>], budget: u64) -> Option<Vec<usize>> {
    let sizes = |part: &Vec<Choice>| {
        let sizes = part.iter().map(|choice| choice.bytes);
        let (least, most) = sizes.fold((u64::MAX, 0), |(a, b), size| (a.min(size), b.max(size)));
        assert!(least <= most, "every part has a choice");
        [least, most]
    };
    let ranges: Vec<[u64; 2]> = parts.iter().map(sizes).collect();
    let spare = budget.checked_sub(ranges.iter().map(|[least, _]| least).sum())?;
    let spread: u64 = ranges.iter().map(|[least, most]| most - least).sum();
    let unit = (parts.iter().zip(&ranges))
        .flat_map(|(part, [least, _])| part.iter().map(move |choice| choice.bytes - least))
        .fold(0, gcd)
        .max(spread.div_ceil(STEPS))
        .max(1);
    let room = (spare / unit).min(spread.div_ceil(unit) + parts.len() as u64) as usize;
    // The least sum of errors of the parts so far, within 0, 1, ... units.
    let mut errors = vec![0.0; room + 1];
    let mut picks = Vec::with_capacity(parts.len());
    for (part, [least, _]) in parts.iter().zip(&ranges) {
        let units = |choice: &Choice| (choice.bytes - least).div_ceil(unit) as usize;
        let mut order: Vec<usize> = (0..part.len()).collect();
        order.sort_by_key(|index| part[*index].bytes);
        let mut sums = vec![f64::INFINITY; room + 1];
        let mut pick = vec![(0, 0); room + 1];
        for index in order {
            let (size, error) = (units(&part[index]), part[index].error);
            assert!(error.is_finite(), "errors are finite");
            let rest = errors.iter().map(|sum| sum + error);
            let places = sums.iter_mut().zip(&mut pick).skip(size);
            for ((sum, pick), found) in places.zip(rest) {
                if found < *sum {
                    (*sum, *pick) = (found, (index as u32, size as u32));
                }
            }
        }
        errors = sums;
        picks.push(pick);
    }
    let mut left = room;
    let mut chosen: Vec<usize> = (picks.iter().rev())
        .map(|pick| {
            let (index, size) = pick[left];
            left -= size as usize;
            index as usize
        })
        .collect();
    chosen.reverse();
    Some(chosen)
}

/// The greatest common divisor.
fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts with three choices each, whose sizes are multiples of `unit` and have little to do with errors.
    fn example(parts: usize, seed: u64, unit: u64) -> Vec<Vec<Choice>> {
        let mut state = seed;
        let mut next = |most: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % most
        };
        let mut choice = || Choice {
            bytes: unit * (1 + next(20)),
            error: next(1000) as f64 / 16.0,
        };
        (0..parts)
            .map(|_| (0..3).map(|_| choice()).collect())
            .collect()
    }

    /// Sizes and errors of the sum of choices.
    fn sum(parts: &[Vec<Choice>], chosen: &[usize]) -> (u64, f64) {
        let choices = parts.iter().zip(chosen).map(|(part, index)| part[*index]);
        choices.fold((0, 0.0), |(bytes, error), choice| {
            (bytes + choice.bytes, error + choice.error)
        })
    }

    /// The least error of all combinations.
    fn least(parts: &[Vec<Choice>], budget: u64) -> Option<f64> {
        let combinations = 3usize.pow(parts.len() as u32);
        let sums = (0..combinations).map(|code| {
            let digits: Vec<usize> = (0..parts.len() as u32)
                .map(|i| code / 3usize.pow(i) % 3)
                .collect();
            sum(parts, &digits)
        });
        let errors = sums
            .filter(|(bytes, _)| *bytes <= budget)
            .map(|(_, error)| error);
        errors.min_by(f64::total_cmp)
    }

    #[test]
    fn no_combination_within_the_budget_is_better() {
        for seed in 0..20 {
            for unit in [1, 7, 1 << 40] {
                let parts = example(5, seed, unit);
                for steps in [3, 11, 20, 31, 45, 60, 100, 200] {
                    let budget = steps * unit + unit / 2;
                    let found = allocate(&parts, budget).map(|chosen| sum(&parts, &chosen));
                    assert!(found.is_none_or(|(bytes, _)| bytes <= budget));
                    assert_eq!(
                        found.map(|(_, error)| error),
                        least(&parts, budget),
                        "{seed} {budget}"
                    );
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "errors are finite")]
    fn an_infinite_error_is_refused() {
        let choice = |bytes, error| Choice { bytes, error };
        allocate(&[vec![choice(4, f64::INFINITY), choice(6, 1.0)]], 5);
    }

    /// Sizes without a common unit, which are rounded up.
    #[test]
    fn a_larger_budget_has_no_larger_error_and_is_kept() {
        let mut parts = example(40, 3, 1_000_003);
        for (i, choice) in parts.iter_mut().flatten().enumerate() {
            choice.bytes += i as u64;
        }
        let (mut last, mut count) = (f64::INFINITY, 0);
        for budget in (100_000_000..900_000_000).step_by(7_919_003) {
            let Some(chosen) = allocate(&parts, budget) else {
                continue;
            };
            let (bytes, error) = sum(&parts, &chosen);
            assert!(
                bytes <= budget && error <= last,
                "{budget}: {bytes}, {error} after {last}"
            );
            (last, count) = (error, count + 1);
        }
        assert!(count > 50, "{count}");
        // With room for all choices each part has the least error.
        let alone = |part: &Vec<Choice>| {
            part.iter()
                .map(|choice| choice.error)
                .fold(f64::INFINITY, f64::min)
        };
        assert_eq!(last, parts.iter().map(alone).sum::<f64>());
    }
}
