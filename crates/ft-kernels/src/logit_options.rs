//! A factor and a soft cap for logits, as some models have them after the head.
//!
//! `z = s·x`, or with a cap `c`: `z = c·tanh(s·x / c)`, where `x = h·Wᵀ`.

use burn::tensor::Tensor;

/// The factor and the cap of a model's logits; the default changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitOptions {
    /// A factor of all logits, before the cap (Cohere's `logit_scale`).
    pub scale: f64,
    /// `c·tanh(z / c)` (Gemma's `final_logit_softcapping`).
    pub softcap: Option<f64>,
}

impl Default for LogitOptions {
    fn default() -> Self {
        Self {
            scale: 1.0,
            softcap: None,
        }
    }
}

impl LogitOptions {
    /// The options for logits that are divided by a temperature after the cap, as in sampling.
    ///
    /// Scale and cap are both divided, since `c·tanh(s·x / c) / T = (c/T)·tanh((s/T)·x / (c/T))`.
    ///
    /// ```
    /// use ft_kernels::LogitOptions;
    ///
    /// let gemma = LogitOptions { softcap: Some(30.0), ..Default::default() };
    /// let hot = gemma.at_temperature(2.0);
    /// assert_eq!(hot, LogitOptions { scale: 0.5, softcap: Some(15.0) });
    /// ```
    #[must_use]
    pub fn at_temperature(self, temperature: f64) -> Self {
        Self {
            scale: self.scale / temperature,
            softcap: self.softcap.map(|cap| cap / temperature),
        }
    }

    /// Applies scale and cap to the output of the head.
    pub fn apply<const D: usize>(self, logits: Tensor<D>) -> Tensor<D> {
        let logits = self.scaled(logits);
        match self.softcap {
            None => logits,
            Some(cap) => (logits / cap).tanh() * cap,
        }
    }

    /// `s·x`, without an operation if `s = 1`.
    pub(crate) fn scaled<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        if self.scale == 1.0 { x } else { x * self.scale }
    }

    /// The slope of the cap for `logits` from [`apply`](Self::apply): `1 − (z/c)²`.
    pub(crate) fn slope_of_cap<const D: usize>(self, logits: &Tensor<D>) -> Option<Tensor<D>> {
        let cap = self.softcap?;
        Some(-(logits.clone() / cap).square() + 1.0)
    }

    /// # Panics
    ///
    /// If the scale is not a finite number, or the cap is not positive.
    pub(crate) fn check(self) {
        let Self { scale, softcap } = self;
        assert!(scale.is_finite(), "a logit scale of {scale}");
        if let Some(cap) = softcap {
            assert!(cap > 0.0 && cap.is_finite(), "a softcap of {cap}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tolerance};

    /// 2·3 = 6, capped at 4: 4·tanh(1.5) = 4·0.905148254 = 3.620593014; its slope is
    /// 1 − 0.905148254² = 0.180706639.
    #[test]
    fn scale_comes_before_cap() {
        let options = LogitOptions {
            scale: 2.0,
            softcap: Some(4.0),
        };
        let z = options.apply(Tensor::<1>::from_data([3.0], &Device::default()));
        let slope = options.slope_of_cap(&z).expect("there is a cap");
        let found = Tensor::cat(vec![z, slope], 0).into_data();
        let expected =
            Tensor::<1>::from_data([3.620_593, 0.180_706_64], &Device::default()).into_data();
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
    }
}
