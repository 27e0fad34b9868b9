//! Folders of Hugging Face whose matrices are packed in few bits, in the layouts that transformers and vLLM read.
//!
//! `config.json` has a `quantization_config`, whose `quant_method` is the layout. The tensors of a matrix lie beside each other:
//! `q_proj.qweight`, `q_proj.scales` and so on in the place of `q_proj.weight`. A [`PackedFolder`] shows them as one tensor,
//! `q_proj.weight`, so a model loads from such a folder as from any other, and [`Weights::Stored`](crate::Weights) keeps its
//! matrices in few bits.
//!
//! A layout is one file, which reads and writes, and one line in `layouts!`.

mod awq;
mod bit_stream;
mod bitsandbytes;
mod compressed_tensors;
mod gptq;
mod hqq;
mod matrix;
mod nested_absmax;
mod reader;
mod rounded;
mod source;

use std::fmt;
use std::str::FromStr;

use burn::tensor::{FloatDType, TensorData};
use serde_json::Value;

use crate::{Error, Result};
use reader::Reader;

pub use matrix::Matrix;
pub use nested_absmax::{NestedAbsmax, join_bitsandbytes, split_bitsandbytes};
pub use rounded::Rounded;
pub use source::PackedFolder;

/// What the matrices of a model have in common, for its `quantization_config`.
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    /// Bits of a number.
    pub bits: u32,
    /// How many neighbours in a row share a scale.
    pub group_size: usize,
    /// Whether all zero points are in the middle of the integers.
    pub symmetric: bool,
    /// Whether matrices have a scale for each row, and their inputs are rounded to 8 bits, too.
    pub rows: bool,
    /// Whether a zero point is 0.
    pub has_zero: bool,
    /// The table of numbers of 4 bits: `nf4` or `fp4`; none for integers.
    pub table: Option<&'static str>,
    /// Paths of linear layers that are not packed, without `.weight`.
    pub dense: Vec<String>,
    /// Whether the output layer is packed.
    pub output: bool,
    /// The type of scales and of tensors that are not packed.
    pub dtype: FloatDType,
}

impl Survey {
    /// The type, as in `config.json`.
    pub fn dtype_name(&self) -> &'static str {
        crate::files::pretrained::dtype_name(self.dtype)
    }
}

/// The layouts: the name is the `quant_method`. A module has the ends of tensors that only a packed
/// matrix has (`MARKS`) and those of its other tensors (`ENDS`), the bits of integers that it writes (`WRITTEN`), `check`, `shape`,
/// `read`, `write` and `config`.
macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident: $module:ident = $method:literal;)*) => {
        /// How the tensors of packed matrices lie in files.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum PackedLayout {
            $($(#[$doc])* $name,)*
        }

        impl PackedLayout {
            /// All layouts.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The `quant_method` of `quantization_config`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $method,)* }
            }

            /// The bits of integers that are written, from the least.
            pub fn bits(self) -> &'static [u32] {
                match self { $(Self::$name => $module::WRITTEN,)* }
            }

            /// The ends of tensors of which every matrix has one, and nothing else has.
            fn marks(self) -> &'static [&'static str] {
                match self { $(Self::$name => $module::MARKS,)* }
            }

            /// The ends of its other tensors.
            fn ends(self) -> &'static [&'static str] {
                match self { $(Self::$name => $module::ENDS,)* }
            }

            /// What is not supported in a `quantization_config`.
            fn check(self, settings: &Value) -> Result<(), String> {
                match self { $(Self::$name => $module::check(settings),)* }
            }

            /// `[out, in]` of a matrix.
            fn shape(self, reader: &Reader<'_>) -> Result<[usize; 2]> {
                match self { $(Self::$name => $module::shape(reader),)* }
            }

            /// A matrix.
            fn read(self, reader: &Reader<'_>) -> Result<Matrix> {
                match self { $(Self::$name => $module::read(reader),)* }
            }

            /// The tensors of the matrix of the layer `path`, by their names in the file.
            ///
            /// # Errors
            ///
            /// If the layout has no such matrix: numbers of another kind, a zero point that is no integer, a size that is no
            /// multiple of the words, or a scale that is 0 or infinite in the type of the file.
            ///
            /// # Panics
            ///
            /// If the matrix has groups that are no multiple of the survey's, or larger integers.
            pub fn tensors(
                self,
                path: &str,
                matrix: Matrix,
                survey: &Survey,
            ) -> Result<Vec<(String, TensorData)>> {
                let matrix = match matrix {
                    Matrix::Integers(rounded) => Matrix::Integers(Rounded {
                        bits: survey.bits,
                        ..rounded.regrouped(survey.group_size)
                    }),
                    other => other,
                };
                let tensors = match self { $(Self::$name => $module::write(&matrix, survey),)* };
                let refused = |reason: String| {
                    Error::Settings(format!("{path} cannot be written as {self}: {reason}"))
                };
                let named = |(end, data): (&str, TensorData)| (format!("{path}.{end}"), data);
                Ok(tensors.map_err(refused)?.into_iter().map(named).collect())
            }

            /// The `quantization_config` of `config.json`.
            pub fn config(self, survey: &Survey) -> Value {
                match self { $(Self::$name => $module::config(survey),)* }
            }
        }
    };
}

layouts! {
    /// GPTQ, of GPTQModel and AutoGPTQ: integers of 2, 3, 4 and 8 bits.
    Gptq: gptq = "gptq";
    /// AWQ, of AutoAWQ, in its layout `gemm`: integers of 4 bits.
    Awq: awq = "awq";
    /// NF4 and FP4 of bitsandbytes, and its integers of 8 bits, which are only read.
    Bitsandbytes: bitsandbytes = "bitsandbytes";
    /// HQQ, which the package `hqq` reads: integers of 2, 3, 4 and 8 bits with zero points that are no integers.
    Hqq: hqq = "hqq";
    /// compressed-tensors, of llm-compressor: `pack-quantized`, integers of 1 to 8 bits, and `int-quantized`, integers of 8 bits
    /// whose inputs can be rounded, too.
    CompressedTensors: compressed_tensors = "compressed-tensors";
}

impl PackedLayout {
    /// The layout of a `quantization_config`.
    fn of(settings: &Value) -> Result<Self, String> {
        let method = match settings["quant_method"].as_str() {
            Some(method) => method,
            // Of bitsandbytes before transformers named the method.
            None if settings.get("load_in_4bit").is_some() => Self::Bitsandbytes.name(),
            None => return Err("quantization_config has no quant_method".to_string()),
        };
        let layout: Self = method.parse()?;
        layout.check(settings)?;
        Ok(layout)
    }
}

impl fmt::Display for PackedLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PackedLayout {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|layout| layout.name() == name);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|layout| layout.name()).collect();
            format!(
                "quant_method {name:?} is not read here; the layouts are {}: dequantize the checkpoint with transformers",
                names.join(", ")
            )
        })
    }
}

/// A setting that must have one of these values where it is there.
fn one_of(settings: &Value, key: &str, allowed: &[&str]) -> Result<(), String> {
    match settings.get(key).filter(|value| !value.is_null()) {
        Some(value) if !allowed.iter().any(|allowed| value == allowed) => Err(format!(
            "quantization_config has {key}: {value}; what is read is {}",
            allowed.join(", ")
        )),
        _ => Ok(()),
    }
}
