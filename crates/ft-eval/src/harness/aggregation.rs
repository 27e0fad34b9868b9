//! Aggregation of a metric's values on all documents to one number with a standard error.
//!
//! The standard error of a mean is `s / sqrt(n)` with `n - 1` in `s`. Those of median, perplexity,
//! F1, Matthews, `nanmean` and the measures of translations come from the bootstrap (Efron, 1979) with the same draws as
//! in lm-evaluation-harness: chunk `i` of at most 1000 resamples is drawn by Python's
//! `random.Random(i).choices`. Other aggregations have none.
//! An exponential that overflows, which is an exception in Python, is infinite.

use rayon::prelude::*;

use super::PythonRandom;
use super::functions::{FunctionResult, MetricValue};
use crate::text::{BleuOptions, ChrfOptions, TerOptions, corpus_bleu, corpus_chrf, corpus_ter};

/// A function from the values of all documents to one number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aggregation {
    Mean,
    Median,
    NanMean,
    Perplexity,
    WeightedPerplexity,
    BitsPerByte,
    F1,
    Matthews,
    BrierScore,
    Bypass,
    Translation(Translation),
    Function(fn(&[MetricValue]) -> FunctionResult<f64>),
}

/// A measure of generated texts against reference texts, over the whole corpus.
#[derive(Clone, Copy, Debug)]
pub(super) enum Translation {
    Bleu,
    Chrf,
    ChrfPlusPlus,
    Ter,
}

impl Translation {
    /// The score of pairs `(reference, generated text)`, with sacreBLEU's defaults.
    fn of(self, pairs: &[(&str, &str)]) -> Result<f64, String> {
        let predictions: Vec<&str> = pairs.iter().map(|(_, text)| *text).collect();
        let references: Vec<[&str; 1]> = pairs.iter().map(|(gold, _)| [*gold]).collect();
        let chrf = |word_order| {
            let options = ChrfOptions {
                word_order,
                ..ChrfOptions::default()
            };
            corpus_chrf(&predictions, &references, &options).map(|chrf| chrf.score)
        };
        let score = match self {
            Translation::Bleu => corpus_bleu(&predictions, &references, &BleuOptions::default())
                .map(|bleu| bleu.score),
            Translation::Chrf => chrf(0),
            Translation::ChrfPlusPlus => chrf(2),
            Translation::Ter => {
                corpus_ter(&predictions, &references, &TerOptions::default()).map(|ter| ter.score)
            }
        };
        score.map_err(|error| error.to_string())
    }
}

const NAMES: [(&str, Aggregation); 14] = [
    ("bypass", Aggregation::Bypass),
    ("nanmean", Aggregation::NanMean),
    ("mean", Aggregation::Mean),
    ("median", Aggregation::Median),
    ("perplexity", Aggregation::Perplexity),
    ("weighted_perplexity", Aggregation::WeightedPerplexity),
    ("bits_per_byte", Aggregation::BitsPerByte),
    ("f1", Aggregation::F1),
    ("matthews_corrcoef", Aggregation::Matthews),
    ("brier_score", Aggregation::BrierScore),
    ("bleu", Aggregation::Translation(Translation::Bleu)),
    ("chrf", Aggregation::Translation(Translation::Chrf)),
    (
        "chrf++",
        Aggregation::Translation(Translation::ChrfPlusPlus),
    ),
    ("ter", Aggregation::Translation(Translation::Ter)),
];

impl Aggregation {
    pub(super) fn by_name(name: &str) -> Option<Aggregation> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, aggregation)| *aggregation)
    }

    pub(super) fn names() -> Vec<&'static str> {
        NAMES.iter().map(|(name, _)| *name).collect()
    }

    /// The number for these values.
    pub(super) fn of(self, values: &[MetricValue]) -> Result<f64, String> {
        if values.is_empty() {
            return Err("no document has a value".to_string());
        }
        match self {
            Aggregation::Bypass => Ok(999.0),
            Aggregation::Function(function) => Ok(function(values)?),
            Aggregation::BrierScore => brier_score(values),
            Aggregation::Translation(measure) => {
                let pairs: Vec<(&str, &str)> =
                    values.iter().map(texts).collect::<Result<_, _>>()?;
                measure.of(&pairs)
            }
            Aggregation::WeightedPerplexity | Aggregation::BitsPerByte => {
                let (weights, totals): (Vec<f64>, Vec<f64>) =
                    values.iter().map(pair).collect::<Result<_, _>>()?;
                let mean = weights.iter().sum::<f64>() / totals.iter().sum::<f64>();
                Ok(match self {
                    Aggregation::BitsPerByte => -mean / std::f64::consts::LN_2,
                    _ => (-mean).exp(),
                })
            }
            Aggregation::F1 | Aggregation::Matthews => {
                let pairs: Vec<(f64, f64)> = values.iter().map(pair).collect::<Result<_, _>>()?;
                self.of_pairs(&pairs)
            }
            _ => Ok(self.of_numbers(&numbers(values)?)),
        }
    }

    fn of_numbers(self, values: &[f64]) -> f64 {
        match self {
            Aggregation::Median => {
                let mut sorted = values.to_vec();
                sorted.sort_by(f64::total_cmp);
                sorted[sorted.len() / 2]
            }
            Aggregation::NanMean => {
                let (sum, count) = values
                    .iter()
                    .filter(|value| !value.is_nan())
                    .fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
                sum / count
            }
            Aggregation::Perplexity => (-mean(values)).exp(),
            _ => mean(values),
        }
    }

    fn of_pairs(self, pairs: &[(f64, f64)]) -> Result<f64, String> {
        match self {
            Aggregation::F1 => f1(pairs),
            _ => Ok(matthews(pairs)),
        }
    }

    /// The standard error with `iterations` resamples; `None`: this aggregation has none.
    pub(super) fn standard_error(
        self,
        values: &[MetricValue],
        iterations: usize,
    ) -> Result<Option<f64>, String> {
        if iterations == 0 || values.len() < 2 {
            return Ok(None);
        }
        match self {
            Aggregation::Mean => {
                let values = numbers(values)?;
                Ok(Some(
                    sample_deviation(&values) / (values.len() as f64).sqrt(),
                ))
            }
            Aggregation::Median | Aggregation::NanMean | Aggregation::Perplexity => {
                let values = numbers(values)?;
                bootstrap(
                    &values,
                    iterations,
                    |resample| Ok(self.of_numbers(resample)),
                )
                .map(Some)
            }
            Aggregation::F1 | Aggregation::Matthews => {
                let pairs: Vec<(f64, f64)> = values.iter().map(pair).collect::<Result<_, _>>()?;
                bootstrap(&pairs, iterations, |resample| self.of_pairs(resample)).map(Some)
            }
            Aggregation::Translation(measure) => {
                let pairs: Vec<(&str, &str)> =
                    values.iter().map(texts).collect::<Result<_, _>>()?;
                // The reference has the same limit.
                let iterations = iterations.min(100);
                bootstrap(&pairs, iterations, |resample| measure.of(resample)).map(Some)
            }
            _ => Ok(None),
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard deviation with `n - 1`.
fn sample_deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

fn numbers(values: &[MetricValue]) -> Result<Vec<f64>, String> {
    values
        .iter()
        .map(|value| {
            value
                .as_number()
                .ok_or_else(|| format!("{value:?} is not a number: choose another aggregation"))
        })
        .collect()
}

fn pair(value: &MetricValue) -> Result<(f64, f64), String> {
    if let MetricValue::List(items) = value
        && let [first, second] = &items[..]
        && let (Some(first), Some(second)) = (first.as_number(), second.as_number())
    {
        return Ok((first, second));
    }
    Err(format!(
        "{value:?} is not a pair of numbers: choose another aggregation"
    ))
}

fn texts(value: &MetricValue) -> Result<(&str, &str), String> {
    match value {
        MetricValue::List(items) => match &items[..] {
            [MetricValue::Text(gold), MetricValue::Text(text)] => {
                Some((gold.as_str(), text.as_str()))
            }
            _ => None,
        },
        _ => None,
    }
    .ok_or_else(|| format!("{value:?} is not a pair of texts: choose another aggregation"))
}

fn bootstrap<T: Copy + Sync>(
    values: &[T],
    iterations: usize,
    statistic: impl Fn(&[T]) -> Result<f64, String> + Sync,
) -> Result<f64, String> {
    let chunk = iterations.min(1000);
    let chunks: Vec<Vec<f64>> = (0..iterations / chunk)
        .into_par_iter()
        .map(|seed| {
            let mut random = PythonRandom::new(seed as u64);
            let mut resample = Vec::with_capacity(values.len());
            (0..chunk)
                .map(|_| {
                    resample.clear();
                    resample
                        .extend((0..values.len()).map(|_| values[random.choice_of(values.len())]));
                    statistic(&resample)
                })
                .collect()
        })
        .collect::<Result<_, String>>()?;
    Ok(sample_deviation(&chunks.concat()))
}

/// The classes in ascending order. A linear search suffices, since there are few.
fn labels(pairs: &[(f64, f64)]) -> Vec<f64> {
    let mut labels: Vec<f64> = Vec::new();
    for label in pairs.iter().flat_map(|(gold, pred)| [*gold, *pred]) {
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    labels.sort_by(f64::total_cmp);
    labels
}

/// F1 of the class 1, as scikit-learn's `f1_score` of two classes; 0 where it is undefined.
fn f1(pairs: &[(f64, f64)]) -> Result<f64, String> {
    let labels = labels(pairs);
    if labels.len() > 2 || (labels.len() == 2 && !labels.contains(&1.0)) {
        return Err(format!(
            "f1 is for the classes 0 and 1, but there are {labels:?}: use another aggregation"
        ));
    }
    let count = |gold: bool, pred: bool| {
        pairs
            .iter()
            .filter(|pair| (pair.0 == 1.0) == gold && (pair.1 == 1.0) == pred)
            .count() as f64
    };
    let hits = count(true, true);
    let denominator = 2.0 * hits + count(true, false) + count(false, true);
    Ok(if denominator == 0.0 {
        0.0
    } else {
        2.0 * hits / denominator
    })
}

/// Matthews' correlation of any number of classes (Gorodkin, 2004), as scikit-learn's
/// `matthews_corrcoef`; 0 where it is undefined.
fn matthews(pairs: &[(f64, f64)]) -> f64 {
    let labels = labels(pairs);
    let (mut golds, mut preds) = (vec![0.0; labels.len()], vec![0.0; labels.len()]);
    let mut correct = 0.0;
    let index = |label: f64| labels.partition_point(|known| *known < label);
    for &(gold, pred) in pairs {
        golds[index(gold)] += 1.0;
        preds[index(pred)] += 1.0;
        correct += f64::from(u8::from(gold == pred));
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let total = pairs.len() as f64;
    let both = correct * total - dot(&golds, &preds);
    let spread = (total * total - dot(&preds, &preds)) * (total * total - dot(&golds, &golds));
    if spread == 0.0 {
        0.0
    } else {
        both / spread.sqrt()
    }
}

/// The mean squared distance between the probabilities of the choices and the correct one (Brier, 1950).
fn brier_score(values: &[MetricValue]) -> Result<f64, String> {
    let wrong = || {
        "the Brier score needs the correct choice and the probabilities of all choices".to_string()
    };
    let mut classes = None;
    let mut sum = 0.0;
    for value in values {
        let MetricValue::List(items) = value else {
            return Err(wrong());
        };
        let [MetricValue::Int(gold), MetricValue::List(probabilities)] = &items[..] else {
            return Err(wrong());
        };
        let probabilities = numbers(probabilities)?;
        let count = probabilities.len() as i64;
        if *classes.get_or_insert(count) != count {
            return Err(
                "the Brier score needs the same number of choices for every document".to_string(),
            );
        }
        // Python counts negative indices from the end.
        let right = if *gold < 0 { gold + count } else { *gold };
        if !(0..count).contains(&right) {
            return Err(format!(
                "the correct choice is {gold}, but there are {count} choices"
            ));
        }
        sum += probabilities
            .iter()
            .enumerate()
            .map(|(i, p)| (p - f64::from(u8::from(i as i64 == right))).powi(2))
            .sum::<f64>();
    }
    Ok(sum / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[f64]) -> MetricValue {
        MetricValue::List(items.iter().map(|&item| item.into()).collect())
    }

    #[test]
    fn means_medians_and_perplexities_follow_their_formulas() {
        let values: Vec<MetricValue> = [1.0, 0.0, 1.0, 1.0].map(MetricValue::from).to_vec();
        assert_eq!(Aggregation::Mean.of(&values), Ok(0.75));
        // s = 1/2, so the error of the mean of four is 1/4.
        assert_eq!(Aggregation::Mean.standard_error(&values, 1), Ok(Some(0.25)));
        assert_eq!(Aggregation::Median.of(&values), Ok(1.0));
        let rolling = [list(&[-6.0, 2.0]), list(&[-2.0, 2.0])];
        assert_eq!(Aggregation::WeightedPerplexity.of(&rolling), Ok(2f64.exp()));
        assert_eq!(Aggregation::BitsPerByte.of(&rolling), Ok(2.0 / 2f64.ln()));
        assert_eq!(
            Aggregation::BitsPerByte.standard_error(&rolling, 1000),
            Ok(None)
        );
    }

    #[test]
    fn values_of_the_wrong_kind_are_errors() {
        assert!(Aggregation::Mean.of(&[list(&[1.0, 2.0])]).is_err());
        assert!(Aggregation::F1.of(&[MetricValue::Int(1)]).is_err());
        assert!(Aggregation::F1.of(&[list(&[0.0, 2.0])]).is_err());
        assert!(Aggregation::Mean.of(&[]).is_err());
    }
}
