//! A layer after pooling: `act(W·x + b)`, as sentence-transformers' `Dense`.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use ft_core::safetensors_folder::{self, Weights};
use ft_core::{Keys, Layout, Linear, Parts, load_pretrained};
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// The activation of a [`Dense`] layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenseActivation {
    /// None.
    #[default]
    Identity,
    /// `tanh`, the default of sentence-transformers.
    Tanh,
    /// `max(0, x)`.
    Relu,
    /// The exact Gaussian error linear unit.
    Gelu,
}

impl DenseActivation {
    /// The class of PyTorch, and the ends of its names.
    const NAMES: [(Self, &str, &str); 4] = [
        (
            Self::Identity,
            "torch.nn.modules.linear.Identity",
            ".Identity",
        ),
        (Self::Tanh, "torch.nn.modules.activation.Tanh", ".Tanh"),
        (Self::Relu, "torch.nn.modules.activation.ReLU", ".ReLU"),
        (Self::Gelu, "torch.nn.modules.activation.GELU", ".GELU"),
    ];

    fn named(path: &str) -> Option<Self> {
        let mut all = Self::NAMES.iter();
        all.find(|(_, _, end)| path.ends_with(end))
            .map(|(own, ..)| *own)
    }

    fn class(self) -> &'static str {
        let own = Self::NAMES.iter().find(|(own, ..)| *own == self);
        own.map_or("", |(_, class, _)| class)
    }

    fn forward(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Identity => x,
            Self::Tanh => x.tanh(),
            Self::Relu => activation::relu(x),
            Self::Gelu => activation::gelu(x),
        }
    }
}

/// A layer after pooling.
#[derive(Module, Parts, Debug)]
#[parts(output = "")]
pub struct Dense {
    /// `[out_features, in_features]`.
    pub linear: Linear,
    #[module(skip)]
    activation: DenseActivation,
    #[module(skip)]
    bias: bool,
}

impl Dense {
    /// A layer with weights drawn from `N(0, std²)` when first read.
    pub fn new(
        in_features: usize,
        out_features: usize,
        bias: bool,
        activation: DenseActivation,
        std: f64,
        device: &Device,
    ) -> Self {
        Self {
            linear: Linear::new(in_features, out_features, bias, Layout::OutIn, std, device),
            activation,
            bias,
        }
    }

    /// `[texts, in_features]` to `[texts, out_features]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = self.linear.forward(x.unsqueeze_dim::<3>(0));
        self.activation.forward(y.squeeze_dim(0))
    }

    /// Reads the folder of the layer.
    pub(crate) fn load(folder: &Path, device: &Device) -> Result<Self> {
        let path = folder.join("config.json");
        let config = crate::folder::read_object(&path)?;
        let config = config.ok_or_else(|| Error::file(&path, "there is no such file"))?;
        let size = |name: &str| {
            let size = config.get(name).and_then(Value::as_u64);
            let size = size
                .and_then(|size| usize::try_from(size).ok())
                .filter(|size| *size > 0);
            size.ok_or_else(|| Error::file(&path, format!("{name} must be a positive number")))
        };
        let activation = match config.get("activation_function").and_then(Value::as_str) {
            None => DenseActivation::Tanh,
            Some(name) => DenseActivation::named(name).ok_or_else(|| {
                Error::file(
                    &path,
                    format!("activation_function {name:?} is not supported: Identity, Tanh, ReLU and GELU of torch.nn are"),
                )
            })?,
        };
        for (name, usual) in [
            ("module_input_name", "sentence_embedding"),
            ("module_output_name", "sentence_embedding"),
        ] {
            if let Some(other) = config.get(name).and_then(Value::as_str)
                && other != usual
            {
                return Err(Error::file(
                    &path,
                    format!("{name} {other:?} is not supported, only {usual}"),
                ));
            }
        }
        if config.get("use_residual") == Some(&Value::Bool(true)) {
            return Err(Error::file(&path, "use_residual is not supported"));
        }
        let bias = config.get("bias").and_then(Value::as_bool).unwrap_or(true);
        let layer = Self::new(
            size("in_features")?,
            size("out_features")?,
            bias,
            activation,
            0.0,
            device,
        );
        Ok(load_pretrained(
            layer,
            folder,
            Weights::F32,
            &Keys::default(),
        )?)
    }

    /// Writes the folder of the layer.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let mut config = Map::new();
        config.insert("in_features".into(), self.linear.in_features().into());
        config.insert("out_features".into(), self.linear.out_features().into());
        config.insert("bias".into(), self.bias.into());
        config.insert("activation_function".into(), self.activation.class().into());
        config.insert("module_input_name".into(), json!("sentence_embedding"));
        config.insert("module_output_name".into(), json!("sentence_embedding"));
        let options = ft_core::SaveOptions::default();
        safetensors_folder::write_module(folder, self, options.dtype, options.max_shard_size)?;
        Ok(safetensors_folder::write_json(
            &folder.join("config.json"),
            &config,
        )?)
    }
}
