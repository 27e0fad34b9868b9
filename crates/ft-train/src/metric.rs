//! Metrics: named sums with weights, reduced over a window or an evaluation as the loss is.

use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Deserializer};

/// Reduced metrics by name: `Σ sums / Σ weights`.
pub type Metrics = BTreeMap<String, f64>;

/// One metric of one batch.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name in log and report.
    pub name: String,
    /// The sum.
    pub sum: MetricSum,
    /// What the sum is divided by. A metric of weight 0 is ignored.
    pub weight: f64,
}

/// The sum of a metric.
#[derive(Clone, Debug)]
pub enum MetricSum {
    /// A number.
    Number(f64),
    /// A tensor of one element, which is read when the losses are.
    Tensor(Box<Tensor<1>>),
}

impl From<f64> for MetricSum {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<Tensor<1>> for MetricSum {
    fn from(tensor: Tensor<1>) -> Self {
        Self::Tensor(Box::new(tensor))
    }
}

impl MetricSum {
    /// The number; a tensor is read from its device.
    pub fn value(&self) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Tensor(tensor) => (**tensor).clone().into_scalar::<f64>(),
        }
    }
}

impl Metric {
    /// # Panics
    ///
    /// If the weight is negative or not finite, or the tensor has not one element.
    pub(crate) fn new(name: String, sum: MetricSum, weight: f64) -> Self {
        assert!(
            weight >= 0.0 && weight.is_finite(),
            "the weight of metric `{name}` is {weight}"
        );
        let sum = match sum {
            MetricSum::Tensor(tensor) => {
                let dims = tensor.dims();
                assert_eq!(dims, [1], "metric `{name}` is a tensor of one element");
                MetricSum::Tensor(Box::new(tensor.inner().cast(DType::F32)))
            }
            number => number,
        };
        Self { name, sum, weight }
    }
}

/// Metrics that are being added up.
#[derive(Debug, Default)]
pub(crate) struct MetricSums {
    numbers: BTreeMap<String, (f64, f64)>,
    /// Names of those whose sums are still on their device.
    waiting: Vec<(String, f64)>,
    tensors: Vec<Tensor<1>>,
}

impl MetricSums {
    pub(crate) fn add(&mut self, metrics: Vec<Metric>) {
        for Metric { name, sum, weight } in metrics {
            match sum {
                _ if weight == 0.0 => {}
                MetricSum::Number(sum) => self.add_number(name, sum, weight),
                MetricSum::Tensor(sum) => {
                    self.waiting.push((name, weight));
                    self.tensors.push(*sum);
                }
            }
        }
    }

    /// Reads what is still on a device, at once.
    pub(crate) fn reduce(mut self) -> Metrics {
        if !self.tensors.is_empty() {
            let read = Tensor::cat(std::mem::take(&mut self.tensors), 0).into_data();
            let waiting = std::mem::take(&mut self.waiting);
            for ((name, weight), sum) in waiting.into_iter().zip(read.iter::<f64>()) {
                self.add_number(name, sum, weight);
            }
        }
        let means = self.numbers.into_iter();
        means
            .map(|(name, (sum, weight))| (name, sum / weight))
            .collect()
    }

    fn add_number(&mut self, name: String, sum: f64, weight: f64) {
        let (sums, weights) = self.numbers.entry(name).or_default();
        *sums += sum;
        *weights += weight;
    }
}

/// JSON has no numbers that are not finite, and writes null instead.
pub(crate) fn nan_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Metrics, D::Error> {
    let read = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    let with_nan = read.into_iter();
    Ok(with_nan
        .map(|(name, value)| (name, value.unwrap_or(f64::NAN)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// `(1 + 4) / (1 + 2)`; a weight of 0 counts for nothing, whatever its sum is.
    #[test]
    fn sums_are_divided_once_by_all_weights() {
        let device = Device::default();
        let metric = |sum: MetricSum, weight| Metric::new("x".into(), sum, weight);
        let mut sums = MetricSums::default();
        sums.add(vec![metric(1.0.into(), 1.0)]);
        sums.add(vec![
            metric(Tensor::from_data([4.0], &device).into(), 2.0),
            metric(f64::NAN.into(), 0.0),
        ]);
        let means = sums.reduce();
        assert_eq!(
            means.into_iter().collect::<Vec<_>>(),
            [("x".into(), 5.0 / 3.0)]
        );
    }
}
