//! Precision, recall and F of classes, and their averages.

use serde::Serialize;

/// The counts of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items that are predicted and true.
    pub correct: usize,
    /// Predicted items.
    pub predicted: usize,
    /// True items.
    pub actual: usize,
}

/// Scores of a class, or averages, from 0 to 1; 0 if a denominator is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Share of the predicted items that are true.
    pub precision: f64,
    /// Share of the true items that are predicted.
    pub recall: f64,
    /// `(1 + β²)·P·R / (β²·P + R)`
    pub f: f64,
    /// The number of true items.
    pub support: usize,
}

impl Scores {
    /// The scores, with `beta` as the weight of recall.
    pub fn new(counts: Counts, beta: f64) -> Self {
        let square = beta * beta;
        let share = |a: f64, b: f64| if b == 0.0 { 0.0 } else { a / b };
        let [correct, predicted, actual] =
            [counts.correct, counts.predicted, counts.actual].map(|count| count as f64);
        Self {
            precision: share(correct, predicted),
            recall: share(correct, actual),
            f: share((1.0 + square) * correct, square * actual + predicted),
            support: counts.actual,
        }
    }
}

/// Scores of all classes and their averages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreTable<L> {
    /// The scores by class, in ascending order.
    pub classes: Vec<(L, Scores)>,
    /// The scores of the summed counts of all classes.
    pub micro_average: Scores,
    /// The mean over the classes; NaN if there are none.
    pub macro_average: Scores,
    /// The mean over the classes, weighted by support; 0 if the support is 0.
    pub weighted_average: Scores,
}

impl<L> ScoreTable<L> {
    /// The table for the counts of each class.
    pub fn new(counts: Vec<(L, Counts)>, beta: f64) -> Self {
        let mut all = Counts::default();
        let mut classes = Vec::with_capacity(counts.len());
        for (label, counts) in counts {
            all.correct += counts.correct;
            all.predicted += counts.predicted;
            all.actual += counts.actual;
            classes.push((label, Scores::new(counts, beta)));
        }
        let mean = |weight: fn(&Scores) -> f64| {
            let total: f64 = classes.iter().map(|(_, scores)| weight(scores)).sum();
            let mean = |value: fn(&Scores) -> f64| {
                let sum: f64 = (classes.iter()).map(|(_, s)| weight(s) * value(s)).sum();
                sum / total
            };
            Scores {
                precision: mean(|scores| scores.precision),
                recall: mean(|scores| scores.recall),
                f: mean(|scores| scores.f),
                support: all.actual,
            }
        };
        let weighted_average = match all.actual {
            0 => Scores::new(Counts::default(), beta),
            _ => mean(|scores| scores.support as f64),
        };
        Self {
            micro_average: Scores::new(all, beta),
            macro_average: mean(|_| 1.0),
            weighted_average,
            classes,
        }
    }
}
