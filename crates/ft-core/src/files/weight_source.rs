//! Where the weights of a model come from: names, shapes and numbers, whatever the format of the files.
//!
//! Names are those of Hugging Face, and matrices lie as they do in its files. So a model is written once and loads from
//! all formats.

use std::path::Path;

use burn::tensor::{Bytes, Device, TensorData};
use ft_kernels::{Packed, PackedFormat};

use crate::Result;
use crate::files::gguf::{GgufModel, is_gguf};
use crate::files::packed_folder::PackedFolder;
use crate::files::safetensors_folder::{WeightFiles, read_json};

/// A matrix in blocks of few bits, on the host.
#[derive(Clone, Debug)]
pub struct PackedBytes {
    /// How the numbers are stored.
    pub format: PackedFormat,
    /// The blocks, with up to three bytes of padding.
    pub bytes: Bytes,
    /// `[out, in]`, also where the tensor lies transposed in files of Hugging Face.
    pub shape: [usize; 2],
}

impl PackedBytes {
    /// The matrix on a device.
    pub fn on(self, device: &Device) -> Packed {
        Packed::from_bytes(self.format, self.bytes, self.shape, device)
    }
}

/// A tensor as it lies in a file, which may be a part of a packed matrix.
#[derive(Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Its type, as the format of the file names it.
    pub dtype: &'a str,
    /// Its shape, outermost dimension first.
    pub shape: &'a [usize],
    /// Its bytes, mapped where that is possible.
    pub bytes: &'a [u8],
}

/// Weights by Hugging Face's names.
pub trait WeightSource {
    /// What was opened, for messages.
    fn path(&self) -> &Path;

    /// Names of all tensors.
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_>;

    /// Whether there is a tensor of this name.
    fn contains(&self, name: &str) -> bool;

    /// The shape of a tensor.
    ///
    /// # Errors
    ///
    /// If there is no tensor of this name.
    fn shape(&self, name: &str) -> Result<Vec<usize>>;

    /// A tensor in `f32`; integers as `i64`.
    ///
    /// # Errors
    ///
    /// If there is no tensor of this name, or its type cannot be read.
    fn widened(&self, name: &str) -> Result<TensorData>;

    /// A tensor in the type of the file, mapped rather than copied where that is possible; in `f32` if the file has it in
    /// another type than a float of 16 or 32 bits.
    ///
    /// # Errors
    ///
    /// As [`widened`](Self::widened).
    fn stored(&self, name: &str) -> Result<TensorData>;

    /// The blocks of a matrix that is stored in blocks, mapped rather than copied where that is possible; none for other
    /// tensors.
    ///
    /// # Errors
    ///
    /// As [`widened`](Self::widened).
    fn blocks(&self, name: &str) -> Result<Option<PackedBytes>> {
        let _ = name;
        Ok(None)
    }

    /// Calls `visit` with every tensor as it lies in the files, without decoding it. The order depends on the names only.
    ///
    /// # Errors
    ///
    /// If a tensor cannot be read.
    fn for_each_raw(&self, visit: &mut dyn FnMut(RawTensor<'_>)) -> Result<()> {
        let mut names: Vec<&str> = self.names().collect();
        names.sort_unstable();
        for name in names {
            let data = self.stored(name)?;
            visit(RawTensor {
                name,
                dtype: data.dtype().name(),
                shape: &self.shape(name)?,
                bytes: data.as_bytes(),
            });
        }
        Ok(())
    }
}

/// The weights of a path: a GGUF file, or a folder with `model.safetensors`, whole or sharded, whose matrices may be packed
/// ([`packed_folder`](crate::packed_folder)).
///
/// # Errors
///
/// If a file is missing, truncated or malformed, or matrices are packed in a layout that is not read here.
pub fn open_weights(path: &Path) -> Result<Box<dyn WeightSource>> {
    if is_gguf(path) {
        return Ok(Box::new(GgufModel::open(path)?.into_weights()));
    }
    let config = path.join("config.json");
    if config.is_file() {
        let config = read_json(&config)?;
        if !config["quantization_config"].is_null() {
            return Ok(Box::new(PackedFolder::open(path, &config)?));
        }
    }
    Ok(Box::new(WeightFiles::open(path)?))
}
