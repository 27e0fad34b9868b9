//! Elastic weight consolidation: parameters that mattered for earlier data are held where they were.
//!
//! Overcoming catastrophic forgetting in neural networks (Kirkpatrick et al., 2017, arXiv:1612.00796), equation 3:
//! `L(θ) + λ/2 · Σᵢ Fᵢ·(θᵢ − θ*ᵢ)²`, with `F` the diagonal of the empirical Fisher information, the mean over examples of the squared
//! gradient of an example's log-likelihood. The square of a mean gradient of several examples, which is often taken for it, is
//! smaller by about their number; batches of one row are therefore demanded.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use ft_core::layers::PackedParam;
use ft_core::module_path::{self, PathVisitor};
use ft_data::Batches;

use crate::{BoxError, StepContext, StepOutput, StepResult};

/// The importance of parameters, and where they were.
#[derive(Clone, Debug)]
pub struct Ewc {
    lambda: f64,
    /// `F` and `θ*` by path.
    anchors: BTreeMap<String, (TensorData, TensorData)>,
}

impl Ewc {
    /// The Fisher information of the parameters of `model` that train, from the examples of epoch 0 of `batches`: each batch is one
    /// example, and its loss the sum of its negative log-likelihoods.
    ///
    /// # Errors
    ///
    /// If a step fails, or there are no batches.
    pub fn new<M: Module, B>(
        model: &M,
        batches: &impl Batches<Batch = B>,
        mut step: impl FnMut(&M, &B, &StepContext) -> StepResult,
        lambda: f64,
    ) -> Result<Self, BoxError> {
        let device = model.devices().first().cloned().unwrap_or_default();
        let count = batches.len(0);
        if count == 0 {
            return Err("there are no examples to find the importance of parameters from".into());
        }
        let mut squares = Squares::default();
        for index in 0..count {
            let context = StepContext::evaluation(&device, 0, 0, index);
            let output = step(model, &batches.batch(0, index), &context)?;
            if output.loss.count == 0 || !output.loss.sum.is_tracked() {
                continue;
            }
            let gradients = GradientsParams::from_grads(output.loss.sum.backward(), model);
            squares.gradients = Some(gradients);
            module_path::visit_params(model, &mut squares);
        }
        let anchors = squares.sums.into_iter().map(|(path, (sum, value))| {
            let mean: Vec<f32> = sum.iter().map(|sum| (sum / count as f64) as f32).collect();
            (path, (TensorData::new(mean, value.shape().clone()), value))
        });
        Ok(Self {
            lambda,
            anchors: anchors.collect(),
        })
    }

    /// `λ/2 · Σ F·(θ − θ*)²`, part of the graph.
    pub fn penalty(&self, model: &impl Module) -> Tensor<1> {
        let mut penalty = Penalty {
            ewc: self,
            sum: None,
        };
        module_path::visit_params(model, &mut penalty);
        let sum = penalty.sum.unwrap_or_else(|| {
            let device: Device = model.devices().first().cloned().unwrap_or_default();
            Tensor::zeros([1], &device)
        });
        sum * (0.5 * self.lambda)
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
            let penalty = self.penalty(model) * count;
            let mut output = output.with_metric("ewc", penalty.clone().inner(), count);
            output.loss.sum = output.loss.sum + penalty;
            Ok(output)
        }
    }

    /// The Fisher information of a parameter.
    pub fn fisher(&self, path: &str) -> Option<&TensorData> {
        self.anchors.get(path).map(|(fisher, _)| fisher)
    }
}

/// Adds up squared gradients by path.
#[derive(Default)]
struct Squares {
    gradients: Option<GradientsParams>,
    sums: BTreeMap<String, (Vec<f64>, TensorData)>,
}

impl PathVisitor for Squares {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let gradient = self
            .gradients
            .as_ref()
            .and_then(|all| all.get::<D>(param.id));
        let Some(gradient) = gradient else { return };
        let entry = self.sums.entry(path.to_string()).or_insert_with(|| {
            let value = param.val().inner().into_data();
            (vec![0.0; value.num_elements()], value)
        });
        for (sum, gradient) in entry.0.iter_mut().zip(gradient.into_data().iter::<f64>()) {
            *sum += gradient * gradient;
        }
    }

    fn visit_packed(&mut self, _: &str, _: &PackedParam) {}
}

struct Penalty<'a> {
    ewc: &'a Ewc,
    sum: Option<Tensor<1>>,
}

impl PathVisitor for Penalty<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let Some((fisher, anchor)) = self.ewc.anchors.get(path) else {
            return;
        };
        let value = param.val();
        let device = value.device();
        let fisher = Tensor::<D>::from_data(fisher.clone(), &device);
        let anchor = Tensor::<D>::from_data(anchor.clone(), &device);
        let one = (fisher * (value - anchor).square()).sum();
        self.sum = Some(match self.sum.take() {
            Some(sum) => sum + one,
            None => one,
        });
    }

    fn visit_packed(&mut self, _: &str, _: &PackedParam) {}
}
