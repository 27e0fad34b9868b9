//! A model in one file: configuration, weights and tokenizer.

use std::borrow::Cow;
use std::path::Path;

use serde_json::Value as Json;

use super::architecture::{Architecture, Change, Heads};
use super::config::{architecture, config, heads, write_config};
use super::rope::rope_tensors;
use super::weights::GgufWeights;
use super::{GgufFile, GgufWriter, Metadata, TensorType};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Whether a path is that of a GGUF file, by its ending.
pub(crate) fn is_gguf(path: &Path) -> bool {
    let ending = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
    ending && path.is_file()
}

/// A GGUF file of a model of this crate.
#[derive(Debug)]
pub struct GgufModel {
    file: GgufFile,
    architecture: &'static Architecture,
    config: Json,
}

impl GgufModel {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// As [`GgufFile::open`]; if the architecture is not known here, or a key of it is missing.
    pub fn open(path: &Path) -> Result<Self> {
        let file = GgufFile::open(path)?;
        if let Some(parts @ 2..) = file.metadata().integer("split.count")? {
            return Err(Error::invalid(
                path,
                format!(
                    "is one of {parts} parts of a model: join them with llama-gguf-split --merge"
                ),
            ));
        }
        let architecture = architecture(&file)?;
        Ok(Self {
            config: config(&file, architecture)?,
            architecture,
            file,
        })
    }

    /// The file.
    pub fn file(&self) -> &GgufFile {
        &self.file
    }

    /// What `config.json` of the model would contain.
    pub fn config(&self) -> &Json {
        &self.config
    }

    /// The tokenizer, with the chat template.
    ///
    /// # Errors
    ///
    /// If its keys are missing or wrong, or it is of a kind that is not read here.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        crate::text::tokenizer::from_gguf(self.file.path(), self.file.metadata())
    }

    /// The tokens that end an answer, besides that of `eos_token_id`: those of the turn and of the message, and control tokens
    /// that llama.cpp takes for them by their names.
    ///
    /// # Errors
    ///
    /// If a key has another type than it should.
    pub fn end_tokens(&self) -> Result<Vec<u32>> {
        crate::text::tokenizer::end_tokens(self.file.metadata())
    }

    /// The weights by Hugging Face's names.
    pub fn into_weights(self) -> GgufWeights {
        let heads = heads(&self.config);
        GgufWeights::new(self.file, self.architecture, heads)
    }
}

/// How the tensors of a model with this `config.json` are called and laid out in a GGUF file.
#[derive(Clone, Debug)]
pub struct GgufLayout {
    architecture: &'static Architecture,
    heads: Heads,
}

/// A tensor of a model as a GGUF file has it.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its name there.
    pub name: String,
    /// How it differs.
    pub change: Change,
}

impl GgufLayout {
    /// The layout for a model with this `config.json`.
    ///
    /// # Errors
    ///
    /// If llama.cpp has no architecture for this `model_type`, or it is not known here.
    pub fn new(config: &Json) -> Result<Self> {
        let kind = config["model_type"].as_str().unwrap_or_default();
        let two_norms =
            config["new_decoder_architecture"] == true && config["num_ln_in_parallel_attn"] != 1;
        let architecture = Architecture::of_model_type(kind, two_norms).ok_or_else(|| {
            Error::Settings(format!(
                "a model of type {kind:?} is not written as GGUF here; these architectures are: {}",
                Architecture::names().join(", ")
            ))
        })?;
        Ok(Self {
            architecture,
            heads: heads(config),
        })
    }

    /// The architecture.
    pub fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// Where a tensor with this name of Hugging Face goes.
    ///
    /// # Errors
    ///
    /// If the architecture has no such tensor.
    pub fn place(&self, name: &str) -> Result<Placed> {
        let ours = self.architecture.to_gguf(name).ok_or_else(|| {
            Error::Settings(format!(
                "llama.cpp's architecture {} has no place for {name}",
                self.architecture.name
            ))
        })?;
        Ok(Placed {
            change: self.architecture.change(&ours, self.heads),
            name: ours,
        })
    }

    /// The keys that describe the model, without those of the tokenizer.
    ///
    /// # Errors
    ///
    /// If a setting is missing, or llama.cpp does not have it.
    pub fn metadata(&self, config: &Json) -> Result<Metadata> {
        let mut metadata = Metadata::default();
        metadata.set("general.architecture", self.architecture.name);
        metadata.set("general.type", "model");
        write_config(config, self.architecture, &mut metadata)?;
        Ok(metadata)
    }

    /// Adds the tensors that hold settings of the rotation.
    ///
    /// # Errors
    ///
    /// As [`GgufWriter::add`].
    pub fn add_rope<'a>(&self, config: &Json, writer: &mut GgufWriter<'a>) -> Result<()> {
        for (name, factors) in rope_tensors(config, self.heads.width) {
            let bytes: Vec<u8> = factors
                .iter()
                .flat_map(|factor| factor.to_le_bytes())
                .collect();
            writer.add(name, &[factors.len()], TensorType::F32, move || {
                Ok(Cow::Owned(bytes))
            })?;
        }
        Ok(())
    }
}

impl Placed {
    /// The shape in the file of a tensor with this shape in Hugging Face.
    pub fn shape(&self, shape: &[usize]) -> Vec<usize> {
        match self.change {
            Change::Transposed => shape.iter().rev().copied().collect(),
            _ => shape.to_vec(),
        }
    }

    /// The numbers as the file has them.
    pub fn numbers(&self, numbers: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        match &self.change {
            Change::Nothing => numbers,
            Change::PlusOne => numbers.into_iter().map(|x| x + 1.0).collect(),
            Change::Rows(rows) => {
                let width = numbers.len() / rows.len().max(1);
                let mut out = vec![0.0; numbers.len()];
                for (from, to) in rows.iter().enumerate() {
                    out[to * width..][..width].copy_from_slice(&numbers[from * width..][..width]);
                }
                out
            }
            Change::Transposed => {
                let [rows, cols] = [shape[0], shape[1]];
                let columns = (0..cols).flat_map(|col| (0..rows).map(move |row| (row, col)));
                columns
                    .map(|(row, col)| numbers[row * cols + col])
                    .collect()
            }
        }
    }
}
