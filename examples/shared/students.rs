//! What a student gains from a teacher, over several seeds.

use anyhow::Result;
use ft::eval::significance::paired_t_test;
use serde_json::{Map, Value, json};

/// The accuracies, by name and seed.
pub(crate) const TEACHER: usize = 0;
/// The student without a teacher, after all steps.
pub(crate) const ALONE: usize = 1;
/// The same at the best of ten moments of its training, by the unseen data: no way to stop early is better.
pub(crate) const ALONE_AT_BEST: usize = 2;

/// Prints the mean accuracies, and what the students behind [`ALONE_AT_BEST`] gain over it, with 95% intervals (paired t). Returns all
/// of it.
pub(crate) fn report(names: &[&str], found: &[Vec<f64>]) -> Result<Map<String, Value>> {
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    for (name, accuracies) in names.iter().zip(found) {
        let mean = accuracies.iter().sum::<f64>() / accuracies.len() as f64;
        println!("{name:<width$}  {:.1}%", 100.0 * mean);
    }
    let mut gains = Vec::new();
    for (name, accuracies) in names.iter().zip(found).skip(ALONE_AT_BEST + 1) {
        let test = paired_t_test(accuracies, &found[ALONE_AT_BEST], 0.95)?;
        let [low, high] = [test.interval.low, test.interval.high];
        println!(
            "{name}: {:+.1} points over {} (95% interval {:+.1} to {:+.1})",
            100.0 * test.difference,
            names[ALONE_AT_BEST],
            100.0 * low,
            100.0 * high
        );
        gains.push(json!({"name": name, "gain": test.difference, "interval": [low, high]}));
    }
    let accuracies = names.iter().zip(found);
    let accuracies: Map<String, Value> = accuracies
        .map(|(name, all)| (name.to_string(), json!(all)))
        .collect();
    let mut report = Map::new();
    report.insert("accuracies".into(), accuracies.into());
    report.insert("gains".into(), gains.into());
    Ok(report)
}
