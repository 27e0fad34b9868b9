//! `Σ x²` over many tensors: what the norm of a whole gradient is made of.
//!
//! On the CPU a tensor is summed in pieces of fixed size, in `f64`, and the pieces are added in their order, so
//! that the result has the same bits in every run and with any number of threads. Burn's own sum of a large tensor
//! adds its pieces in the order in which threads finish them. Elsewhere tensors are summed on their device, and the
//! sums are read at once.

use burn::tensor::Tensor;

/// A sum of squares over any number of tensors.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use ft_kernels::SumOfSquares;
///
/// let device = Device::default();
/// let mut squares = SumOfSquares::default();
/// squares.add(Tensor::<1>::from_data([3.0, 4.0], &device));
/// squares.add(Tensor::<2>::from_data([[12.0]], &device));
/// assert_eq!(squares.total(), 169.0);
/// ```
#[derive(Debug, Default)]
pub struct SumOfSquares {
    /// In the order in which tensors were added; of those on a device, their place in `on_device`.
    sums: Vec<Sum>,
    on_device: Vec<Tensor<1>>,
}

#[derive(Debug)]
enum Sum {
    #[cfg_attr(not(feature = "cpu"), allow(dead_code))]
    Read(f64),
    OnDevice(usize),
}

impl SumOfSquares {
    /// Adds the squares of a tensor, outside any graph.
    pub fn add<const D: usize>(&mut self, x: Tensor<D>) {
        let x = x.inner();
        #[cfg(feature = "cpu")]
        if crate::flex::takes(&x) {
            self.sums
                .push(Sum::Read(crate::flex::sum_of_squares::sum_of_squares(x)));
            return;
        }
        self.sums.push(Sum::OnDevice(self.on_device.len()));
        self.on_device.push(x.square().sum());
    }

    /// The sum, read from the device once.
    pub fn total(self) -> f64 {
        let read: Vec<f64> = match self.on_device.is_empty() {
            true => Vec::new(),
            false => Tensor::cat(self.on_device, 0)
                .into_data()
                .iter::<f64>()
                .collect(),
        };
        let sums = self.sums.iter().map(|sum| match sum {
            Sum::Read(sum) => *sum,
            Sum::OnDevice(place) => read[*place],
        });
        sums.sum()
    }
}
