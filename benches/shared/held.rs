//! How the weights of a frozen model are held: `--weights` of the benchmarks.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::Result;
use ft::burn::tensor::Device;
use ft::core::{AutoCausalLm, Weights};
use ft::kernels::PackedFormat;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Held {
    F32,
    /// In the types of the file.
    Stored,
    /// The linear layers of the blocks in a packed format, such as `int8` or `nf4`, and the others in the types of the file.
    Packed(PackedFormat),
}

impl FromStr for Held {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Held::F32),
            "stored" => Ok(Held::Stored),
            name => match name.parse() {
                Ok(format) => Ok(Held::Packed(format)),
                Err(error) => Err(format!("f32, stored, or a packed format: {error}")),
            },
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::F32 => f.write_str("f32"),
            Held::Stored => f.write_str("stored"),
            Held::Packed(format) => f.write_str(&format.name().to_lowercase()),
        }
    }
}

impl Held {
    /// Loads the model of a folder with its weights in this form.
    pub(crate) fn load(self, folder: &Path, device: &Device) -> Result<AutoCausalLm> {
        let weights = match self {
            Held::F32 => Weights::F32,
            Held::Stored | Held::Packed(_) => Weights::Stored,
        };
        let mut model = AutoCausalLm::from_pretrained_with(folder, device, weights)?;
        if let Held::Packed(format) = self {
            ft::quant::pack_model(&mut model, format)?;
        }
        Ok(model)
    }
}
