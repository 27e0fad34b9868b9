//! Products of one row with several weights, as when text is generated: the threads go through all of them at once.
//!
//! A small product takes a few microseconds, and so does passing work to another thread and waiting for it. Several projections of
//! one input are therefore one piece of work, which is passed once. A row that is rounded for blocks is rounded once.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::int8::RoundedRow;
use super::packed::Held;
use super::pieces::each;
use super::weight::Weight;
use super::{contiguous, slice, vector_wise};

/// The number of elements of a weight for each task.
const PIECE: usize = 1 << 15;

/// What computes some outputs of a product, from the first, into a slice.
pub(super) type Outputs<'a> = Box<dyn Fn(usize, &mut [f32]) + Send + Sync + 'a>;

/// `x·Wᵀ` for each weight; none if one of them is not multiplied row by row.
///
/// # Panics
///
/// If a weight has another number of columns than there are numbers.
pub(crate) fn products(x: FlexTensor, weights: &[Held]) -> Option<Vec<Vec<f32>>> {
    let x = contiguous(x);
    let x = slice(&x);
    assert!(
        weights.iter().all(|weight| weight.dims()[1] == x.len()),
        "the input has the weight's features"
    );
    if x.is_empty() {
        return None;
    }
    let weights: Vec<_> = weights.iter().map(Held::weight).collect();
    if !weights.iter().all(Weight::is_by_row) {
        return None;
    }
    let formats = weights.iter().filter_map(|weight| weight.rounds());
    let rounded = RoundedRow::new(x, formats.map(|blocks| blocks.format));
    let as_a_whole = weights.iter().any(|weight| weight.rounds_rows().is_some());
    let as_a_whole = as_a_whole.then(|| vector_wise::Inputs::new(x, x.len(), None));
    let outputs =
        weights.iter().map(
            |weight| match (weight.rounds(), weight.rounds_rows(), &as_a_whole) {
                (Some(blocks), _, _) => rounded.outputs(blocks),
                (None, Some(blocks), Some(x)) => vector_wise::outputs(blocks, x),
                _ => weight.outputs(x),
            },
        );
    let outputs: Vec<Outputs<'_>> = outputs.collect();
    let mut results: Vec<_> = (weights.iter())
        .map(|weight| vec![0.0; weight.features()])
        .collect();
    // Kernels take four rows of a weight at a time.
    let piece = (PIECE / x.len()).max(1).next_multiple_of(4);
    let mut tasks = Vec::new();
    for (outputs, result) in outputs.iter().zip(&mut results) {
        let pieces = result.chunks_mut(piece).enumerate();
        tasks.extend(pieces.map(|(i, out)| (outputs, i * piece, out)));
    }
    each(tasks.into_par_iter(), |(outputs, first, out)| {
        outputs(first, out)
    });
    Some(results)
}
