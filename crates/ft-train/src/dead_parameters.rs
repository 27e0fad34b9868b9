//! Parameters that train and never change: an adapter that is not active, or a layer that takes no part in the loss.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use burn::module::{Module, Param};
use burn::tensor::{Shape, Tensor};
use ft_core::layers::PackedParam;
use ft_core::module_path::{self, PathVisitor};

use crate::{Finding, StepRecord, Symptom, trainable};

/// After so many steps with a gradient every parameter that trains has changed.
const CHANGED_AFTER: usize = 10;

/// More numbers than this are not watched: to read them takes seconds.
const MOST_WATCHED: usize = 500_000_000;

/// Hashes of the parameters as they were at the beginning of a run, until it is known which of them change.
#[derive(Debug)]
pub(crate) struct DeadParameters {
    first: Option<BTreeMap<String, u64>>,
    /// Steps whose gradient was not 0.
    steps: usize,
}

impl DeadParameters {
    /// Nothing is watched of a run that is resumed, is too short, or trains too many numbers.
    pub(crate) fn watch(model: &impl Module, step: usize, total_steps: usize) -> Self {
        let shapes = trainable::shapes(model);
        let numbers: usize = shapes.values().map(Shape::num_elements).sum();
        let watches = step == 0 && numbers <= MOST_WATCHED && total_steps >= CHANGED_AFTER;
        Self {
            first: watches.then(|| hashes(model)),
            steps: 0,
        }
    }

    /// What has not changed, once, after enough steps. A step without any gradient changes nothing: all answers of a policy were
    /// equally good.
    pub(crate) fn after_step(&mut self, model: &impl Module, step: &StepRecord) -> Option<Finding> {
        const SHOWN: usize = 5;
        self.steps += usize::from(step.grad_norm > 0.0);
        if self.steps < CHANGED_AFTER {
            return None;
        }
        let first = self.first.take()?;
        let now = hashes(model);
        let same = first
            .iter()
            .filter(|(path, hash)| now.get(*path) == Some(hash));
        let same: Vec<&str> = same.map(|(path, _)| path.as_str()).collect();
        if same.is_empty() {
            return None;
        }
        let shown = same[..same.len().min(SHOWN)].join(", ");
        let more = if same.len() > SHOWN { ", ..." } else { "" };
        Some(Finding {
            step: step.step,
            symptom: Symptom::DeadParameters,
            evidence: format!(
                "{} of {} tensors that train have not changed in {CHANGED_AFTER} steps with a gradient: {shown}{more}",
                same.len(),
                first.len()
            ),
        })
    }
}

/// A hash of every parameter that trains, by path.
fn hashes(model: &impl Module) -> BTreeMap<String, u64> {
    struct Hashes(BTreeMap<String, u64>);
    impl PathVisitor for Hashes {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                let mut hasher = DefaultHasher::new();
                hasher.write(param.val().into_data().as_bytes());
                self.0.insert(path.to_string(), hasher.finish());
            }
        }
        fn visit_packed(&mut self, _: &str, _: &PackedParam) {}
    }
    let mut hashes = Hashes(BTreeMap::new());
    module_path::visit_params(model, &mut hashes);
    hashes.0
}
