//! What the methods of LyCORIS (Yeh et al., 2023, arXiv:2309.14859) share: ranks, scales, and their kinds of dropout.

use burn::tensor::{Distribution, Tensor};
use ft_core::layers::At;

use crate::Pattern;
use crate::pattern::exception;

/// Settings of ranks and scales.
pub(crate) struct Ranks<'a> {
    pub(crate) r: usize,
    pub(crate) alpha: f64,
    pub(crate) rank_pattern: &'a Pattern<usize>,
    pub(crate) alpha_pattern: &'a Pattern<f64>,
    pub(crate) dropout: LycorisDropout,
}

impl<'a> Ranks<'a> {
    /// The rank of the layer at `path`.
    pub(crate) fn rank_of(&self, path: &str) -> usize {
        exception(self.rank_pattern, path).unwrap_or(self.r)
    }

    /// `α/r` of the layer at `path`.
    pub(crate) fn scaling_of(&self, path: &str) -> f64 {
        let alpha = exception(self.alpha_pattern, path).unwrap_or(self.alpha);
        alpha / self.rank_of(path) as f64
    }

    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self
            .rank_pattern
            .iter()
            .map(|(_, r)| r)
            .chain([&self.r])
            .any(|r| *r == 0)
        {
            mistakes.push("r must be at least 1".to_string());
        }
        for alpha in self
            .alpha_pattern
            .iter()
            .map(|(_, a)| a)
            .chain([&self.alpha])
        {
            if !alpha.is_finite() || *alpha <= 0.0 {
                mistakes.push(format!("alpha must be above 0, not {alpha}"));
            }
        }
        let dropouts = [
            ("rank_dropout", self.dropout.rank),
            ("module_dropout", self.dropout.module),
        ];
        for (name, dropout) in dropouts {
            if !(0.0..1.0).contains(&dropout) {
                mistakes.push(format!(
                    "{name} must be at least 0 and below 1, not {dropout}"
                ));
            }
        }
        mistakes
    }

    pub(crate) fn patterns(&self) -> Vec<(&'static str, &'a str)> {
        let ranks = self
            .rank_pattern
            .iter()
            .map(|(name, _)| ("rank_pattern", name.as_str()));
        let alphas = self
            .alpha_pattern
            .iter()
            .map(|(name, _)| ("alpha_pattern", name.as_str()));
        ranks.chain(alphas).collect()
    }
}

/// Dropout of whole rows of `ΔW`, and of all of it, while training.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LycorisDropout {
    /// The probability that a row is zero.
    pub(crate) rank: f64,
    /// Whether the other rows are divided by their share.
    pub(crate) rescaled: bool,
    /// The probability that all rows are zero.
    pub(crate) module: f64,
}

impl LycorisDropout {
    /// The probability that a number of `ΔW` is dropped. It is below one also where the sum is rounded to one.
    pub(crate) fn total(&self) -> f64 {
        (1.0 - (1.0 - self.rank) * (1.0 - self.module)).min(1.0 - f64::EPSILON)
    }

    /// The adapter's product, `[tokens, out]`, without what is dropped.
    pub(crate) fn apply(&self, at: &At<'_>, x: &Tensor<2>, product: Tensor<2>) -> Tensor<2> {
        if !at.adapter.drops_out(x) {
            return product;
        }
        let kept = |count: usize, dropped: f64| {
            Tensor::<2>::random(
                [1, count],
                Distribution::Bernoulli(1.0 - dropped),
                &x.device(),
            )
        };
        let mut product = product;
        if self.rank > 0.0 {
            let outputs = at.layer.out_features();
            let rows = kept(outputs, self.rank);
            let rows = match self.rescaled {
                // If all rows are dropped there is nothing to rescale.
                true => rows.clone() / rows.mean().clamp_min(1.0 / outputs as f64).unsqueeze(),
                false => rows,
            };
            product = product * rows;
        }
        match self.module > 0.0 {
            true => product * kept(1, self.module),
            false => product,
        }
    }
}
