//! A matrix that is computed from an adapter's tensors, and computed again in the backward pass, so that no intermediate
//! results are stored.

use burn::tensor::{Device, Tensor};
use ft_core::layers::{Adapter, Adapters};

/// `make(adapter)`, computed again in the backward pass. Only the matrix itself is kept, by the operations that use it.
///
/// `device` is that of the adapter; `make` has to use tensors that train only through its argument.
pub(crate) fn remade(
    adapter: &Adapter,
    device: &Device,
    make: impl Fn(&Adapter) -> Tensor<2> + Send + 'static,
) -> Tensor<2> {
    let mut alone = Adapters::default();
    alone.push(adapter.clone());
    // What is computed again is a function of a module and a tensor; here the module is enough.
    let nothing = Tensor::zeros([1, 1, 1], device);
    let made = ft_kernels::recompute(&alone, nothing, move |alone: &Adapters, _| {
        make(&alone[0]).unsqueeze()
    });
    made.squeeze_dim(0)
}
