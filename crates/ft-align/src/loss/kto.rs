//! Kahneman-Tversky optimization: single completions, desirable or not.

use burn::tensor::{Tensor, TensorData, activation::sigmoid};

/// Labels as tensors, `[rows]`.
pub(crate) struct Labels {
    /// 1 for desirable, −1 for undesirable.
    pub(crate) signs: Tensor<1>,
    /// 1 for desirable, 0 for undesirable.
    pub(crate) desirable: Tensor<1>,
}

pub(crate) fn labels(rows: &Tensor<1>, desirable: &[bool]) -> Labels {
    let [count] = rows.dims();
    assert_eq!(
        count,
        desirable.len(),
        "{count} rows and {} labels",
        desirable.len()
    );
    let numbers: Vec<f32> = desirable.iter().map(|&d| f32::from(u8::from(d))).collect();
    let desirable = Tensor::<1>::from_data(TensorData::new(numbers, [count]), &rows.device());
    Labels {
        signs: desirable.clone() * 2.0 - 1.0,
        desirable,
    }
}

/// How much desirable and undesirable completions count: λ_D and λ_U.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KtoWeights {
    /// λ_D.
    pub desirable: f64,
    /// λ_U.
    pub undesirable: f64,
}

impl Default for KtoWeights {
    fn default() -> Self {
        Self {
            desirable: 1.0,
            undesirable: 1.0,
        }
    }
}

impl KtoWeights {
    /// The weights for so many completions of both kinds: the rarer kind counts more, so that both count equally in
    /// sum.
    /// 1 and 1 if a kind is absent.
    ///
    /// ```
    /// use ft_align::loss::KtoWeights;
    ///
    /// let weights = KtoWeights::balanced(100, 400);
    /// assert_eq!((weights.desirable, weights.undesirable), (4.0, 1.0));
    /// assert!(weights.are_balanced(100, 400) && !KtoWeights::default().are_balanced(100, 400));
    /// ```
    pub fn balanced(desirable: usize, undesirable: usize) -> Self {
        if desirable == 0 || undesirable == 0 {
            return Self::default();
        }
        let (d, u) = (desirable as f64, undesirable as f64);
        Self {
            desirable: (u / d).max(1.0),
            undesirable: (d / u).max(1.0),
        }
    }

    /// Whether `λ_D n_D / (λ_U n_U)` is in `1..=4/3`, the range of equation 8 of the paper.
    pub fn are_balanced(self, desirable: usize, undesirable: usize) -> bool {
        let ratio = self.desirable * desirable as f64 / (self.undesirable * undesirable as f64);
        (1.0 - 1e-9..=4.0 / 3.0 + 1e-9).contains(&ratio)
    }
}

/// KTO: `λ_D σ(−β(u − z))` for a desirable completion, `λ_U σ(β(u − z))` for an undesirable one.
///
/// Equation 7 of Ethayarajh et al., 2024 (arXiv:2402.01306): `λ − v`, with `1 − σ(x) = σ(−x)`.
/// `z` is the reference point of [`kto_kl`], a constant.
///
/// # Shapes
///
/// - `log_ratios`: `u`, `[rows]`
/// - `desirable`: one label per row
/// - `z`: `[1]`
/// - result: `[rows]`
///
/// # Panics
///
/// If there are not as many labels as rows.
pub fn kto(
    log_ratios: Tensor<1>,
    desirable: &[bool],
    z: Tensor<1>,
    beta: f64,
    weights: KtoWeights,
) -> Tensor<1> {
    let Labels { signs, desirable } = labels(&log_ratios, desirable);
    let weights = desirable * (weights.desirable - weights.undesirable) + weights.undesirable;
    sigmoid((log_ratios - z.detach()) * signs * -beta) * weights
}

/// The reference point `z = max(0, mean (lp(y'|x) − rlp(y'|x)))` of [`kto`], over completions `y'` of other prompts; a
/// constant.
///
/// An estimate of `KL(π‖π_ref)` (arXiv:2402.01306).
///
/// # Shapes
///
/// - `policy`, `reference`: summed log-probabilities of mismatched completions, `[rows]`
/// - result: `[1]`
///
/// # Panics
///
/// If there are no rows.
pub fn kto_kl(policy: Tensor<1>, reference: Tensor<1>) -> Tensor<1> {
    let [rows] = policy.dims();
    assert!(
        rows > 0,
        "the reference point needs at least one mismatched completion"
    );
    (policy.detach() - reference.detach()).mean().clamp_min(0.0)
}
