//! Scales of a layer's input columns, put into what computes that input: a norm, or the rows of another linear layer.
//!
//! Which part that is, if any, is tried out: the scales of a stage belong into a part if the output of the block stays the
//! same for every token. So no list of names has to know how the blocks of a family are built.

use std::collections::HashMap;

use burn::tensor::{DType, Tensor, TensorData};
use ft_core::layers::{Layout, Linear};
use ft_core::{AutoCausalLm, Part, PartMut, Parts};

use crate::calibrate::{Blocks, Stage};
use crate::cholesky::numbers;

/// The largest change of a token's output by rounding of sums alone, relative to what the block adds to the token.
const SAME: f64 = 1e-3;

/// Where the scales of stages went in the blocks before.
#[derive(Default)]
pub(crate) struct Folds(HashMap<Vec<String>, String>);

impl Folds {
    /// The path of the part that the scales of each stage of the next block are put into.
    ///
    /// The part that was right in the block before is tried first. If it is not right here, the best of all is.
    pub(crate) fn of(&mut self, blocks: &Blocks<'_>, stages: &[Stage]) -> Vec<Option<String>> {
        let block = block_of(stages);
        let relative = |path: &str| path[block.len()..].to_string();
        let trial = Trial::new(blocks);
        let places = stages.iter().map(|stage| {
            let key: Vec<String> = stage.paths.iter().map(|path| relative(path)).collect();
            let known = self.0.get(&key).map(|place| format!("{block}{place}"));
            let known = known.filter(|path| trial.error(path, stage) <= SAME);
            let place = known.or_else(|| {
                let all = candidates(blocks.model, &block, stage).into_iter();
                let errors = all.map(|path| (trial.error(&path, stage), path));
                let best = errors.min_by(|a, b| a.0.total_cmp(&b.0));
                best.filter(|(error, _)| *error <= SAME)
                    .map(|(_, path)| path)
            });
            if let Some(place) = &place {
                self.0.insert(key, relative(place));
            }
            place
        });
        places.collect()
    }
}

/// The next block on a few tokens.
struct Trial<'a> {
    blocks: &'a Blocks<'a>,
    /// Its output, `[tokens, width]`.
    expected: Vec<f32>,
    /// What it adds to each token, squared.
    sizes: Vec<f64>,
    width: usize,
}

impl<'a> Trial<'a> {
    fn new(blocks: &'a Blocks<'a>) -> Self {
        let x = blocks.few();
        let width = x.dims()[2];
        let expected = flat(blocks.output(blocks.model, x.clone()));
        let sizes = squares(&expected, &flat(x), width);
        Self {
            blocks,
            expected,
            sizes,
            width,
        }
    }

    /// The largest relative change of a token if scales from 0.5 to 2 go from `path` to the layers of the stage.
    fn error(&self, path: &str, stage: &Stage) -> f64 {
        // No two neighbours alike.
        let scales: Vec<f32> = (0..stage.cols)
            .map(|col| 0.5 + 1.5 * (col as f32 * 0.618_034).fract())
            .collect();
        let mut model = self.blocks.model.clone();
        fold(&mut model, path, &stage.paths, &scales);
        let found = flat(self.blocks.output(&model, self.blocks.few()));
        let changes = squares(&found, &self.expected, self.width);
        let tokens = changes.iter().zip(&self.sizes);
        // A number that is not finite is no small change.
        tokens.fold(0.0, |most, (change, size)| {
            let change = (change / size.max(f64::MIN_POSITIVE)).sqrt();
            if change > most || change.is_nan() {
                change
            } else {
                most
            }
        })
    }
}

/// `[tokens, width]`.
fn flat(x: Tensor<3>) -> Vec<f32> {
    numbers(x.flatten::<2>(0, 1))
}

/// `‖a − b‖²` of each token.
fn squares(a: &[f32], b: &[f32], width: usize) -> Vec<f64> {
    let tokens = a.chunks_exact(width).zip(b.chunks_exact(width));
    let square = |(a, b): (&[f32], &[f32])| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    tokens.map(square).collect()
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
    in_layout(linear.layout(), linear.weight.val().cast(DType::F32))
}

/// Puts `[out, in]` in the place of the weight.
pub(crate) fn set_matrix(linear: &mut Linear, weight: Tensor<2>) {
    let id = linear.weight.id();
    let weight = in_layout(linear.layout(), weight);
    linear.weight.replace(weight, id);
}

/// Between `[out, in]` and how the layer holds it.
pub(crate) fn in_layout(layout: Layout, weight: Tensor<2>) -> Tensor<2> {
    match layout {
        Layout::OutIn => weight,
        Layout::InOut => weight.transpose(),
    }
}
