//! The walk over a model's parts, by path: what adapters, quantization, freezing and counting go through.
//!
//! Paths are Hugging Face's module names, without `.weight`: `model.layers.0.self_attn.q_proj`.

use burn::module::Param;
use burn::tensor::Tensor;
use ft_kernels::Packed;

use crate::layers::adapter::Adapters;
use crate::layers::embedding::Embedding;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::Linear;
use crate::layers::residual::Residual;
use crate::layers::rms_norm::RmsNorm;
use crate::layers::weight::WeightParam;
use crate::module_path::join;

pub use ft_derive::Parts;

/// A part of a model.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Part<'a> {
    /// A projection.
    Linear(&'a Linear),
    /// A table of vectors.
    Embedding(&'a Embedding),
    /// A root mean square norm.
    RmsNorm(&'a RmsNorm),
    /// A layer norm.
    LayerNorm(&'a LayerNorm),
    /// The sum after a sublayer.
    Residual(&'a Residual),
}

impl<'a> Part<'a> {
    /// The adapters of the part.
    pub fn adapters(self) -> &'a Adapters {
        match self {
            Self::Linear(part) => &part.adapters,
            Self::Embedding(part) => &part.adapters,
            Self::RmsNorm(part) => &part.adapters,
            Self::LayerNorm(part) => &part.adapters,
            Self::Residual(part) => &part.adapters,
        }
    }

    /// The matrix of a linear layer or an embedding.
    pub fn weight(self) -> Option<&'a WeightParam> {
        match self {
            Self::Linear(part) => Some(&part.weight),
            Self::Embedding(part) => Some(&part.weight),
            _ => None,
        }
    }
}

/// A part of a model that may be changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum PartMut<'a> {
    /// A projection.
    Linear(&'a mut Linear),
    /// A table of vectors.
    Embedding(&'a mut Embedding),
    /// A root mean square norm.
    RmsNorm(&'a mut RmsNorm),
    /// A layer norm.
    LayerNorm(&'a mut LayerNorm),
    /// The sum after a sublayer.
    Residual(&'a mut Residual),
}

impl PartMut<'_> {
    /// The same part, only to be looked at.
    pub fn as_part(&self) -> Part<'_> {
        match self {
            Self::Linear(part) => Part::Linear(part),
            Self::Embedding(part) => Part::Embedding(part),
            Self::RmsNorm(part) => Part::RmsNorm(part),
            Self::LayerNorm(part) => Part::LayerNorm(part),
            Self::Residual(part) => Part::Residual(part),
        }
    }

    /// The adapters of the part.
    pub fn adapters(&mut self) -> &mut Adapters {
        match self {
            Self::Linear(part) => &mut part.adapters,
            Self::Embedding(part) => &mut part.adapters,
            Self::RmsNorm(part) => &mut part.adapters,
            Self::LayerNorm(part) => &mut part.adapters,
            Self::Residual(part) => &mut part.adapters,
        }
    }

    /// The matrix of a linear layer or an embedding.
    pub fn weight(&mut self) -> Option<&mut WeightParam> {
        match self {
            Self::Linear(part) => Some(&mut part.weight),
            Self::Embedding(part) => Some(&mut part.weight),
            _ => None,
        }
    }

    /// Puts blocks in the place of the matrix of a linear layer or an embedding; false for other parts.
    ///
    /// # Panics
    ///
    /// If they are of another size.
    pub fn set_packed(&mut self, packed: &Packed) -> bool {
        match self {
            Self::Linear(part) => part.set_packed(packed),
            Self::Embedding(part) => part.set_packed(packed),
            _ => return false,
        }
        true
    }
}

/// What is made of parts: a model, a block, a layer.
///
/// `#[derive(Parts)]` beside `#[derive(Module)]` implements it: field names spell the paths.
///
/// ```
/// use burn::module::Module;
/// use burn::tensor::Device;
/// use ft_core::layers::{Layout, Linear};
/// use ft_core::Parts;
///
/// #[derive(Module, Parts, Debug)]
/// struct Mlp {
///     up_proj: Linear,
///     down_proj: Linear,
/// }
///
/// let device = Device::default();
/// let mlp = Mlp {
///     up_proj: Linear::new(4, 8, false, Layout::OutIn, 0.02, &device),
///     down_proj: Linear::new(8, 4, false, Layout::OutIn, 0.02, &device),
/// };
/// let mut paths = Vec::new();
/// mlp.for_each_linear(&mut |path, _| paths.push(path.to_string()));
/// assert_eq!(paths, ["up_proj", "down_proj"]);
/// ```
pub trait Parts {
    /// Shows every part to `visit`, in the order of the fields, with paths that begin with `path`.
    fn walk(&self, path: &str, visit: &mut dyn FnMut(&str, Part<'_>));

    /// Lets `visit` change every part, in the same order.
    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, PartMut<'_>));

    /// The path of the output layer. A model that ties it to the embedding has no part of this path. It is empty for a model
    /// without output layer.
    fn output_layer(&self) -> &'static str {
        "lm_head"
    }

    /// The number of key heads of an attention layer, the first one's; none if none tells.
    fn key_heads(&self) -> Option<usize> {
        None
    }

    /// Whether tokens see those after them, as in BERT.
    fn is_encoder(&self) -> bool {
        false
    }

    /// PEFT's name of the task of the model's head, such as `SEQ_CLS`; none for a model without one, or whose head is an output
    /// layer over tokens.
    fn task_type(&self) -> Option<&'static str> {
        None
    }

    /// Shows every part to `visit`.
    fn for_each_part(&self, visit: &mut dyn FnMut(&str, Part<'_>)) {
        self.walk("", visit);
    }

    /// Lets `visit` change every part.
    fn for_each_part_mut(&mut self, visit: &mut dyn FnMut(&str, PartMut<'_>)) {
        self.walk_mut("", visit);
    }

    /// Shows every [`Linear`] to `visit`.
    fn for_each_linear(&self, visit: &mut dyn FnMut(&str, &Linear)) {
        self.walk("", &mut |path, part| {
            if let Part::Linear(linear) = part {
                visit(path, linear);
            }
        });
    }

    /// Lets `visit` change every [`Linear`].
    fn for_each_linear_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Linear)) {
        self.walk_mut("", &mut |path, part| {
            if let PartMut::Linear(linear) = part {
                visit(path, linear);
            }
        });
    }
}

/// The leaves of the walk.
macro_rules! leaf {
    ($($part:ident),*) => {$(
        impl Parts for $part {
            fn walk(&self, path: &str, visit: &mut dyn FnMut(&str, Part<'_>)) {
                visit(path, Part::$part(self));
            }
            fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, PartMut<'_>)) {
                visit(path, PartMut::$part(self));
            }
        }
    )*};
}

leaf!(Linear, Embedding, RmsNorm, LayerNorm, Residual);

/// Fields that are no parts and hold none.
macro_rules! nothing {
    ($($type:ty),*) => {$(
        impl Parts for $type {
            fn walk(&self, _: &str, _: &mut dyn FnMut(&str, Part<'_>)) {}
            fn walk_mut(&mut self, _: &str, _: &mut dyn FnMut(&str, PartMut<'_>)) {}
        }
    )*};
}

nothing!(bool, usize, u32, i64, f32, f64, String);

/// A parameter that belongs to no part; what trains by path finds it all the same.
impl<const D: usize> Parts for Param<Tensor<D>> {
    fn walk(&self, _: &str, _: &mut dyn FnMut(&str, Part<'_>)) {}
    fn walk_mut(&mut self, _: &str, _: &mut dyn FnMut(&str, PartMut<'_>)) {}
}

impl<P: Parts> Parts for Option<P> {
    fn walk(&self, path: &str, visit: &mut dyn FnMut(&str, Part<'_>)) {
        if let Some(part) = self {
            part.walk(path, visit);
        }
    }
    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, PartMut<'_>)) {
        if let Some(part) = self {
            part.walk_mut(path, visit);
        }
    }
    fn key_heads(&self) -> Option<usize> {
        self.as_ref().and_then(Parts::key_heads)
    }
    fn is_encoder(&self) -> bool {
        self.as_ref().is_some_and(Parts::is_encoder)
    }
    fn task_type(&self) -> Option<&'static str> {
        self.as_ref().and_then(Parts::task_type)
    }
}

impl<P: Parts> Parts for Vec<P> {
    fn walk(&self, path: &str, visit: &mut dyn FnMut(&str, Part<'_>)) {
        for (i, part) in self.iter().enumerate() {
            part.walk(&join(path, &i.to_string()), visit);
        }
    }
    fn walk_mut(&mut self, path: &str, visit: &mut dyn FnMut(&str, PartMut<'_>)) {
        for (i, part) in self.iter_mut().enumerate() {
            part.walk_mut(&join(path, &i.to_string()), visit);
        }
    }
    fn key_heads(&self) -> Option<usize> {
        self.iter().find_map(Parts::key_heads)
    }
    fn is_encoder(&self) -> bool {
        self.iter().any(Parts::is_encoder)
    }
    fn task_type(&self) -> Option<&'static str> {
        self.iter().find_map(Parts::task_type)
    }
}
