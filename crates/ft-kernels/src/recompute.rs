//! A part of a model whose activations are not stored: the backward pass computes them again.
//!
//! This is training with sublinear memory cost (Chen et al., 2016, arXiv:1604.06174, section 4.1). Between the passes
//! only the input of each part exists. The memory of a step is that of the activations of one part and one hidden
//! state for each part. The cost is a second forward pass.
//!
//! The graph has one node for the part, whose gradient runs the part again in a separate graph. Before it there is
//! one node for each parameter, which returns the gradient that this run computed.

#[cfg(any(feature = "cpu", feature = "gpu"))]
mod nodes;

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

/// `f(module, x)`, computed again in the backward pass instead of stored.
///
/// `f` must return the same value both times: it must seed the device before it draws random numbers. It must use
/// tensors that train only through `module` and `x`. A parameter of `module` may be the result of other operations, which
/// get its gradient. If no tensor requires gradients, and on backends other than the CPU's
/// and CubeCL's, this is a plain call.
///
/// # Shapes
///
/// - `x`: `[batch, seq, features]`; the output may have any size
///
/// # Panics
///
/// If `f` captures a tensor that requires gradients: they would be lost.
pub fn recompute<M, F>(module: &M, x: Tensor<3>, f: F) -> Tensor<3>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<3>) -> Tensor<3> + Send + 'static,
{
    #[cfg(any(feature = "cpu", feature = "gpu"))]
    // Reads every parameter, so that one that is drawn when first read is drawn before a clone of it is frozen.
    if nodes::exist_on(&x.device()) && (trains(module) || x.is_tracked()) {
        return graph::recompute(module, x, f);
    }
    f(module, x)
}

#[cfg(any(feature = "cpu", feature = "gpu"))]
fn trains<M: Module>(module: &M) -> bool {
    struct Any(bool);
    impl ModuleVisitor for Any {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.val().is_tracked();
        }
    }
    let mut any = Any(false);
    module.visit(&mut any);
    any.0
}

#[cfg(any(feature = "cpu", feature = "gpu"))]
mod graph {
    use super::nodes::{Gradient, Recompute, Rerun};
    use super::*;
    use crate::graph::constant;
    use burn::backend::Dispatch;

    /// Gradients of the parameters that train, in the order of traversal, each in one dimension.
    type Slots = Arc<Mutex<Vec<Option<Tensor<1>>>>>;

    pub(super) fn recompute<M, F>(module: &M, x: Tensor<3>, f: F) -> Tensor<3>
    where
        M: Module + 'static,
        F: Fn(&M, Tensor<3>) -> Tensor<3> + Send + 'static,
    {
        // A leaf stays one when it is detached.
        let alone = x.clone().detach().set_require_grad(false);
        let value = f(&module.clone().no_grad(), alone.clone());
        assert!(
            !value.is_tracked(),
            "a recomputed function may use tensors that train only through its module and its input"
        );
        let slots = Slots::default();
        let mut node = PassOn {
            x,
            slots: slots.clone(),
            count: 0,
        };
        module.visit(&mut node);
        let run = Mutex::new((module.clone(), alone, f));
        let rerun = Rerun::new(move |dy| {
            let run = run.lock().unwrap_or_else(PoisonError::into_inner);
            let (module, x, f) = &*run;
            let (dx, gradients) = backward(module, x.clone(), f, dy);
            *slots.lock().unwrap_or_else(PoisonError::into_inner) = gradients;
            dx
        });
        let (node, value) = (node.x.into_dispatch(), value.into_dispatch());
        Tensor::from_dispatch(Dispatch::recompute(node, value, rerun))
    }

    /// Passes `x` through a node for each parameter that trains.
    struct PassOn {
        x: Tensor<3>,
        slots: Slots,
        count: usize,
    }

    impl ModuleVisitor for PassOn {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let param = param.val();
            if !param.is_tracked() {
                return;
            }
            let (slots, place) = (self.slots.clone(), self.count);
            let gradient = Gradient::new(move || {
                let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
                slots.get_mut(place).and_then(Option::take)
            });
            let x = self.x.clone().into_dispatch();
            let passed = Dispatch::pass_on(x, param.into_dispatch(), gradient);
            self.x = Tensor::from_dispatch(passed);
            self.count += 1;
        }
    }

    /// The gradients of `x` and of the parameters that train, given that of the output.
    fn backward<M: Module>(
        module: &M,
        x: Tensor<3>,
        f: &impl Fn(&M, Tensor<3>) -> Tensor<3>,
        dy: Tensor<3>,
    ) -> (Tensor<3>, Vec<Option<Tensor<1>>>) {
        let module = module.clone().map(&mut Leaves);
        let x = x.require_grad();
        let y = f(&module, x.clone());
        let dy = constant(dy, &y);
        let gradients = (y * dy).sum().backward();
        let mut found = Found {
            gradients: &gradients,
            all: Vec::new(),
        };
        module.visit(&mut found);
        let dx = x.grad(&gradients).unwrap_or_else(|| x.inner().zeros_like());
        (dx, found.all)
    }

    /// Parameters that train, as leaves of a separate graph.
    struct Leaves;

    impl ModuleMapper for Leaves {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !param.val().is_tracked() {
                return param;
            }
            let (id, tensor, mapper) = param.consume();
            Param::from_mapped_value(id, tensor.detach().require_grad(), mapper)
        }
    }

    struct Found<'a> {
        gradients: &'a Gradients,
        all: Vec<Option<Tensor<1>>>,
    }

    impl ModuleVisitor for Found<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let param = param.val();
            if param.is_tracked() {
                let gradient = param.grad(self.gradients);
                self.all
                    .push(gradient.map(|gradient| gradient.flatten(0, D - 1)));
            }
        }
    }
}
