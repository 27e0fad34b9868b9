//! The one projection that every model uses: `y = x·Wᵀ + b`, plus low-rank adapters.
//!
//! Three independent plugs: how the weight is stored, which adapters are attached, and which
//! operation computes the product. The weight lies as it lies in the checkpoint, so loading moves
//! no numbers: `[out, in]` for most models, `[in, out]` for GPT-2's `Conv1D`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use ft_kernels::Input;

use crate::layers::lora::Lora;

/// How a weight lies in memory and in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[out_features, in_features]`, as PyTorch's `nn.Linear`.
    OutIn,
    /// `[in_features, out_features]`, as transformers' `Conv1D` (PEFT: `fan_in_fan_out`).
    InOut,
}

/// A linear layer with adapters.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out_features, in_features]`, or transposed with [`Layout::InOut`].
    pub weight: Param<Tensor<2>>,
    /// `[out_features]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Adapters by name, in the order they were attached; those that are active are summed.
    pub adapters: Vec<Lora>,
    #[module(skip)]
    layout: Layout,
}

impl Linear {
    /// A layer with weights drawn from `N(0, std²)` when first read, and a bias of zeros.
    pub fn new(
        in_features: usize,
        out_features: usize,
        bias: bool,
        layout: Layout,
        std: f64,
        device: &Device,
    ) -> Self {
        let shape = match layout {
            Layout::OutIn => [out_features, in_features],
            Layout::InOut => [in_features, out_features],
        };
        Self {
            weight: normal(shape, std, device),
            bias: bias.then(|| zeros([out_features], device)),
            adapters: Vec::new(),
            layout,
        }
    }

    /// How the weight lies in memory.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The number of input features, without reading the weight.
    pub fn in_features(&self) -> usize {
        let shape = self.weight.lazy_shape();
        match self.layout {
            Layout::OutIn => shape[1],
            Layout::InOut => shape[0],
        }
    }

    /// The number of output features, without reading the weight.
    pub fn out_features(&self) -> usize {
        let shape = self.weight.lazy_shape();
        match self.layout {
            Layout::OutIn => shape[0],
            Layout::InOut => shape[1],
        }
    }

    /// `x·Wᵀ + b + Σ s·B(Ax)` over the active adapters.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, in_features]`, a tensor or an [`Input`]
    /// - output: `[batch, seq, out_features]`
    pub fn forward(&self, x: impl Into<Input<3>>) -> Tensor<3> {
        let x = x.into();
        let [batch, seq, _] = x.value().dims();
        let input = x.into_rows();
        let x = input.value().clone();
        let weight = self.weight.val();
        let weight = match self.layout {
            Layout::OutIn => weight,
            Layout::InOut => weight.transpose(),
        };
        let mut adapters = self.adapters.iter().filter(|a| a.active).peekable();
        // The first adapter goes along with the product, unless dropout gives it another input.
        let fused = adapters.next_if(|adapter| !adapter.drops_out(&x));
        let mut y = ft_kernels::linear(input, weight, fused.map(Lora::low_rank));
        if let Some(bias) = &self.bias {
            y = y + bias.val().unsqueeze();
        }
        for adapter in adapters {
            y = y + adapter.forward(x.clone());
        }
        y.reshape([batch, seq, self.out_features()])
    }
}

/// A parameter of normal noise, drawn when first read.
pub(crate) fn normal<const D: usize>(
    shape: [usize; D],
    std: f64,
    device: &Device,
) -> Param<Tensor<D>> {
    lazy(shape, device, move |device| {
        Tensor::random(shape, Distribution::Normal(0.0, std), device)
    })
}

/// A parameter of zeros, allocated when first read.
pub(crate) fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    lazy(shape, device, move |device| Tensor::zeros(shape, device))
}

/// A parameter of ones, allocated when first read.
pub(crate) fn ones<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    lazy(shape, device, move |device| Tensor::ones(shape, device))
}

fn lazy<const D: usize>(
    shape: [usize; D],
    device: &Device,
    init: impl Fn(&Device) -> Tensor<D> + Send + Sync + 'static,
) -> Param<Tensor<D>> {
    Param::uninitialized(
        burn::module::ParamId::new(),
        move |device, require_grad| init(device).set_require_grad(require_grad),
        device.clone(),
        true,
        shape.into(),
    )
}
