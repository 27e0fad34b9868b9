//! Examples to train on and examples to evaluate on.

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
