//! What a model or an adapter was trained from: `stage.json` in the folder of a model, `adapter_stage.json` in that of an adapter.
//!
//! A model often goes through several stages: domain texts, instructions, preferences. Each of them rests on the weights and the
//! chat template of the one before. A stage that begins reads the file of what it begins with, checks that weights and template are
//! still what the stage before left, and writes a file of its own, which contains the earlier ones.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use rayon::prelude::*;

use super::safetensors_folder::{WeightFiles, write_json};
use super::weight_source::{WeightSource, open_weights};
use crate::models::is_buffer;
use crate::seed::fnv1a;
use crate::{Error, Result, Tokenizer};

const OF_MODEL: &str = "stage.json";
const OF_ADAPTER: &str = "adapter_stage.json";
/// The weights of an adapter in PEFT's form, and in AdapterHub's.
const ADAPTER_FILES: [&str; 2] = ["adapter_model.safetensors", "adapter.safetensors"];

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
    /// A hash of the weights that it wrote, of a model or of an adapter; none before that.
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
        let template = template.map(|template| fnv1a(template.source().bytes()));
        let weights = weights_hash(folder)?;
        let of_model = model_stage(folder, &weights)?;
        let of_adapter = adapter.map(|adapter| adapter_stage(adapter, folder, &weights));
        let of_adapter = of_adapter.transpose()?.flatten();
        let path = match (adapter, &of_adapter) {
            (Some(adapter), Some(_)) => adapter.join(OF_ADAPTER),
            _ => folder.join(OF_MODEL),
        };
        let previous = of_adapter.or(of_model);
        // A stage without a template, of plain texts, is followed by one with a template.
        if let Some(earlier) = &previous
            && earlier.template.is_some()
            && earlier.template != template
        {
            let now = match template {
                Some(_) => "another one",
                None => "none",
            };
            return Err(Error::invalid(
                &path,
                format!(
                    "the stage {} was trained with a chat template, and the tokenizer has {now} now: restore the template \
                     (`sft --template` writes the tokenizer with it beside the adapter), or remove this file if the change is \
                     wanted",
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

    /// The stage that wrote a model, if it is known.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or the weights are not those that the stage wrote.
    pub fn of_model(folder: &Path) -> Result<Option<Self>> {
        match folder.join(OF_MODEL).is_file() {
            true => model_stage(folder, &weights_hash(folder)?),
            false => Ok(None),
        }
    }

    /// The stage that wrote an adapter, if it is known.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, the adapter is not the one that the stage wrote, or it was trained on other weights than those in
    /// `model`.
    pub fn of_adapter(adapter: &Path, model: &Path) -> Result<Option<Self>> {
        match adapter.join(OF_ADAPTER).is_file() {
            true => adapter_stage(adapter, model, &weights_hash(model)?),
            false => Ok(None),
        }
    }

    /// Writes `stage.json` beside the model that the stage wrote.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or written.
    pub fn save_model(&self, folder: &Path) -> Result<()> {
        self.save(&folder.join(OF_MODEL), weights_hash(folder)?)
    }

    /// Writes `adapter_stage.json` beside the adapter that the stage wrote.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or written.
    pub fn save_adapter(&self, folder: &Path) -> Result<()> {
        self.save(&folder.join(OF_ADAPTER), adapter_hash(folder)?)
    }

    fn save(&self, path: &Path, weights: String) -> Result<()> {
        let stage = Self {
            weights: Some(weights),
            ..self.clone()
        };
        write_json(path, &stage)
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

    fn check_weights(&self, path: &Path, weights: &str) -> Result<()> {
        match &self.weights {
            Some(own) if own != weights => Err(Error::invalid(
                path,
                format!(
                    "the weights beside it are not those that the stage {} wrote: write them again, or remove the file if the \
                     change is wanted",
                    self.stage
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// The stage of the model in `folder`, whose weights have this hash.
fn model_stage(folder: &Path, weights: &str) -> Result<Option<StageManifest>> {
    let path = folder.join(OF_MODEL);
    let stage = read(&path)?;
    if let Some(stage) = &stage {
        stage.check_weights(&path, weights)?;
    }
    Ok(stage)
}

/// The stage of an adapter for `model`, whose weights have this hash.
fn adapter_stage(adapter: &Path, model: &Path, weights: &str) -> Result<Option<StageManifest>> {
    let path = adapter.join(OF_ADAPTER);
    let Some(stage) = read(&path)? else {
        return Ok(None);
    };
    stage.check_weights(&path, &adapter_hash(adapter)?)?;
    match stage.base_weights == weights {
        true => Ok(Some(stage)),
        false => Err(Error::invalid(
            adapter,
            format!(
                "the adapter of the stage {} was trained on {}, and {} has other weights: give the model that it was \
                 trained on. If it is the same model in another form, such as GGUF or other numbers, remove {}",
                stage.stage,
                stage.base,
                model.display(),
                path.display()
            ),
        )),
    }
}

/// A stage; none if there is no file.
fn read(path: &Path) -> Result<Option<StageManifest>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(Error::read(path))?;
    let stage = serde_json::from_slice(&bytes);
    stage
        .map(Some)
        .map_err(|error| Error::invalid(path, format!("is not a manifest of a stage: {error}")))
}

/// Removes the file of the model that was in a folder before.
pub(super) fn forget(folder: &Path) -> Result<()> {
    let path = folder.join(OF_MODEL);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::write(&path)(error))
        }
        _ => Ok(()),
    }
}

/// A hash of the weights of a model folder or GGUF file: of names, types, shapes and all bytes, as they lie in the files. Buffers,
/// which are no parameters, are left out. It detects that a model was trained or is another one; it is not cryptographic. The same
/// model in another type or format has another hash.
///
/// # Errors
///
/// If a file cannot be read.
pub fn weights_hash(folder: &Path) -> Result<String> {
    tensors_hash(&*open_weights(folder)?)
}

fn adapter_hash(folder: &Path) -> Result<String> {
    let files = ADAPTER_FILES.map(|name| folder.join(name));
    let file = files
        .iter()
        .find(|file| file.is_file())
        .unwrap_or(&files[0]);
    tensors_hash(&WeightFiles::open_file(file)?)
}

fn tensors_hash(source: &dyn WeightSource) -> Result<String> {
    let mut bytes = Vec::new();
    source.for_each_raw(&mut |tensor| {
        if is_buffer(tensor.name) {
            return;
        }
        bytes.extend(tensor.name.bytes());
        bytes.extend(tensor.dtype.bytes());
        bytes.extend((tensor.shape.iter()).flat_map(|size| (*size as u64).to_le_bytes()));
        let pieces: Vec<u64> = tensor.bytes.par_chunks(PIECE).map(piece_hash).collect();
        bytes.extend(pieces.into_iter().flat_map(u64::to_le_bytes));
    })?;
    Ok(fnv1a(bytes))
}

/// Bytes that are hashed by one thread.
const PIECE: usize = 1 << 20;

/// FNV-1a over words of 8 bytes. The rotation lets the highest bits of a word, such as the sign of its last number, take part in
/// all bits of the result.
fn piece_hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain([&last]);
    words.fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
        (hash.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::PathBuf;

    use burn::tensor::TensorData;
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;
    use crate::safetensors_folder::{read_tensors, write_tensors};

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
        let copy = tempfile::tempdir().expect("folder");
        for entry in fs::read_dir(&shipped).expect("folder") {
            let path = entry.expect("entry").path();
            fs::copy(&path, copy.path().join(path.file_name().expect("name"))).expect("copies");
        }
        change(copy.path(), 0.0);
        let path = copy.path().to_path_buf();
        (copy, path)
    }

    fn begin(stage: &str, folder: &Path, adapter: Option<&Path>) -> Result<StageManifest> {
        let tokenizer = Tokenizer::from_pretrained(folder)?;
        StageManifest::begin(stage, "base", folder, adapter, &tokenizer)
    }

    /// A folder with the one tensor of an adapter.
    fn adapter(number: f32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        let tensors = [("lora".to_string(), TensorData::from([number]))];
        let path = folder.path().join("adapter_model.safetensors");
        write_tensors(&path, &tensors, &HashMap::new()).expect("writes");
        folder
    }

    /// Adds to a number of a small tensor, and leaves the others as they are.
    fn change(model: &Path, by: f32) {
        let path = model.join("model.safetensors");
        let mut tensors: Vec<(String, TensorData)> =
            read_tensors(&path).expect("reads").into_iter().collect();
        let norm = tensors
            .iter_mut()
            .find(|(name, _)| name == "model.norm.weight");
        let (_, norm) = norm.expect("a norm");
        let mut numbers: Vec<f32> = norm.iter::<f32>().collect();
        numbers[3] += by;
        *norm = TensorData::from(numbers.as_slice());
        write_tensors(&path, &tensors, &HashMap::new()).expect("writes");
    }

    #[test]
    fn a_chain_of_stages_is_kept() {
        let (_keep, model) = folder();
        let first = begin("sft", &model, None).expect("begins");
        assert_eq!((&first.previous, &first.weights), (&None, &None));
        let adapter = adapter(1.0);
        first.save_adapter(adapter.path()).expect("saves");
        assert_eq!(StageManifest::of_model(&model).expect("reads"), None);
        let continued = begin("dpo", &model, Some(adapter.path())).expect("begins");
        assert_eq!(continued.names(), ["sft", "dpo"]);
        // Merged, and trained again.
        let merged = StageManifest::of_adapter(adapter.path(), &model).expect("fits");
        let merged = merged.expect("known");
        change(&model, 1.0);
        merged.save_model(&model).expect("saves");
        let second = begin("dpo", &model, None).expect("begins");
        assert_eq!(second.names(), ["sft", "dpo"]);
        assert_ne!(second.base_weights, merged.base_weights);
    }

    /// The hash of a file with these tensors.
    fn hash_of(tensors: &[(&str, Dtype, &[u8])]) -> String {
        let folder = tempfile::tempdir().expect("folder");
        let views = tensors.iter().map(|(name, dtype, bytes)| {
            let shape = vec![bytes.len() * 8 / dtype.bitsize()];
            let view = TensorView::new(*dtype, shape, bytes).expect("whole numbers");
            ((*name).to_string(), view)
        });
        let path = folder.path().join("model.safetensors");
        safetensors::serialize_to_file(views, None, &path).expect("writes");
        weights_hash(folder.path()).expect("reads")
    }

    /// Pythia's checkpoints have the mask of attention as bytes.
    #[test]
    fn buffers_do_not_count_and_every_byte_of_a_weight_does() {
        let zeros = vec![0u8; 3 * PIECE];
        let mask = "gpt_neox.layers.0.attention.bias";
        let with = |weight: &[u8], buffer: &[u8]| {
            hash_of(&[
                ("embed_in.weight", Dtype::F16, weight),
                (mask, Dtype::U8, buffer),
            ])
        };
        let plain = with(&zeros, &[1, 0]);
        assert_eq!(plain, with(&zeros, &[1, 1]));
        assert_eq!(plain, hash_of(&[("embed_in.weight", Dtype::F16, &zeros)]));
        assert_ne!(plain, hash_of(&[("embed_in.weight", Dtype::BF16, &zeros)]));
        for at in [0, 4097, PIECE + 7, 3 * PIECE - 1] {
            let mut changed = zeros.clone();
            changed[at] ^= 0x80;
            assert_ne!(plain, with(&changed, &[1, 0]), "byte {at}");
            // A second change of the same bit does not hide the first.
            changed[(at + 8) % zeros.len()] ^= 0x80;
            assert_ne!(plain, with(&changed, &[1, 0]), "byte {at}");
        }
    }

    #[test]
    fn a_template_may_be_added_and_not_removed() {
        let (_keep, model) = folder();
        let plain = begin("domain", &model, None).expect("begins");
        let plain = StageManifest {
            template: None,
            ..plain
        };
        plain.save_model(&model).expect("saves");
        let second = begin("sft", &model, None).expect("a template is added");
        assert!(second.template.is_some());
        second.save_model(&model).expect("saves");
        let path = model.join("tokenizer_config.json");
        let text = fs::read_to_string(&path).expect("reads");
        let mut json: Value = serde_json::from_str(&text).expect("JSON");
        json.as_object_mut()
            .expect("settings")
            .remove("chat_template");
        fs::write(&path, json.to_string()).expect("writes");
        let error = begin("dpo", &model, None).expect_err("removed").to_string();
        assert!(error.contains("has none now"), "{error}");
    }

    #[test]
    fn what_an_earlier_stage_left_may_not_change() {
        let (_keep, model) = folder();
        let adapter = adapter(1.0);
        let stage = begin("sft", &model, None).expect("begins");
        stage.save_adapter(adapter.path()).expect("saves");
        stage.save_model(&model).expect("saves");
        begin("dpo", &model, Some(adapter.path())).expect("nothing changed");

        let path = model.join("tokenizer_config.json");
        let text = fs::read_to_string(&path).expect("reads");
        let mut json: Value = serde_json::from_str(&text).expect("JSON");
        json["chat_template"] = "{{ messages }}".into();
        fs::write(&path, json.to_string()).expect("writes");
        let error = begin("dpo", &model, None).expect_err("changed").to_string();
        assert!(error.contains("has another one now"), "{error}");
        fs::write(&path, text).expect("writes");

        let other = self::adapter(2.0);
        fs::copy(
            adapter.path().join(OF_ADAPTER),
            other.path().join(OF_ADAPTER),
        )
        .expect("copies");
        let error = StageManifest::of_adapter(other.path(), &model).expect_err("changed");
        assert!(
            error
                .to_string()
                .contains("not those that the stage sft wrote"),
            "{error}"
        );

        change(&model, 1.0);
        let error = begin("dpo", &model, None).expect_err("changed").to_string();
        assert!(
            error.contains("not those that the stage sft wrote"),
            "{error}"
        );
        let error = StageManifest::of_adapter(adapter.path(), &model).expect_err("changed");
        assert!(error.to_string().contains("was trained on base"), "{error}");

        fs::write(model.join(OF_MODEL), "{}").expect("writes");
        let error = begin("dpo", &model, None)
            .expect_err("malformed")
            .to_string();
        assert!(error.contains("not a manifest"), "{error}");
    }
}
