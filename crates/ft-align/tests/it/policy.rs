//! A small policy with an adapter, and trainings of it.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, TensorData};
use ft_core::{AutoCausalLm, IGNORE_INDEX, Parts};
use ft_data::{PreferenceDataset, PreferenceExample, Tokenized, UnpairedDataset, UnpairedExample};
use ft_peft::{LoraConfig, attach};
use ft_train::{Callback, ModelView, Schedule, StepRecord, TrainConfig, Verdict};

pub(crate) fn device() -> Device {
    Device::flex().autodiff()
}

/// The folder of a tiny Llama of 97 tokens.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ft-peft/tests/golden/peft_llama")
}

pub(crate) fn base() -> AutoCausalLm {
    AutoCausalLm::from_pretrained(&folder(), &device()).unwrap()
}

/// The tiny Llama with a new adapter.
pub(crate) fn policy() -> AutoCausalLm {
    attach(base(), &lora(), "default", 3).unwrap()
}

pub(crate) fn lora() -> LoraConfig {
    LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        ..LoraConfig::default()
    }
}

/// The tiny Llama with an adapter that is not new.
pub(crate) fn trained_policy() -> AutoCausalLm {
    let mut policy = policy();
    stir(&mut policy, "lora_B.weight", 0.05);
    policy
}

/// Sets an adapter tensor of every layer to `scale · sin(0.7 k + m)` for entry `k` of layer `m`, in the order of the paths.
pub(crate) fn stir(model: &mut AutoCausalLm, name: &str, scale: f64) {
    let mut paths = Vec::new();
    model.for_each_part(&mut |path, part| {
        let has = part
            .adapters()
            .iter()
            .any(|adapter| adapter.get(name).is_some());
        if has {
            paths.push(path.to_string());
        }
    });
    paths.sort();
    model.for_each_part_mut(&mut |path, mut part| {
        let Ok(m) = paths.binary_search_by(|known| known.as_str().cmp(path)) else {
            return;
        };
        for adapter in part.adapters().iter_mut() {
            for tensor in adapter
                .tensors
                .iter_mut()
                .filter(|tensor| tensor.name() == name)
            {
                let shape = tensor.shape();
                let numbers = (0..shape.num_elements())
                    .map(|k| (scale * (0.7 * k as f64 + m as f64).sin()) as f32);
                tensor.set(TensorData::new(numbers.collect::<Vec<f32>>(), shape));
            }
        }
    });
}

/// A prompt with an answer.
pub(crate) fn tokenized(prompt: &[u32], answer: &[u32]) -> Tokenized {
    let labels = prompt.iter().map(|_| IGNORE_INDEX);
    Tokenized {
        input_ids: [prompt, answer].concat(),
        labels: labels
            .chain(answer.iter().map(|&id| i64::from(id)))
            .collect(),
    }
}

/// Numbers below 97 that depend on a seed.
pub(crate) fn ids(seed: usize, len: usize) -> Vec<u32> {
    (0..len)
        .map(|i| ((i * 31 + seed * 47 + i * i * seed) % 97) as u32)
        .collect()
}

/// Pairs of prompts and answers of different lengths.
pub(crate) fn pairs(count: usize) -> PreferenceDataset {
    let pairs = (0..count).map(|i| {
        let prompt = ids(i, 2 + i % 4);
        PreferenceExample {
            chosen: tokenized(&prompt, &ids(i + 50, 3 + i % 3)),
            rejected: tokenized(&prompt, &ids(i + 90, 2 + i % 5)),
            reference_logps: None,
            margin: 0.0,
        }
    });
    PreferenceDataset::from_examples(pairs.collect())
}

/// Single answers, every other one desirable.
pub(crate) fn answers(count: usize) -> UnpairedDataset {
    let answers = (0..count).map(|i| UnpairedExample {
        tokens: tokenized(&ids(i, 2 + i % 4), &ids(i + 50, 3 + i % 3)),
        desirable: i % 2 == 0,
    });
    UnpairedDataset::from_examples(answers.collect())
}

pub(crate) fn config() -> TrainConfig {
    TrainConfig {
        learning_rate: 5e-3,
        schedule: Schedule::Constant,
        progress: false,
        ..TrainConfig::default()
    }
}

/// Ends a run with an error after a step, before the step is saved.
pub(crate) struct KillAfter(pub(crate) usize);

impl<M> Callback<M> for KillAfter {
    fn on_step(&mut self, _: &ModelView<'_, M>, record: &StepRecord) -> Verdict {
        match record.step == self.0 {
            true => Err("killed".into()),
            false => Ok(std::ops::ControlFlow::Continue(())),
        }
    }
}

/// All numbers of the adapter, by path.
pub(crate) fn factors(model: &AutoCausalLm) -> Vec<(String, TensorData)> {
    let mut all = Vec::new();
    model.for_each_part(&mut |path, part| {
        for adapter in part.adapters().iter() {
            let tensors = adapter.tensors.iter();
            all.extend(tensors.map(|tensor| (format!("{path}.{}", tensor.name()), tensor.data())));
        }
    });
    all
}
