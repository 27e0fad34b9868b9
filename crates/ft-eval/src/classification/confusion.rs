//! Confusion matrices.

use super::{Counts, ScoreTable};
use crate::{Error, Result};

/// Counts of labels and predictions: `count(i, j)` is the number of items of the class `labels()[i]` that were predicted
/// as `labels()[j]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix<L> {
    labels: Vec<L>,
    /// Row by row, with a row per true class.
    counts: Vec<usize>,
}

impl<L: Ord + Clone> ConfusionMatrix<L> {
    /// Counts labels and predictions. The classes are all values of both lists, in ascending order.
    ///
    /// # Errors
    ///
    /// If the lists are empty or differ in length.
    pub fn new(labels: &[L], predictions: &[L]) -> Result<Self> {
        if labels.is_empty() || labels.len() != predictions.len() {
            return Err(Error::Input(format!(
                "{} labels and {} predictions: the numbers must be equal, and at least one",
                labels.len(),
                predictions.len()
            )));
        }
        let mut classes: Vec<L> = labels.iter().chain(predictions).cloned().collect();
        classes.sort();
        classes.dedup();
        let mut counts = vec![0; classes.len() * classes.len()];
        let place = |label: &L| classes.partition_point(|class| class < label);
        for (label, prediction) in labels.iter().zip(predictions) {
            counts[place(label) * classes.len() + place(prediction)] += 1;
        }
        Ok(Self {
            labels: classes,
            counts,
        })
    }
}

impl<L> ConfusionMatrix<L> {
    /// The classes, in ascending order.
    pub fn labels(&self) -> &[L] {
        &self.labels
    }

    /// The number of items of class `label` that were predicted as `prediction`, both as indices in
    /// [`labels`](Self::labels).
    ///
    /// # Panics
    ///
    /// If an index is out of range.
    pub fn count(&self, label: usize, prediction: usize) -> usize {
        assert!(prediction < self.labels.len(), "there is no such class");
        self.counts[label * self.labels.len() + prediction]
    }

    /// The number of items of each true class.
    fn actual(&self, class: usize) -> usize {
        (0..self.labels.len()).map(|j| self.count(class, j)).sum()
    }

    /// The number of items of each predicted class.
    fn predicted(&self, class: usize) -> usize {
        (0..self.labels.len()).map(|i| self.count(i, class)).sum()
    }

    fn total(&self) -> usize {
        self.counts.iter().sum()
    }

    fn correct(&self) -> usize {
        (0..self.labels.len()).map(|i| self.count(i, i)).sum()
    }

    /// The share of correct predictions.
    pub fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.total() as f64
    }

    /// The mean recall of the classes with at least one item.
    pub fn balanced_accuracy(&self) -> f64 {
        let recalls: Vec<f64> = (0..self.labels.len())
            .map(|class| (self.count(class, class) as f64, self.actual(class) as f64))
            .filter(|(_, actual)| *actual > 0.0)
            .map(|(correct, actual)| correct / actual)
            .collect();
        recalls.iter().sum::<f64>() / recalls.len() as f64
    }

    /// Matthews' correlation of any number of classes (Gorodkin, 2004, doi:10.1016/j.compbiolchem.2004.09.006), from −1
    /// to 1; 0 if all labels or all predictions are one class.
    pub fn matthews(&self) -> f64 {
        let (correct, total) = (self.correct() as f64, self.total() as f64);
        let classes = 0..self.labels.len();
        let actual: Vec<f64> = classes.clone().map(|i| self.actual(i) as f64).collect();
        let predicted: Vec<f64> = classes.map(|i| self.predicted(i) as f64).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let covariance = correct * total - dot(&actual, &predicted);
        let spread =
            (total * total - dot(&predicted, &predicted)) * (total * total - dot(&actual, &actual));
        if spread == 0.0 {
            0.0
        } else {
            covariance / spread.sqrt()
        }
    }

    /// Precision, recall and F by class, and their averages. `beta` is the weight of recall; 1 gives F1.
    pub fn scores(&self, beta: f64) -> ScoreTable<&L> {
        let counts = self.labels.iter().enumerate().map(|(class, label)| {
            let counts = Counts {
                correct: self.count(class, class),
                predicted: self.predicted(class),
                actual: self.actual(class),
            };
            (label, counts)
        });
        ScoreTable::new(counts.collect(), beta)
    }
}
