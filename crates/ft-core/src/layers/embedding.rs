//! Rows of a matrix by number: tokens, or positions.
//!
//! The row of the padding, if there is one, gets no gradient from being looked up, as in PyTorch's `nn.Embedding` with
//! `padding_idx`. A tied output layer still trains it.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, module};
use ft_kernels::{Packed, Weight};

use crate::layers::adapter::Adapters;
use crate::layers::linear::{Layout, normal};
use crate::layers::weight::{PackedParam, WeightParam};

/// A table of vectors.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, width]`; held in 16 bits or in blocks if it was loaded so.
    pub weight: WeightParam,
    /// The row that being looked up does not train.
    #[module(skip)]
    pub padding: Option<usize>,
    /// The factor of the rows that are looked up.
    pub scale: f64,
    /// Adapters, in the order in which they were attached.
    pub adapters: Adapters,
}

impl Embedding {
    /// Rows drawn from `N(0, std²)` when first read.
    pub fn new(rows: usize, width: usize, std: f64, device: &Device) -> Self {
        Self {
            weight: normal([rows, width], std, device).into(),
            padding: None,
            scale: 1.0,
            adapters: Adapters::default(),
        }
    }

    /// A table of these rows.
    pub fn from_weight(weight: Tensor<2>) -> Self {
        Self {
            weight: Param::from_tensor(weight).into(),
            padding: None,
            scale: 1.0,
            adapters: Adapters::default(),
        }
    }

    /// The same table, of which being looked up does not train the row `padding`.
    #[must_use]
    pub fn with_padding(self, padding: Option<usize>) -> Self {
        Self { padding, ..self }
    }

    /// The same table, whose rows are multiplied by a factor when they are looked up.
    #[must_use]
    pub fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// Puts blocks in the place of the rows.
    ///
    /// # Panics
    ///
    /// If they are of another size.
    pub fn set_packed(&mut self, packed: &Packed) {
        assert_eq!(
            packed.dims()[..],
            self.weight.lazy_shape()[..],
            "blocks have the size of the table"
        );
        self.weight = WeightParam::Packed(PackedParam::new(packed, Layout::OutIn));
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
        let own = (self.adapters).replaced(|kind, adapter| kind.weight(adapter));
        let rows = match (own, &self.weight) {
            (None, WeightParam::Packed(packed)) => packed.rows(ids.clone()),
            (None, WeightParam::Dense(param)) => self.rows_of(param.val(), &ids),
            (Some(own), _) => self.rows_of(own, &ids),
        };
        let own = self
            .adapters
            .replaced_by_row(|kind, adapter| kind.weight(adapter));
        let rows = own.fold(rows, |rows, (adapter, table)| {
            adapter.on_its_rows(rows, |_| self.rows_of(table, &ids))
        });
        let rows = (self.adapters.active()).fold(rows, |rows, adapter| {
            adapter.on_its_rows(rows, |rows| adapter.kind().rows(adapter, &ids, rows))
        });
        match self.scale {
            1.0 => rows,
            scale => rows * scale,
        }
    }

    fn rows_of(&self, table: Tensor<2>, ids: &Tensor<2, Int>) -> Tensor<3> {
        assert!(
            !(table.is_tracked() && table.dtype() != DType::F32),
            "an embedding held in {:?} cannot train: load the model in f32",
            table.dtype()
        );
        let rows = look_up(table, ids.clone(), self.padding);
        match rows.dtype() {
            DType::F16 | DType::BF16 => rows.cast(DType::F32),
            _ => rows,
        }
    }

    /// The table, `[rows, width]`, that of an active adapter if one has its own. Blocks are decoded, all of them.
    pub fn table(&self) -> Tensor<2> {
        let own = (self.adapters).replaced(|kind, adapter| kind.weight(adapter));
        own.unwrap_or_else(|| self.weight.val())
    }

    /// The same for products, in which blocks stay as they are.
    pub fn product_weight(&self) -> Weight {
        let own = (self.adapters).replaced(|kind, adapter| kind.weight(adapter));
        match (own, &self.weight) {
            (None, WeightParam::Packed(packed)) => packed.packed().into(),
            (None, WeightParam::Dense(param)) => param.val().into(),
            (Some(own), _) => own.into(),
        }
    }
}

/// The rows of a table for `[batch, seq]` ids, of which those of `padding` do not train.
pub fn look_up(table: Tensor<2>, ids: Tensor<2, Int>, padding: Option<usize>) -> Tensor<3> {
    let trains = table.is_tracked();
    let rows = module::embedding(table, ids.clone());
    match padding.filter(|_| trains) {
        Some(padding) => {
            let padding = ids.equal_elem(padding as i64).unsqueeze_dim::<3>(2);
            let padding = padding.expand(rows.dims());
            rows.clone().mask_where(padding, rows.detach())
        }
        None => rows,
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    /// Each row gets as many ones as it was looked up, the row of the padding none.
    #[test]
    fn the_row_of_the_padding_does_not_train() {
        let device = Device::default().autodiff();
        let ids = TensorData::from([[2i64, 0, 1], [2, 0, 2]]);
        let ids = Tensor::<2, Int>::from_data(ids, &device);
        let table = Embedding::new(4, 2, 1.0, &device);
        for (padding, expected) in [
            (None, [2.0f32, 1.0, 3.0, 0.0]),
            (Some(2), [2.0, 1.0, 0.0, 0.0]),
        ] {
            let table = table.clone().with_padding(padding);
            let rows = table.forward(ids.clone());
            let plain = table.weight.val().select(0, ids.clone().reshape([6]));
            assert_eq!(rows.to_data(), plain.reshape([2, 3, 2]).into_data());
            let gradient = table
                .weight
                .val()
                .grad(&rows.sum().backward())
                .expect("trains");
            let expected = expected.map(|count| [count; 2]);
            assert_eq!(gradient.into_data(), TensorData::from(expected));
        }
    }
}
