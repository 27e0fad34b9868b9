//! Rows of a matrix by number: tokens, or positions.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, module};

use crate::layers::linear::normal;

/// A table of vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, width]`; held in 16 bits if it was loaded so.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// Rows drawn from `N(0, std²)` when first read.
    pub fn new(rows: usize, width: usize, std: f64, device: &Device) -> Self {
        Self {
            weight: normal([rows, width], std, device),
        }
    }

    /// A table of these rows.
    pub fn from_weight(weight: Tensor<2>) -> Self {
        Self {
            weight: Param::from_tensor(weight),
        }
    }

    /// The number of rows, without reading the weight.
    pub fn rows(&self) -> usize {
        self.weight.lazy_shape()[0]
    }

    /// `[batch, seq]` ids to `[batch, seq, width]` in `f32`.
    ///
    /// # Panics
    ///
    /// If the weight is held in 16 bits and is to train.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let weight = self.weight.val();
        assert!(
            !(weight.is_tracked() && weight.dtype() != DType::F32),
            "an embedding held in {:?} cannot train: load the model in f32",
            weight.dtype()
        );
        let rows = module::embedding(weight, ids);
        match rows.dtype() {
            DType::F16 | DType::BF16 => rows.cast(DType::F32),
            _ => rows,
        }
    }
}
