//! Embedding models behind servers: texts asked in batches, vectors checked and stored.
//!
//! Servers give vectors that cannot be used: with NaN, of another length than the others, without an index or with that of another
//! text. Such vectors are not stored; their texts are asked again in smaller batches, and alone at last. What is missing after that is
//! reported by text, with the reason.

mod reply;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ft_eval::server::{KeyHeader, ServerClient, ServerFailure, ServerOptions, in_parallel};
use serde::Serialize;
use serde_json::{Value, json};

use crate::vector_cache::{Key, VectorCache, key};
use crate::{Embeddings, Error, Result};
use reply::Reply;

/// After so many failed requests in a row the server is asked for the vector of [`PROBE`].
const SUSPICIOUS: usize = 8;
/// A text that every server has a vector for.
const PROBE: &str = "test";

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingProtocol {
    /// `POST /embeddings` as OpenAI has it; also llama.cpp's server, vLLM, Text Embeddings Inference, Ollama.
    OpenAi,
    /// `POST /models/MODEL:batchEmbedContents`, with task types for queries and documents.
    Gemini,
}

/// What is asked of a server, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingServerOptions {
    /// Vectors of so many dimensions are asked for. Without it they have the model's own number.
    pub dims: Option<usize>,
    /// Texts of a request.
    pub batch: usize,
    /// The number of concurrent requests.
    pub concurrency: usize,
    /// What comes before each query.
    pub query_prompt: String,
    /// What comes before each document.
    pub document_prompt: String,
    /// Keys, attempts, pauses and limits.
    pub server: ServerOptions,
}

impl Default for EmbeddingServerOptions {
    fn default() -> Self {
        Self {
            dims: None,
            batch: 32,
            concurrency: 4,
            query_prompt: String::new(),
            document_prompt: String::new(),
            server: ServerOptions::default(),
        }
    }
}

/// An embedding model behind a server, with a file of the vectors that it gave.
///
/// Vectors are stored by address, model, dimensions, kind of text, prompt and text as soon as they arrive, so that none is
/// asked for twice, also after a run that was killed.
///
/// ```no_run
/// use std::path::Path;
///
/// use ft_embed::{EmbeddingProtocol, EmbeddingServer, EmbeddingServerOptions};
///
/// let options = EmbeddingServerOptions::default();
/// let (url, cache) = ("http://localhost:8080/v1", Path::new("bge-m3.vectors"));
/// let server = EmbeddingServer::open(EmbeddingProtocol::OpenAi, url, "bge-m3", options, cache)?;
/// let found = server.encode(&["how tall is it"], &["It is 330 metres high."], &mut |_, _| ())?;
/// for missing in &found.documents.missing {
///     eprintln!("no vector of document {}: {}", missing.text, missing.reason);
/// }
/// # Ok::<(), ft_embed::Error>(())
/// ```
#[derive(Debug)]
pub struct EmbeddingServer {
    client: ServerClient,
    protocol: EmbeddingProtocol,
    model: String,
    options: EmbeddingServerOptions,
    cache: Mutex<VectorCache>,
    spent: Mutex<EmbeddingsSpent>,
}

/// What was asked of a server, and what arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EmbeddingsSpent {
    /// Requests with a reply.
    pub requests: u64,
    /// Requests without one, after all attempts.
    pub failed: u64,
    /// Different texts whose vectors came from the server.
    pub vectors: u64,
    /// Different texts whose vectors were in the file.
    pub cached: u64,
    /// Vectors that could not be used.
    pub rejected: u64,
    /// Tokens that the server counted.
    pub tokens: u64,
}

impl EmbeddingsSpent {
    /// The price of the tokens, at this price of a million.
    pub fn cost(&self, price: f64) -> f64 {
        self.tokens as f64 * price / 1e6
    }
}

/// The embeddings of texts of which some may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundEmbeddings {
    /// A row for each text that has one.
    pub embeddings: Embeddings,
    /// The numbers of these texts, in rising order.
    pub texts: Vec<usize>,
    /// The other texts.
    pub missing: Vec<MissingVector>,
}

impl From<Embeddings> for FoundEmbeddings {
    /// Embeddings of all texts.
    fn from(embeddings: Embeddings) -> Self {
        Self {
            texts: (0..embeddings.len()).collect(),
            embeddings,
            missing: Vec::new(),
        }
    }
}

/// A text without a vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingVector {
    /// The number of the text.
    pub text: usize,
    /// Why its last request gave none.
    pub reason: String,
}

/// The embeddings of queries and documents by a server. All have the same number of dimensions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServedEmbeddings {
    /// Those of the queries.
    pub queries: FoundEmbeddings,
    /// Those of the documents.
    pub documents: FoundEmbeddings,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Query,
    Document,
}

/// A text that is asked for once, however often it occurs.
struct Wanted {
    kind: Kind,
    /// The text with its prompt.
    text: String,
    key: Key,
    /// The number of dimensions of the vector that is stored.
    dims: Option<usize>,
    reason: String,
}

impl EmbeddingServer {
    /// The model `model` behind `base_url`: `https://api.openai.com/v1`, `http://localhost:8080/v1`, or for
    /// Gemini `https://generativelanguage.googleapis.com/v1beta`. Vectors are stored in the file `cache`, which is created if it does not
    /// exist.
    ///
    /// # Errors
    ///
    /// If the address or the options cannot be used, the variable of the key is not set, or the file has other content.
    pub fn open(
        protocol: EmbeddingProtocol,
        base_url: &str,
        model: &str,
        options: EmbeddingServerOptions,
        cache: &Path,
    ) -> Result<Self> {
        if options.batch == 0 || options.concurrency == 0 || options.dims == Some(0) {
            return Err(Error::Settings(format!(
                "batches of {}, {} requests at a time and {:?} dimensions: all must be positive",
                options.batch, options.concurrency, options.dims
            )));
        }
        let header = match protocol {
            EmbeddingProtocol::OpenAi => KeyHeader::Bearer,
            EmbeddingProtocol::Gemini => KeyHeader::Named("x-goog-api-key"),
        };
        Ok(Self {
            client: ServerClient::new(base_url, header, options.server.clone())?,
            protocol,
            model: model.to_string(),
            options,
            cache: Mutex::new(VectorCache::open(cache)?),
            spent: Mutex::default(),
        })
    }

    /// The counts of all calls so far.
    pub fn spent(&self) -> EmbeddingsSpent {
        *lock(&self.spent)
    }

    /// The embeddings of queries and documents. `progress` gets how many different texts were asked for or found in the file, of how
    /// many.
    ///
    /// The right number of dimensions is the one that was asked for, or else that of most vectors.
    ///
    /// # Errors
    ///
    /// If the server refuses the key, the model or the address, or fails at one request after another; or if no text
    /// has a vector. What arrived until then is stored.
    pub fn encode<T: AsRef<str>>(
        &self,
        queries: &[T],
        documents: &[T],
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<ServedEmbeddings> {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut known: HashMap<Key, usize> = HashMap::new();
        let mut number = |kind: Kind, text: &T| -> usize {
            let made = self.wanted(kind, text.as_ref());
            *known.entry(made.key).or_insert_with(|| {
                wanted.push(made);
                wanted.len() - 1
            })
        };
        let of_queries: Vec<usize> = (queries.iter())
            .map(|text| number(Kind::Query, text))
            .collect();
        let of_documents: Vec<usize> = (documents.iter())
            .map(|text| number(Kind::Document, text))
            .collect();
        self.ask_for_all(&mut wanted, progress)?;
        let dims = self.right_dims(&wanted);
        let mut cache = lock(&self.cache);
        let mut collect = |numbers: &[usize]| -> Result<FoundEmbeddings> {
            let (mut values, mut found) = (Vec::new(), FoundEmbeddings::default());
            for (text, &number) in numbers.iter().enumerate() {
                let wanted = &wanted[number];
                let vector = match wanted.dims == dims {
                    true => cache.get(&wanted.key)?,
                    false => None,
                };
                match vector {
                    Some(vector) => {
                        values.extend(vector);
                        found.texts.push(text);
                    }
                    None => found.missing.push(MissingVector {
                        text,
                        reason: wanted.reason.clone(),
                    }),
                }
            }
            if let Some(dims) = dims.filter(|_| !values.is_empty()) {
                found.embeddings = Embeddings::new(values, dims)?;
            }
            Ok(found)
        };
        Ok(ServedEmbeddings {
            queries: collect(&of_queries)?,
            documents: collect(&of_documents)?,
        })
    }

    fn wanted(&self, kind: Kind, text: &str) -> Wanted {
        let (name, prompt) = match kind {
            Kind::Query => ("query", &self.options.query_prompt),
            Kind::Document => ("document", &self.options.document_prompt),
        };
        let protocol = match self.protocol {
            EmbeddingProtocol::OpenAi => "openai",
            EmbeddingProtocol::Gemini => "gemini",
        };
        let dims = self.options.dims.map_or(String::new(), |d| d.to_string());
        let (url, text) = (self.client.base_url(), format!("{prompt}{text}"));
        let key = key(&[protocol, url, &self.model, &dims, name, prompt, &text]);
        Wanted {
            kind,
            dims: lock(&self.cache).dims(&key),
            text,
            key,
            reason: String::new(),
        }
    }

    /// The number of dimensions that vectors must have; none if there are no vectors.
    fn right_dims(&self, wanted: &[Wanted]) -> Option<usize> {
        if self.options.dims.is_some() {
            return self.options.dims;
        }
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for dims in wanted.iter().filter_map(|wanted| wanted.dims) {
            *counts.entry(dims).or_default() += 1;
        }
        // Of equal counts the smaller number of dimensions.
        let most = counts
            .iter()
            .max_by_key(|(dims, count)| (**count, std::cmp::Reverse(**dims)));
        most.map(|(dims, _)| *dims)
    }

    /// Asks for vectors until each text has a right one, in three rounds of ever smaller batches.
    fn ask_for_all(
        &self,
        wanted: &mut [Wanted],
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<()> {
        let right = |wanted: &[Wanted]| {
            let dims = self.right_dims(wanted);
            let of = wanted.iter();
            of.filter(|wanted| wanted.dims.is_some() && wanted.dims == dims)
                .count()
        };
        let cached = right(wanted);
        lock(&self.spent).cached += cached as u64;
        progress(cached, wanted.len());
        let run = Run::default();
        let batch = self.options.batch;
        for size in [batch, batch.div_ceil(8), 1] {
            let dims = self.right_dims(wanted);
            let mut open: Vec<usize> = (0..wanted.len())
                .filter(|&i| wanted[i].dims.is_none() || wanted[i].dims != dims)
                .collect();
            // A request is about texts of one kind.
            open.sort_by_key(|&i| wanted[i].kind == Kind::Document);
            let parts: Vec<&[usize]> = open
                .chunk_by(|&a, &b| wanted[a].kind == wanted[b].kind)
                .flat_map(|same| same.chunks(size))
                .collect();
            let before = wanted.len() - open.len();
            let asked = AtomicUsize::new(before);
            let all = wanted.len();
            let texts: &[Wanted] = wanted;
            let replies = in_parallel(
                parts.len(),
                self.options.concurrency,
                |part| {
                    let part = parts[part];
                    let reply = self.ask(texts, part, &run);
                    asked.fetch_add(part.len(), Ordering::Relaxed);
                    reply
                },
                &mut |_, _| progress(asked.load(Ordering::Relaxed), all),
            );
            for (part, reply) in parts.iter().zip(replies) {
                for (&i, found) in part.iter().zip(reply?) {
                    match found {
                        Ok(dims) => wanted[i].dims = Some(dims),
                        Err(reason) => wanted[i].reason = reason,
                    }
                }
            }
            lock(&self.cache).sync()?;
            if let Some(reason) = lock(&run.stopped).take() {
                return Err(Error::Server(format!(
                    "{} gives no embeddings: {reason}. {} of {all} texts have theirs in {}: run this again to go on",
                    self.client.base_url(),
                    right(wanted),
                    lock(&self.cache).path().display()
                )));
            }
            let dims = self.right_dims(wanted);
            let mut wrong = 0;
            for wanted in wanted.iter_mut() {
                if let (Some(own), Some(dims)) = (wanted.dims, dims)
                    && own != dims
                {
                    wrong += 1;
                    wanted.reason =
                        format!("the vector has {own} numbers, those of other texts {dims}");
                }
            }
            lock(&self.spent).rejected += wrong;
            // What is wrong with all vectors of several requests is not cured by more of them.
            if dims.is_none_or(|_| right(wanted) == 0) && parts.len() > 1 {
                break;
            }
        }
        let all = right(wanted);
        lock(&self.spent).vectors += (all - cached.min(all)) as u64;
        match wanted.first() {
            Some(first) if all == 0 => Err(Error::Server(format!(
                "{} gave no embedding of {} texts; the reason of the first: {}",
                self.client.base_url(),
                wanted.len(),
                first.reason
            ))),
            _ => Ok(()),
        }
    }

    /// The numbers of dimensions of the vectors of some texts, which are stored, or why there is none.
    fn ask(
        &self,
        wanted: &[Wanted],
        part: &[usize],
        run: &Run,
    ) -> Result<Vec<Result<usize, String>>> {
        if lock(&run.stopped).is_some() {
            return Ok(vec![Err("it was not asked for".to_string()); part.len()]);
        }
        let texts: Vec<&str> = part.iter().map(|&i| wanted[i].text.as_str()).collect();
        let kind = part.first().map_or(Kind::Query, |&i| wanted[i].kind);
        let reply = match self.post(kind, &texts) {
            Ok(reply) => reply,
            Err(failure) => {
                self.failed(&failure, run);
                return Ok(vec![Err(failure.to_string()); part.len()]);
            }
        };
        run.failures.store(0, Ordering::Relaxed);
        let mut found = Vec::with_capacity(part.len());
        for (&i, vector) in part.iter().zip(reply.vectors) {
            found.push(match (vector, self.options.dims) {
                (Ok(vector), Some(dims)) if vector.len() != dims => {
                    let own = vector.len();
                    Err(format!("the vector has {own} numbers, not {dims}"))
                }
                (Ok(vector), _) => {
                    lock(&self.cache).put(wanted[i].key, &vector)?;
                    Ok(vector.len())
                }
                (Err(reason), _) => Err(reason),
            });
        }
        lock(&self.spent).rejected += found.iter().filter(|found| found.is_err()).count() as u64;
        Ok(found)
    }

    /// Decides whether it makes sense to go on after a request that failed.
    fn failed(&self, failure: &ServerFailure, run: &Run) {
        lock(&self.spent).failed += 1;
        let failures = run.failures.fetch_add(1, Ordering::Relaxed) + 1;
        // The texts may be at fault with 400, 413 and 422, and perhaps with 5xx; with other refusals they are not.
        let refused = matches!(failure.status, Some(status) if status < 500 && !matches!(status, 400 | 408 | 409 | 413 | 422 | 425 | 429));
        if refused {
            *lock(&run.stopped) = Some(failure.to_string());
        } else if failures.is_multiple_of(SUSPICIOUS)
            && let Err(failure) = self.post(Kind::Query, &[PROBE])
        {
            *lock(&run.stopped) = Some(format!(
                "{failures} requests in a row failed, and one for {PROBE:?}: {failure}"
            ));
        }
    }

    /// One request.
    fn post(&self, kind: Kind, texts: &[&str]) -> Result<Reply, ServerFailure> {
        let (path, body) = match self.protocol {
            EmbeddingProtocol::OpenAi => ("embeddings".to_string(), self.openai_body(texts)),
            EmbeddingProtocol::Gemini => {
                let path = format!("{}:batchEmbedContents", self.gemini_model());
                (path, self.gemini_body(kind, texts))
            }
        };
        let read = |body: &str| match self.protocol {
            EmbeddingProtocol::OpenAi => reply::openai(body, texts.len()),
            EmbeddingProtocol::Gemini => reply::gemini(body, texts.len()),
        };
        let reply = self.client.post(&path, &body, read)?;
        self.client.used(reply.tokens);
        let mut spent = lock(&self.spent);
        spent.requests += 1;
        spent.tokens += reply.tokens;
        Ok(reply)
    }

    fn openai_body(&self, texts: &[&str]) -> Value {
        let mut body = json!({"model": self.model, "input": texts, "encoding_format": "float"});
        if let Some(dims) = self.options.dims {
            body["dimensions"] = dims.into();
        }
        body
    }

    fn gemini_model(&self) -> String {
        match self.model.starts_with("models/") {
            true => self.model.clone(),
            false => format!("models/{}", self.model),
        }
    }

    fn gemini_body(&self, kind: Kind, texts: &[&str]) -> Value {
        let task = match kind {
            Kind::Query => "RETRIEVAL_QUERY",
            Kind::Document => "RETRIEVAL_DOCUMENT",
        };
        let requests = texts.iter().map(|text| {
            let mut request = json!({
                "model": self.gemini_model(),
                "content": {"parts": [{"text": text}]},
                "taskType": task,
            });
            if let Some(dims) = self.options.dims {
                request["outputDimensionality"] = dims.into();
            }
            request
        });
        json!({"requests": requests.collect::<Vec<_>>()})
    }
}

/// What the threads of a call share.
#[derive(Default)]
struct Run {
    /// Failed requests since the last reply.
    failures: AtomicUsize,
    /// Why nothing more is asked.
    stopped: Mutex<Option<String>>,
}

/// The value of a lock, also after a thread panicked: the value stays valid.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
