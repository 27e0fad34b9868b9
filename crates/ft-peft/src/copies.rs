//! Trained copies of a layer's own tensors: biases, norms, embeddings and output layers that are saved whole.
//!
//! A copy takes the place of the base's tensor while its adapter is active. So the base stays as it is, and with the
//! adapter switched off the model is the base.

use burn::tensor::{DType, Tensor};
use ft_core::Part;
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor};

/// Copies of a layer's tensors, by the names of their adapter tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Copies {
    /// The weight: a matrix as the layer holds it, or the vector of a norm.
    pub(crate) weight: Option<&'static str>,
    /// The bias. A linear layer without one gets zeros.
    pub(crate) bias: Option<&'static str>,
}

impl Copies {
    /// The copies of a layer, as they begin. What trains is held in `f32`.
    pub(crate) fn tensors(&self, part: Part<'_>) -> Vec<AdapterTensor> {
        fn copy<const D: usize>(name: Option<&str>, tensor: Tensor<D>) -> Option<AdapterTensor>
        where
            ft_core::layers::AnyParam: From<Tensor<D>>,
        {
            name.map(|name| AdapterTensor::new(name, tensor.cast(DType::F32).detach()))
        }
        let (weight, bias) = match part {
            Part::Linear(linear) => {
                let bias = self.bias.map(|_| match &linear.bias {
                    Some(bias) => bias.val(),
                    None => Tensor::zeros([linear.out_features()], &linear.weight.lazy_device()),
                });
                let weight = self
                    .weight
                    .and_then(|_| copy(self.weight, linear.weight.val()));
                (weight, bias)
            }
            Part::Embedding(table) => (
                self.weight
                    .and_then(|_| copy(self.weight, table.weight.val())),
                None,
            ),
            Part::RmsNorm(norm) => (copy(self.weight, norm.weight.val()), None),
            Part::LayerNorm(norm) => (copy(self.weight, norm.weight.val()), Some(norm.bias.val())),
            _ => (None, None),
        };
        let bias = bias.and_then(|bias| copy(self.bias, bias));
        weight.into_iter().chain(bias).collect()
    }

    fn of<'a>(adapter: &'a Adapter, name: Option<&str>) -> Option<&'a AdapterTensor> {
        name.and_then(|name| adapter.get(name))
    }
}

/// Whether a layer has a bias.
pub(crate) fn has_bias(part: Part<'_>) -> bool {
    match part {
        Part::Linear(linear) => linear.bias.is_some(),
        Part::LayerNorm(_) => true,
        _ => false,
    }
}

impl AdapterKind for Copies {
    fn weight(&self, adapter: &Adapter) -> Option<Tensor<2>> {
        Self::of(adapter, self.weight).map(AdapterTensor::val2)
    }

    fn norm_weight(&self, adapter: &Adapter) -> Option<Tensor<1>> {
        Self::of(adapter, self.weight).map(AdapterTensor::val1)
    }

    fn bias(&self, adapter: &Adapter) -> Option<Tensor<1>> {
        Self::of(adapter, self.bias).map(AdapterTensor::val1)
    }
}
