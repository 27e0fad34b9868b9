//! Scores of a batch, their statistics, and what went wrong.

use std::fmt;

/// The scores of rewards for completions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// The names of the rewards.
    pub names: Vec<String>,
    /// For each reward, the score of each completion. None if the reward does not apply or [failed](Self::failures).
    pub values: Vec<Vec<Option<f64>>>,
    /// Scores that are missing although the reward applies, ordered by reward and completion.
    pub failures: Vec<Failure>,
}

/// Why a score is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The index of the reward.
    pub reward: usize,
    /// The index of the completion.
    pub completion: usize,
    /// What happened.
    pub kind: FailureKind,
    /// The message of the error or panic.
    pub message: String,
}

/// What happened to a reward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It panicked.
    Panic,
    /// It did not end within the time limit.
    Timeout,
    /// It returned an error, or a score that is not finite.
    Error,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Panic => "panic",
            Self::Timeout => "timeout",
            Self::Error => "error",
        })
    }
}

impl Scores {
    /// `rewards/NAME/mean` and `rewards/NAME/std` over the completions that have a score. The deviation has `n - 1` in its
    /// denominator, as in TRL, and is 0 for a single score. A reward without scores has no entry.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let mut metrics = Vec::new();
        for (name, values) in self.names.iter().zip(&self.values) {
            let values: Vec<f64> = values.iter().flatten().copied().collect();
            if values.is_empty() {
                continue;
            }
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let std = (squares / (count - 1.0).max(1.0)).sqrt();
            metrics.push((format!("rewards/{name}/mean"), mean));
            metrics.push((format!("rewards/{name}/std"), std));
        }
        metrics
    }

    /// What a user should see: for each reward, how often it failed, with the first message of each kind, and whether it
    /// applied to no completion. None if all is well.
    pub fn warning(&self) -> Option<String> {
        let mut parts = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            let failures = || self.failures.iter().filter(move |one| one.reward == index);
            for kind in [FailureKind::Panic, FailureKind::Timeout, FailureKind::Error] {
                let of_kind = || failures().filter(move |one| one.kind == kind);
                if let Some(first) = of_kind().next() {
                    parts.push(format!(
                        "`{name}`: {} × {kind}, first at completion {}: {}",
                        of_kind().count(),
                        first.completion,
                        first.message
                    ));
                }
            }
            let values = &self.values[index];
            let without = values.iter().all(Option::is_none);
            if without && !values.is_empty() && failures().next().is_none() {
                parts.push(format!(
                    "`{name}`: it applies to none of the {} completions; check the name of its column",
                    values.len()
                ));
            }
        }
        (!parts.is_empty()).then(|| format!("rewards without a score: {}", parts.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_leave_out_missing_scores() {
        let scores = Scores {
            names: vec!["a".into(), "b".into(), "c".into()],
            values: vec![
                vec![Some(1.0), None, Some(3.0)],
                vec![None; 3],
                vec![None, Some(0.5), None],
            ],
            failures: Vec::new(),
        };
        assert_eq!(
            scores.metrics(),
            [
                ("rewards/a/mean".to_string(), 2.0),
                ("rewards/a/std".to_string(), 2.0_f64.sqrt()),
                ("rewards/c/mean".to_string(), 0.5),
                ("rewards/c/std".to_string(), 0.0),
            ]
        );
        let warning = scores.warning().expect("a warning");
        assert!(
            warning.contains("`b`: it applies to none of the 3"),
            "{warning}"
        );
        assert!(!warning.contains("`a`"), "{warning}");
        assert_eq!(Scores::default().warning(), None);
    }
}
