//! The nodes of [`recompute`](crate::recompute()): one that runs a part again for its gradient, and one
//! that hands on the gradient of a parameter which that run has found.

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

/// From the gradient of the output to that of the input; leaves those of the parameters where their
/// [`Gradient`]s look for them.
#[derive(Clone)]
pub(crate) struct Rerun(Arc<dyn Fn(Tensor<3>) -> Tensor<3> + Send + Sync>);

/// The gradient of a parameter, once it is there.
#[derive(Clone)]
pub(crate) struct Gradient(Arc<dyn Fn() -> Option<Tensor<1>> + Send + Sync>);

impl Rerun {
    pub(crate) fn new(run: impl Fn(Tensor<3>) -> Tensor<3> + Send + Sync + 'static) -> Self {
        Self(Arc::new(run))
    }
}

impl Gradient {
    pub(crate) fn new(take: impl Fn() -> Option<Tensor<1>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }
}

impl fmt::Debug for Rerun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rerun")
    }
}

impl fmt::Debug for Gradient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gradient")
    }
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait Recompute: Backend {
    /// `value`, with `x` as its parent.
    fn recompute(x: FloatTensor<Self>, value: FloatTensor<Self>, rerun: Rerun)
    -> FloatTensor<Self>;

    /// `x`, with itself and `param` as parents.
    fn pass_on(
        x: FloatTensor<Self>,
        param: FloatTensor<Self>,
        gradient: Gradient,
    ) -> FloatTensor<Self>;
}

impl Recompute for Flex {
    fn recompute(_: FlexTensor, value: FlexTensor, _: Rerun) -> FlexTensor {
        value
    }

    fn pass_on(x: FlexTensor, _: FlexTensor, _: Gradient) -> FlexTensor {
        x
    }
}

impl<C: CheckpointStrategy> Recompute for Autodiff<Flex, C> {
    fn recompute(
        x: FloatTensor<Self>,
        value: FloatTensor<Self>,
        rerun: Rerun,
    ) -> FloatTensor<Self> {
        let (_, node) = x.into_parts();
        let value = value.into_primitive();
        match RunAgain.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(rerun, value),
            OpsKind::UnTracked(prep) => prep.finish(value),
        }
    }

    fn pass_on(
        x: FloatTensor<Self>,
        param: FloatTensor<Self>,
        gradient: Gradient,
    ) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let shape = param.shape();
        let (_, param) = param.into_parts();
        match HandOn
            .prepare::<C>([node, param])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((gradient, shape), x),
            OpsKind::UnTracked(prep) => prep.finish(x),
        }
    }
}

#[derive(Debug)]
struct RunAgain;

impl Backward<Flex, 1> for RunAgain {
    type State = Rerun;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = Tensor::from_primitive::<Flex>(grads.consume::<Flex>(&ops.node));
        let dx = (ops.state.0)(dy);
        if let [Some(node)] = ops.parents {
            grads.register::<Flex>(node.id, primitive(dx));
        }
    }
}

#[derive(Debug)]
struct HandOn;

impl Backward<Flex, 2> for HandOn {
    type State = (Gradient, burn::tensor::Shape);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dx = grads.consume::<Flex>(&ops.node);
        let (gradient, shape) = ops.state;
        let [x, param] = ops.parents;
        if let (Some(node), Some(gradient)) = (param, (gradient.0)()) {
            grads.register::<Flex>(node.id, primitive(gradient).reshape(shape));
        }
        if let Some(node) = x {
            grads.register::<Flex>(node.id, dx);
        }
    }
}

fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    (tensor.try_into_primitive::<Flex>()).expect("the gradient of tensors of Flex is one")
}
