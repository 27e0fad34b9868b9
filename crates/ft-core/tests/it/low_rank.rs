//! An adapter for tests: `s·B(Ax)`, added to the product.

use std::sync::Arc;

use burn::tensor::Tensor;
use ft_core::layers::{Adapter, AdapterKind, AdapterTensor, At, LowRank};

#[derive(Debug)]
struct Sum {
    scale: f64,
}

impl AdapterKind for Sum {
    fn low_rank(&self, at: &At<'_>, _: &Tensor<2>) -> Option<LowRank> {
        Some(LowRank {
            a: at.adapter.val2("a"),
            b: at.adapter.val2("b"),
            scale: self.scale,
            dropout: None,
        })
    }
}

/// An active adapter of these factors.
pub(crate) fn low_rank(name: &str, a: Tensor<2>, b: Tensor<2>, scale: f64) -> Adapter {
    let tensors = vec![AdapterTensor::new("a", a), AdapterTensor::new("b", b)];
    Adapter::new(name, Arc::new(Sum { scale }), tensors, 0.0, Arc::new(()))
}
