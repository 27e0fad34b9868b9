//! The mixes of llama.cpp: which type each tensor gets.
//!
//! The rules are those of `llama_tensor_get_type` in llama.cpp's `src/llama-quant.cpp`. Tensors that hurt most when they are
//! rounded get more bits: the output layer, `attn_v`, and `ffn_down` of the first and last blocks and of every third between.

use std::fmt;
use std::str::FromStr;

use ft_core::gguf::TensorType;
use ft_kernels::PackedFormat;

/// A mix of types. The name is that of llama.cpp's file type.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mix {
    /// All in 32 bits.
    F32,
    /// Matrices in 16 bits of IEEE 754.
    F16,
    /// Matrices in the upper halves of 32-bit floats.
    BF16,
    /// 8 bits, and a scale for 32 numbers.
    Q8_0,
    /// 4 bits, and a scale for 32 numbers.
    Q4_0,
    /// 4 bits, and a scale and a minimum for 32 numbers.
    Q4_1,
    /// 5 bits, and a scale for 32 numbers.
    Q5_0,
    /// 5 bits, and a scale and a minimum for 32 numbers.
    Q5_1,
    /// 4 bits of a table, and a scale for 32 numbers.
    IQ4_NL,
    /// 2 bits, others in 3 and 4.
    Q2_K,
    /// 3 bits.
    Q3_K_S,
    /// 3 bits, others in 4 and 5.
    Q3_K_M,
    /// 3 bits, others in 5.
    Q3_K_L,
    /// 4 bits, few others in 5.
    Q4_K_S,
    /// 4 bits, others in 6.
    Q4_K_M,
    /// 5 bits.
    Q5_K_S,
    /// 5 bits, others in 6.
    Q5_K_M,
    /// 6 bits.
    Q6_K,
}

/// Mixes, their numbers as `general.file_type`, and the types of most tensors.
const MIXES: &[(Mix, &str, u32, Kind)] = &[
    (Mix::F32, "F32", 0, Kind::Plain(TensorType::F32)),
    (Mix::F16, "F16", 1, Kind::Plain(TensorType::F16)),
    (Mix::BF16, "BF16", 32, Kind::Plain(TensorType::BF16)),
    (Mix::Q8_0, "Q8_0", 7, Kind::Blocks(PackedFormat::Q8_0)),
    (Mix::Q4_0, "Q4_0", 2, Kind::Blocks(PackedFormat::Q4_0)),
    (Mix::Q4_1, "Q4_1", 3, Kind::Blocks(PackedFormat::Q4_1)),
    (Mix::Q5_0, "Q5_0", 8, Kind::Blocks(PackedFormat::Q5_0)),
    (Mix::Q5_1, "Q5_1", 9, Kind::Blocks(PackedFormat::Q5_1)),
    (
        Mix::IQ4_NL,
        "IQ4_NL",
        25,
        Kind::Blocks(PackedFormat::IQ4_NL),
    ),
    (Mix::Q2_K, "Q2_K", 10, Kind::Blocks(PackedFormat::Q2_K)),
    (Mix::Q3_K_S, "Q3_K_S", 11, Kind::Blocks(PackedFormat::Q3_K)),
    (Mix::Q3_K_M, "Q3_K_M", 12, Kind::Blocks(PackedFormat::Q3_K)),
    (Mix::Q3_K_L, "Q3_K_L", 13, Kind::Blocks(PackedFormat::Q3_K)),
    (Mix::Q4_K_S, "Q4_K_S", 14, Kind::Blocks(PackedFormat::Q4_K)),
    (Mix::Q4_K_M, "Q4_K_M", 15, Kind::Blocks(PackedFormat::Q4_K)),
    (Mix::Q5_K_S, "Q5_K_S", 16, Kind::Blocks(PackedFormat::Q5_K)),
    (Mix::Q5_K_M, "Q5_K_M", 17, Kind::Blocks(PackedFormat::Q5_K)),
    (Mix::Q6_K, "Q6_K", 18, Kind::Blocks(PackedFormat::Q6_K)),
];

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain(TensorType),
    Blocks(PackedFormat),
}

/// What the rules know of a tensor and its model.
#[derive(Clone, Copy, Debug)]
pub struct TensorFacts<'a> {
    /// Its name in the file: `blk.0.attn_v.weight`.
    pub name: &'a str,
    /// Its shape, outermost dimension first.
    pub shape: &'a [usize],
    /// `general.architecture`.
    pub architecture: &'a str,
    /// The number of blocks of the model.
    pub blocks: usize,
    /// Query heads for each head of keys.
    pub queries_per_key: usize,
    /// Whether the model has an output layer of its own.
    pub has_output: bool,
    /// Whether there is an importance matrix.
    pub has_importance: bool,
}

impl Mix {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        MIXES.iter().map(|(mix, ..)| *mix)
    }

    fn entry(self) -> &'static (Mix, &'static str, u32, Kind) {
        let mut entries = MIXES.iter();
        entries
            .find(|(mix, ..)| *mix == self)
            .expect("every mix is on the list")
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// `general.file_type`.
    pub fn file_type(self) -> u32 {
        self.entry().2
    }

    /// The name of the type of most tensors.
    pub(crate) fn most(self) -> &'static str {
        match self.entry().3 {
            Kind::Plain(plain) => plain.name(),
            Kind::Blocks(format) => format.name(),
        }
    }

    /// The type of a tensor.
    pub fn type_of(self, tensor: &TensorFacts<'_>) -> TensorType {
        if !is_quantized(tensor) {
            return TensorType::F32;
        }
        let format = match self.entry().3 {
            Kind::Plain(plain) => return plain,
            Kind::Blocks(format) => self.format_of(format, tensor),
        };
        fitting(format, tensor.shape[tensor.shape.len() - 1])
    }

    /// The format by the rules, before it is made to fit the shape.
    fn format_of(self, most: PackedFormat, tensor: &TensorFacts<'_>) -> PackedFormat {
        use PackedFormat::{Q3_K, Q4_1, Q4_K, Q5_1, Q5_K, Q6_K, Q8_0};
        let TensorFacts { name, blocks, .. } = *tensor;
        let falcon = tensor.architecture == "falcon";
        let columns = tensor.shape[tensor.shape.len() - 1];
        if name == "output.weight" || (name == "token_embd.weight" && !tensor.has_output) {
            let whole = columns.is_multiple_of(most.block());
            return if falcon || !whole || most == Q8_0 {
                Q8_0
            } else {
                Q6_K
            };
        }
        let block = block_of(name).unwrap_or(0);
        let more = use_more_bits(block, blocks);
        let first = |part: usize| block < blocks / part;
        // The model with 80 blocks has one head of keys for eight of queries, so more bits there cost little.
        let large = |format| match format {
            Q3_K | Q4_K
                if tensor.architecture == "llama" && blocks == 80 && tensor.queries_per_key > 1 =>
            {
                Q5_K
            }
            format => format,
        };
        // llama.cpp counts the matrix of queries, keys and values as one of values.
        if name.ends_with("attn_v.weight") || name.ends_with("attn_qkv.weight") {
            large(match self {
                Self::Q2_K if tensor.queries_per_key >= 4 => Q4_K,
                Self::Q2_K => Q3_K,
                Self::Q3_K_M if block < 2 => Q5_K,
                Self::Q3_K_M => Q4_K,
                Self::Q3_K_L => Q5_K,
                Self::IQ4_NL if tensor.queries_per_key >= 4 => Q5_K,
                Self::Q4_K_M | Self::Q5_K_M if more => Q6_K,
                Self::Q4_K_S if block < 4 => Q5_K,
                _ => most,
            })
        } else if name.ends_with("ffn_down.weight") {
            match self {
                Self::Q2_K => Q3_K,
                Self::Q3_K_M if first(16) => Q5_K,
                Self::Q3_K_M if !falcon || more => Q4_K,
                Self::Q3_K_L if falcon => Q4_K,
                Self::Q3_K_L => Q5_K,
                Self::Q4_K_M if falcon && first(16) => Q6_K,
                Self::Q4_K_M if falcon && more => Q5_K,
                Self::Q4_K_M | Self::Q5_K_M if more && !(falcon && self == Self::Q4_K_M) => Q6_K,
                Self::IQ4_NL if first(8) && !tensor.has_importance => Q5_K,
                Self::Q4_K_S if !falcon && first(8) => Q5_K,
                Self::Q4_0 if tensor.has_importance && first(8) => Q4_1,
                Self::Q5_0 if tensor.has_importance && first(8) => Q5_1,
                _ => most,
            }
        } else if name.ends_with("attn_output.weight") {
            match self {
                Self::Q2_K if !falcon => Q3_K,
                Self::Q3_K_M if !falcon => Q4_K,
                Self::Q3_K_L if !falcon => Q5_K,
                Self::Q3_K_L => Q4_K,
                _ => most,
            }
        } else {
            most
        }
    }
}

/// Whether a tensor is a matrix that is quantized at all.
fn is_quantized(tensor: &TensorFacts<'_>) -> bool {
    tensor.shape.len() >= 2
        && tensor.name.ends_with("weight")
        && !tensor.name.ends_with("_norm.weight")
        && !matches!(tensor.name, "position_embd.weight" | "token_types.weight")
}

/// The first and the last eighth of the blocks, and every third between.
fn use_more_bits(block: usize, blocks: usize) -> bool {
    let eighth = blocks / 8;
    block < eighth || block >= 7 * blocks / 8 || (block - eighth) % 3 == 2
}

/// The block of `blk.N.`.
fn block_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// The format, or another one where rows are no whole blocks of it.
pub(crate) fn fitting(format: PackedFormat, columns: usize) -> TensorType {
    use PackedFormat::{Q2_K, Q3_K, Q4_0, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
    let fits = |format: PackedFormat| columns.is_multiple_of(format.block());
    let other = match format {
        Q2_K | Q3_K => Q4_0,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        format => format,
    };
    match (fits(format), fits(other)) {
        (true, _) => format.into(),
        (false, true) => other.into(),
        (false, false) => TensorType::F16,
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mix {
    type Err = String;

    /// Reads a name in any case.
    fn from_str(name: &str) -> Result<Self, String> {
        let found = MIXES
            .iter()
            .find(|(_, known, ..)| known.eq_ignore_ascii_case(name));
        found.map(|(mix, ..)| *mix).ok_or_else(|| {
            let names: Vec<_> = MIXES.iter().map(|(_, name, ..)| *name).collect();
            format!("no mix is called {name:?}; there are: {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// From `tests/golden/mixes.py`.
    const MODELS: &str = include_str!("../tests/golden/mixes.json");

    #[test]
    fn types_are_those_of_llama_cpp() {
        let models: Vec<Value> = serde_json::from_str(MODELS).expect("JSON");
        assert_eq!(models.len(), 6);
        let size = |value: &Value| value.as_u64().expect("a size") as usize;
        for model in &models {
            let check = |mix: Mix, name: &str, shape: &Value, expected: &Value| {
                let shape: Vec<usize> = shape.as_array().expect("sizes").iter().map(size).collect();
                let kind = mix.type_of(&TensorFacts {
                    name,
                    shape: &shape,
                    architecture: model["architecture"].as_str().expect("a name"),
                    blocks: size(&model["blocks"]),
                    queries_per_key: size(&model["queries_per_key"]),
                    has_output: model["has_output"] == true,
                    has_importance: false,
                });
                assert_eq!(
                    kind.name(),
                    expected,
                    "{mix} {name} of {}",
                    model["architecture"]
                );
            };
            for (mix, types) in model["types"].as_object().expect("mixes") {
                let mix: Mix = mix.parse().expect("a mix");
                for (name, shape) in model["shapes"]["top"].as_object().expect("tensors") {
                    check(mix, name, shape, &types["top"][name]);
                }
                for (stem, shape) in model["shapes"]["block"].as_object().expect("tensors") {
                    let types = types["block"][stem].as_array().expect("types");
                    for (block, expected) in types.iter().enumerate() {
                        check(mix, &format!("blk.{block}.{stem}.weight"), shape, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn norms_positions_and_odd_rows_are_left_alone() {
        let kind = |name, shape: &[usize]| {
            Mix::Q4_K_M.type_of(&TensorFacts {
                name,
                shape,
                architecture: "gpt2",
                blocks: 12,
                queries_per_key: 1,
                has_output: false,
                has_importance: false,
            })
        };
        assert_eq!(kind("blk.0.attn_norm.weight", &[64]), TensorType::F32);
        assert_eq!(kind("blk.0.attn_qkv.bias", &[64]), TensorType::F32);
        assert_eq!(kind("position_embd.weight", &[16, 256]), TensorType::F32);
        assert_eq!(kind("blk.0.ffn_up.weight", &[256, 40]), TensorType::F16);
        assert_eq!(kind("token_embd.weight", &[99, 256]).name(), "Q6_K");
    }
}
