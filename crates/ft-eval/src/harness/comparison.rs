//! Comparison of two results, and a gate that fails on a drop.
//!
//! Results are read from files of this library or of lm-evaluation-harness, or taken from a run. If both have
//! samples, each difference has a p-value over the common documents: McNemar's exact test for metrics that are
//! 0 or 1, a paired t-test for others. The p-values are not adjusted for the number of rows.
//!
//! The gate checks one metric of each task: `acc_norm` if there is one, otherwise the first. Groups are not checked,
//! since they repeat their tasks. A task fails if its metric is worse by more than the threshold. Metrics between 0
//! and 1 are compared in points (0.02 is two percentage points). Perplexities, bits per byte, BLEU, chrF and TER have
//! no such scale, so their change is relative to the baseline. A task that is missing in the new results fails too.

use std::collections::BTreeMap;
use std::path::Path;

use regex::Regex;
use serde::Serialize;
use serde_json::Value;

use super::table::markdown;
use super::{Evaluation, MetricValue};
use crate::significance::{mcnemar_exact, paired_t_test};
use crate::{Error, Result};

/// A metric of a task under a filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    task: String,
    metric: String,
    filter: String,
}

/// Values of the documents, by index and hash.
type Values = BTreeMap<(u64, String), f64>;

/// Results to compare.
#[derive(Clone, Debug)]
pub struct SavedResults {
    results: Value,
    values: BTreeMap<Key, Values>,
}

impl SavedResults {
    /// Reads a results file, and the samples files in the same folder with the same date.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or does not have the format of lm-evaluation-harness.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| Error::Read {
                path: path.to_path_buf(),
                source,
            })
        };
        let mut saved = Self::parse(&read(path)?).map_err(|reason| Error::Invalid {
            path: path.to_path_buf(),
            reason,
        })?;
        let name = path
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let (Some(folder), Some(date)) = (path.parent(), name.strip_prefix("results_")) else {
            return Ok(saved);
        };
        for task in saved.tasks() {
            let samples = folder.join(format!("samples_{task}_{date}.jsonl"));
            if samples.is_file() {
                for line in read(&samples)?.split('\n').filter(|line| !line.is_empty()) {
                    saved
                        .add_sample(&task, line)
                        .map_err(|reason| Error::Invalid {
                            path: samples.clone(),
                            reason,
                        })?;
                }
            }
        }
        Ok(saved)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let results: Value = serde_json::from_str(&with_nulls(text))
            .map_err(|error| format!("it is not a results file: {error}"))?;
        if !results["results"].is_object() {
            return Err("it is not a results file: it has no 'results'".to_string());
        }
        Ok(Self {
            results,
            values: BTreeMap::new(),
        })
    }

    fn tasks(&self) -> Vec<String> {
        let results = self.results["results"].as_object();
        results
            .map(|results| results.keys().cloned().collect())
            .unwrap_or_default()
    }

    fn add_sample(&mut self, task: &str, line: &str) -> Result<(), String> {
        let row: Value = serde_json::from_str(&with_nulls(line))
            .map_err(|error| format!("a line is not a sample: {error}"))?;
        let doc = (
            row["doc_id"].as_u64().unwrap_or(0),
            row["doc_hash"].as_str().unwrap_or("").to_string(),
        );
        let filter = row["filter"].as_str().unwrap_or("none");
        for metric in row["metrics"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if let Some(value) = row[metric].as_f64() {
                self.add_value(task, metric, filter, doc.clone(), value);
            }
        }
        Ok(())
    }

    fn add_value(
        &mut self,
        task: &str,
        metric: &str,
        filter: &str,
        doc: (u64, String),
        value: f64,
    ) {
        let key = Key {
            task: task.to_string(),
            metric: metric.to_string(),
            filter: filter.to_string(),
        };
        self.values.entry(key).or_default().insert(doc, value);
    }
}

impl From<&Evaluation> for SavedResults {
    fn from(evaluation: &Evaluation) -> Self {
        let results = serde_json::from_str(&with_nulls(&evaluation.to_json()));
        let mut saved = Self {
            results: results.expect("what is written is JSON"),
            values: BTreeMap::new(),
        };
        for (task, samples) in &evaluation.samples {
            for sample in samples {
                let [doc_hash, _, _] = sample.hashes();
                for (metric, value) in &sample.metrics {
                    if let MetricValue::Int(_) | MetricValue::Number(_) = value
                        && let Some(value) = value.as_number()
                    {
                        let doc = (sample.doc_id as u64, doc_hash.clone());
                        saved.add_value(task, metric, &sample.filter, doc, value);
                    }
                }
            }
        }
        saved
    }
}

/// Replaces NaN and Infinity, which Python writes and JSON does not have, by null.
fn with_nulls(text: &str) -> String {
    // Strings are matched first, so that their content is not changed.
    let tokens =
        Regex::new(r#""(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b"#).expect("the pattern is right");
    tokens
        .replace_all(text, |found: &regex::Captures<'_>| {
            let token = &found[0];
            if token.starts_with('"') {
                token.to_string()
            } else {
                "null".to_string()
            }
        })
        .into_owned()
}

/// A metric in two results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedMetric {
    /// The task or group.
    pub task: String,
    /// The metric.
    pub metric: String,
    /// The filter pipeline.
    pub filter: String,
    /// The value in the baseline.
    pub baseline: f64,
    /// The new value.
    pub new: f64,
    /// The improvement: negative if the new value is worse, for both directions of metrics.
    pub gain: f64,
    /// The improvement relative to the value in the baseline.
    pub relative_gain: f64,
    /// The p-value of the difference over the common documents, if both have samples.
    pub p_value: Option<f64>,
    /// Whether the gate checks it.
    pub primary: bool,
}

/// The comparison of two results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The metrics that both have.
    pub metrics: Vec<ComparedMetric>,
    /// Tasks that only the baseline has.
    pub missing: Vec<String>,
    /// Other differences: versions, numbers of examples or documents.
    pub notes: Vec<String>,
}

/// Compares new results with a baseline.
pub fn compare(baseline: &SavedResults, new: &SavedResults) -> Comparison {
    let mut comparison = Comparison {
        metrics: Vec::new(),
        missing: Vec::new(),
        notes: Vec::new(),
    };
    for task in baseline.tasks() {
        let (old, fresh) = (
            &baseline.results["results"][&task],
            &new.results["results"][&task],
        );
        let Some(old) = old.as_object() else {
            continue;
        };
        if fresh.is_null() {
            comparison.missing.push(task);
            continue;
        }
        for (kind, name) in [("versions", "version"), ("n-shot", "number of examples")] {
            let (old, fresh) = (&baseline.results[kind][&task], &new.results[kind][&task]);
            if old != fresh {
                comparison
                    .notes
                    .push(format!("{task}: the {name} was {old}, now it is {fresh}"));
            }
        }
        if old.get("sample_len") != fresh.get("sample_len") {
            let count =
                |result: Option<&Value>| result.map_or("none".to_string(), Value::to_string);
            comparison.notes.push(format!(
                "{task}: the number of documents was {}, now it is {}",
                count(old.get("sample_len")),
                count(fresh.get("sample_len"))
            ));
        }
        let is_group = baseline.results["group_subtasks"].get(&task).is_some();
        let keys: Vec<(&str, &str)> = old
            .iter()
            .filter(|(_, value)| value.is_number())
            .filter_map(|(key, _)| key.split_once(','))
            .filter(|(metric, _)| !metric.ends_with("_stderr"))
            .collect();
        let primary = keys
            .iter()
            .find(|(metric, _)| *metric == "acc_norm")
            .or(keys.first())
            .copied();
        for &(metric, filter) in &keys {
            let number = |result: &Value| result[format!("{metric},{filter}")].as_f64();
            let (Some(old), Some(fresh)) =
                (number(&baseline.results["results"][&task]), number(fresh))
            else {
                comparison.notes.push(format!(
                    "{task}: {metric},{filter} is not a number in the new results"
                ));
                continue;
            };
            let better = baseline.results["higher_is_better"][&task][metric].as_bool();
            let sign = if better == Some(false) { -1.0 } else { 1.0 };
            let gain = sign * (fresh - old);
            let key = Key {
                task: task.clone(),
                metric: metric.to_string(),
                filter: filter.to_string(),
            };
            comparison.metrics.push(ComparedMetric {
                baseline: old,
                new: fresh,
                gain,
                relative_gain: if gain == 0.0 { 0.0 } else { gain / old.abs() },
                p_value: p_value(baseline.values.get(&key), new.values.get(&key)),
                primary: !is_group && primary == Some((metric, filter)),
                task: key.task,
                metric: key.metric,
                filter: key.filter,
            });
        }
    }
    comparison
}

/// The p-value of a difference over the common documents.
fn p_value(old: Option<&Values>, new: Option<&Values>) -> Option<f64> {
    let (old, new) = (old?, new?);
    let pairs: Vec<(f64, f64)> = old
        .iter()
        .filter_map(|(doc, old)| Some((*old, *new.get(doc)?)))
        .collect();
    if pairs.len() < 2 {
        return None;
    }
    let binary = |value: f64| value == 0.0 || value == 1.0;
    if pairs.iter().all(|(old, new)| binary(*old) && binary(*new)) {
        let count = |pair: (f64, f64)| pairs.iter().filter(|other| **other == pair).count() as u64;
        return Some(mcnemar_exact(count((1.0, 0.0)), count((0.0, 1.0))).p_value);
    }
    let (old, new): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    paired_t_test(&new, &old, 0.95)
        .ok()
        .map(|test| test.p_value)
        .filter(|p| p.is_finite())
}

/// Whether a metric has no fixed scale.
fn has_no_scale(metric: &str) -> bool {
    metric.ends_with("perplexity")
        || ["bits_per_byte", "bleu", "chrf", "chrf++", "ter"].contains(&metric)
}

impl Comparison {
    /// The gate: metrics that are worse by more than `threshold` (0.02 means two points, or two percent for metrics
    /// without a fixed scale), and missing tasks. If it is empty, the new results pass.
    pub fn regressions(&self, threshold: f64) -> Vec<String> {
        let mut failed: Vec<String> = self
            .missing
            .iter()
            .map(|task| format!("{task} is missing in the new results"))
            .collect();
        for metric in self.metrics.iter().filter(|metric| metric.primary) {
            let no_scale = has_no_scale(&metric.metric);
            let gain = if no_scale {
                metric.relative_gain
            } else {
                metric.gain
            };
            // A drop of exactly the threshold passes, even if subtraction rounds.
            if gain.is_nan() || gain < -threshold - 1e-12 {
                failed.push(format!(
                    "{}: {},{} went from {:.4} to {:.4}, {:.2} {} worse; {:.2} is allowed",
                    metric.task,
                    metric.metric,
                    metric.filter,
                    metric.baseline,
                    metric.new,
                    -100.0 * gain,
                    if no_scale { "percent" } else { "points" },
                    100.0 * threshold,
                ));
            }
        }
        failed
    }

    /// A Markdown table of both, with the notes below.
    pub fn to_markdown(&self) -> String {
        let headers =
            ["Task", "Metric", "Filter", "Baseline", "New", "Gain", "p"].map(str::to_string);
        let right = [false, false, false, true, true, true, true];
        let rows: Vec<_> = self
            .metrics
            .iter()
            .map(|metric| {
                [
                    metric.task.clone(),
                    metric.metric.clone(),
                    metric.filter.clone(),
                    format!("{:.4}", metric.baseline),
                    format!("{:.4}", metric.new),
                    format!("{:+.4}", metric.gain),
                    metric.p_value.map_or(String::new(), |p| format!("{p:.4}")),
                ]
            })
            .collect();
        let mut out = markdown(&headers, &right, &rows);
        for task in &self.missing {
            out.push_str(&format!("\n- {task} is missing in the new results"));
        }
        for note in &self.notes {
            out.push_str(&format!("\n- {note}"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn saved(acc: f64, perplexity: f64) -> SavedResults {
        let results = json!({
            "results": {
                "a": {"alias": "a", "sample_len": 4, "acc,none": acc, "acc_stderr,none": 0.1},
                "w": {"word_perplexity,none": perplexity, "word_perplexity_stderr,none": "N/A"},
                "g": {"acc,none": 0.0},
            },
            "group_subtasks": {"g": ["a"]},
            "versions": {"a": 1},
            "n-shot": {"a": 5},
            "higher_is_better": {"a": {"acc": true}, "w": {"word_perplexity": false}},
        });
        SavedResults {
            results,
            values: BTreeMap::new(),
        }
    }

    #[test]
    fn only_a_drop_beyond_the_threshold_fails() {
        let baseline = saved(0.5, 10.0);
        for (acc, perplexity, failed) in [
            (0.48, 10.2, 0),
            (0.4799, 10.0, 1),
            (0.9, 10.21, 1),
            (0.4, 11.0, 2),
            (0.6, 5.0, 0),
        ] {
            let comparison = compare(&baseline, &saved(acc, perplexity));
            assert_eq!(
                comparison.regressions(0.02).len(),
                failed,
                "{acc} {perplexity}"
            );
        }
    }

    #[test]
    fn missing_tasks_fail_and_other_settings_are_noted() {
        let mut new = saved(0.5, 10.0);
        let results = new.results["results"].as_object_mut().unwrap();
        results.shift_remove("w");
        new.results["n-shot"]["a"] = json!(0);
        let comparison = compare(&saved(0.5, 10.0), &new);
        assert_eq!(comparison.missing, ["w"]);
        assert_eq!(comparison.regressions(0.02).len(), 1);
        assert_eq!(
            comparison.notes,
            ["a: the number of examples was 5, now it is 0"]
        );
        assert!(comparison.to_markdown().contains("number of examples"));
    }

    #[test]
    fn numbers_that_json_lacks_are_read_as_missing() {
        assert_eq!(
            with_nulls(r#"{"a\" NaN": "NaN", "b": NaN, "c": [-Infinity]}"#),
            r#"{"a\" NaN": "NaN", "b": null, "c": [null]}"#
        );
    }
}
