//! The folders of sentence-transformers: which modules a model has, and their settings.
//!
//! `modules.json` lists modules and their folders; `config_sentence_transformers.json` has the prompts. Both forms are read:
//! that of version 6, whose Python classes have new names and whose pooling is one `pooling_mode`, and the older ones.
//! Written is the form of version 6.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ft_core::safetensors_folder::write_json;
use serde_json::{Map, Value, json};

use crate::{Error, PoolingMode, Result, Similarity};

/// A module of `modules.json`, and where its files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Transformer,
    StaticEmbedding,
    Pooling,
    Dense,
    Normalize,
    Dropout,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Transformer,
        Self::StaticEmbedding,
        Self::Pooling,
        Self::Dense,
        Self::Normalize,
        Self::Dropout,
    ];

    /// The class, whose package differs between versions.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Transformer => "Transformer",
            Self::StaticEmbedding => "StaticEmbedding",
            Self::Pooling => "Pooling",
            Self::Dense => "Dense",
            Self::Normalize => "Normalize",
            Self::Dropout => "Dropout",
        }
    }

    fn path_in_v6(self) -> &'static str {
        match self {
            Self::Transformer => "sentence_transformers.base.modules.transformer.Transformer",
            Self::StaticEmbedding => {
                "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
            }
            Self::Pooling => "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            Self::Dense => "sentence_transformers.base.modules.dense.Dense",
            Self::Normalize => "sentence_transformers.base.modules.normalize.Normalize",
            Self::Dropout => "sentence_transformers.sentence_transformer.modules.dropout.Dropout",
        }
    }
}

/// The modules of a folder in order; none if it is a plain folder of a model.
pub(crate) fn read_modules(folder: &Path) -> Result<Option<Vec<(Kind, PathBuf)>>> {
    let path = folder.join("modules.json");
    let Some(json) = read(&path)? else {
        return Ok(None);
    };
    let modules = json
        .as_array()
        .ok_or_else(|| Error::file(&path, "it must be a list of modules"))?;
    let modules = modules.iter().map(|module| {
        let class = module.get("type").and_then(Value::as_str).unwrap_or("");
        let name = class.rsplit('.').next().unwrap_or(class);
        let kind = Kind::ALL.into_iter().find(|kind| kind.class() == name);
        let kind = kind.ok_or_else(|| {
            let known = Kind::ALL.map(Kind::class).join(", ");
            Error::file(
                &path,
                format!("the module {class:?} is not supported: {known} are"),
            )
        })?;
        let own = module.get("path").and_then(Value::as_str).unwrap_or("");
        let inside = Path::new(own).components().all(|part| {
            matches!(
                part,
                std::path::Component::Normal(_) | std::path::Component::CurDir
            )
        });
        if !inside {
            return Err(Error::file(
                &path,
                format!("the path {own:?} of a module leads out of the folder"),
            ));
        }
        Ok((kind, folder.join(own)))
    });
    modules.collect::<Result<Vec<_>>>().map(Some)
}

/// Writes `modules.json`; each module has its folder, the first may have the folder of the model.
pub(crate) fn write_modules(folder: &Path, modules: &[(Kind, String)]) -> Result<()> {
    let list: Vec<Value> = (modules.iter().enumerate())
        .map(|(index, (kind, path))| {
            json!({"idx": index, "name": index.to_string(), "path": path, "type": kind.path_in_v6()})
        })
        .collect();
    Ok(write_json(&folder.join("modules.json"), &list)?)
}

/// The settings of pooling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// One mode, or several whose vectors are put side by side.
    pub modes: Vec<PoolingMode>,
    /// Whether the tokens of a prompt count.
    pub include_prompt: bool,
}

impl Default for Pooling {
    fn default() -> Self {
        Self {
            modes: vec![PoolingMode::Mean],
            include_prompt: true,
        }
    }
}

impl From<PoolingMode> for Pooling {
    fn from(mode: PoolingMode) -> Self {
        Self {
            modes: vec![mode],
            include_prompt: true,
        }
    }
}

impl Pooling {
    /// That of a folder without modules: the last token of a causal language model, the mean of others.
    pub(crate) fn of_plain_folder(folder: &Path) -> Result<Self> {
        let config = read_object(&folder.join("config.json"))?.unwrap_or_default();
        let class = config.get("architectures").and_then(|names| names.get(0));
        let class = class.and_then(Value::as_str).unwrap_or("");
        let causal = config.get("is_causal") != Some(&Value::Bool(false));
        Ok(match class.ends_with("ForCausalLM") && causal {
            true => PoolingMode::LastToken.into(),
            false => Self::default(),
        })
    }

    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let config =
            read_object(&path)?.ok_or_else(|| Error::file(&path, "there is no such file"))?;
        let modes = match config.get("pooling_mode") {
            Some(Value::String(_)) => {
                let mode = serde_json::from_value(config["pooling_mode"].clone());
                mode.map(|mode| vec![mode])
            }
            Some(modes @ Value::Array(_)) => serde_json::from_value(modes.clone()),
            _ => {
                let set =
                    |mode: &PoolingMode| config.get(mode.legacy_key()) == Some(&Value::Bool(true));
                let modes: Vec<_> = PoolingMode::ALL.into_iter().filter(set).collect();
                Ok(if modes.is_empty() {
                    vec![PoolingMode::Mean]
                } else {
                    modes
                })
            }
        };
        let modes = modes.map_err(|error| Error::file(&path, format!("pooling_mode: {error}")))?;
        if modes.is_empty() {
            return Err(Error::file(&path, "pooling_mode names no mode"));
        }
        let include_prompt = config.get("include_prompt").and_then(Value::as_bool);
        Ok(Self {
            modes,
            include_prompt: include_prompt.unwrap_or(true),
        })
    }

    pub(crate) fn save(&self, folder: &Path, width: usize) -> Result<()> {
        let mut config = Map::new();
        config.insert("embedding_dimension".into(), width.into());
        let modes = match self.modes.as_slice() {
            [mode] => json!(mode),
            modes => json!(modes),
        };
        config.insert("pooling_mode".into(), modes);
        config.insert("include_prompt".into(), self.include_prompt.into());
        Ok(write_json(&folder.join("config.json"), &config)?)
    }
}

/// `config_sentence_transformers.json`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SentenceConfig {
    pub(crate) prompts: BTreeMap<String, String>,
    pub(crate) default_prompt_name: Option<String>,
    pub(crate) similarity: Similarity,
    /// Embeddings are cut to so many dimensions.
    pub(crate) truncate_dim: Option<usize>,
}

impl SentenceConfig {
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("config_sentence_transformers.json");
        let config = read_object(&path)?.unwrap_or_default();
        let field = |name: &str| config.get(name).filter(|value| !value.is_null()).cloned();
        let bad = |name: &str| {
            let path = path.clone();
            let name = name.to_string();
            move |error: serde_json::Error| Error::file(&path, format!("{name}: {error}"))
        };
        let prompts = field("prompts").map(serde_json::from_value).transpose();
        let prompts: BTreeMap<String, String> =
            prompts.map_err(bad("prompts"))?.unwrap_or_default();
        let name = field("default_prompt_name").map(serde_json::from_value);
        let name: Option<String> = name.transpose().map_err(bad("default_prompt_name"))?;
        if let Some(name) = name.as_ref().filter(|name| !prompts.contains_key(*name)) {
            return Err(Error::file(
                &path,
                format!("default_prompt_name {name:?} is no name of prompts"),
            ));
        }
        let similarity = field("similarity_fn_name").map(serde_json::from_value);
        let similarity: Option<Similarity> =
            similarity.transpose().map_err(bad("similarity_fn_name"))?;
        let truncate_dim = field("truncate_dim").map(serde_json::from_value);
        let truncate_dim: Option<std::num::NonZeroUsize> =
            truncate_dim.transpose().map_err(bad("truncate_dim"))?;
        Ok(Self {
            prompts,
            default_prompt_name: name,
            similarity: similarity.unwrap_or_default(),
            truncate_dim: truncate_dim.map(std::num::NonZeroUsize::get),
        })
    }

    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let mut config = json!({
            "__version__": {"ft": env!("CARGO_PKG_VERSION"), "sentence_transformers": "6.2.0"},
            "model_type": "SentenceTransformer",
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
            "similarity_fn_name": self.similarity,
        });
        if let Some(dims) = self.truncate_dim {
            config["truncate_dim"] = dims.into();
        }
        Ok(write_json(
            &folder.join("config_sentence_transformers.json"),
            &config,
        )?)
    }
}

/// What `sentence_bert_config.json`, or the file of another name that old versions wrote, says about the transformer:
/// the longest text in tokens, and whether it is written in small letters.
pub(crate) fn read_transformer_settings(folder: &Path) -> Result<(Option<usize>, bool)> {
    const KINDS: [&str; 7] = [
        "bert",
        "roberta",
        "distilbert",
        "camembert",
        "albert",
        "xlm-roberta",
        "xlnet",
    ];
    for kind in KINDS {
        let path = folder.join(format!("sentence_{kind}_config.json"));
        if let Some(config) = read_object(&path)?.filter(|config| !config.is_empty()) {
            let longest = config.get("max_seq_length").and_then(Value::as_u64);
            let lower = config.get("do_lower_case") == Some(&Value::Bool(true));
            return Ok((longest.and_then(|n| usize::try_from(n).ok()), lower));
        }
    }
    Ok((None, false))
}

/// Writes `sentence_bert_config.json`.
pub(crate) fn write_transformer_settings(folder: &Path, do_lower_case: bool) -> Result<()> {
    let mut config = json!({
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
    });
    if do_lower_case {
        config["do_lower_case"] = true.into();
    }
    Ok(write_json(
        &folder.join("sentence_bert_config.json"),
        &config,
    )?)
}

/// A JSON object from a file; none if there is no such file.
pub(crate) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    match read(path)? {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(Error::file(path, "it must be a JSON object")),
    }
}

fn read(path: &Path) -> Result<Option<Value>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ft_core::Error::read(path)(error).into()),
    };
    let json = serde_json::from_slice(&bytes);
    json.map(Some)
        .map_err(|error| Error::file(path, format!("it is not JSON: {error}")))
}
