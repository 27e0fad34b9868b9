//! From the logits of one position to a token, in the order and with the meaning of transformers'
//! logits processors.

use rand::Rng;

use crate::GenerationConfig;

/// Picks the next token.
pub(crate) fn next_token(
    logits: &mut [f32],
    previous: &[u32],
    config: &GenerationConfig,
    rng: &mut impl Rng,
) -> u32 {
    if config.repetition_penalty != 1.0 {
        repetition_penalty(logits, previous, config.repetition_penalty);
    }
    choose(logits, config, rng)
}

/// The index of the logit that is taken, after the repetition penalty.
pub(crate) fn choose(logits: &mut [f32], config: &GenerationConfig, rng: &mut impl Rng) -> u32 {
    if config.temperature == 0.0 {
        return argmax(logits);
    }
    logits.iter_mut().for_each(|l| *l /= config.temperature);
    if config.top_k > 0 {
        top_k(logits, config.top_k);
    }
    if config.top_p < 1.0 {
        top_p(logits, config.top_p);
    }
    if config.min_p > 0.0 {
        min_p(logits, config.min_p);
    }
    draw(logits, 1.0, rng).0
}

/// Divides positive logits of tokens already seen by `penalty` and multiplies negative ones by it,
/// once a token (Keskar et al., 2019, arXiv:1909.05858, section 4.1).
pub fn repetition_penalty(logits: &mut [f32], previous: &[u32], penalty: f32) {
    let mut seen = previous.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit < 0.0 {
                *logit * penalty
            } else {
                *logit / penalty
            };
        }
    }
}

/// Forbids all but the `k` highest logits; ties with the last of them stay.
pub fn top_k(logits: &mut [f32], k: usize) {
    if k == 0 || k >= logits.len() {
        return;
    }
    let mut sorted = logits.to_vec();
    let (_, kth, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let kth = *kth;
    forbid(logits, |l| l < kth);
}

/// Nucleus sampling: forbids the least probable tokens that together have at most `1 − p`
/// (Holtzman et al., 2020, arXiv:1904.09751, section 3.1).
pub fn top_p(logits: &mut [f32], p: f32) {
    let probabilities = softmax(logits);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // Ascending, and for equals the earlier token first, as a stable sort does.
    order.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    let mut cumulative = 0.0;
    for &token in &order[..order.len() - 1] {
        cumulative += probabilities[token];
        if cumulative > 1.0 - p {
            break;
        }
        logits[token] = f32::NEG_INFINITY;
    }
}

/// Forbids tokens less than `p` times as probable as the most probable one (Nguyen et al., 2024,
/// arXiv:2407.01082, section 3).
pub fn min_p(logits: &mut [f32], p: f32) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    forbid(logits, |l| (l - most).exp() < p);
}

/// The index of the highest logit, the first of equals.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// `ln Σ e^(z / T)` at a temperature `T`.
pub(crate) fn log_sum_exp(logits: &[f32], temperature: f32) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = logits.iter().map(|l| ((l - most) / temperature).exp());
    let sum: f64 = exp.map(f64::from).sum();
    most / temperature + sum.ln() as f32
}

fn forbid(logits: &mut [f32], condition: impl Fn(f32) -> bool) {
    for logit in logits.iter_mut().filter(|l| condition(**l)) {
        *logit = f32::NEG_INFINITY;
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f32> = logits.iter().map(|l| (l - most).exp()).collect();
    let total: f32 = exp.iter().sum();
    exp.into_iter().map(|e| e / total).collect()
}

/// Draws a token with probability `softmax(z / T)` at a temperature `T`, and gives `ln Σ e^(z / T)`. It computes each exponential
/// once.
pub(crate) fn draw(logits: &[f32], temperature: f32, rng: &mut impl Rng) -> (u32, f32) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = (logits.iter())
        .map(|l| ((l - most) / temperature).exp())
        .collect();
    let total: f64 = weights.iter().copied().map(f64::from).sum();
    let mut left = f64::from(rng.random::<f32>()) * total;
    let mut last = 0;
    for (token, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            last = token as u32;
            left -= f64::from(*weight);
            if left <= 0.0 {
                break;
            }
        }
    }
    (last, most / temperature + total.ln() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const OFF: f32 = f32::NEG_INFINITY;

    #[test]
    fn top_k_keeps_the_highest_and_ties() {
        let mut logits = [1.0, 3.0, 2.0, 2.0];
        top_k(&mut logits, 2);
        assert_eq!(logits, [OFF, 3.0, 2.0, 2.0]);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_with_the_mass() {
        // probabilities 0.1, 0.6, 0.3
        let mut logits = [0.1f32.ln(), 0.6f32.ln(), 0.3f32.ln()];
        top_p(&mut logits, 0.8);
        assert_eq!(logits[0], OFF);
        assert!(logits[1] > OFF && logits[2] > OFF);
    }

    #[test]
    fn min_p_compares_with_the_most_probable() {
        let mut logits = [0.05f32.ln(), 0.6f32.ln(), 0.35f32.ln()];
        min_p(&mut logits, 0.1);
        assert_eq!(logits[0], OFF);
        assert!(logits[2] > OFF);
    }

    #[test]
    fn repetition_penalty_counts_a_token_once() {
        let mut logits = [2.0, -2.0, 1.0];
        repetition_penalty(&mut logits, &[0, 0, 1], 2.0);
        assert_eq!(logits, [1.0, -4.0, 1.0]);
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let config = GenerationConfig {
            temperature: 1.0,
            ..GenerationConfig::default()
        };
        let logits = [0.25f32.ln(), 0.75f32.ln()];
        let run = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (0..4000)
                .map(|_| next_token(&mut logits.clone(), &[], &config, &mut rng))
                .collect::<Vec<_>>()
        };
        let ones: u32 = run(1).iter().sum();
        // 4000·0.75 = 3000, standard deviation 27
        assert!((2890..=3110).contains(&ones), "{ones}");
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
