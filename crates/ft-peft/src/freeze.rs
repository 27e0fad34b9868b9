//! Which parameters train.

use std::collections::HashSet;

use burn::module::{Module, Param, ParamId};
use burn::tensor::Tensor;
use ft_core::Parts;
use ft_core::layers::PackedParam;
use ft_core::module_path::{PathVisitor, visit_params};

use crate::Result;
use crate::switch::check_known;

/// Makes exactly the adapters of these names trainable; the rest of the model is frozen.
///
/// Which adapters are active and which train are independent: a frozen reference adapter can be
/// active beside the one that trains. A frozen adapter is a fixed function, without dropout.
/// [`attach`](crate::attach) leaves the new adapter as the only one that trains.
///
/// # Errors
///
/// If there is no adapter of one of the names.
pub fn set_trainable<M: Module + Parts>(model: M, names: &[&str]) -> Result<M> {
    check_known(&model, names)?;
    let mut model = freeze_all(model);
    model.for_each_part_mut(&mut |_, mut part| {
        for adapter in part.adapters().iter_mut() {
            if names.contains(&adapter.name.as_str()) {
                adapter.set_trainable(true);
            }
        }
    });
    Ok(model)
}

/// Freezes base and adapters.
pub(crate) fn freeze_all<M: Module + Parts>(model: M) -> M {
    let mut model = model.no_grad();
    model.for_each_part_mut(&mut |_, mut part| {
        for adapter in part.adapters().iter_mut() {
            adapter.set_trainable(false);
        }
    });
    model
}

/// Numbers that train, and all numbers of `model`. What layers share counts once.
///
/// On a device without autodiff nothing trains; bring the model there with `Module::train`.
pub fn trainable_parameters(model: &impl Module) -> (usize, usize) {
    struct Count(usize, usize, HashSet<ParamId>);
    impl PathVisitor for Count {
        fn visit_packed(&mut self, _: &str, packed: &PackedParam) {
            if self.2.insert(packed.id()) {
                self.1 += packed.shape().num_elements();
            }
        }
        fn visit<const D: usize>(&mut self, _: &str, param: &Param<Tensor<D>>) {
            if !self.2.insert(param.id) {
                return;
            }
            let numbers = param.lazy_shape().num_elements();
            self.1 += numbers;
            if param.is_require_grad() {
                self.0 += numbers;
            }
        }
    }
    let mut count = Count(0, 0, HashSet::new());
    visit_params(model, &mut count);
    (count.0, count.1)
}
