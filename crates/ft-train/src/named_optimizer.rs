//! The optimizer that the settings of a run name: AdamW, or one of Burn's.
//!
//! | name | rule | state of a parameter |
//! |---|---|---|
//! | `adafactor` | Shazeer and Stern, 2018, arXiv:1804.04235, with the learning rate of the settings (transformers' `relative_step` and `scale_parameter` are off) | a number for each row and column of a matrix |
//! | `lion` | Chen et al., 2023, arXiv:2302.06675, with the `betas` of the settings | one moment |
//! | `sgd` | `w ← w − lr·(g + λ·w)` | none |
//! | `muon` | momentum of 0.95 whose singular values are brought to about 1, for parameters of rank 2 of hidden layers; AdamW for others. The step has the size of AdamW's: factor `0.2·√max(rows, columns)` (Liu et al., 2025, arXiv:2502.16982) | one moment |
//!
//! Muon is made for hidden layers. A trainer that knows the parts of its model
//! ([`Trainer::with_groups`](crate::Trainer::with_groups)) has AdamW for embeddings and the output layer; one that does not refuses
//! Muon.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::{
    Adafactor, AdafactorConfig, AdafactorState, AdjustLrFn, LearningRate, Lion, LionConfig,
    LionState, Muon, MuonConfig, MuonState, Optimizer, RecordState, Sgd, SgdConfig, StateSink,
    StateSource,
};
use burn::tensor::{Device, Tensor};

use crate::{AdamW, AdamWState, Optim, TrainConfig};

/// An optimizer that is made from the settings of a run.
pub trait FromConfig: Optimizer {
    /// As the settings have it.
    fn from_config(config: &TrainConfig) -> Self;

    /// The same with a factor that gradients are multiplied by on the way.
    #[must_use]
    fn with_scale(self, scale: f64) -> Self;
}

impl FromConfig for AdamW {
    fn from_config(config: &TrainConfig) -> Self {
        Self::new(config)
    }

    fn with_scale(self, scale: f64) -> Self {
        AdamW::with_scale(self, scale)
    }
}

/// The optimizer that [`TrainConfig::optim`] names.
#[derive(Clone)]
pub struct NamedOptimizer {
    kind: Kind,
    scale: f64,
}

#[derive(Clone)]
enum Kind {
    AdamW(AdamW),
    Adafactor(Adafactor),
    Lion(Lion),
    Sgd(Sgd),
    /// For matrices, and for what is none.
    Muon(Muon, AdamW),
}

impl FromConfig for NamedOptimizer {
    fn from_config(config: &TrainConfig) -> Self {
        let decay = config.weight_decay as f32;
        let coupled = (decay > 0.0).then(|| WeightDecayConfig::new(decay));
        let kind = match config.optim {
            Optim::AdamW | Optim::AdamW8bit => Kind::AdamW(AdamW::new(config)),
            Optim::Adafactor => Kind::Adafactor(
                AdafactorConfig::new()
                    .with_relative_step(false)
                    .with_scale_parameter(false)
                    .with_weight_decay(decay)
                    .build(),
            ),
            Optim::Lion => Kind::Lion(
                LionConfig::new()
                    .with_beta_1(config.betas.0 as f32)
                    .with_beta_2(config.betas.1 as f32)
                    .with_weight_decay(decay)
                    .build(),
            ),
            Optim::Sgd => Kind::Sgd(SgdConfig::new().with_weight_decay(coupled).build()),
            Optim::Muon => Kind::Muon(
                MuonConfig::new()
                    .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
                    .with_weight_decay(coupled)
                    .build(),
                AdamW::new(config),
            ),
        };
        Self { kind, scale: 1.0 }
    }

    fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }
}

/// The state of [`NamedOptimizer`] for one parameter.
// A few hundred bytes beside the numbers of a parameter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone)]
pub enum NamedState<const D: usize> {
    /// Of AdamW.
    AdamW(AdamWState<D>),
    /// Of Adafactor.
    Adafactor(AdafactorState<D>),
    /// Of Lion.
    Lion(LionState<D>),
    /// Of Muon.
    Muon(MuonState<D>),
}

/// The state of the kind in question; that of another one is dropped, which happens only if a caller changes the optimizer.
macro_rules! state {
    ($state:expr, $kind:ident) => {
        match $state {
            Some(NamedState::$kind(state)) => Some(state),
            _ => None,
        }
    };
}

impl Optimizer for NamedOptimizer {
    type State<const D: usize> = NamedState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<NamedState<D>>,
    ) -> (Tensor<D>, Option<NamedState<D>>) {
        let adamw = |adamw: &AdamW, tensor, grad, state: Option<NamedState<D>>| {
            let adamw = adamw.clone().with_scale(self.scale);
            let (tensor, state) = adamw.step(lr, tensor, grad, state!(state, AdamW));
            (tensor, state.map(NamedState::AdamW))
        };
        let scaled = |grad: Tensor<D>| match self.scale {
            1.0 => grad,
            scale => grad * scale,
        };
        match &self.kind {
            Kind::AdamW(rule) => adamw(rule, tensor, grad, state),
            Kind::Muon(_, rule) if D != 2 => adamw(rule, tensor, grad, state),
            Kind::Muon(rule, _) => {
                let (tensor, state) = rule.step(lr, tensor, scaled(grad), state!(state, Muon));
                (tensor, state.map(NamedState::Muon))
            }
            Kind::Adafactor(rule) => {
                let (tensor, state) = rule.step(lr, tensor, scaled(grad), state!(state, Adafactor));
                (tensor, state.map(NamedState::Adafactor))
            }
            Kind::Lion(rule) => {
                let (tensor, state) = rule.step(lr, tensor, scaled(grad), state!(state, Lion));
                (tensor, state.map(NamedState::Lion))
            }
            Kind::Sgd(rule) => (rule.step(lr, tensor, scaled(grad), None).0, None),
        }
    }

    fn to_device<const D: usize>(state: NamedState<D>, device: &Device) -> NamedState<D> {
        match state {
            NamedState::AdamW(state) => NamedState::AdamW(AdamW::to_device(state, device)),
            NamedState::Adafactor(state) => {
                NamedState::Adafactor(Adafactor::to_device(state, device))
            }
            NamedState::Lion(state) => NamedState::Lion(Lion::to_device(state, device)),
            NamedState::Muon(state) => NamedState::Muon(Muon::to_device(state, device)),
        }
    }
}

impl<const D: usize> RecordState for NamedState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        match self {
            Self::AdamW(state) => state.state_flatten(prefix, out),
            Self::Adafactor(state) => state.state_flatten(prefix, out),
            Self::Lion(state) => state.state_flatten(prefix, out),
            Self::Muon(state) => state.state_flatten(prefix, out),
        }
    }

    /// The kinds have no tensor or number of the same name, so what is there tells which it is.
    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        if let Some(state) = AdamWState::state_unflatten(prefix, src, device) {
            return Some(Self::AdamW(state));
        }
        if let Some(state) = AdafactorState::state_unflatten(prefix, src, device) {
            return Some(Self::Adafactor(state));
        }
        if let Some(state) = LionState::state_unflatten(prefix, src, device) {
            return Some(Self::Lion(state));
        }
        MuonState::state_unflatten(prefix, src, device).map(Self::Muon)
    }
}
