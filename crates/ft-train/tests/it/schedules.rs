//! Learning rates are those of transformers at every step.

use ft_train::{Schedule, plateau_factor};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    plateau: Vec<Plateau>,
}

#[derive(Deserialize)]
struct Case {
    schedule: Schedule,
    warmup: usize,
    total: usize,
    factors: Vec<f64>,
}

#[derive(Deserialize)]
struct Plateau {
    factor: f64,
    patience: usize,
    losses: Vec<f64>,
    factors: Vec<f64>,
}

fn golden() -> Golden {
    let text = include_str!("../golden/schedules.json");
    serde_json::from_str(text).expect("is golden data")
}

#[test]
fn every_factor_is_that_of_transformers() {
    let cases = golden().cases;
    assert_eq!(cases.len(), 33);
    for case in cases {
        let Case {
            schedule,
            warmup,
            total,
            factors,
        } = case;
        for (step, expected) in factors.into_iter().enumerate() {
            let found = schedule.factor(step, warmup, total);
            assert!(
                (found - expected).abs() < 1e-12,
                "{schedule}, step {step} of {total} with a warmup of {warmup}: {found}, transformers {expected}"
            );
        }
    }
}

#[test]
fn a_plateau_lowers_the_rate_when_it_does_in_pytorch() {
    for Plateau {
        factor,
        patience,
        losses,
        factors,
    } in golden().plateau
    {
        for (count, expected) in (1..).zip(factors) {
            let found = plateau_factor(losses[..count].iter().copied(), factor, patience);
            assert!(
                (found - expected).abs() < 1e-12,
                "{factor} {patience} {count}: {found} {expected}"
            );
        }
    }
}
