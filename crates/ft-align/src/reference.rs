//! The reference policy: what the log-probabilities of the policy are compared with.

use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use ft_core::layers::AdapterTensor;
use ft_core::{CausalLm, Parts};
use ft_peft::{active_adapters, without_adapters};

use crate::{Error, Result, ScoredRollout};

/// The reference policy of a method. It is not trained and has no dropout.
#[derive(Clone, Debug)]
pub enum Reference<M> {
    /// The model under training with its adapter switched off. It needs no memory.
    ///
    /// The adapter must be new: one that an earlier stage trained would be removed from the reference with all that it
    /// learned. Merge it first (`ft_peft::merge_and_unload`), or take [`start`](Self::start).
    AdaptersOff,
    /// Another model, such as the one of [`start`](Self::start).
    Model(Arc<M>),
    /// Log-probabilities that were computed before the training: see
    /// [`add_reference_logps`](crate::add_reference_logps).
    Precomputed,
}

impl<M: CausalLm> Reference<M> {
    /// The policy as it is now. Weights that are not trained are shared with it and need no memory; those that are trained
    /// are held twice.
    pub fn start(policy: &M) -> Self {
        Self::Model(Arc::new(policy.valid()))
    }

    /// The reference of a method that samples completions, whose KL divergence from it has the weight `beta`.
    ///
    /// # Errors
    ///
    /// [`Error::Reference`] if it is needed and missing, precomputed, or does not fit the policy.
    pub(crate) fn of_samples(
        reference: Option<Self>,
        beta: f64,
        policy: &M,
    ) -> Result<Option<Self>> {
        let reference = reference.filter(|_| beta > 0.0);
        match &reference {
            None if beta > 0.0 => {
                return Err(Error::Reference(format!(
                    "beta is {beta}, so that a reference is needed: give Reference::AdaptersOff or another one, or set \
                     beta to 0"
                )));
            }
            Some(reference) => reference.check_sampling(policy)?,
            None => {}
        }
        Ok(reference)
    }

    /// [`check`](Self::check) for a method that samples completions.
    pub(crate) fn check_sampling(&self, policy: &M) -> Result<()> {
        match self {
            Self::Precomputed => Err(Error::Reference(
                "completions are sampled during the training, so that their log-probabilities cannot be computed before: \
                 use Reference::AdaptersOff or another model"
                    .into(),
            )),
            reference => reference.check(policy),
        }
    }

    /// The model to compute log-probabilities with; none if they are precomputed. `policy` is the model under training,
    /// without a graph.
    pub(crate) fn model(&self, policy: &M) -> Option<M> {
        match self {
            Self::AdaptersOff => Some(without_adapters(policy)),
            Self::Model(model) => Some((**model).clone()),
            Self::Precomputed => None,
        }
    }

    /// Whether the reference makes sense for this policy, which is about to be trained.
    ///
    /// # Errors
    ///
    /// [`Error::Reference`] if the reference is the policy itself, would change with it, or lacks an adapter that the
    /// policy is built on; or if the vocabularies differ.
    pub fn check(&self, policy: &M) -> Result<()> {
        let mistake = match self {
            Self::AdaptersOff => return check_adapters(policy),
            Self::Precomputed => return Ok(()),
            Self::Model(model) => {
                let [own, other] = [policy, &**model].map(|model| model.dims());
                let [length, longest] = [&own, &other].map(|dims| dims.max_position_embeddings);
                if longest < length {
                    return Err(Error::Reference(format!(
                        "the policy reads {length} tokens and the reference {longest}: use a reference that reads as much"
                    )));
                }
                let [own, other] = [own, other].map(|dims| dims.vocab_size);
                if own == other {
                    return Ok(());
                }
                format!(
                    "the policy has {own} tokens in its vocabulary and the reference {other}: use a reference of the \
                     same family, with the same tokenizer"
                )
            }
        };
        Err(Error::Reference(mistake))
    }
}

impl<M: CausalLm> Reference<M> {
    /// Before the first update a new adapter changes nothing. If it does, an earlier stage trained it, and the reference
    /// lacks what it learned there.
    ///
    /// `log_ratios` are those of policy and reference for some sequences, and `logps` the log-probabilities of these.
    ///
    /// # Errors
    ///
    /// [`Error::Reference`] if a ratio is more than rounding.
    pub(crate) fn check_start(&self, policy: &M, log_ratios: &[f32], logps: &[f32]) -> Result<()> {
        // Virtual tokens act from the beginning.
        if !matches!(self, Self::AdaptersOff) || policy.num_virtual_tokens() > 0 {
            return Ok(());
        }
        let apart = |(ratio, logp): &(&f32, &f32)| ratio.abs() > 5e-3 + 1e-4 * logp.abs();
        match log_ratios.iter().zip(logps).find(apart) {
            None => Ok(()),
            Some((ratio, _)) => Err(Error::Reference(format!(
                "the adapter changes the model before the first step (a log-probability by {ratio:.3}), so that an \
                 earlier stage trained it, and the model without it is not what this training starts from: merge it first \
                 (ft_peft::merge_and_unload, or the example `merge`) and attach a new adapter, or use Reference::start \
                 (--reference start)"
            ))),
        }
    }
}

impl<M: CausalLm> Reference<M> {
    /// [`check_start`](Self::check_start) with completions that the policy sampled.
    pub(crate) fn check_start_of(&self, policy: &M, rows: &[ScoredRollout]) -> Result<()> {
        let ratios: Vec<f32> = rows.iter().map(ScoredRollout::log_ratio).collect();
        let sums: Vec<f32> = rows.iter().map(|row| row.reference.iter().sum()).collect();
        self.check_start(policy, &ratios, &sums)
    }
}

/// Checks that the active adapter is what trains, and all of it.
fn check_adapters<M: CausalLm>(policy: &M) -> Result<()> {
    let active = active_adapters(policy);
    let trained = trained_adapters(policy);
    let mistake = if active.is_empty() {
        "the reference is the model with its adapters switched off, but it has none that is active, so that the reference \
         would be the policy itself: attach an adapter (ft_peft::attach), or give another reference: Reference::start \
         (--reference start), or a model folder (--reference DIR)"
            .to_string()
    } else if let Some(other) = active.iter().find(|name| !trained.contains(name)) {
        format!(
            "adapter {other:?} is active but does not train, and the reference would lack what it learned: merge it \
             first (ft_peft::merge_and_unload, or the example `merge`) and attach a new one, or use Reference::start \
             (--reference start)"
        )
    } else if base_trains(policy) {
        "the reference is the model with its adapters switched off, but weights of the model itself train too, so that \
         the reference would change with them: freeze them, or use Reference::start (--reference start)"
            .to_string()
    } else {
        return Ok(());
    };
    Err(Error::Reference(mistake))
}

/// The names of the active adapters that have a tensor that trains.
fn trained_adapters<M: Parts>(policy: &M) -> Vec<String> {
    let mut names = Vec::new();
    policy.for_each_part(&mut |_, part| {
        for adapter in part.adapters().active() {
            let trains = adapter.tensors.iter().any(AdapterTensor::is_trainable);
            if trains && !names.contains(&adapter.name) {
                names.push(adapter.name.clone());
            }
        }
    });
    names
}

/// Whether a weight that is not an adapter's trains.
fn base_trains<M: Module>(policy: &M) -> bool {
    struct OutsideAdapters {
        path: Vec<String>,
        found: bool,
    }
    impl ModuleVisitor for OutsideAdapters {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_string());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let adapter = self.path.iter().any(|name| name == "adapters");
            self.found |= !adapter && param.is_require_grad();
        }
    }
    let mut visitor = OutsideAdapters {
        path: Vec::new(),
        found: false,
    };
    policy.visit(&mut visitor);
    visitor.found
}
