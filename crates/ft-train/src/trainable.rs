//! The parameters that train: which they are, their values out and in.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Shape, Tensor, TensorData};
use ft_core::layers::PackedParam;
use ft_core::module_path::{self, PathMapper, PathVisitor};

use crate::{Error, Result};

/// Path and shape of every parameter that requires gradients.
pub(crate) fn shapes(model: &impl Module) -> BTreeMap<String, Shape> {
    struct Shapes(BTreeMap<String, Shape>);
    impl PathVisitor for Shapes {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0.insert(path.to_string(), param.lazy_shape());
            }
        }
        fn visit_packed(&mut self, _: &str, _: &PackedParam) {}
    }
    let mut shapes = Shapes(BTreeMap::new());
    module_path::visit_params(model, &mut shapes);
    shapes.0
}

/// Path and value of every parameter that requires gradients.
pub(crate) fn tensors(model: &impl Module) -> Vec<(String, TensorData)> {
    struct Values(Vec<(String, TensorData)>);
    impl PathVisitor for Values {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0.push((path.to_string(), param.val().into_data()));
            }
        }
        fn visit_packed(&mut self, _: &str, _: &PackedParam) {}
    }
    let mut values = Values(Vec::new());
    module_path::visit_params(model, &mut values);
    values.0
}

/// Puts `values`, which come from the file `path`, in the place of the parameters that require
/// gradients.
///
/// # Errors
///
/// [`Error::OtherParameters`] if names or shapes differ.
pub(crate) fn replace<M: Module>(
    model: M,
    path: &Path,
    values: BTreeMap<String, TensorData>,
) -> Result<M> {
    struct Replace(BTreeMap<String, TensorData>);
    impl PathMapper for Replace {
        fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !param.is_require_grad() {
                return param;
            }
            match self.0.remove(path) {
                Some(value) => renew(param, |old| {
                    let value = value.convert_dtype(old.dtype());
                    Tensor::from_data(value, (&old.device(), old.dtype()))
                }),
                None => param,
            }
        }
    }
    check(&shapes(&model), path, &values)?;
    Ok(module_path::map_params(model, &mut Replace(values)))
}

/// Compares names and shapes.
fn check(
    wanted: &BTreeMap<String, Shape>,
    path: &Path,
    found: &BTreeMap<String, TensorData>,
) -> Result<()> {
    let mut missing = Vec::new();
    let mut misshapen = Vec::new();
    for (name, shape) in wanted {
        match found.get(name) {
            None => missing.push(name.clone()),
            Some(value) if value.shape()[..] != shape[..] => misshapen.push(format!(
                "{name} (model {:?}, file {:?})",
                &shape[..],
                &value.shape()[..]
            )),
            Some(_) => {}
        }
    }
    let unexpected: Vec<_> = (found.keys())
        .filter(|name| !wanted.contains_key(*name))
        .cloned()
        .collect();
    if missing.is_empty() && unexpected.is_empty() && misshapen.is_empty() {
        return Ok(());
    }
    Err(Error::OtherParameters {
        path: path.to_path_buf(),
        missing,
        unexpected,
        misshapen,
    })
}

/// Gives a parameter that requires gradients a new value, which `update` finds from the old one
/// outside the graph. Identity, mappers and the gradient-checkpointing strategy stay.
pub(crate) fn renew<const D: usize>(
    param: Param<Tensor<D>>,
    update: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Param<Tensor<D>> {
    let (id, tensor, mapper) = param.consume();
    let strategy = tensor.gradient_checkpointing_strategy();
    let mut updated = Tensor::from_inner(update(tensor.inner()));
    if let Some(strategy) = strategy {
        updated = updated.with_gradient_checkpointing_strategy(strategy);
    }
    Param::from_mapped_value(id, updated.require_grad(), mapper)
}
