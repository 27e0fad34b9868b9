//! Compares embedding models on one's own retrieval data: measures, paired tests, tables, pictures.
//!
//! ```sh
//! cargo run --release --example retrieval_benchmark -- --models all-MiniLM-L6-v2,openai:bge-m3@http://localhost:8080/v1 \
//!     --pairs questions.jsonl --output report
//! ```
//!
//! A model is a folder, a hub id, or `openai:MODEL[@URL]` or `gemini:MODEL` behind a server, with settings after a question mark:
//! `openai:text-embedding-3-small?dims=256&price=0.02&rpm=500`. They are `key` (the environment variable of the key; without it
//! OPENAI_API_KEY, GEMINI_API_KEY, and none for a URL), `dims`, `price` of a million tokens, `rpm` and `tpm` (requests and tokens a
//! minute), `batch` (texts of a request), `concurrency`, `attempts`, `timeout` in seconds, `query` and `document` (what comes before
//! texts; `%2C` is a comma) and `name`.
//!
//! The data is `--pairs`, rows of a query and its document, where the documents of all rows are searched; or `--documents`, a folder
//! of texts that are cut into pieces, and questions about them by a chat model (`--chat-local DIR` or `--endpoint URL`), each of which its
//! piece answers; or `--corpus` and `--queries`, JSONL of `{"_id": .., "text": .., "title": ..}` as BEIR has them, with `--qrels` in trec's or ranx's form.
//! `--output` gets `report.md`, `report.tex`, `report.ranx.json`, `results.json`, a run a model in trec's form, and the embeddings, which
//! are not computed or asked for again when the benchmark is repeated on the same texts.
//!
//! Replies of the chat model are stored in `--output`, too, so that an interrupted run asks for nothing twice. What was asked is written
//! there: `questions.jsonl` for `--pairs` and for the example `embed_train`, and the judgements as `qrels.trec` with `corpus.jsonl`
//! and `queries.jsonl`.
//!
//! A query whose vector a server does not give counts as not answered, and a document is not searched; both are in the report.
//!
//! `--languages English,German` measures both directions within and both across two languages, and both in one index. The
//! chat model translates (`--translate`), or translations are given.
//!
//! `--precision int8` or `binary` searches on codes, `--approximate` in a graph, and `--dims` on the first dimensions. `--rerank` adds each model with a
//! cross-encoder behind it. `--pictures` draws embeddings by t-SNE, and similarities.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use ft::burn::tensor::Device;
use ft::core::{HubOptions, Tokenizer, Weights, resolve};
use ft::embed::{
    BinaryIndex, CrossEncoder, Embeddings, ExactIndex, FoundEmbeddings, Hit, Int8Index, VectorIndex,
};
use ft::eval::retrieval::{Measure, Run, Significance, SystemScores, Ties, evaluate};
use serde_json::{Value, json};

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

#[path = "shared/document_questions.rs"]
mod document_questions;
#[path = "shared/embedding_models.rs"]
mod embedding_models;
#[path = "shared/retrieval_data.rs"]
mod retrieval_data;
#[path = "shared/retrieval_pictures.rs"]
mod retrieval_pictures;
#[path = "shared/retrieval_report.rs"]
mod retrieval_report;

use embedding_models::{Encoded, ModelEntry, rows_of};
use retrieval_data::{Benchmark, DataArgs, Scenario, Texts};
use retrieval_pictures::draw;

/// Compares embedding models on retrieval.
#[derive(Parser)]
struct Args {
    /// Model folders, hub ids (needs --features hub), or openai:MODEL[@URL] and gemini:MODEL, separated by commas.
    #[arg(long, required = true, value_delimiter = ',')]
    models: Vec<ModelEntry>,
    #[command(flatten)]
    data: DataArgs,
    /// Folder for the results.
    #[arg(long)]
    output: PathBuf,
    /// What is measured, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "ndcg@10,mrr@10,recall@10,precision@1,map@100"
    )]
    measures: Vec<Measure>,
    /// The paired test.
    #[arg(long, value_enum, default_value = "randomization")]
    test: Test,
    /// Differences up to this p-value are significant.
    #[arg(long, default_value_t = 0.05)]
    max_p: f64,
    /// float, int8 or binary.
    #[arg(long, value_enum, default_value = "float")]
    precision: Precision,
    /// Search in a graph of neighbours instead of comparing all documents (needs --features approximate).
    #[arg(long, conflicts_with = "precision")]
    approximate: bool,
    /// Only so many dimensions.
    #[arg(long)]
    dims: Option<usize>,
    /// So many documents are searched for each query.
    #[arg(long, default_value_t = 100)]
    depth: usize,
    /// Folder or hub id of a cross-encoder that sorts the best documents of each model again.
    #[arg(long)]
    rerank: Option<String>,
    /// So many documents of a query are sorted again.
    #[arg(long, default_value_t = 20)]
    rerank_depth: usize,
    /// Draws the embeddings and similarities of each model.
    #[arg(long)]
    pictures: bool,
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Test {
    Randomization,
    Student,
    Tukey,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Precision {
    Float,
    Int8,
    Binary,
}

#[cfg(feature = "approximate")]
fn approximate(documents: &Embeddings) -> Result<Box<dyn VectorIndex>> {
    let settings = ft::embed::GraphSettings::default();
    let mut index = ft::embed::ApproximateIndex::new(documents.dims(), settings)?;
    index.add(documents)?;
    Ok(Box::new(index))
}

#[cfg(not(feature = "approximate"))]
fn approximate(_: &Embeddings) -> Result<Box<dyn VectorIndex>> {
    unreachable!("refused at the start")
}

/// The best documents of queries, by their numbers.
type Ranked = Vec<(usize, Vec<Hit>)>;

/// What a model, perhaps with a cross-encoder behind it, found in each scenario.
pub(crate) struct System {
    name: String,
    /// By scenario.
    scores: Vec<SystemScores>,
    /// The share of the first ten documents that are in the language of the query.
    own_language: Option<f64>,
    details: Value,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        cfg!(feature = "approximate") || !args.approximate,
        "--approximate needs a build with --features approximate"
    );
    ft::compute_threads(None);
    let device = args.computation.device()?;
    let names: Vec<String> = args.models.iter().map(ModelEntry::name).collect();
    for (number, name) in names.iter().enumerate() {
        args.models[number].check()?;
        ensure!(
            !names[..number].contains(name),
            "two models are called {name}: a server's can have another one, `?name=..`"
        );
    }
    for folder in ["embeddings", "runs"] {
        std::fs::create_dir_all(args.output.join(folder))?;
    }
    let tokenizer = || args.tokenizer();
    let data = (args.data).load(&tokenizer, &args.output, &args.computation.device)?;
    let mut reranker = match &args.rerank {
        Some(model) => Some(Reranker::load(model, args.rerank_depth, &device)?),
        None => None,
    };
    let (mut systems, mut pictures, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for (entry, name) in args.models.iter().zip(&names) {
        let store = args.output.join("embeddings");
        let encoded = entry.encode(&data.queries.texts, &data.documents.texts, &store, &device)?;
        missing.extend(missing_of(name, "query", &encoded.queries, &data.queries));
        missing.extend(missing_of(
            name,
            "document",
            &encoded.documents,
            &data.documents,
        ));
        let (encoded, dims) = args.prepare(encoded)?;
        let found: Vec<(Ranked, f64)> = (data.scenarios.iter())
            .map(|scenario| args.search(&encoded, scenario))
            .collect::<Result<_>>()?;
        let mut details = encoded.details.clone();
        details["similarity"] = json!(encoded.similarity);
        details["precision"] = json!(format!("{:?}", args.precision).to_lowercase());
        details["approximate"] = json!(args.approximate);
        details["dims"] = dims.into();
        details["search_s"] = found.iter().map(|(_, seconds)| seconds).sum::<f64>().into();
        let found: Vec<Ranked> = found.into_iter().map(|(ranked, _)| ranked).collect();
        systems.push(args.measure(name.clone(), &data, &found, details)?);
        if let Some(reranker) = &mut reranker {
            let start = Instant::now();
            let sorted: Vec<Ranked> = (found.iter())
                .map(|ranked| reranker.sort(ranked, &data))
                .collect::<Result<_>>()?;
            let details = json!({"rerank_depth": args.rerank_depth, "rerank_s": start.elapsed().as_secs_f64()});
            let name = format!("{name}+{}", reranker.name);
            systems.push(args.measure(name, &data, &sorted, details)?);
        }
        if args.pictures {
            pictures.extend(draw(&args.output, name, &encoded, &data)?);
        }
    }
    let (text, results) = retrieval_report::write(
        &args.output,
        &data,
        &systems,
        (args.significance(), args.max_p),
        &missing,
        &pictures,
    )?;
    match args.json {
        true => println!("{results}"),
        false => println!("{text}"),
    }
    Ok(())
}

impl Args {
    /// The tokenizer that counts the tokens of pieces.
    fn tokenizer(&self) -> Result<Tokenizer> {
        if let Some(model) = &self.data.documents.tokenizer {
            return Ok(Tokenizer::from_pretrained(&resolve(
                model,
                &HubOptions::from_env(),
            )?)?);
        }
        for model in &self.models {
            if let Some(folder) = model.folder()? {
                return Ok(Tokenizer::from_pretrained(&folder)?);
            }
        }
        bail!("no model is a folder, so that a --tokenizer has to count the tokens of pieces")
    }

    /// Embeddings as an index compares them, and their number of dimensions.
    fn prepare(&self, mut encoded: Encoded) -> Result<(Encoded, usize)> {
        let dims = self.dims.or(encoded.truncate_dim);
        let own = [&encoded.queries, &encoded.documents].map(|found| found.embeddings.dims());
        let dims = dims.unwrap_or(own[0].max(own[1]));
        for found in [&mut encoded.queries, &mut encoded.documents] {
            if !found.embeddings.is_empty() {
                let cut = found.embeddings.truncated(dims)?;
                found.embeddings = encoded.similarity.for_index(cut)?;
            }
        }
        Ok((encoded, dims))
    }

    /// The best documents of the scenario's queries, and the seconds of the search.
    fn search(&self, encoded: &Encoded, scenario: &Scenario) -> Result<(Ranked, f64)> {
        let (queries, of_queries) = part(&encoded.queries, &scenario.queries);
        let (documents, of_documents) = part(&encoded.documents, &scenario.documents);
        if queries.is_empty() || documents.is_empty() {
            return Ok((Vec::new(), 0.0));
        }
        let index: Box<dyn VectorIndex> = match self.precision {
            Precision::Float if self.approximate => approximate(&of_documents)?,
            Precision::Float => Box::new(ExactIndex::new(&of_documents)?),
            Precision::Int8 => Box::new(Int8Index::try_from(&of_documents)?),
            Precision::Binary => {
                let mut index = BinaryIndex::new(of_documents.dims(), 4)?;
                index.add(&of_documents)?;
                Box::new(index)
            }
        };
        let start = Instant::now();
        let mut found = index.search(&of_queries, self.depth)?;
        let seconds = start.elapsed().as_secs_f64();
        for hit in found.iter_mut().flatten() {
            hit.document = documents[hit.document];
        }
        Ok((queries.into_iter().zip(found).collect(), seconds))
    }

    /// Scores a system, and writes its run of the main scenario.
    fn measure(
        &self,
        name: String,
        data: &Benchmark,
        found: &[Ranked],
        details: Value,
    ) -> Result<System> {
        let (mut scores, mut own_language) = (Vec::new(), None);
        for (number, (scenario, ranked)) in data.scenarios.iter().zip(found).enumerate() {
            let mut run = Run::new();
            for (query, hits) in ranked {
                let query = &data.queries.names[*query];
                run.answer(query);
                for hit in hits {
                    let document = &data.documents.names[hit.document];
                    run.insert(query, document, f64::from(hit.score))?;
                }
            }
            let own = evaluate(&scenario.qrels, &run, &self.measures, Ties::default())?;
            for scores in &own {
                let title = if scenario.name.is_empty() { "" } else { ", " };
                let (mean, measure) = (scores.mean(), scores.measure);
                eprintln!("{name}{title}{}: {measure} {mean:.4}", scenario.name);
            }
            scores.push(SystemScores {
                name: name.clone(),
                scores: own,
            });
            if number == 0 {
                let trec = run.to_trec(&name, Ties::default());
                let path = self.output.join("runs").join(format!("{name}.trec"));
                std::fs::write(path, trec)?;
                own_language = (data.languages.len() == 2).then(|| share_of_own(ranked, data));
            }
        }
        Ok(System {
            name,
            scores,
            own_language,
            details,
        })
    }

    fn significance(&self) -> Significance {
        match self.test {
            Test::Randomization => Significance::Randomization,
            Test::Student => Significance::Student,
            Test::Tukey => Significance::Tukey,
        }
    }
}

/// The texts among `wanted` that have an embedding, and these.
fn part(found: &FoundEmbeddings, wanted: &[usize]) -> (Vec<usize>, Embeddings) {
    let rows = rows_of(found);
    let here = wanted.iter().filter(|text| rows.contains_key(*text));
    let texts: Vec<usize> = here.copied().collect();
    let rows: Vec<usize> = texts.iter().map(|text| rows[text]).collect();
    (texts, found.embeddings.select(&rows))
}

/// The share of the first ten documents that are in the language of their query.
fn share_of_own(ranked: &Ranked, data: &Benchmark) -> f64 {
    let language = |name: &str| name.rsplit('@').next().map(str::to_string);
    let (mut own, mut all) = (0, 0);
    for (query, hits) in ranked {
        for hit in hits.iter().take(10) {
            all += 1;
            let names = (
                &data.queries.names[*query],
                &data.documents.names[hit.document],
            );
            own += usize::from(language(names.0) == language(names.1));
        }
    }
    own as f64 / all.max(1) as f64
}

/// The texts that have no vector.
fn missing_of(model: &str, kind: &str, found: &FoundEmbeddings, texts: &Texts) -> Vec<Value> {
    let missing = found.missing.iter().map(|missing| {
        let name = &texts.names[missing.text];
        eprintln!("{model}: no vector of {kind} {name}: {}", missing.reason);
        json!({"model": model, "kind": kind, "name": name, "reason": missing.reason})
    });
    missing.collect()
}

/// A cross-encoder, and the scores that it has given.
struct Reranker {
    name: String,
    model: CrossEncoder,
    depth: usize,
    known: HashMap<(usize, usize), f32>,
}

impl Reranker {
    fn load(model: &str, depth: usize, device: &Device) -> Result<Self> {
        let folder = resolve(model, &HubOptions::from_env())?;
        let name = Path::new(model).file_name().context("--rerank is empty")?;
        let made = CrossEncoder::from_pretrained_with(&folder, device, Weights::Stored)?;
        ensure!(
            made.num_labels() == 1,
            "{model} gives {} scores to a pair: a cross-encoder with one is needed",
            made.num_labels()
        );
        Ok(Self {
            name: name.to_string_lossy().into(),
            model: made,
            depth,
            known: HashMap::new(),
        })
    }

    /// The same documents; the first of each query sorted by their scores, the others behind them as they were.
    fn sort(&mut self, ranked: &Ranked, data: &Benchmark) -> Result<Ranked> {
        let first = |hits: &[Hit]| hits[..hits.len().min(self.depth)].to_vec();
        let mut open: Vec<(usize, usize)> = Vec::new();
        for (query, hits) in ranked {
            let pairs = first(hits).into_iter().map(|hit| (*query, hit.document));
            open.extend(pairs.filter(|pair| !self.known.contains_key(pair)));
        }
        let pairs: Vec<(&str, &str)> = (open.iter())
            .map(|&(query, document)| {
                let (query, document) =
                    (&data.queries.texts[query], &data.documents.texts[document]);
                (query.as_str(), document.as_str())
            })
            .collect();
        let scores = self.model.predict(&pairs)?;
        self.known
            .extend(open.into_iter().zip(scores.into_iter().map(|row| row[0])));
        let sorted = ranked.iter().map(|(query, hits)| {
            let (front, back) = hits.split_at(hits.len().min(self.depth));
            let mut all: Vec<Hit> = (front.iter())
                .map(|hit| Hit {
                    score: self.known[&(*query, hit.document)],
                    ..*hit
                })
                .collect();
            all.sort_by(|a, b| {
                b.score
                    .total_cmp(&a.score)
                    .then(a.document.cmp(&b.document))
            });
            let least = all.last().map_or(0.0, |hit| hit.score);
            all.extend(back.iter().enumerate().map(|(place, hit)| Hit {
                score: least - 1.0 - place as f32,
                ..*hit
            }));
            (*query, all)
        });
        Ok(sorted.collect())
    }
}
