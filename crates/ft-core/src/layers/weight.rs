//! The weight of a layer: a parameter, or blocks of few bits.
//!
//! Blocks are no float parameters of the module, so Burn's visitors meet their words, which are integers, and neither
//! train nor update them, and its `num_params` does not count them; ft-peft's `trainable_parameters` does. [`visit_params`](crate::module_path::visit_params) shows them with path and shape, so that
//! they are counted, compared and checked like all others.

use std::fmt;
use std::str::FromStr;

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
    ParamId,
};
use burn::tensor::{Device, Int, Shape, Tensor};
use ft_kernels::{Packed, PackedFormat};

use crate::layers::linear::Layout;
use crate::layers::parts::Parts;

/// The weight of a [`Linear`](crate::Linear) or an [`Embedding`](crate::layers::Embedding).
#[derive(Clone, Debug)]
pub enum WeightParam {
    /// A parameter.
    Dense(Param<Tensor<2>>),
    /// Blocks of few bits, which never train.
    Packed(PackedParam),
}

impl From<Param<Tensor<2>>> for WeightParam {
    fn from(param: Param<Tensor<2>>) -> Self {
        Self::Dense(param)
    }
}

impl WeightParam {
    /// The numbers. Blocks are decoded, all of them: for products there is
    /// [`product_weight`](crate::Linear::product_weight).
    pub fn val(&self) -> Tensor<2> {
        match self {
            Self::Dense(param) => param.val(),
            Self::Packed(packed) => packed.val(),
        }
    }

    /// The shape, without reading the weight.
    pub fn lazy_shape(&self) -> Shape {
        match self {
            Self::Dense(param) => param.lazy_shape(),
            Self::Packed(packed) => packed.shape(),
        }
    }

    /// The device, without reading the weight.
    pub fn lazy_device(&self) -> Device {
        match self {
            Self::Dense(param) => param.lazy_device(),
            Self::Packed(packed) => packed.words.lazy_device(),
        }
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.lazy_device()
    }

    /// Whether it trains. Blocks do not.
    pub fn is_require_grad(&self) -> bool {
        match self {
            Self::Dense(param) => param.is_require_grad(),
            Self::Packed(_) => false,
        }
    }

    /// The identity of the parameter.
    pub fn id(&self) -> ParamId {
        match self {
            Self::Dense(param) => param.id,
            Self::Packed(packed) => packed.id(),
        }
    }

    /// The blocks, if it has some.
    pub fn packed(&self) -> Option<&PackedParam> {
        match self {
            Self::Dense(_) => None,
            Self::Packed(packed) => Some(packed),
        }
    }

    /// The parameter; none for blocks.
    pub fn dense(&self) -> Option<&Param<Tensor<2>>> {
        match self {
            Self::Dense(param) => Some(param),
            Self::Packed(_) => None,
        }
    }

    /// Puts other numbers in its place, as a parameter with this identity, which trains if the old one did. The place of
    /// blocks is taken by a parameter that does not train.
    pub fn replace(&mut self, value: Tensor<2>, id: ParamId) {
        let param = match self {
            Self::Dense(param) => param.clone(),
            Self::Packed(packed) => packed.decoded(),
        };
        *self = Self::Dense(param.transform_for_load(value.detach(), id));
    }
}

/// A matrix in blocks, in the place of a parameter.
#[derive(Clone, Debug)]
pub struct PackedParam {
    words: Param<Tensor<1, Int>>,
    format: PackedFormat,
    /// `[out, in]`.
    size: [usize; 2],
    layout: Layout,
}

impl PackedParam {
    /// Blocks `[out, in]` in the place of a parameter with this layout.
    pub fn new(packed: &Packed, layout: Layout) -> Self {
        Self {
            words: Param::initialized(ParamId::new(), packed.words().clone()),
            format: packed.format(),
            size: packed.dims(),
            layout,
        }
    }

    /// The blocks, `[out, in]` in both layouts.
    pub fn packed(&self) -> Packed {
        Packed::new(self.format, self.words.val(), self.size)
    }

    /// How the numbers are stored.
    pub fn format(&self) -> PackedFormat {
        self.format
    }

    /// The identity of the parameter.
    pub fn id(&self) -> ParamId {
        self.words.id
    }

    /// The shape of a parameter in its place.
    pub fn shape(&self) -> Shape {
        let [outputs, inputs] = self.size;
        match self.layout {
            Layout::OutIn => [outputs, inputs].into(),
            Layout::InOut => [inputs, outputs].into(),
        }
    }

    /// The size of the blocks in bytes.
    pub fn num_bytes(&self) -> usize {
        self.packed().num_bytes()
    }

    /// The numbers, with the shape of a parameter in its place.
    pub fn val(&self) -> Tensor<2> {
        let matrix = self.constant(self.packed().dequantize());
        match self.layout {
            Layout::OutIn => matrix,
            Layout::InOut => matrix.transpose(),
        }
    }

    /// Some rows of `[out, in]`: `[batch, seq]` ids to `[batch, seq, in]`.
    pub fn rows(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let rows = self.packed().rows(ids.inner().reshape([batch * seq]));
        self.constant(rows).reshape([batch, seq, self.size[1]])
    }

    /// A parameter of the same identity that does not train and decodes the blocks when it is first read.
    pub fn decoded(&self) -> Param<Tensor<2>> {
        let this = self.clone();
        Param::uninitialized(
            self.id(),
            move |device, _| this.val().to_device(device),
            self.words.lazy_device(),
            false,
            self.shape(),
        )
    }

    /// A tensor outside the graph as a constant where the words are.
    fn constant<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.words.val().gradient_checkpointing_strategy() {
            None => x,
            Some(strategy) => Tensor::from_inner(x).with_gradient_checkpointing_strategy(strategy),
        }
    }

    fn with_words(
        self,
        change: impl FnOnce(Param<Tensor<1, Int>>) -> Param<Tensor<1, Int>>,
    ) -> Self {
        Self {
            words: change(self.words),
            ..self
        }
    }
}

/// Decodes every weight in blocks, in `f32`: the model as it is without quantization, up to rounding of products. Returns how
/// many there were. The new parameters do not train until they are unfrozen.
///
/// Such a model takes 4 bytes a number. It can be saved as a folder of Hugging Face's, in 16 bits too.
pub fn dequantize(model: &mut impl Parts) -> usize {
    let mut count = 0;
    model.for_each_part_mut(&mut |_, mut part| {
        if let Some(weight) = part.weight()
            && weight.packed().is_some()
        {
            let (value, id) = (weight.val(), weight.id());
            weight.replace(value, id);
            count += 1;
        }
    });
    count
}

/// What visitors that know only words are given as the name of a module around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    format: PackedFormat,
    size: [usize; 2],
    layout: Layout,
}

/// The type of container of the words of a weight, whose name is a [`Label`].
pub(crate) const PACKED: &str = "Packed";

impl Label {
    /// The weight of these words.
    pub(crate) fn around<const D: usize>(self, words: &Param<Tensor<D, Int>>) -> PackedParam {
        PackedParam {
            words: Param::initialized(words.id, words.val().flatten(0, D - 1)),
            format: self.format,
            size: self.size,
            layout: self.layout,
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [outputs, inputs] = self.size;
        write!(f, "{} {outputs} {inputs} {:?}", self.format, self.layout)
    }
}

impl FromStr for Label {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut next = || words.next().ok_or(());
        Ok(Self {
            format: next()?.parse().map_err(drop)?,
            size: [
                next()?.parse().map_err(drop)?,
                next()?.parse().map_err(drop)?,
            ],
            layout: match next()? {
                "OutIn" => Layout::OutIn,
                "InOut" => Layout::InOut,
                _ => return Err(()),
            },
        })
    }
}

/// A function of modules, applied to the parameter or the words.
macro_rules! each {
    ($weight:expr, $module:ident => $value:expr) => {
        match $weight {
            WeightParam::Dense($module) => WeightParam::Dense($value),
            WeightParam::Packed(packed) => WeightParam::Packed(packed.with_words(|$module| $value)),
        }
    };
}

impl Module for WeightParam {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        match self {
            Self::Dense(param) => param.collect_devices(devices),
            Self::Packed(packed) => packed.words.collect_devices(devices),
        }
    }

    fn fork(self, device: &Device) -> Self {
        each!(self, module => module.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        each!(self, module => module.to_device(device))
    }

    fn train(self) -> Self {
        each!(self, module => module.train())
    }

    fn valid(&self) -> Self {
        each!(self.clone(), module => module.valid())
    }

    fn materialize(self) -> Self {
        each!(self, module => module.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        match self {
            Self::Dense(param) => param.visit(visitor),
            Self::Packed(packed) => {
                let label = packed.label();
                visitor.enter_module(&label, PACKED);
                packed.words.visit(visitor);
                visitor.exit_module(&label, PACKED);
            }
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(Module::map(param, mapper)),
            Self::Packed(packed) => {
                let label = packed.label();
                mapper.enter_module(&label, PACKED);
                let packed = packed.with_words(|words| Module::map(words, mapper));
                mapper.exit_module(&label, PACKED);
                Self::Packed(packed)
            }
        }
    }
}

impl PackedParam {
    fn label(&self) -> String {
        let label = Label {
            format: self.format,
            size: self.size,
            layout: self.layout,
        };
        label.to_string()
    }
}

impl ModuleDisplayDefault for WeightParam {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::Dense(param) => ModuleDisplayDefault::content(param, content),
            Self::Packed(packed) => content
                .add_formatted(&format!("{} {:?}", packed.format, &packed.shape()[..]))
                .optional(),
        }
    }
}

impl ModuleDisplay for WeightParam {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_they_are_written() {
        for layout in [Layout::OutIn, Layout::InOut] {
            let label = Label {
                format: PackedFormat::Q4_1,
                size: [96, 64],
                layout,
            };
            assert_eq!(label.to_string().parse(), Ok(label));
        }
    }
}
