//! Precision, recall and F of classes, and their averages.

use serde::Serialize;

/// What the scores of a class are computed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Predicted and true.
    pub correct: usize,
    /// Predicted.
    pub predicted: usize,
    /// True.
    pub actual: usize,
}

/// Scores of a class, or an average, from 0 to 1; 0 where a denominator is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Share of the predictions that are true.
    pub precision: f64,
    /// Share of the true ones that are predicted.
    pub recall: f64,
    /// `(1 + β²)·P·R / (β²·P + R)`
    pub f: f64,
    /// How many are true.
    pub support: usize,
}

impl Scores {
    /// With `beta` as weight of the recall.
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
    /// By class, in ascending order.
    pub classes: Vec<(L, Scores)>,
    /// Of the counts of all classes together.
    pub micro_average: Scores,
    /// The mean over the classes; NaN of none.
    pub macro_average: Scores,
    /// The mean over the classes by support; 0 if there is none.
    pub weighted_average: Scores,
}

impl<L> ScoreTable<L> {
    /// Of the counts of each class.
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
