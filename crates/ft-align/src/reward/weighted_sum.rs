//! Several rewards as one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::by_name::{by_name, from_settings};
use super::{BoxError, Completion, Reward, Scores, named, score_batch};
use crate::{Error, Result};

/// `Σ weight · score` over the rewards that apply. None if none does.
///
/// A score that is missing adds nothing, whether the reward does not apply or failed. The other weights stay as they are, as
/// in TRL.
#[derive(Clone, Debug)]
pub struct WeightedSum {
    rewards: Vec<Arc<dyn Reward>>,
    weights: Vec<f64>,
}

/// Sums of a batch, and their parts for the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightedScores {
    /// The weighted sum of each completion.
    pub sums: Vec<Option<f64>>,
    /// The scores of each reward, without weights.
    pub parts: Scores,
}

impl WeightedSum {
    /// A sum of rewards with their weights.
    ///
    /// # Errors
    ///
    /// If there are none, two have the same name ([`named`] gives one of them another), or a weight is not finite.
    pub fn new(rewards: impl IntoIterator<Item = (Arc<dyn Reward>, f64)>) -> Result<Self> {
        let (rewards, weights): (Vec<Arc<dyn Reward>>, Vec<f64>) = rewards.into_iter().unzip();
        if rewards.is_empty() {
            return Err(error(
                "a sum",
                "it has no rewards: add one, such as `gsm8k`",
            ));
        }
        for (index, (reward, weight)) in rewards.iter().zip(&weights).enumerate() {
            let name = reward.name();
            if !weight.is_finite() {
                return Err(error(
                    name,
                    &format!("its weight is {weight}, but must be finite"),
                ));
            }
            if rewards[..index].iter().any(|other| other.name() == name) {
                return Err(error(
                    name,
                    "two rewards have this name: give one of them another `label`",
                ));
            }
        }
        Ok(Self { rewards, weights })
    }

    /// This sum with one more reward.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn and(self, reward: Arc<dyn Reward>, weight: f64) -> Result<Self> {
        let all = self.rewards.into_iter().zip(self.weights);
        Self::new(all.chain([(reward, weight)]))
    }

    /// Reads a JSON file with a list of rewards. Each is a text for [`by_name`], or an object with the `name` of a reward, its
    /// `weight` (1 without it), a `label` for the log in place of the name, and the settings of the reward.
    ///
    /// ```json
    /// [
    ///     "gsm8k",
    ///     {"name": "format", "tags": ["think", "answer"], "weight": 0.2},
    ///     {"name": "regex", "pattern": "\\bbecause\\b", "label": "reasons", "weight": 0.1}
    /// ]
    /// ```
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is no such list, a name or setting is not known, or as [`new`](Self::new).
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let value = text.and_then(|text| {
            serde_json::from_str(&text).map_err(|error| format!("it is no valid JSON: {error}"))
        });
        let sum =
            value.and_then(|value| Self::from_json(&value).map_err(|error| error.to_string()));
        sum.map_err(|reason| Error::RewardFile {
            path: path.to_path_buf(),
            reason,
        })
    }

    /// A sum of the rewards of a list, as [`load`](Self::load) reads it.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn from_json(list: &Value) -> Result<Self> {
        let Some(list) = list.as_array() else {
            return Err(error(
                "a sum",
                "the JSON is no list of rewards: put them into [ ]",
            ));
        };
        let rewards: Result<Vec<_>> = list.iter().map(part).collect();
        Self::new(rewards?)
    }

    /// The sums of a batch. See [`score_batch`].
    pub fn score_batch(
        &self,
        completions: &[Completion<'_>],
        time_limit: Duration,
    ) -> WeightedScores {
        let parts = score_batch(&self.rewards, completions, time_limit);
        let sums = (0..completions.len())
            .map(|index| self.sum(parts.values.iter().map(|values| values[index])))
            .collect();
        WeightedScores { sums, parts }
    }

    fn sum(&self, scores: impl Iterator<Item = Option<f64>>) -> Option<f64> {
        let scores = scores.zip(&self.weights);
        scores.fold(None, |sum, (score, weight)| match score {
            None => sum,
            Some(score) => Some(sum.unwrap_or(0.0) + weight * score),
        })
    }
}

impl Reward for WeightedSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn score(&self, completion: &Completion<'_>) -> std::result::Result<Option<f64>, BoxError> {
        let scores = self.rewards.iter().map(|reward| reward.score(completion));
        let scores: Vec<Option<f64>> = scores.collect::<std::result::Result<_, _>>()?;
        Ok(self.sum(scores.into_iter()))
    }
}

/// A reward of a list with its weight.
fn part(entry: &Value) -> Result<(Arc<dyn Reward>, f64)> {
    let mut settings = match entry {
        Value::String(name) => return Ok((by_name(name)?, 1.0)),
        Value::Object(settings) => settings.clone(),
        other => {
            let reason =
                format!("{other} in a list of rewards is no name and no object with a `name`");
            return Err(error("a sum", &reason));
        }
    };
    let Some(Value::String(name)) = settings.remove("name") else {
        return Err(error("a sum", &format!("{entry} has no `name`")));
    };
    let weight = match settings.remove("weight") {
        None => 1.0,
        Some(weight) => (weight.as_f64()).ok_or_else(|| {
            error(
                &name,
                &format!("its weight is {weight}, but must be a number"),
            )
        })?,
    };
    let label = match settings.remove("label") {
        None => None,
        Some(Value::String(label)) => Some(label),
        Some(other) => {
            return Err(error(
                &name,
                &format!("its label is {other}, but must be text"),
            ));
        }
    };
    let reward = from_settings(&name, settings)?;
    Ok((
        label.map_or(reward.clone(), |label| named(label, reward)),
        weight,
    ))
}

fn error(reward: &str, reason: &str) -> Error {
    Error::Reward {
        reward: reward.to_string(),
        reason: reason.to_string(),
    }
}
