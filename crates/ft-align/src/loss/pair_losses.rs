//! A weighted mixture of losses of pairs.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Tensor;

use super::{PairLogps, PairLoss, PairSettings};
use crate::Error;

/// Losses of pairs with weights, written `sigmoid` or `sigmoid:0.8,bco_pair:0.2,sft:1`.
///
/// The latter is mixed preference optimization (MPO; Wang et al., 2024, arXiv:2411.10442). A weight that is
/// left out is 1.
///
/// ```
/// use ft_align::loss::PairLosses;
///
/// let mpo: PairLosses = "sigmoid:0.8,bco_pair:0.2,sft".parse()?;
/// assert_eq!(mpo.to_string(), "sigmoid:0.8,bco_pair:0.2,sft:1");
/// assert!("sigmoid:high".parse::<PairLosses>().is_err());
/// # Ok::<(), ft_align::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PairLosses(Vec<(PairLoss, f64)>);

impl From<PairLoss> for PairLosses {
    fn from(loss: PairLoss) -> Self {
        Self(vec![(loss, 1.0)])
    }
}

impl PairLosses {
    /// The losses and their weights.
    pub fn terms(&self) -> &[(PairLoss, f64)] {
        &self.0
    }

    /// Whether the settings make sense for all losses; `weighted` if pairs will have weights.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with all mistakes.
    pub fn check(&self, settings: &PairSettings, weighted: bool) -> Result<(), Error> {
        let mut mistakes: Vec<_> = self
            .0
            .iter()
            .flat_map(|(l, _)| l.mistakes(settings, weighted))
            .collect();
        let smooths = self.0.iter().any(|(loss, _)| loss.smooths_labels());
        if !smooths && settings.label_smoothing != 0.0 {
            mistakes.push(format!(
                "label_smoothing has no effect on {self}: leave it out, or use sigmoid, robust, exo_pair, aot or aot_unpaired"
            ));
        }
        let plain = PairSettings::default();
        let any = |wanted: fn(PairLoss) -> bool| self.0.iter().any(|&(loss, _)| wanted(loss));
        if !any(|loss| loss == PairLoss::Discopop) && settings.discopop_tau != plain.discopop_tau {
            mistakes.push(format!(
                "discopop_tau has no effect on {self}: leave it out, or use discopop"
            ));
        }
        if !any(|loss| loss != PairLoss::Sft) && settings.f_divergence != plain.f_divergence {
            mistakes.push(format!(
                "f_divergence has no effect on {self}: leave it out, or use another loss"
            ));
        }
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Error::Settings(mistakes)),
        }
    }

    /// The weighted sum of the losses of each pair, times [`PairLogps::weights`].
    ///
    /// The mean over the pairs is the loss of the batch.
    ///
    /// # Shapes
    ///
    /// - result: `[pairs]`. Entries of `aot` and `aot_unpaired` belong to ranks, those of `sft` depend on the batch.
    pub fn compute(&self, pairs: &PairLogps, settings: &PairSettings) -> Tensor<1> {
        let mut sum = pairs.chosen.zeros_like();
        for &(loss, weight) in &self.0 {
            sum = sum + loss.compute(pairs, settings) * weight;
        }
        match &pairs.weights {
            Some(weights) => sum * weights.clone().detach(),
            None => sum,
        }
    }
}

impl fmt::Display for PairLosses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(loss, 1.0)] = self.0[..] {
            return loss.fmt(f);
        }
        for (i, (loss, weight)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{loss}:{weight}")?;
        }
        Ok(())
    }
}

impl FromStr for PairLosses {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut terms: Vec<(PairLoss, f64)> = Vec::new();
        for term in text.split(',').map(str::trim) {
            let wrong = |reason: &str| Error::Number {
                text: term.into(),
                reason: reason.into(),
            };
            let (name, weight) = match term.split_once(':') {
                Some((name, weight)) => (name, weight.parse::<f64>()),
                None => (term, Ok(1.0)),
            };
            let loss: PairLoss = name.parse()?;
            let weight = match weight {
                Ok(weight) if weight.is_finite() && weight >= 0.0 => weight,
                _ => {
                    return Err(wrong(
                        "the weight after the colon must be a number, at least 0",
                    ));
                }
            };
            if terms.iter().any(|(other, _)| *other == loss) {
                return Err(wrong("the loss is named twice: add the weights"));
            }
            terms.push((loss, weight));
        }
        Ok(Self(terms))
    }
}
