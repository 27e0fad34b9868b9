//! Examples to train on and examples to evaluate on.

use std::collections::BTreeMap;

use crate::shuffle::shuffled;
use crate::{Error, Result};

/// Splits examples at random into `(train, eval)`; both parts keep their order.
///
/// The evaluation part has `eval_fraction` of the examples, rounded, and at least one unless the fraction is 0.
///
/// # Errors
///
/// If the fraction is not in `[0, 1)`, or nothing would be left to train on.
pub(crate) fn split<E>(
    examples: Vec<E>,
    eval_fraction: f64,
    seed: u64,
) -> Result<(Vec<E>, Vec<E>)> {
    if !(0.0..1.0).contains(&eval_fraction) {
        return Err(Error::Settings(format!(
            "an evaluation fraction of {eval_fraction} is not in [0, 1): 0.1 holds out a tenth"
        )));
    }
    let count = examples.len();
    let eval_len = match eval_fraction {
        0.0 => 0,
        fraction => ((count as f64 * fraction).round() as usize).max(1),
    };
    if eval_len > 0 && eval_len >= count {
        return Err(Error::Settings(format!(
            "holding out {eval_len} of {count} examples leaves none to train on: use a smaller evaluation \
             fraction or more data"
        )));
    }
    let mut held_out = vec![false; count];
    for &index in &shuffled(count, seed, 0)[..eval_len] {
        held_out[index] = true;
    }
    let (mut train, mut eval) = (Vec::new(), Vec::new());
    for (example, held_out) in examples.into_iter().zip(held_out) {
        if held_out { &mut eval } else { &mut train }.push(example);
    }
    Ok((train, eval))
}

/// [`split`], but examples with equal keys stay together, and at least one example is held out. The evaluation part has about
/// `eval_fraction` of the examples.
///
/// # Errors
///
/// If the fraction is not between 0 and 1, or all examples have the same key.
pub(crate) fn split_by<E, K: Ord>(
    examples: Vec<E>,
    key: impl Fn(&E) -> K,
    eval_fraction: f64,
    seed: u64,
) -> Result<(Vec<E>, Vec<E>)> {
    let mut groups: BTreeMap<K, usize> = BTreeMap::new();
    let mut sizes = Vec::new();
    let mut group_of = Vec::with_capacity(examples.len());
    for example in &examples {
        let group = *groups.entry(key(example)).or_insert(sizes.len());
        if group == sizes.len() {
            sizes.push(0);
        }
        sizes[group] += 1;
        group_of.push(group);
    }
    if !(eval_fraction > 0.0 && eval_fraction < 1.0) || sizes.len() < 2 {
        return Err(Error::Settings(format!(
            "a fraction of {eval_fraction} of {} different rows cannot be held out: it must be between 0 and 1, and there \
             must be two rows or more",
            sizes.len()
        )));
    }
    let wanted = ((examples.len() as f64 * eval_fraction).round() as usize).max(1);
    let mut held_out = vec![false; sizes.len()];
    let mut count = 0;
    for group in shuffled(sizes.len(), seed, 0) {
        if count >= wanted {
            break;
        }
        if count + sizes[group] < examples.len() {
            held_out[group] = true;
            count += sizes[group];
        }
    }
    let (mut train, mut eval) = (Vec::new(), Vec::new());
    for (example, group) in examples.into_iter().zip(group_of) {
        if held_out[group] {
            &mut eval
        } else {
            &mut train
        }
        .push(example);
    }
    Ok((train, eval))
}
