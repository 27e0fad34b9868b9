//! CommitmentBank: the mean of the F1 of its three classes.

use crate::harness::functions::{Function, FunctionRegistry, FunctionResult, MetricValue};

pub(super) fn register(registry: &mut FunctionRegistry) {
    registry.insert("cb/aggregate.cb_multi_fi", Function::Aggregation(mean_f1));
}

/// `values` are pairs of classes: the correct one and the selected one. A class that is in neither has an F1 of 0, as in
/// scikit-learn.
fn mean_f1(values: &[MetricValue]) -> FunctionResult<f64> {
    let pairs: Vec<(f64, f64)> = values
        .iter()
        .map(|value| match value {
            MetricValue::List(pair) => match &pair[..] {
                [gold, chosen] => Some((gold.as_number()?, chosen.as_number()?)),
                _ => None,
            },
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or("the F1 of the classes needs pairs of classes")?;
    let f1 = |class: f64| {
        let golds = pairs.iter().filter(|pair| pair.0 == class).count();
        let chosen = pairs.iter().filter(|pair| pair.1 == class).count();
        let both = pairs.iter().filter(|pair| **pair == (class, class)).count();
        match golds + chosen {
            0 => 0.0,
            all => 2.0 * both as f64 / all as f64,
        }
    };
    Ok((f1(0.0) + f1(1.0) + f1(2.0)) / 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_equal_weight_whatever_their_size() {
        let pair = |gold, chosen| {
            MetricValue::List(vec![MetricValue::Int(gold), MetricValue::Int(chosen)])
        };
        // F1: 4/5 for 0, 2/3 for 1, and 0 for 2, which does not occur.
        let values = [pair(0, 0), pair(0, 0), pair(0, 1), pair(1, 1)];
        let mean = mean_f1(&values).unwrap();
        assert!((mean - (0.8 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert!(mean_f1(&[MetricValue::Int(1)]).is_err());
    }
}
