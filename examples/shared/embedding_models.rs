// Embedding models by one argument each: a folder, a hub id, or a model behind a server.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use ft::burn::tensor::Device;
use ft::core::{HubOptions, Weights, resolve};
use ft::embed::{
    EmbeddingModel, EmbeddingProtocol, EmbeddingServer, EmbeddingServerOptions, Embeddings,
    EncodeOptions, FoundEmbeddings, Prompt, Similarity,
};
use ft::kernels::{Precision, precision};
use serde_json::{Value, json};

/// An embedding model.
#[derive(Clone, Debug)]
pub(crate) enum ModelEntry {
    /// A folder or a hub id.
    Local(String),
    /// A model behind a server.
    Server(Box<ServerEntry>),
}

/// A model behind a server.
#[derive(Clone, Debug)]
pub(crate) struct ServerEntry {
    protocol: EmbeddingProtocol,
    url: String,
    model: String,
    name: String,
    /// Of a million tokens.
    price: f64,
    options: EmbeddingServerOptions,
}

/// The embeddings of a model.
pub(crate) struct Encoded {
    pub(crate) queries: FoundEmbeddings,
    pub(crate) documents: FoundEmbeddings,
    pub(crate) similarity: Similarity,
    /// The model's embeddings are to be cut to so many dimensions.
    pub(crate) truncate_dim: Option<usize>,
    pub(crate) details: Value,
}

impl FromStr for ModelEntry {
    type Err = String;

    /// A folder, a hub id, or `openai:MODEL[@URL][?setting=value&..]`, or the same with `gemini:`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, rest) = match text.split_once(':') {
            Some(("openai", rest)) => (EmbeddingProtocol::OpenAi, rest),
            Some(("gemini", rest)) => (EmbeddingProtocol::Gemini, rest),
            _ => return Ok(Self::Local(text.to_string())),
        };
        let (rest, settings) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = EmbeddingServerOptions::default();
        // A server of one's own needs no key, unless it is named.
        let (model, url) = match (rest.rfind("@http"), protocol) {
            (Some(at), _) => (&rest[..at], &rest[at + 1..]),
            (None, EmbeddingProtocol::OpenAi) => {
                options.server.api_key_env = Some("OPENAI_API_KEY".into());
                (rest, "https://api.openai.com/v1")
            }
            (None, EmbeddingProtocol::Gemini) => {
                options.server.api_key_env = Some("GEMINI_API_KEY".into());
                (rest, "https://generativelanguage.googleapis.com/v1beta")
            }
        };
        if model.is_empty() {
            return Err(format!("{text} names no model"));
        }
        let (mut name, mut price) = (None, 0.0);
        for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            let value = decoded(value);
            let number = || -> Result<f64, String> {
                let number: Option<f64> = value.parse().ok();
                let positive = number.filter(|number| *number > 0.0 && number.is_finite());
                positive.ok_or(format!("{key}={value}: it must be a positive number"))
            };
            match key {
                "key" => options.server.api_key_env = Some(value),
                "dims" => options.dims = Some(number()? as usize),
                "price" => price = number()?,
                "name" => name = Some(value),
                "rpm" => options.server.requests_per_minute = Some(number()?),
                "tpm" => options.server.tokens_per_minute = Some(number()?),
                "attempts" => options.server.attempts = number()? as u32,
                "timeout" => {
                    options.server.timeout = std::time::Duration::from_secs_f64(number()?);
                }
                "batch" => options.batch = number()? as usize,
                "concurrency" => options.concurrency = number()? as usize,
                "query" => options.query_prompt = value,
                "document" => options.document_prompt = value,
                _ => {
                    return Err(format!(
                        "{text}: there is no setting {key}: use key, dims, price, name, rpm, tpm, attempts, timeout, batch, \
                         concurrency, query or document"
                    ));
                }
            }
        }
        let name = name.unwrap_or_else(|| {
            let last = model.rsplit('/').next().unwrap_or(model);
            match options.dims {
                Some(dims) => format!("{last}-{dims}"),
                None => last.to_string(),
            }
        });
        Ok(Self::Server(Box::new(ServerEntry {
            protocol,
            url: url.to_string(),
            model: model.to_string(),
            // The name is also that of files.
            name: name.replace(['/', '\\', ':', ' '], "_"),
            price,
            options,
        })))
    }
}

/// `%2C` is a comma.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl ModelEntry {
    /// The name in tables and of files.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Local(folder) => Path::new(folder)
                .file_name()
                .map_or(folder.clone(), |name| name.to_string_lossy().into()),
            Self::Server(entry) => entry.name.clone(),
        }
    }

    /// Checks that the key of a server is there, before hours of work with other models.
    pub(crate) fn check(&self) -> Result<()> {
        if let Self::Server(entry) = self
            && let Some(name) = &entry.options.server.api_key_env
        {
            std::env::var(name).with_context(|| {
                format!(
                    "the environment variable {name} is to hold the key for {}",
                    entry.name
                )
            })?;
        }
        Ok(())
    }

    /// The folder of a local model.
    pub(crate) fn folder(&self) -> Result<Option<PathBuf>> {
        match self {
            Self::Local(folder) => Ok(Some(resolve(folder, &HubOptions::from_env())?)),
            Self::Server(_) => Ok(None),
        }
    }

    /// The embeddings of texts. They are stored in the folder `store`, and not computed or asked for again.
    pub(crate) fn encode(
        &self,
        queries: &[String],
        documents: &[String],
        store: &Path,
        device: &Device,
    ) -> Result<Encoded> {
        match self {
            Self::Local(folder) => local(&self.name(), folder, queries, documents, store, device),
            Self::Server(entry) => entry.encode(queries, documents, store),
        }
    }
}

impl ServerEntry {
    fn encode(&self, queries: &[String], documents: &[String], store: &Path) -> Result<Encoded> {
        let start = Instant::now();
        let file = store.join(format!("{}.vectors", self.name));
        let options = self.options.clone();
        let server = EmbeddingServer::open(self.protocol, &self.url, &self.model, options, &file)?;
        let mut next = 0;
        let found = server.encode(queries, documents, &mut |done, of| {
            if done >= next {
                eprintln!("{}: {done} of {of} texts", self.name);
                next = done + (of / 10).max(100);
            }
        })?;
        let spent = server.spent();
        eprintln!(
            "{}: {} vectors from the server in {} requests, {} from {}, {} rejected, {} tokens",
            self.name,
            spent.vectors,
            spent.requests,
            spent.cached,
            file.display(),
            spent.rejected,
            spent.tokens
        );
        let dims = (found.documents.embeddings.dims()).max(found.queries.embeddings.dims());
        let details = json!({
            "dims": dims, "server": self.url, "spent": spent, "cost": spent.cost(self.price),
            "encoding_s": start.elapsed().as_secs_f64(), "cached": spent.vectors == 0,
        });
        Ok(Encoded {
            queries: found.queries,
            documents: found.documents,
            similarity: Similarity::Cosine,
            truncate_dim: None,
            details,
        })
    }
}

fn local(
    name: &str,
    model: &str,
    queries: &[String],
    documents: &[String],
    store: &Path,
    device: &Device,
) -> Result<Encoded> {
    let folder = resolve(model, &HubOptions::from_env())?;
    let model = EmbeddingModel::from_pretrained_with(&folder, device, Weights::Stored)?;
    let start = Instant::now();
    // Times of change stand for the contents of files.
    let mut files = Vec::new();
    files_of(&folder, &mut files)?;
    files.sort();
    let encode = |kind: &str, texts: &[String], prompt: Prompt<'_>| -> Result<(Embeddings, bool)> {
        let mut hasher = DefaultHasher::new();
        texts.hash(&mut hasher);
        let version = env!("CARGO_PKG_VERSION");
        (&folder, model.prompt_text(prompt)?, &files, version).hash(&mut hasher);
        if precision() != Precision::F32 {
            precision().to_string().hash(&mut hasher);
        }
        let file = store.join(format!("{name}-{kind}-{:016x}.npy", hasher.finish()));
        if file.is_file() {
            return Ok((Embeddings::read_npy(&file)?, true));
        }
        let options = EncodeOptions {
            prompt,
            dims: Some(model.dims()),
            ..EncodeOptions::default()
        };
        let mut next = 0;
        let embeddings = model.encode_with(texts, &options, &mut |done, of| {
            if done >= next {
                eprintln!("{name}: {done} of {of} {kind}");
                next += (of / 10).max(100);
            }
        })?;
        embeddings.write_npy(&file)?;
        Ok((embeddings, false))
    };
    let (of_queries, cached_queries) = encode("queries", queries, model.query_prompt())?;
    let (of_documents, cached_documents) = encode("documents", documents, model.document_prompt())?;
    let details = json!({
        "dims": model.truncate_dim().unwrap_or(model.dims()), "max_seq_length": model.max_seq_length(),
        "encoding_s": start.elapsed().as_secs_f64(), "cached": cached_queries && cached_documents,
    });
    Ok(Encoded {
        queries: of_queries.into(),
        documents: of_documents.into(),
        similarity: model.similarity(),
        truncate_dim: model.truncate_dim(),
        details,
    })
}

/// All files of a folder, with their sizes and times of change.
fn files_of(folder: &Path, files: &mut Vec<(PathBuf, u64, Option<SystemTime>)>) -> Result<()> {
    let read = || format!("cannot read {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(read)? {
        let path = entry.with_context(read)?.path();
        // Files of the hub's cache are links.
        let about = std::fs::metadata(&path).with_context(read)?;
        match about.is_dir() {
            true => files_of(&path, files)?,
            false => files.push((path, about.len(), about.modified().ok())),
        }
    }
    Ok(())
}

/// The row of each text that has an embedding.
pub(crate) fn rows_of(found: &FoundEmbeddings) -> HashMap<usize, usize> {
    let rows = found.texts.iter().enumerate();
    rows.map(|(row, &text)| (text, row)).collect()
}
