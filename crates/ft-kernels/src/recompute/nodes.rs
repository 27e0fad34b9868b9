//! The nodes of [`recompute`](crate::recompute()): one runs a part again for its gradient, the other returns the gradient
//! of a parameter that this run computed.

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, DispatchDevice, DispatchKindConversion, DispatchTensor, TensorMetadata,
    backend_extension,
};
use burn::tensor::{Device, Tensor};

/// From the gradient of the output to that of the input. It stores the gradients of the parameters in their
/// [`Gradient`]s.
#[derive(Clone)]
pub(crate) struct Rerun(Arc<dyn Fn(Tensor<3>) -> Tensor<3> + Send + Sync>);

/// The gradient of a parameter, after it is computed.
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

/// Whether the backend of this device has these nodes.
pub(super) fn exist_on(device: &Device) -> bool {
    match device.as_dispatch() {
        DispatchDevice::Autodiff(inner) => match **inner {
            #[cfg(feature = "cpu")]
            DispatchDevice::Flex(_) => true,
            #[cfg(feature = "gpu")]
            DispatchDevice::Cube(_) => true,
            // Other backends that are compiled in.
            #[allow(unreachable_patterns)]
            _ => false,
        },
        _ => false,
    }
}

#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(feature = "gpu"), Autodiff)]
pub(crate) trait Recompute: Backend {
    /// `value`, with `x` as its parent.
    fn recompute(
        x: FloatTensor<Self>,
        value: FloatTensor<Self>,
        rerun: Rerun,
    ) -> FloatTensor<Self> {
        let (_, _) = (x, rerun);
        value
    }

    /// `x`, with itself and `param` as parents.
    fn pass_on(
        x: FloatTensor<Self>,
        param: FloatTensor<Self>,
        gradient: Gradient,
    ) -> FloatTensor<Self> {
        let (_, _) = (param, gradient);
        x
    }
}

#[cfg(feature = "cpu")]
impl Recompute for burn::backend::Flex {}

#[cfg(feature = "gpu")]
impl Recompute for burn::backend::Cube {}

impl<B, C> Recompute for Autodiff<B, C>
where
    B: Backend,
    C: CheckpointStrategy,
    DispatchTensor: DispatchKindConversion<B>,
{
    fn recompute(
        x: FloatTensor<Self>,
        value: FloatTensor<Self>,
        rerun: Rerun,
    ) -> FloatTensor<Self> {
        let (_, node) = x.into_parts();
        let value = value.into_primitive();
        match Backward::<B, 1>::prepare::<C>(RunAgain, [node])
            .compute_bound()
            .stateful()
        {
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
        match Backward::<B, 2>::prepare::<C>(HandOn, [node, param])
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

impl<B: Backend> Backward<B, 1> for RunAgain
where
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = Rerun;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = Tensor::from_primitive::<B>(grads.consume::<B>(&ops.node));
        let dx = (ops.state.0)(dy);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, primitive::<B, 3>(dx));
        }
    }
}

#[derive(Debug)]
struct HandOn;

impl<B: Backend> Backward<B, 2> for HandOn
where
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = (Gradient, burn::tensor::Shape);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dx = grads.consume::<B>(&ops.node);
        let (gradient, shape) = ops.state;
        let [x, param] = ops.parents;
        if let (Some(node), Some(gradient)) = (param, (gradient.0)()) {
            let gradient = primitive::<B, 1>(gradient);
            grads.register::<B>(node.id, B::float_reshape(gradient, shape));
        }
        if let Some(node) = x {
            grads.register::<B>(node.id, dx);
        }
    }
}

fn primitive<B: Backend, const D: usize>(tensor: Tensor<D>) -> FloatTensor<B>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    (tensor.try_into_primitive::<B>()).expect("a gradient is on the device of its tensor")
}
