//! Two adapters side by side: settings, and how alike their changes of the weights are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use burn::tensor::Tensor;
use ft_core::{Part, Parts};
use serde::Serialize;
use serde_json::Value;

use crate::merge::change;
use crate::rounding::norm;
use crate::switch::{adapter_config, check_known};
use crate::table::Table;
use crate::{Error, Result};

/// Two adapters of a model. Displayed, it is two tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The names of the adapters.
    pub adapters: [String; 2],
    /// Settings that differ, with both values; null where a method does not have the setting.
    pub settings: BTreeMap<String, [Value; 2]>,
    /// Each layer that one of them is on.
    pub layers: Vec<LayerComparison>,
    /// `‖Δ₁‖` and `‖Δ₂‖` of all layers together.
    pub norms: [f64; 2],
    /// `⟨Δ₁, Δ₂⟩ / (‖Δ₁‖·‖Δ₂‖)` of all layers together; none if one of them changes nothing.
    pub cosine: Option<f64>,
}

/// The changes of one layer's weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerComparison {
    /// The path of the layer.
    pub layer: String,
    /// `‖Δ₁‖` and `‖Δ₂‖`; zero where the adapter is not.
    pub norms: [f64; 2],
    /// `⟨Δ₁, Δ₂⟩ / (‖Δ₁‖·‖Δ₂‖)`: 1 if they change the weight in the same direction, 0 if their directions have nothing in
    /// common. None if one of them changes nothing.
    pub cosine: Option<f64>,
}

/// Compares two adapters by their settings and their changes of weights, each on its own.
///
/// # Errors
///
/// If there is no adapter of one of the names, or one changes more than weights of linear layers.
pub fn compare(model: &impl Parts, first: &str, second: &str) -> Result<Comparison> {
    check_known(model, &[first, second])?;
    let names = [first, second];
    let settings = settings(model, names)?;
    let (mut layers, mut products, mut failure) = (Vec::new(), Vec::new(), None);
    model.for_each_part(&mut |path, part| {
        if failure.is_some() {
            return;
        }
        match changes(path, part, names) {
            Ok([None, None]) => {}
            Ok(changes) => {
                let norms = changes.clone().map(|change| change.map_or(0.0, norm));
                let [left, right] = changes;
                let product = left.zip(right).map_or(0.0, |(left, right)| {
                    f64::from((left * right).sum().into_scalar::<f32>())
                });
                products.push(product);
                layers.push(LayerComparison {
                    layer: path.to_string(),
                    norms,
                    cosine: cosine(product, norms),
                });
            }
            Err(error) => failure = Some(error),
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let norm = |i: usize| {
        layers
            .iter()
            .map(|layer| layer.norms[i].powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let norms = [norm(0), norm(1)];
    Ok(Comparison {
        adapters: names.map(str::to_string),
        settings,
        cosine: cosine(products.iter().sum(), norms),
        layers,
        norms,
    })
}

fn cosine(product: f64, norms: [f64; 2]) -> Option<f64> {
    let both = norms[0] * norms[1];
    (both > 0.0).then(|| product / both)
}

/// What each of two adapters does to the weight of a layer, if it is there.
fn changes(path: &str, part: Part<'_>, names: [&str; 2]) -> Result<[Option<Tensor<2>>; 2]> {
    let of = |name: &str| -> Result<Option<Tensor<2>>> {
        let mut adapters = part
            .adapters()
            .iter()
            .filter(|adapter| adapter.name == name);
        let (Some(adapter), other) = (adapters.next(), adapters.next()) else {
            return Ok(None);
        };
        match (part, other) {
            (Part::Linear(linear), None) => change(path, linear, adapter).map(Some),
            _ => Err(Error::Settings(format!(
                "adapter {name:?} changes more of {path} than the weight of a linear layer, which is not compared"
            ))),
        }
    };
    Ok([of(names[0])?, of(names[1])?])
}

fn settings(model: &impl Parts, names: [&str; 2]) -> Result<BTreeMap<String, [Value; 2]>> {
    let of = |name| -> Result<_> {
        let config = adapter_config(model, name)?;
        let mut settings = config.own();
        settings.insert("peft_type".into(), config.peft_type().into());
        Ok(settings)
    };
    let [first, second] = [of(names[0])?, of(names[1])?];
    let keys: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let both = keys.into_iter().map(|key| {
        let value =
            |settings: &serde_json::Map<_, _>| settings.get(key).cloned().unwrap_or_default();
        (key.clone(), [value(&first), value(&second)])
    });
    Ok(both.filter(|(_, [left, right])| left != right).collect())
}

/// How wide the picture of a cosine is, on each side of zero.
const BAR: usize = 10;

/// A bar from zero to a cosine: `·····|####······`.
fn bar(cosine: Option<f64>) -> String {
    let Some(cosine) = cosine else {
        return String::new();
    };
    let length = (cosine.abs() * BAR as f64).round() as usize;
    let full = "#".repeat(length);
    let empty = "·".repeat(BAR - length.min(BAR));
    match cosine < 0.0 {
        true => format!("{empty}{full}|{}", "·".repeat(BAR)),
        false => format!("{}|{full}{empty}", "·".repeat(BAR)),
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = &self.adapters;
        let mut settings = Table::new(["setting", first, second]);
        for (name, [left, right]) in &self.settings {
            settings.row([name.clone(), left.to_string(), right.to_string()]);
        }
        let titles = [format!("norm of {first}"), format!("norm of {second}")];
        let mut layers = Table::new([
            "layer",
            &titles[0],
            &titles[1],
            "cosine",
            "-1        0        1",
        ]);
        let mut row = |name: &str, norms: [f64; 2], cosine: Option<f64>| {
            let cosines = cosine.map_or(String::new(), |cosine| format!("{cosine:.3}"));
            let [left, right] = norms.map(|norm| format!("{norm:.4}"));
            layers.row([name.to_string(), left, right, cosines, bar(cosine)]);
        };
        for layer in &self.layers {
            row(&layer.layer, layer.norms, layer.cosine);
        }
        row("all", self.norms, self.cosine);
        match self.settings.is_empty() {
            true => writeln!(f, "the settings of {first} and {second} are the same\n")?,
            false => writeln!(f, "{settings}\n")?,
        }
        layers.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_begins_at_zero() {
        assert_eq!(bar(Some(0.5)), "··········|#####·····");
        assert_eq!(bar(Some(-1.0)), "##########|··········");
        assert_eq!(bar(None), "");
    }
}
