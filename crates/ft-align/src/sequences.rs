//! From tokenized sequences to their log-probabilities under a model.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use ft_core::{CausalLm, Dims, TokenLogps, predicted_logps};
use ft_data::{Branches, PreferenceDataset, Tokenized, collate_branches, collate_rows};
use ft_kernels::exact;

use crate::Result;

/// How long a row of branches may be for a model: the shortest window of its attention, less the places of virtual tokens; none
/// if all layers see whole rows.
pub(crate) fn reach<M: CausalLm>(model: &M) -> Option<usize> {
    let window = model.body().attention_window();
    window.map(|window| window.saturating_sub(model.num_virtual_tokens()))
}

/// The reach of two models that read the same batch.
pub(crate) fn shorter(one: Option<usize>, other: Option<usize>) -> Option<usize> {
    [one, other].into_iter().flatten().min()
}

/// A batch of groups of sequences, such as two answers to one prompt. The common beginning of a group is read once, unless
/// a row of branches is longer than the [reach] of all models that read the batch.
pub(crate) fn collate(
    reach: Option<usize>,
    groups: &[Vec<&Tokenized>],
    device: &Device,
) -> Branches {
    let rows = match ft_kernels::is_cpu(device) {
        true => groups.len().max(1),
        false => 1,
    };
    let branches = collate_branches(groups, rows);
    match reach {
        Some(reach) if reach < branches.batch.seq => collate_rows(groups, 0),
        _ => branches,
    }
}

/// Checks that a model of these measures takes the longest of these sequences.
pub(crate) fn check_lengths<'a>(
    dims: Dims,
    sequences: impl Iterator<Item = &'a Tokenized>,
) -> Result<()> {
    let longest = sequences.map(Tokenized::len).max().unwrap_or(0);
    Ok(dims.check_length(longest)?)
}

/// Checks that a model of these measures takes the longest answer of these pairs.
pub(crate) fn check_pairs(dims: Dims, pairs: &PreferenceDataset) -> Result<()> {
    let pairs = pairs.examples.iter();
    check_lengths(dims, pairs.flat_map(|pair| [&pair.chosen, &pair.rejected]))
}

/// Log-probabilities of the completions, `[completions, longest]`, at this temperature.
pub(crate) fn completion_logps<M: CausalLm>(
    model: &M,
    sequences: &Branches,
    temperature: f64,
    device: &Device,
) -> TokenLogps {
    exact(|| {
        let hidden = model.hidden_states(&sequences.batch.tokens(device), None);
        predicted_logps(hidden, model.head(), &sequences.completions, temperature)
    })
}

/// Where a model is.
pub(crate) fn device_of<M: Module>(model: &M) -> Device {
    model.devices().first().cloned().unwrap_or_default()
}

/// Numbers as a tensor, `[numbers]`.
pub(crate) fn tensor(numbers: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), device)
}

/// A tensor's numbers.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
