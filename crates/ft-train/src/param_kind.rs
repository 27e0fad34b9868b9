//! What a parameter is: its kind, and the block that it belongs to.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use ft_core::layers::PackedParam;
use ft_core::module_path::{self, PathVisitor};
use ft_core::{Part, Parts};

use crate::{Error, Result};

/// What a parameter is. A bias of a norm is of the norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParamKind {
    /// A table of vectors.
    Embedding,
    /// The matrix of a projection.
    Linear,
    /// The bias of a projection.
    Bias,
    /// The weight or bias of a norm.
    Norm,
    /// The matrix or bias of the output layer.
    Head,
    /// A factor of an adapter.
    Adapter,
    /// Of no part that is known.
    Other,
}

impl fmt::Display for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Embedding => "embedding",
            Self::Linear => "linear",
            Self::Bias => "bias",
            Self::Norm => "norm",
            Self::Head => "head",
            Self::Adapter => "adapter",
            Self::Other => "other",
        })
    }
}

/// A parameter of a model.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) path: String,
    pub(crate) kind: ParamKind,
    /// The number of its block: the first number in its path.
    pub(crate) block: Option<usize>,
    pub(crate) numbers: usize,
    pub(crate) trains: bool,
}

impl Parameter {
    /// The path without the name of the parameter.
    pub(crate) fn module_path(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(module, _)| module)
    }

    pub(crate) fn is_bias(&self) -> bool {
        let name = self.path.rsplit('.').next();
        name == Some("bias") && self.kind != ParamKind::Adapter
    }

    /// The path with `N` in place of the number of the block.
    pub(crate) fn without_block(&self) -> String {
        let mut found = false;
        let names = self.path.split('.').map(|name| {
            let is_block = !found && name.parse::<usize>().is_ok();
            found |= is_block;
            if is_block { "N" } else { name }
        });
        names.collect::<Vec<_>>().join(".")
    }
}

/// The block of a parameter: the first number in the path of its layer. Numbers of adapters are not blocks.
fn block_of(path: &str) -> Option<usize> {
    let layer = path.split(".adapters.").next()?;
    layer.split('.').find_map(|name| name.parse().ok())
}

/// All parameters of a model, in its order.
pub(crate) fn parameters(model: &(impl Module + Parts)) -> Vec<Parameter> {
    struct Collect<'a> {
        parts: &'a BTreeMap<String, ParamKind>,
        found: Vec<Parameter>,
    }
    impl PathVisitor for Collect<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            self.found.push(Parameter {
                kind: kind_of(path, self.parts),
                block: block_of(path),
                numbers: param.lazy_shape().num_elements(),
                trains: param.is_require_grad(),
                path: path.to_string(),
            });
        }
        fn visit_packed(&mut self, path: &str, packed: &PackedParam) {
            self.found.push(Parameter {
                kind: kind_of(path, self.parts),
                block: block_of(path),
                numbers: packed.shape().num_elements(),
                trains: false,
                path: path.to_string(),
            });
        }
    }
    let output_layer = model.output_layer();
    let mut parts = BTreeMap::new();
    model.for_each_part(&mut |path, part| {
        let kind = match part {
            Part::Embedding(_) => ParamKind::Embedding,
            Part::RmsNorm(_) | Part::LayerNorm(_) => ParamKind::Norm,
            Part::Linear(_) if path == output_layer => ParamKind::Head,
            Part::Linear(_) => ParamKind::Linear,
            Part::Residual(_) => ParamKind::Adapter,
            _ => ParamKind::Other,
        };
        parts.insert(path.to_string(), kind);
    });
    let mut collect = Collect {
        parts: &parts,
        found: Vec::new(),
    };
    module_path::visit_params(model, &mut collect);
    collect.found
}

/// The kind of a parameter from that of the part it belongs to, whose path its own begins with.
fn kind_of(path: &str, parts: &BTreeMap<String, ParamKind>) -> ParamKind {
    let mut module = path;
    while let Some((parent, name)) = module.rsplit_once('.') {
        if let Some(kind) = parts.get(parent) {
            let below = &path[parent.len() + 1..];
            return match kind {
                ParamKind::Linear | ParamKind::Head if below.contains('.') => ParamKind::Adapter,
                ParamKind::Linear if name == "bias" => ParamKind::Bias,
                kind => *kind,
            };
        }
        module = parent;
    }
    ParamKind::Other
}

/// Refuses parameters that are to train and are held in 16 bits or in blocks of few bits.
pub(crate) fn check_trainable(model: &impl Module, trains: &BTreeMap<String, bool>) -> Result<()> {
    struct Held<'a> {
        trains: &'a BTreeMap<String, bool>,
        found: Vec<String>,
    }
    impl PathVisitor for Held<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if self.trains.get(path) == Some(&true)
                && param.is_initialized()
                && matches!(param.val().dtype(), DType::F16 | DType::BF16)
            {
                self.found.push(path.to_string());
            }
        }
        fn visit_packed(&mut self, path: &str, _: &PackedParam) {
            if self.trains.get(path) == Some(&true) {
                self.found.push(path.to_string());
            }
        }
    }
    let mut held = Held {
        trains,
        found: Vec::new(),
    };
    module_path::visit_params(model, &mut held);
    match held.found.first() {
        None => Ok(()),
        Some(first) => Err(Error::HeldIn16Bits {
            first: first.clone(),
            count: held.found.len(),
        }),
    }
}
