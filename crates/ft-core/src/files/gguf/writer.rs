//! A file that is written: whole, or not at all.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::{
    ALIGNMENT, ALIGNMENT_KEY, MAGIC, MOST_DIMS, Metadata, NAME_LIMIT, TensorType, VERSION,
};
use crate::files::safetensors_folder::replace;
use crate::{Error, Result};

/// What gives the bytes of a tensor when it is their turn.
type Source<'a> = Box<dyn FnOnce() -> Result<Cow<'a, [u8]>> + 'a>;

/// A GGUF file before it is written. One tensor at a time is in memory.
pub struct GgufWriter<'a> {
    metadata: Metadata,
    tensors: Vec<Planned<'a>>,
}

struct Planned<'a> {
    name: String,
    /// Outermost dimension first.
    shape: Vec<usize>,
    kind: TensorType,
    bytes: usize,
    source: Source<'a>,
}

impl<'a> GgufWriter<'a> {
    /// A file of these keys and no tensors.
    pub fn new(metadata: Metadata) -> Self {
        Self {
            metadata,
            tensors: Vec::new(),
        }
    }

    /// Adds a tensor, whose outermost dimension is the first. `source` is called once, when its bytes are written.
    ///
    /// # Errors
    ///
    /// If the name is too long for llama.cpp or there already, there are more than four dimensions, or rows are no whole
    /// blocks.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        kind: TensorType,
        source: impl FnOnce() -> Result<Cow<'a, [u8]>> + 'a,
    ) -> Result<()> {
        let name = name.into();
        let wrong = if name.is_empty() || name.len() >= NAME_LIMIT {
            Some(format!(
                "its name has {} bytes, and llama.cpp reads 1 to {}",
                name.len(),
                NAME_LIMIT - 1
            ))
        } else if self.tensors.iter().any(|one| one.name == name) {
            Some("it is there twice".to_string())
        } else if !(1..=MOST_DIMS).contains(&shape.len()) {
            Some(format!(
                "{} dimensions, and tensors have 1 to {MOST_DIMS}",
                shape.len()
            ))
        } else if shape.contains(&0) || !shape[shape.len() - 1].is_multiple_of(kind.block()) {
            Some(format!("shape {shape:?} has no whole blocks of {kind}"))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(Error::Settings(format!("tensor {name}: {wrong}")));
        }
        let numbers: usize = shape.iter().product();
        self.tensors.push(Planned {
            name,
            shape: shape.to_vec(),
            kind,
            bytes: numbers / kind.block() * kind.block_bytes(),
            source: Box::new(source),
        });
        Ok(())
    }

    /// The number of bytes that the file will have.
    pub fn num_bytes(&self) -> usize {
        let (header, alignment) = self.header();
        let padded = |bytes: usize| bytes.next_multiple_of(alignment);
        let data = self.tensors.iter().map(|one| padded(one.bytes));
        padded(header.len()) + data.sum::<usize>()
    }

    /// Writes the file; another one of this name is replaced when the new one is whole.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, one of the tensors cannot be made, or `general.alignment` is no power of two.
    pub fn write(self, path: &Path) -> Result<()> {
        if let Some(found) = self.metadata.get(ALIGNMENT_KEY)
            && !matches!(found, super::Value::U32(alignment) if alignment.is_power_of_two())
        {
            return Err(self
                .metadata
                .invalid(ALIGNMENT_KEY, "it must be a power of two"));
        }
        let (header, alignment) = self.header();
        let mut failure = None;
        let written = replace(path, |part| {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(part)?);
            file.write_all(&header)?;
            pad(&mut file, header.len(), alignment)?;
            for tensor in self.tensors {
                match (tensor.source)() {
                    Ok(bytes) if bytes.len() == tensor.bytes => {
                        file.write_all(&bytes)?;
                        pad(&mut file, bytes.len(), alignment)?;
                    }
                    Ok(bytes) => {
                        failure = Some(Error::Settings(format!(
                            "tensor {}: {} bytes in place of {}",
                            tensor.name,
                            bytes.len(),
                            tensor.bytes
                        )));
                        return Err(std::io::Error::other("a tensor of another size"));
                    }
                    Err(error) => {
                        failure = Some(error);
                        return Err(std::io::Error::other("a tensor could not be made"));
                    }
                }
            }
            file.flush()
        });
        match failure {
            Some(failure) => Err(failure),
            None => written,
        }
    }

    /// Everything before the data, without padding, and the alignment.
    fn header(&self) -> (Vec<u8>, usize) {
        let alignment = match self.metadata.get(ALIGNMENT_KEY) {
            Some(super::Value::U32(alignment)) if *alignment > 0 => *alignment as usize,
            _ => ALIGNMENT as usize,
        };
        let mut out = MAGIC.to_vec();
        let string = |out: &mut Vec<u8>, text: &str| {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend(text.as_bytes());
        };
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.iter().count() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            string(&mut out, key);
            value.write(&mut out);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            string(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for size in tensor.shape.iter().rev() {
                out.extend((*size as u64).to_le_bytes());
            }
            out.extend(tensor.kind.id().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += tensor.bytes.next_multiple_of(alignment) as u64;
        }
        (out, alignment)
    }
}

fn pad(file: &mut impl Write, length: usize, alignment: usize) -> std::io::Result<()> {
    let padding = length.next_multiple_of(alignment) - length;
    file.write_all(&vec![0; padding])
}
