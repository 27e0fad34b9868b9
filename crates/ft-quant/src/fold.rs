//! Scales of a layer's input columns, put into what computes that input: a norm, or the rows of another linear layer.
//!
//! Which part that is, if any, is tried out: the scales of a stage belong into a part if the output of the block stays the
//! same. So no list of names has to know how the blocks of a family are built.

use std::collections::HashMap;

use burn::tensor::{DType, Tensor, TensorData};
use ft_core::layers::{Layout, Linear};
use ft_core::{AutoCausalLm, Part, PartMut, Parts};

use crate::calibrate::{Blocks, Stage};
use crate::cholesky::numbers;

/// The largest relative change of a block's output by rounding of sums alone.
const SAME: f64 = 1e-3;

/// Where the scales of stages go, for all blocks that are built alike.
#[derive(Default)]
pub(crate) struct Folds(HashMap<Vec<String>, Option<String>>);

impl Folds {
    /// The path of the part that the scales of each stage of the next block are put into.
    pub(crate) fn of(&mut self, blocks: &Blocks<'_>, stages: &[Stage]) -> Vec<Option<String>> {
        let block = block_of(stages);
        let relative = |path: &str| path[block.len()..].to_string();
        let places = stages.iter().map(|stage| {
            let key = stage.paths.iter().map(|path| relative(path)).collect();
            let place = (self.0.entry(key))
                .or_insert_with(|| place(blocks, &block, stage).map(|path| relative(&path)));
            place.as_ref().map(|place| format!("{block}{place}"))
        });
        places.collect()
    }
}

/// What the paths of a block begin with: `model.layers.3.`
fn block_of(stages: &[Stage]) -> String {
    let mut paths = stages.iter().flat_map(|stage| &stage.paths);
    let mut common = paths.next().cloned().unwrap_or_default();
    for path in paths {
        let same = common.bytes().zip(path.bytes()).take_while(|(a, b)| a == b);
        common.truncate(same.count());
    }
    common.truncate(common.rfind('.').map_or(0, |dot| dot + 1));
    common
}

fn place(blocks: &Blocks<'_>, block: &str, stage: &Stage) -> Option<String> {
    let x = blocks.few();
    let flat = |x: Tensor<3>| numbers(x.flatten::<2>(0, 1));
    let expected = flat(blocks.output(blocks.model, x.clone()));
    let x = flat(x);
    let squares = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    let size = squares(&expected, &x);
    // From 0.5 to 2, and no two neighbours alike.
    let scales: Vec<f32> = (0..stage.cols)
        .map(|col| 0.5 + 1.5 * (col as f32 * 0.618_034).fract())
        .collect();
    candidates(blocks.model, block, stage)
        .into_iter()
        .find(|path| {
            let mut trial = blocks.model.clone();
            fold(&mut trial, path, &stage.paths, &scales);
            let found = flat(blocks.output(&trial, blocks.few()));
            squares(&found, &expected) <= SAME * SAME * size
        })
}

/// Norms and linear layers of a block with as many outputs as the stage has inputs.
fn candidates(model: &AutoCausalLm, block: &str, stage: &Stage) -> Vec<String> {
    let mut found = Vec::new();
    model.for_each_part(&mut |path, part| {
        let outputs = match part {
            Part::RmsNorm(norm) => norm.width(),
            Part::LayerNorm(norm) => norm.weight.lazy_shape()[0],
            Part::Linear(linear) => linear.out_features(),
            _ => return,
        };
        let own = stage.paths.iter().any(|own| own == path);
        if path.starts_with(block) && outputs == stage.cols && !own {
            found.push(path.to_string());
        }
    });
    found
}

/// Divides the outputs of `before` by `scales`, and multiplies the input columns of `layers` by them.
pub(crate) fn fold(model: &mut AutoCausalLm, before: &str, layers: &[String], scales: &[f32]) {
    let vector = |device: &_| {
        Tensor::<1>::from_data(TensorData::new(scales.to_vec(), [scales.len()]), device)
    };
    model.for_each_part_mut(&mut |path, part| {
        let is_before = path == before;
        match part {
            PartMut::RmsNorm(norm) if is_before => {
                let one = if norm.is_from_one() { 1.0 } else { 0.0 };
                let scales = vector(&norm.weight.lazy_device());
                norm.weight = norm.weight.clone().map(|w| (w + one) / scales - one);
            }
            PartMut::LayerNorm(norm) if is_before => {
                let scales = vector(&norm.weight.lazy_device());
                norm.weight = norm.weight.clone().map(|w| w / scales.clone());
                norm.bias = norm.bias.clone().map(|b| b / scales);
            }
            PartMut::Linear(linear) if is_before => {
                let scales = vector(&linear.weight.lazy_device());
                let weight = matrix(linear) / scales.clone().unsqueeze_dim::<2>(1);
                set_matrix(linear, weight);
                linear.bias = linear.bias.clone().map(|bias| bias.map(|b| b / scales));
            }
            PartMut::Linear(linear) if layers.iter().any(|layer| layer == path) => {
                let scales = vector(&linear.weight.lazy_device());
                let weight = matrix(linear) * scales.unsqueeze_dim::<2>(0);
                set_matrix(linear, weight);
            }
            _ => {}
        }
    });
}

/// The layer's own weight in `f32`, `[out, in]`.
pub(crate) fn matrix(linear: &Linear) -> Tensor<2> {
    lying(linear.layout(), linear.weight.val().cast(DType::F32))
}

/// Puts `[out, in]` in the place of the weight.
pub(crate) fn set_matrix(linear: &mut Linear, weight: Tensor<2>) {
    let id = linear.weight.id();
    let weight = lying(linear.layout(), weight);
    linear.weight.replace(weight, id);
}

/// Between `[out, in]` and how the layer holds it.
pub(crate) fn lying(layout: Layout, weight: Tensor<2>) -> Tensor<2> {
    match layout {
        Layout::OutIn => weight,
        Layout::InOut => weight.transpose(),
    }
}
