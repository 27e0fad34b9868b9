//! GGUF files, the format of llama.cpp: metadata and tensors in one file, which is mapped into memory.
//!
//! The format is that of <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, version 3, little end first:
//!
//! ```text
//! "GGUF", version u32, number of tensors u64, number of keys u64
//! keys:    name, type u32, value
//! tensors: name, number of dimensions u32, dimensions u64 (innermost first), type u32, offset u64
//! padding to the alignment, then the data of the tensors, each padded
//! ```
//!
//! [`GgufFile`] reads what a file says and checks every field; [`GgufWriter`] writes one. [`GgufModel`] is a file with a model:
//! its configuration, weights and tokenizer as Hugging Face has them. [`GgufLayout`] is the way back.
//!
//! [`AutoCausalLm`](crate::AutoCausalLm), [`load_pretrained`](crate::load_pretrained), [`Tokenizer`](crate::Tokenizer),
//! [`ModelConfig`](crate::ModelConfig), [`GenerationConfig`](crate::GenerationConfig) and [`resolve`](crate::resolve) take the path
//! of a `.gguf` file in place of a folder.

mod architecture;
mod config;
mod cursor;
mod file;
mod metadata;
mod model;
mod rope;
mod tensor_type;
mod value;
mod weights;
mod writer;

pub use architecture::{ARCHITECTURES, Architecture, Change, Differs, Heads};
pub use file::{GgufFile, TensorInfo};
pub use metadata::Metadata;
pub(crate) use model::is_gguf;
pub use model::{GgufLayout, GgufModel, Placed};
pub use tensor_type::TensorType;
pub use value::{Array, Value};
pub use weights::GgufWeights;
pub use writer::GgufWriter;

/// The first bytes of a file.
const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written.
const VERSION: u32 = 3;
/// The alignment of files that name none.
const ALIGNMENT: u64 = 32;
/// The key of the alignment.
const ALIGNMENT_KEY: &str = "general.alignment";
/// llama.cpp refuses names of this length and above.
const NAME_LIMIT: usize = 64;
/// The largest number of dimensions.
const MOST_DIMS: usize = 4;
