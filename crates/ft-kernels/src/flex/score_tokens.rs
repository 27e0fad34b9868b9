//! Log-probabilities of the targets and whether they are the largest logit, on slices.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::head::Head;
use super::packed::Held;
use super::token_logps::summary;
use crate::LogitOptions;
use crate::score_tokens::TokenScore;

pub(crate) fn score_tokens(
    hidden: Tensor<2>,
    weight: crate::Weight,
    targets: &[i64],
    options: LogitOptions,
    chunk: usize,
) -> Vec<TokenScore> {
    let head = Head::new(Held::outside(weight), options);
    let cap = options.softcap.map(|cap| cap as f32);
    let nothing = TokenScore {
        logp: 0.0,
        is_greedy: false,
    };
    let mut scores = vec![nothing; targets.len()];
    head.in_chunks(flex(hidden), chunk, false, [false; 2], |start, logits| {
        logits
            .par_chunks_mut(head.vocab())
            .zip(&targets[start..])
            .zip(&mut scores[start..])
            .for_each(|((z, target), score)| {
                let target = *target as usize;
                // After it the logits are capped.
                let logp = summary(z, target, cap, false).logp;
                *score = TokenScore {
                    logp,
                    is_greedy: is_first_largest(z, target),
                };
            });
    });
    scores
}

fn flex(tensor: Tensor<2>) -> FlexTensor {
    let primitive = tensor.inner().try_into_primitive::<Flex>();
    primitive.expect("on Flex")
}

/// Whether no logit is larger, and no earlier one is equal.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn is_first_largest(z: &[f32], target: usize) -> bool {
    let logit = z[target];
    let none = |part: &[f32], beats: fn(f32, f32) -> bool| {
        part.chunks(4096)
            .all(|part| !part.iter().fold(false, |any, z| any | beats(*z, logit)))
    };
    none(&z[..target], |z, logit| z >= logit) && none(&z[target..], |z, logit| z > logit)
}

#[cfg(test)]
mod tests {
    use super::is_first_largest;

    #[test]
    fn of_equal_logits_the_first_is_the_choice() {
        let z = [1.0, 3.0, 2.0, 3.0];
        let found: Vec<bool> = (0..4).map(|i| is_first_largest(&z, i)).collect();
        assert_eq!(found, [false, true, false, false]);
        assert!(is_first_largest(&[0.5], 0));
    }
}
