//! Parameters that train and never change: an adapter that is not active, or a layer that takes no part in the loss.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Shape, TensorData};

use crate::{Finding, Symptom, trainable};

/// After so many steps every parameter that trains has changed.
const CHANGED_AFTER: usize = 10;

/// More numbers than this are not kept to see whether they change.
const MOST_COMPARED: usize = 50_000_000;

/// The parameters as they were at the beginning of a run, until it is known which of them change.
#[derive(Debug)]
pub(crate) struct DeadParameters {
    first: Option<Vec<(String, TensorData)>>,
}

impl DeadParameters {
    /// Nothing is kept of a run that is resumed, is too short, or trains too many numbers.
    pub(crate) fn watch(model: &impl Module, step: usize, total_steps: usize) -> Self {
        let shapes = trainable::shapes(model);
        let numbers: usize = shapes.values().map(Shape::num_elements).sum();
        let watches = step == 0 && numbers <= MOST_COMPARED && total_steps >= CHANGED_AFTER;
        Self {
            first: watches.then(|| trainable::tensors(model)),
        }
    }

    /// What has not changed, once, after enough steps.
    pub(crate) fn after_step(&mut self, model: &impl Module, step: usize) -> Option<Finding> {
        const SHOWN: usize = 5;
        if step < CHANGED_AFTER {
            return None;
        }
        let first = self.first.take()?;
        let now: BTreeMap<String, TensorData> = trainable::tensors(model).into_iter().collect();
        let is_same = |path: &String, value: &TensorData| {
            let now = now.get(path);
            now.is_some_and(|now| now.as_bytes() == value.as_bytes())
        };
        let same = first.iter().filter(|(path, value)| is_same(path, value));
        let same: Vec<&str> = same.map(|(path, _)| path.as_str()).collect();
        if same.is_empty() {
            return None;
        }
        let shown = same[..same.len().min(SHOWN)].join(", ");
        let more = if same.len() > SHOWN { ", ..." } else { "" };
        Some(Finding {
            step,
            symptom: Symptom::DeadParameters,
            evidence: format!(
                "{} of {} tensors that train have not changed in {CHANGED_AFTER} steps: {shown}{more}",
                same.len(),
                first.len()
            ),
        })
    }
}
