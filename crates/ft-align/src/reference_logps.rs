//! Log-probabilities of the reference, computed once and kept in a file.

use std::path::Path;

use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Int, Tensor, TensorData};
use ft_core::CausalLm;
use ft_core::safetensors_folder::write_file;
use ft_data::{PreferenceDataset, fingerprint};
use ft_kernels::{Precision, precision};
use ft_peft::{active_adapters, adapter_config, to_json};
use serde::{Deserialize, Serialize};

use crate::loss::pair_logps;
use crate::sequences::{completion_logps, device_of, numbers, reach, shorter};
use crate::{Error, PairBatch, Reference, Result};

/// What the file contains.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The model, the data and the settings that the numbers belong to.
    key: String,
    /// Of chosen and rejected answer.
    logps: Vec<[f32; 2]>,
}

/// Computes the log-probabilities of all pairs under the reference and puts them into the dataset, for
/// [`Reference::Precomputed`]. The training then needs neither the reference nor its forward passes.
///
/// With a `cache` file they are computed once: they are read from it if it was written for the same weights, tokens and
/// `ld_alpha`, and computed and written otherwise. Settings of a model that are no weights (`rope_theta`, say) are not looked
/// at: remove the file after changing them. `listen` gets how many pairs are done and how many there are.
///
/// # Errors
///
/// If the reference does not fit the policy, a log-probability is not finite, or the file cannot be read or written.
///
/// # Panics
///
/// If `batch_size` is 0.
pub fn add_reference_logps<M: CausalLm>(
    dataset: &mut PreferenceDataset,
    reference: &Reference<M>,
    policy: &M,
    ld_alpha: f64,
    batch_size: usize,
    cache: Option<&Path>,
    listen: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    reference.check(policy)?;
    let Some(model) = reference.model(&policy.valid()) else {
        return Err(Error::Reference(
            "log-probabilities are computed with a model: give AdaptersOff, or another model"
                .into(),
        ));
    };
    let settings = active_adapters(&model)
        .iter()
        .filter_map(|name| Some(to_json(&*adapter_config(&model, name).ok()?, false).to_string()))
        .collect::<Vec<String>>()
        .concat();
    let mut key = format!(
        "weights {} adapters {} data {} ld_alpha {ld_alpha}",
        weights_fingerprint(&model),
        fingerprint(settings.bytes().map(i64::from)),
        dataset.fingerprint()
    );
    if precision() != Precision::F32 {
        key += &format!(" precision {}", precision());
    }
    check_first(reference, &policy.valid(), &model, dataset, batch_size)?;
    let kept = cache.map(|path| read(path, &key)).transpose()?.flatten();
    let logps = match kept.filter(|logps| logps.len() == dataset.len()) {
        Some(logps) => logps,
        None => {
            let logps = compute(&model, dataset, ld_alpha, batch_size, listen)?;
            if let Some(path) = cache {
                let kept = Kept { key, logps };
                let text = serde_json::to_vec(&kept).map_err(|error| Error::File {
                    path: path.into(),
                    reason: error.to_string(),
                })?;
                write_file(path, &text)?;
                kept.logps
            } else {
                logps
            }
        }
    };
    for (pair, logps) in dataset.examples.iter_mut().zip(logps) {
        pair.reference_logps = Some(logps);
    }
    Ok(())
}

/// Checks that a new adapter changes nothing, on the first pairs.
fn check_first<M: CausalLm>(
    reference: &Reference<M>,
    policy: &M,
    model: &M,
    dataset: &PreferenceDataset,
    batch_size: usize,
) -> Result<()> {
    let Some(pairs) = dataset.examples.chunks(batch_size).next() else {
        return Ok(());
    };
    if !matches!(reference, Reference::AdaptersOff) {
        return Ok(());
    }
    let device = device_of(model);
    let reach = shorter(reach(policy), reach(model));
    let batch = PairBatch::new(reach, pairs, &device);
    let [own, other] = [policy, model].map(|model| {
        let tokens = completion_logps(model, &batch.sequences, 1.0, &device);
        numbers(pair_logps(&tokens, 1.0))
    });
    let ratios: Vec<f32> = own
        .iter()
        .zip(&other)
        .map(|(own, other)| own - other)
        .collect();
    reference.check_start(policy, &ratios, &other)
}

fn compute<M: CausalLm>(
    model: &M,
    dataset: &PreferenceDataset,
    ld_alpha: f64,
    batch_size: usize,
    listen: &mut dyn FnMut(usize, usize),
) -> Result<Vec<[f32; 2]>> {
    let device = device_of(model);
    let mut all = Vec::with_capacity(dataset.len());
    for pairs in dataset.examples.chunks(batch_size) {
        let batch = PairBatch::new(reach(model), pairs, &device);
        let tokens = completion_logps(model, &batch.sequences, 1.0, &device);
        let sums = numbers(pair_logps(&tokens, ld_alpha));
        let (chosen, rejected) = sums.split_at(pairs.len());
        all.extend(chosen.iter().zip(rejected).map(|(&w, &l)| [w, l]));
        listen(all.len(), dataset.len());
    }
    if let Some(pair) = all
        .iter()
        .position(|[w, l]| !(w.is_finite() && l.is_finite()))
    {
        return Err(Error::Reference(format!(
            "the reference gives pair {} of the dataset a log-probability that is not finite: check its weights",
            pair + 1
        )));
    }
    Ok(all)
}

/// What the file contains for this key; none if there is no file, or it is for another key.
fn read(path: &Path, key: &str) -> Result<Option<Vec<[f32; 2]>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let wrong = |reason: String| Error::File {
        path: path.into(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| {
        wrong(format!(
            "it is no file of log-probabilities of a reference ({error}): remove it, or name another file"
        ))
    })?;
    Ok((kept.key == key).then_some(kept.logps))
}

/// A hash of all weights but those of adapters that are switched off.
fn weights_fingerprint<M: CausalLm>(model: &M) -> String {
    struct Weights {
        path: Vec<String>,
        off: Vec<String>,
        hashes: Vec<i64>,
    }
    impl ModuleVisitor for Weights {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_string());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.add(|| param.val().into_data());
        }
        // The words of weights in blocks. Their format is part of the path.
        fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
            self.add(|| param.val().into_data());
        }
    }
    impl Weights {
        fn add(&mut self, data: impl FnOnce() -> TensorData) {
            let of_adapter = self
                .path
                .windows(2)
                .any(|names| names[0] == "adapters" && self.off.contains(&names[1]));
            if of_adapter {
                return;
            }
            let data = data();
            let words = data.as_bytes().chunks(8).map(|bytes| {
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                i64::from_le_bytes(word)
            });
            let path = self
                .path
                .iter()
                .flat_map(|name| name.bytes().map(i64::from));
            let shape = data.shape().iter().map(|size| *size as i64);
            let hash = fingerprint(path.chain(shape).chain(words));
            self.hashes.extend(hash.bytes().map(i64::from));
        }
    }
    let mut off = Vec::new();
    model.for_each_part(&mut |_, part| {
        let inactive = part.adapters().iter().filter(|adapter| !adapter.active);
        off.extend(inactive.map(|adapter| adapter.name.clone()));
    });
    let mut weights = Weights {
        path: Vec::new(),
        off,
        hashes: Vec::new(),
    };
    model.visit(&mut weights);
    fingerprint(weights.hashes)
}
