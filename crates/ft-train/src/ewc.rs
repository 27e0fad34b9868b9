//! Elastic weight consolidation: parameters that mattered for earlier data are held where they were.
//!
//! Overcoming catastrophic forgetting in neural networks (Kirkpatrick et al., 2017, arXiv:1612.00796), equation 3:
//! `L(θ) + λ/2 · Σᵢ Fᵢ·(θᵢ − θ*ᵢ)²`, with `F` the diagonal of the empirical Fisher information, the mean over examples of the squared
//! gradient of an example's log-likelihood. The square of a mean gradient of several examples, which is often taken for it, is
//! smaller by about their number; so a batch has to be one example.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Shape, Tensor, TensorData};
use ft_core::layers::PackedParam;
use ft_core::module_path::{self, PathVisitor};
use ft_data::Batches;

use crate::{BoxError, StepContext, StepOutput, StepResult};

/// The importance of parameters, and where they were.
#[derive(Clone, Debug)]
pub struct Ewc {
    lambda: f64,
    anchors: BTreeMap<String, Anchor>,
}

/// `F` and `θ*` of a parameter, flat, on the device of the model.
#[derive(Clone, Debug)]
struct Anchor {
    shape: Shape,
    fisher: Tensor<1>,
    value: Tensor<1>,
}

impl Ewc {
    /// The Fisher information of the parameters of `model` that train, from the examples of epoch 0 of `batches`: each batch is one
    /// example, and its loss the sum of its negative log-likelihoods. Batches of several rows give a value that is too small.
    ///
    /// Dropout acts as in a training step, with a seed for each example. The formula has none: give a model without it.
    ///
    /// # Errors
    ///
    /// If a step fails, there are no batches, or no loss depends on a parameter that trains.
    pub fn new<M: Module, B>(
        model: &M,
        batches: &impl Batches<Batch = B>,
        mut step: impl FnMut(&M, &B, &StepContext) -> StepResult,
        lambda: f64,
    ) -> Result<Self, BoxError> {
        let devices = model.devices();
        let device = devices.first().cloned().unwrap_or_default();
        let count = batches.len(0);
        if count == 0 {
            return Err("there are no examples to find the importance of parameters from".into());
        }
        let mut squares = Squares::default();
        for index in 0..count {
            let context = StepContext::evaluation(&device, 0, 0, index);
            devices.iter().for_each(|device| device.seed(context.seed));
            let output = step(model, &batches.batch(0, index), &context)?;
            if output.loss.count == 0 || !output.loss.sum.is_tracked() {
                continue;
            }
            let gradients = GradientsParams::from_grads(output.loss.sum.backward(), model);
            squares.gradients = Some(gradients);
            module_path::visit_params(model, &mut squares);
        }
        if squares.sums.is_empty() {
            return Err("no loss of an example depends on a parameter that trains, so nothing would be held: give a model on a \
                        device with autodiff, whose parameters train, and examples with labels"
                .into());
        }
        let anchors = squares.sums.into_iter().map(|(path, (sum, param))| {
            let mean = sum.iter().map(|sum| (sum / count as f64) as f32);
            let fisher = TensorData::new(mean.collect::<Vec<_>>(), [sum.len()]);
            let anchor = Anchor {
                fisher: Tensor::from_data(fisher, &param.device),
                value: Tensor::from_data(flat(param.value), &param.device),
                shape: param.shape,
            };
            (path, anchor)
        });
        Ok(Self {
            lambda,
            anchors: anchors.collect(),
        })
    }

    /// `λ/2 · Σ F·(θ − θ*)²`, part of the graph.
    ///
    /// # Errors
    ///
    /// If the model lacks one of the parameters, or has one of another shape.
    pub fn penalty(&self, model: &impl Module) -> Result<Tensor<1>, BoxError> {
        let mut penalty = Penalty {
            ewc: self,
            found: 0,
            sum: None,
        };
        module_path::visit_params(model, &mut penalty);
        match penalty.sum {
            Some(sum) if penalty.found == self.anchors.len() => Ok(sum * (0.5 * self.lambda)),
            _ => Err(format!(
                "the model has {} of the {} parameters that are to be held where they were: give the model that the importance \
                 was found for",
                penalty.found,
                self.anchors.len()
            )
            .into()),
        }
    }

    /// `step` with the penalty added to its mean loss while it trains, and reported as the metric `ewc`.
    pub fn into_step<M: Module, B>(
        self,
        mut step: impl FnMut(&M, &B, &StepContext) -> StepResult,
    ) -> impl FnMut(&M, &B, &StepContext) -> StepResult {
        move |model, batch, context| {
            let output: StepOutput = step(model, batch, context)?;
            if !context.is_training() || output.loss.count == 0 {
                return Ok(output);
            }
            // The loop divides the summed loss by the count.
            let count = output.loss.count as f64;
            let penalty = self.penalty(model)? * count;
            let mut output = output.with_metric("ewc", penalty.clone().inner(), count);
            output.loss.sum = output.loss.sum + penalty;
            Ok(output)
        }
    }

    /// The Fisher information of a parameter.
    pub fn fisher(&self, path: &str) -> Option<TensorData> {
        let anchor = self.anchors.get(path)?;
        let numbers: Vec<f32> = anchor.fisher.to_data().iter::<f32>().collect();
        Some(TensorData::new(numbers, anchor.shape.clone()))
    }
}

/// The same numbers in one dimension.
fn flat(data: TensorData) -> TensorData {
    let numbers: Vec<f32> = data.iter::<f32>().collect();
    TensorData::new(numbers, [data.num_elements()])
}

/// A tensor on this device.
fn on(tensor: &Tensor<1>, device: &Device) -> Tensor<1> {
    match tensor.device() == *device {
        true => tensor.clone(),
        false => Tensor::from_data(tensor.to_data(), device),
    }
}

/// A parameter as it was.
struct Held {
    value: TensorData,
    shape: Shape,
    device: Device,
}

/// Adds up squared gradients by path.
#[derive(Default)]
struct Squares {
    gradients: Option<GradientsParams>,
    sums: BTreeMap<String, (Vec<f64>, Held)>,
}

impl PathVisitor for Squares {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let gradient = self
            .gradients
            .as_ref()
            .and_then(|all| all.get::<D>(param.id));
        let Some(gradient) = gradient else { return };
        let entry = self.sums.entry(path.to_string()).or_insert_with(|| {
            let value = param.val();
            let held = Held {
                device: value.device(),
                shape: value.shape(),
                value: value.inner().into_data(),
            };
            (vec![0.0; held.shape.num_elements()], held)
        });
        for (sum, gradient) in entry.0.iter_mut().zip(gradient.into_data().iter::<f64>()) {
            *sum += gradient * gradient;
        }
    }

    fn visit_packed(&mut self, _: &str, _: &PackedParam) {}
}

struct Penalty<'a> {
    ewc: &'a Ewc,
    /// How many parameters were found.
    found: usize,
    sum: Option<Tensor<1>>,
}

impl PathVisitor for Penalty<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let Some(anchor) = self.ewc.anchors.get(path) else {
            return;
        };
        let value = param.val();
        if value.shape() != anchor.shape {
            return;
        }
        self.found += 1;
        let device = value.device();
        let [fisher, before] = [&anchor.fisher, &anchor.value].map(|one| on(one, &device));
        let value = value.reshape([anchor.shape.num_elements()]);
        let one = (fisher * (value - before).square()).sum();
        self.sum = Some(match self.sum.take() {
            Some(sum) => sum + one,
            None => one,
        });
    }

    fn visit_packed(&mut self, _: &str, _: &PackedParam) {}
}
