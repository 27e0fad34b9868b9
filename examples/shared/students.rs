//! What a student gains from a teacher, over several seeds.

use anyhow::Result;
use ft::eval::significance::paired_t_test;
use serde_json::{Map, Value, json};

/// Accuracies by name and seed: first those of the teacher, then those of the student without it, then those of others.
///
/// Prints the means, and what the others gain over the student without a teacher, with 95% intervals (paired t). Returns all of it.
pub(crate) fn report(names: &[&str], found: &[Vec<f64>]) -> Result<Map<String, Value>> {
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    for (name, accuracies) in names.iter().zip(found) {
        let mean = accuracies.iter().sum::<f64>() / accuracies.len() as f64;
        println!("{name:<width$}  {:.1}%", 100.0 * mean);
    }
    let mut gains = Vec::new();
    for (name, accuracies) in names.iter().zip(found).skip(2) {
        let test = paired_t_test(accuracies, &found[1], 0.95)?;
        let [low, high] = [test.interval.low, test.interval.high];
        println!(
            "{name}: {:+.1} points over {} (95% interval {:+.1} to {:+.1})",
            100.0 * test.difference,
            names[1],
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
