//! What a model or an adapter was trained from: `stage.json`, in the folder that a stage of training wrote.
//!
//! A model often goes through several stages: domain texts, instructions, preferences. Each of them rests on the weights and the
//! chat template of the one before. A stage that begins reads `stage.json` of what it begins with, checks that these are still
//! what the stage before left, and writes its own `stage.json`, which contains the earlier ones.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::safetensors_folder::write_json;
use crate::{Error, Result, Tokenizer};

const FILE: &str = "stage.json";

/// One stage of training, and those before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageManifest {
    /// Its name, such as `sft` or `dpo`.
    pub stage: String,
    /// What it began with, as it was named.
    pub base: String,
    /// A [hash](weights_hash) of the weights that it began with, without those of an adapter.
    pub base_weights: String,
    /// A hash of the rows that it learned from.
    pub data: String,
    /// A hash of the chat template, if there is one.
    pub template: Option<String>,
    /// Its settings.
    pub settings: Map<String, Value>,
    /// A [hash](weights_hash) of the weights that it wrote; none if it wrote an adapter.
    pub weights: Option<String>,
    /// The stage before.
    pub previous: Option<Box<StageManifest>>,
}

impl StageManifest {
    /// A stage that begins with the model in `folder`, and continues the adapter in `adapter` if there is one.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or what an earlier stage left was changed: the weights, the chat template, or the model of the
    /// adapter. The message says what to do.
    pub fn begin(
        stage: &str,
        base: &str,
        folder: &Path,
        adapter: Option<&Path>,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let template = tokenizer.chat_template();
        let template = template.map(|template| hash(template.source().as_bytes()));
        let weights = weights_hash(folder)?;
        let of_model = Self::read(folder)?;
        if let Some(earlier) = &of_model {
            earlier.check_weights(folder, &weights)?;
        }
        let previous = match adapter {
            None => of_model,
            Some(adapter) => Self::of_adapter(adapter, folder)?.or(of_model),
        };
        if let Some(earlier) = &previous
            && earlier.template != template
        {
            return Err(Error::invalid(
                folder,
                format!(
                    "the stage {} was trained with another chat template than the tokenizer has now: restore the template, or \
                     remove {FILE} if the change is wanted",
                    earlier.stage
                ),
            ));
        }
        Ok(Self {
            stage: stage.to_string(),
            base: base.to_string(),
            base_weights: weights,
            data: String::new(),
            template,
            settings: Map::new(),
            weights: None,
            previous: previous.map(Box::new),
        })
    }

    /// The stage that wrote an adapter, if it is known.
    ///
    /// # Errors
    ///
    /// If its file cannot be read, or the adapter was trained on other weights than those in `model`.
    pub fn of_adapter(adapter: &Path, model: &Path) -> Result<Option<Self>> {
        let Some(stage) = Self::read(adapter)? else {
            return Ok(None);
        };
        match stage.base_weights == weights_hash(model)? {
            true => Ok(Some(stage)),
            false => Err(Error::invalid(
                adapter,
                format!(
                    "the adapter of the stage {} was trained on {}, and {} has other weights: give the model that it was \
                     trained on",
                    stage.stage,
                    stage.base,
                    model.display()
                ),
            )),
        }
    }

    /// The stage of a folder; none if it has no `stage.json`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is malformed.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = fs::read(&path).map_err(Error::read(&path))?;
        let stage = serde_json::from_slice(&bytes);
        stage
            .map(Some)
            .map_err(|error| Error::invalid(&path, format!("no stage of training: {error}")))
    }

    /// Writes `stage.json` into the folder that the stage wrote, with the hash of the weights there.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let has_model = !weight_files(folder)?.is_empty();
        let weights = has_model.then(|| weights_hash(folder)).transpose()?;
        let stage = Self {
            weights,
            ..self.clone()
        };
        write_json(&folder.join(FILE), &stage)
    }

    /// The names of all stages, the first one first.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .previous
            .iter()
            .flat_map(|stage| stage.names())
            .collect();
        names.push(&self.stage);
        names
    }

    fn check_weights(&self, folder: &Path, weights: &str) -> Result<()> {
        match &self.weights {
            Some(own) if own != weights => Err(Error::invalid(
                folder,
                format!(
                    "the weights are not those that the stage {} wrote: write the model again, or remove {FILE} if the change \
                     is wanted",
                    self.stage
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// A hash of the weights of a model folder or GGUF file: of the length and the header of each file, and of every 256th block of
/// 4 KiB. It detects another training or another model; it is not cryptographic.
///
/// # Errors
///
/// If a file cannot be read.
pub fn weights_hash(folder: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    for path in weight_files(folder)? {
        let mut file = File::open(&path).map_err(Error::read(&path))?;
        let length = file.metadata().map_err(Error::read(&path))?.len();
        bytes.extend(length.to_le_bytes());
        let mut block = |start: u64, size: u64| {
            file.seek(SeekFrom::Start(start))?;
            (&mut file).take(size).read_to_end(&mut bytes)
        };
        block(0, HEADER).map_err(Error::read(&path))?;
        for start in (HEADER..length).step_by(STRIDE) {
            block(start, BLOCK).map_err(Error::read(&path))?;
        }
        block(length.saturating_sub(BLOCK), BLOCK).map_err(Error::read(&path))?;
    }
    Ok(hash(&bytes))
}

const HEADER: u64 = 1 << 16;
const STRIDE: usize = 1 << 20;
const BLOCK: u64 = 1 << 12;

/// The files of weights, ordered by name, without those of adapters.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.is_file() {
        return Ok(vec![folder.to_path_buf()]);
    }
    let entries = fs::read_dir(folder).map_err(Error::read(folder))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::read(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".safetensors") && !name.starts_with("adapter") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// FNV-1a (Fowler, Noll and Vo) of 64 bits.
fn hash(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
        let copy = tempfile::tempdir().expect("folder");
        for entry in fs::read_dir(&shipped).expect("folder") {
            let path = entry.expect("entry").path();
            fs::copy(&path, copy.path().join(path.file_name().expect("name"))).expect("copies");
        }
        let path = copy.path().to_path_buf();
        (copy, path)
    }

    fn begin(stage: &str, folder: &Path, adapter: Option<&Path>) -> Result<StageManifest> {
        let tokenizer = Tokenizer::from_pretrained(folder)?;
        StageManifest::begin(stage, "base", folder, adapter, &tokenizer)
    }

    fn change(path: &Path, at: usize) {
        let mut bytes = fs::read(path).expect("reads");
        bytes[at] ^= 1;
        fs::write(path, bytes).expect("writes");
    }

    #[test]
    fn a_chain_of_stages_is_kept() {
        let (_keep, model) = folder();
        let first = begin("sft", &model, None).expect("begins");
        assert_eq!((&first.previous, &first.weights), (&None, &None));
        // An adapter, then the merged model, which begins another stage.
        let adapter = tempfile::tempdir().expect("folder");
        first.save(adapter.path()).expect("saves");
        assert_eq!(
            StageManifest::read(adapter.path()).expect("reads"),
            Some(first)
        );
        let merged = StageManifest::of_adapter(adapter.path(), &model)
            .expect("fits")
            .expect("known");
        merged.save(&model).expect("saves");
        let second = begin("dpo", &model, None).expect("begins");
        assert_eq!(second.names(), ["sft", "dpo"]);
        let continued = begin("dpo", &model, Some(adapter.path())).expect("begins");
        assert_eq!(continued.names(), ["sft", "dpo"]);
    }

    #[test]
    fn what_an_earlier_stage_left_may_not_change() {
        let (_keep, model) = folder();
        let adapter = tempfile::tempdir().expect("folder");
        begin("sft", &model, None)
            .expect("begins")
            .save(adapter.path())
            .expect("saves");
        begin("sft", &model, None)
            .expect("begins")
            .save(&model)
            .expect("saves");
        let weights = model.join("model.safetensors");
        let length = fs::metadata(&weights).expect("file").len() as usize;
        change(&weights, length - 1);
        let error = begin("dpo", &model, None).expect_err("changed").to_string();
        assert!(
            error.contains("not those that the stage sft wrote"),
            "{error}"
        );
        let error = StageManifest::of_adapter(adapter.path(), &model)
            .expect_err("changed")
            .to_string();
        assert!(error.contains("was trained on base"), "{error}");
        change(&weights, length - 1);

        let path = model.join("tokenizer_config.json");
        let text = fs::read_to_string(&path).expect("reads");
        let mut json: Value = serde_json::from_str(&text).expect("JSON");
        json["chat_template"] = "{{ messages }}".into();
        fs::write(&path, json.to_string()).expect("writes");
        let error = begin("dpo", &model, None).expect_err("changed").to_string();
        assert!(error.contains("another chat template"), "{error}");
        fs::write(model.join(FILE), "{}").expect("writes");
        let error = begin("dpo", &model, None)
            .expect_err("malformed")
            .to_string();
        assert!(error.contains(FILE), "{error}");
    }
}
