//! Trained copies of a layer's own tensors: biases, norms, embeddings and output layers that are saved whole.
//!
//! A copy takes the place of the base's tensor while its adapter is active. So the base stays as it is, and with the
//! adapter switched off the model is the base.

use std::sync::Arc;

use burn::tensor::Tensor;
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor};

/// Copies of a layer's tensors, by the names of their adapter tensors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Copies {
    /// The weight: a matrix as the layer holds it, or the vector of a norm.
    pub(crate) weight: Option<&'static str>,
    /// The bias.
    pub(crate) bias: Option<&'static str>,
}

impl Copies {
    fn of<'a>(adapter: &'a Adapter, name: Option<&str>) -> Option<&'a AdapterTensor> {
        name.and_then(|name| adapter.get(name))
    }
}

impl AdapterKind for Copies {
    fn weight(&self, adapter: &Adapter) -> Option<Tensor<2>> {
        Self::of(adapter, self.weight).map(AdapterTensor::val2)
    }

    fn norm_weight(&self, adapter: &Adapter) -> Option<Tensor<1>> {
        Self::of(adapter, self.weight).map(AdapterTensor::val1)
    }

    /// Beside an adapter that has a scale, copies stay as they are.
    fn scaled(&self, _: f64) -> Option<Arc<dyn AdapterKind>> {
        Some(Arc::new(*self))
    }

    fn bias(&self, adapter: &Adapter) -> Option<Tensor<1>> {
        Self::of(adapter, self.bias).map(AdapterTensor::val1)
    }
}
