//! The one projection that every model uses: `y = x·Wᵀ + b`, and what adapters make of it.
//!
//! Three independent plugs: how the weight is stored, which adapters are attached, and which
//! operation computes the product. The weight lies as it lies in the checkpoint, so loading moves
//! no numbers: `[out, in]` for most models, `[in, out]` for GPT-2's `Conv1D`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use ft_kernels::{Input, Packed, Weight};

use crate::layers::adapter::Adapters;
use crate::layers::adapter_kind::At;
use crate::layers::weight::{PackedParam, WeightParam};

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
    pub weight: WeightParam,
    /// `[out_features]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Adapters, in the order in which they were attached.
    pub adapters: Adapters,
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
            weight: normal(shape, std, device).into(),
            bias: bias.then(|| zeros([out_features], device)),
            adapters: Adapters::default(),
            layout,
        }
    }

    /// Puts blocks in the place of the weight.
    ///
    /// # Panics
    ///
    /// If they are not `[out_features, in_features]`, in both layouts.
    pub fn set_packed(&mut self, packed: &Packed) {
        assert_eq!(
            packed.dims(),
            [self.out_features(), self.in_features()],
            "blocks have the size of the weight"
        );
        self.weight = WeightParam::Packed(PackedParam::new(packed, self.layout));
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

    /// `x·Wᵀ + b`, with what the active adapters change of it; see [`AdapterKind`](crate::layers::AdapterKind).
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, in_features]`, a tensor or an [`Input`]
    /// - output: `[batch, seq, out_features]`
    pub fn forward(&self, x: impl Into<Input<3>>) -> Tensor<3> {
        let x = x.into();
        let [batch, seq, _] = x.value().dims();
        let input = x.into_rows();
        let y = match self.adapters.active().next() {
            None => {
                let y = ft_kernels::linear(input, self.product_weight(), None);
                self.plus_bias(y)
            }
            Some(_) => self.adapted(input),
        };
        y.reshape([batch, seq, self.out_features()])
    }

    /// The outputs of several layers for one input. Without active adapters they are computed together, which is faster for a
    /// token alone.
    ///
    /// # Shapes
    ///
    /// As those of [`forward`](Self::forward).
    pub fn forward_all<const N: usize>(
        layers: [&Self; N],
        x: impl Into<Input<3>>,
    ) -> [Tensor<3>; N] {
        let x = x.into();
        if layers
            .iter()
            .any(|layer| layer.adapters.active().next().is_some())
        {
            return layers.map(|layer| layer.forward(x.clone()));
        }
        let [batch, seq, _] = x.value().dims();
        let weights = layers.map(Self::product_weight);
        let mut layers = layers.iter();
        ft_kernels::linears(x.into_rows(), weights).map(|y| {
            let layer = layers.next().expect("an output for each layer");
            layer
                .plus_bias(y)
                .reshape([batch, seq, layer.out_features()])
        })
    }

    fn adapted(&self, input: Input<2>) -> Tensor<2> {
        let active = self.adapters.active().map(|adapter| At {
            layer: self,
            adapter,
            fused: false,
        });
        let mut active: Vec<At<'_>> = active.collect();
        active.sort_by_key(|at| at.adapter.kind().stage());
        let input = active.iter().rev().fold(input, |input, at| {
            match at.adapter.kind().input(at, input.value()) {
                Some(x) => Input::from(at.adapter.on_its_rows(input.value().clone(), |_| x)),
                None => input,
            }
        });
        let x = input.value().clone();
        let mut fused = None;
        let of_all_rows = (active.iter().enumerate()).filter(|(_, at)| !at.adapter.is_by_row());
        let low_rank = of_all_rows.into_iter().find_map(|(i, at)| {
            fused = Some(i);
            at.adapter.kind().low_rank(at, &x)
        });
        let fused = fused.filter(|_| low_rank.is_some());
        let y = ft_kernels::linear(input, self.product_weight(), low_rank);
        let own = self
            .adapters
            .replaced_by_row(|kind, adapter| kind.weight(adapter));
        let y = own.fold(y, |y, (adapter, weight)| {
            adapter.on_its_rows(y, |_| {
                ft_kernels::linear(x.clone(), self.out_in(weight), None)
            })
        });
        let y = active.iter().enumerate().fold(y, |y, (i, at)| {
            let at = At {
                fused: fused == Some(i),
                ..*at
            };
            at.adapter
                .on_its_rows(y, |y| at.adapter.kind().product(&at, &x, y))
        });
        let own = self
            .adapters
            .replaced_by_row(|kind, adapter| kind.bias(adapter));
        let y = own.fold(self.plus_bias(y.clone()), |biased, (adapter, bias)| {
            adapter.on_its_rows(biased, |_| y.clone() + bias.unsqueeze())
        });
        active.iter().fold(y, |y, at| {
            at.adapter
                .on_its_rows(y, |y| at.adapter.kind().output(at, &x, y))
        })
    }

    /// The weight as `[out_features, in_features]`, that of an active adapter if one has its own. Blocks are decoded, all
    /// of them: [`product_weight`](Self::product_weight) keeps them.
    pub fn matrix(&self) -> Tensor<2> {
        let own = (self.adapters).replaced(|kind, adapter| kind.weight(adapter));
        self.out_in(own.unwrap_or_else(|| self.weight.val()))
    }

    /// The same for products, in which blocks stay as they are.
    pub fn product_weight(&self) -> Weight {
        let own = (self.adapters).replaced(|kind, adapter| kind.weight(adapter));
        match (own, &self.weight) {
            (None, WeightParam::Packed(packed)) => packed.packed().into(),
            (None, WeightParam::Dense(param)) => self.out_in(param.val()).into(),
            (Some(own), _) => self.out_in(own).into(),
        }
    }

    /// A weight that lies as the layer's own, as `[out_features, in_features]`.
    fn out_in(&self, weight: Tensor<2>) -> Tensor<2> {
        match self.layout {
            Layout::OutIn => weight,
            Layout::InOut => weight.transpose(),
        }
    }

    /// The bias, that of an active adapter if one has its own.
    pub fn bias_vector(&self) -> Option<Tensor<1>> {
        let own = (self.adapters).replaced(|kind, adapter| kind.bias(adapter));
        own.or_else(|| self.bias.as_ref().map(Param::val))
    }

    fn plus_bias(&self, y: Tensor<2>) -> Tensor<2> {
        match self.bias_vector() {
            Some(bias) => y + bias.unsqueeze(),
            None => y,
        }
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
