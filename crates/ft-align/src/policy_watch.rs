//! Warnings about policies that learn something else than what is wanted.

use std::ops::ControlFlow;

use ft_train::{BoxError, Callback, Evaluation, Metrics, ModelView, StepRecord, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Steps that are compared as one.
const WINDOW: usize = 10;

/// A callback that reports signs of reward hacking and of collapse as warnings of `tracing`, each once, with the likely
/// cause:
///
/// - the reward rises while held-out prompts are answered worse;
/// - completions become twice as long, or most are cut at the largest length;
/// - the entropy falls to a tenth;
/// - the KL divergence from the reference is above a limit;
/// - almost no group has completions of different quality, so that nothing is learned.
///
/// Numbers are means over 10 steps, compared with the first 10 steps. Held-out rewards are those of the trainer's evaluations: at the
/// start, at the end, and every [`eval_every`](ft_train::TrainConfig::eval_every) steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyWatch {
    /// The largest mean KL divergence of a token, in nats, that is no sign of trouble.
    pub kl_limit: f64,
    first: Vec<Metrics>,
    last: Vec<Metrics>,
    /// The held-out reward before the first step, which belongs to the reward of the first steps.
    #[serde(default)]
    at_start: Option<f64>,
    /// Training reward and held-out reward at each evaluation.
    evaluations: Vec<(f64, f64)>,
    warnings: Vec<(usize, String)>,
}

impl Default for PolicyWatch {
    /// A limit of half a nat a token.
    fn default() -> Self {
        Self::new(0.5)
    }
}

impl PolicyWatch {
    /// A watch with this limit of the KL divergence.
    pub fn new(kl_limit: f64) -> Self {
        Self {
            kl_limit,
            first: Vec::new(),
            last: Vec::new(),
            at_start: None,
            evaluations: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// What was warned about so far, with the step.
    pub fn warnings(&self) -> &[(usize, String)] {
        &self.warnings
    }

    /// Notes the metrics of a step.
    fn note(&mut self, step: usize, metrics: &Metrics) {
        if self.first.len() < WINDOW {
            self.first.push(metrics.clone());
        }
        self.last.push(metrics.clone());
        if self.last.len() > WINDOW {
            self.last.remove(0);
        }
        if self.last.len() < WINDOW {
            return;
        }
        let now = |name: &str| mean(&self.last, name);
        let start = |name: &str| mean(&self.first, name);
        let mut found = Vec::new();
        let length = "completions/mean_length";
        if let (Some(start), Some(now)) = (start(length), now(length))
            && now > 2.0 * start
        {
            found.push(format!(
                "completions have grown from {start:.0} to {now:.0} tokens: the reward may favour length; add a reward of \
                 length (overlong), or use the loss dr_grpo, which has no advantage for long answers"
            ));
        }
        if let Some(share) = now("completions/clipped_ratio").filter(|share| *share > 0.9) {
            found.push(format!(
                "{:.0}% of the completions are cut at the largest length: raise max_new_tokens, or check that the model's \
                 end tokens are set",
                share * 100.0
            ));
        }
        if let (Some(start), Some(now)) = (start("entropy"), now("entropy"))
            && now < 0.1 * start
        {
            found.push(format!(
                "the entropy has fallen from {start:.3} to {now:.3}: the policy hardly tries other answers; lower the \
                 learning rate, raise epsilon_high (DAPO), or set entropy_coef"
            ));
        }
        if let Some(kl) = now("kl").filter(|kl| *kl > self.kl_limit) {
            found.push(format!(
                "the KL divergence from the reference is {kl:.3} a token, above {}: lower the learning rate, or raise beta",
                self.kl_limit
            ));
        }
        if let Some(share) = now("frac_reward_zero_std").filter(|share| *share > 0.9) {
            found.push(format!(
                "in {:.0}% of the groups all completions have the same reward, which teaches nothing: the prompts are too \
                 hard or too easy, or the reward applies to none; use other prompts, a finer reward, or dynamic_sampling",
                share * 100.0
            ));
        }
        for text in found {
            self.warn(step, text);
        }
    }

    /// Notes an evaluation.
    fn note_evaluation(&mut self, step: usize, held_out: f64) {
        let Some(training) = mean(&self.last, "reward") else {
            self.at_start = Some(held_out);
            return;
        };
        if let (Some(at_start), Some(first)) = (self.at_start.take(), mean(&self.first, "reward")) {
            self.evaluations.push((first, at_start));
        }
        self.evaluations.push((training, held_out));
        let Some((earlier, before)) = self
            .evaluations
            .iter()
            .copied()
            .max_by(|a, b| a.1.total_cmp(&b.1))
        else {
            return;
        };
        let spread = mean(&self.last, "reward_std").unwrap_or(0.0);
        if training > earlier + 0.1 * spread && held_out < before - 0.1 * spread {
            self.warn(
                step,
                format!(
                    "the reward in training has risen from {earlier:.3} to {training:.3}, and that of held-out prompts has \
                     fallen from {before:.3} to {held_out:.3}: the policy learns the prompts or a gap in the reward; read \
                     some completions, stop earlier, or raise beta"
                ),
            );
        }
    }

    /// Warns once of each kind; the first words tell the kind.
    fn warn(&mut self, step: usize, text: String) {
        let kind = |text: &str| {
            text.split(|c: char| c.is_ascii_digit())
                .next()
                .map(str::to_string)
        };
        if self
            .warnings
            .iter()
            .any(|(_, known)| kind(known) == kind(&text))
        {
            return;
        }
        tracing::warn!("step {step}: {text}");
        self.warnings.push((step, text));
    }
}

/// The mean of a metric over the steps that have it.
fn mean(steps: &[Metrics], name: &str) -> Option<f64> {
    let values: Vec<f64> = steps
        .iter()
        .filter_map(|metrics| metrics.get(name).copied())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

impl<M> Callback<M> for PolicyWatch {
    fn on_step(&mut self, _: &ModelView<'_, M>, record: &StepRecord) -> Verdict {
        self.note(record.step, &record.metrics);
        Ok(ControlFlow::Continue(()))
    }

    fn on_eval(&mut self, _: &ModelView<'_, M>, evaluation: &Evaluation) -> Verdict {
        if let Some(reward) = evaluation.metrics.metrics.get("reward") {
            self.note_evaluation(evaluation.step, *reward);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn state(&self) -> Option<Value> {
        serde_json::to_value(self).ok()
    }

    fn restore(&mut self, state: Value) -> Result<(), BoxError> {
        *self = serde_json::from_value(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(values: &[(&str, f64)]) -> Metrics {
        values
            .iter()
            .map(|(name, value)| ((*name).to_string(), *value))
            .collect()
    }

    /// A healthy start, then steps with other numbers.
    fn watch(values: &[(&str, f64)]) -> Vec<String> {
        let mut watch = PolicyWatch::default();
        let healthy = [
            ("completions/mean_length", 50.0),
            ("completions/clipped_ratio", 0.1),
            ("entropy", 1.0),
            ("kl", 0.01),
            ("frac_reward_zero_std", 0.2),
            ("reward", 0.4),
            ("reward_std", 0.3),
        ];
        for step in 1..=30 {
            let mut all = metrics(&healthy);
            if step > 12 {
                all.extend(metrics(values));
            }
            watch.note(step, &all);
        }
        watch.warnings.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn each_sign_is_reported_once_and_health_is_not() {
        assert!(watch(&[]).is_empty());
        for (name, value, cause) in [
            ("completions/mean_length", 120.0, "dr_grpo"),
            ("completions/clipped_ratio", 1.0, "end tokens"),
            ("entropy", 0.05, "entropy_coef"),
            ("kl", 2.0, "beta"),
            ("frac_reward_zero_std", 1.0, "dynamic_sampling"),
        ] {
            let found = watch(&[(name, value)]);
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(found[0].contains(cause), "{found:?}");
        }
    }

    #[test]
    fn a_reward_that_rises_alone_is_reported() {
        let mut watch = PolicyWatch::default();
        for (reward, held_out) in [(0.2, 0.2), (0.5, 0.4), (0.9, 0.1)] {
            for step in 0..WINDOW {
                watch.note(step, &metrics(&[("reward", reward), ("reward_std", 0.3)]));
            }
            watch.note_evaluation(7, held_out);
        }
        assert_eq!(watch.warnings.len(), 1);
        assert!(
            watch.warnings[0].1.contains("from 0.400 to 0.100"),
            "{:?}",
            watch.warnings
        );
        let state = Callback::<()>::state(&watch).expect("a state");
        let mut again = PolicyWatch::default();
        Callback::<()>::restore(&mut again, state).expect("its own state");
        assert_eq!(again, watch);
    }
}
