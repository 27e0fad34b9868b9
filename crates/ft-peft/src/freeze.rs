//! Which parameters train.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Numbers that train, and all numbers of `model`.
///
/// On a device without autodiff nothing trains; bring the model there with `Module::train`.
pub fn trainable_parameters(model: &impl Module) -> (usize, usize) {
    struct Count(usize, usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let numbers = param.lazy_shape().num_elements();
            self.1 += numbers;
            if param.is_require_grad() {
                self.0 += numbers;
            }
        }
    }
    let mut count = Count(0, 0);
    model.visit(&mut count);
    (count.0, count.1)
}
