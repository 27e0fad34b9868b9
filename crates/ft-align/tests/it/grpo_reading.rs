//! GRPO reads groups that teach nothing without a graph.

use burn::module::Module;
use ft_align::loss::PolicyLoss;
use ft_align::{GrpoConfig, PolicyBatch, ScoredRollout};
use ft_core::{AutoCausalLm, Parts, Rollout};
use ft_train::{Method, StepContext};

use crate::grpo::{grpo, logps, small};
use crate::policy::{device, ids, trained_policy};

/// Completions of two prompts: those of the first are longer and all as good as each other, those of the second are not.
fn one_group_teaches(policy: &AutoCausalLm) -> Vec<ScoredRollout> {
    let row = |prompt: usize, i: usize, advantage: f64| {
        let (prompt_ids, token_ids) = (ids(prompt, 4), ids(10 * prompt + i, 6 - 2 * prompt + i));
        let logps = logps(&policy.valid(), &prompt_ids, &token_ids, 1.0);
        ScoredRollout {
            prompt_ids,
            rollout: Rollout {
                logps: logps.iter().map(|logp| logp - 1e-5).collect(),
                token_ids,
                text: String::new(),
                finished: true,
            },
            reward: Some(advantage),
            advantage,
            reference: logps.iter().map(|logp| logp - 0.1).collect(),
        }
    };
    let (alike, others) = ([0.0; 3], [0.5, -1.0, 0.0]);
    let alike = (0..3).zip(alike).map(|(i, advantage)| row(0, i, advantage));
    let others = (0..3)
        .zip(others)
        .map(|(i, advantage)| row(1, i, advantage));
    alike.chain(others).collect()
}

/// Groups without advantages are read without a graph: the sum of the loss, its gradients and the metrics are those of all
/// rows with a graph.
#[test]
fn groups_that_teach_nothing_change_no_gradient() {
    let policy = trained_policy();
    let run = |config: GrpoConfig, rows: &[ScoredRollout], off_policy: bool| {
        let batch = PolicyBatch {
            rows: rows.to_vec(),
            off_policy,
            ..PolicyBatch::default()
        };
        let context = StepContext::training(&device(), 0, 1, 0);
        let output = grpo(config, &policy).step(&policy, &batch, &context);
        let output = output.unwrap();
        let sum = output.loss.sum.clone();
        let gradients = sum.clone().backward();
        let mut values = vec![f64::from(sum.into_scalar::<f32>())];
        policy.for_each_part(&mut |_, part| {
            for adapter in part.adapters().iter() {
                for name in ["lora_A.weight", "lora_B.weight"] {
                    let gradient = adapter.val2(name).grad(&gradients).unwrap();
                    values.extend(gradient.into_data().iter::<f64>());
                }
            }
        });
        (values, output)
    };
    let near = |found: &[f64], expected: &[f64]| {
        let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        assert_eq!(found.len(), expected.len());
        assert!(
            apart.fold(0.0, f64::max) <= 1e-5 * largest,
            "{found:?} {expected:?}"
        );
    };
    let rows = one_group_teaches(&policy);
    // Not 0, so that every group has a graph, and 0 in the loss, which is computed in f32.
    let with_graph: Vec<ScoredRollout> = rows
        .iter()
        .map(|row| ScoredRollout {
            advantage: match row.advantage == 0.0 {
                true => f64::MIN_POSITIVE,
                false => row.advantage,
            },
            ..row.clone()
        })
        .collect();
    for loss in PolicyLoss::ALL {
        for (beta, entropy_coef) in [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1)] {
            for off_policy in [false, true] {
                let config = GrpoConfig {
                    loss,
                    beta,
                    entropy_coef,
                    ..small()
                };
                let (found, output) = run(config.clone(), &rows, off_policy);
                let (expected, whole) = run(config, &with_graph, off_policy);
                assert!(expected[1..].iter().any(|x| x.abs() > 1e-4), "{loss:?}");
                near(&found, &expected);
                assert_eq!(output.loss.count, whole.loss.count);
                assert_eq!(output.tokens, whole.tokens);
                assert_eq!(output.metrics.len(), whole.metrics.len());
                for (metric, expected) in output.metrics.iter().zip(&whole.metrics) {
                    assert_eq!(metric.name, expected.name);
                    assert_eq!(metric.weight, expected.weight);
                    near(&[metric.sum.value()], &[expected.sum.value()]);
                }
            }
        }
    }
    // Without any advantage there are gradients still, of zeros.
    let (found, _) = run(small(), &rows[..3], false);
    assert!(found.len() > 1 && found.iter().all(|x| *x == 0.0));
}
