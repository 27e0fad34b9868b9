//! Compares embedding models on one's own retrieval data: measures, paired tests, tables.
//!
//! ```sh
//! cargo run --release --example retrieval_benchmark -- --models all-MiniLM-L6-v2,my-model \
//!     --pairs questions.jsonl --output report
//! ```
//!
//! The data is `--pairs`, rows of a query and its document, where the documents of all rows are searched; or `--documents`, a folder
//! of texts that are cut into pieces, and questions about them by a chat model (`--chat-local DIR` or `--endpoint URL`), each of which its
//! piece answers; or `--corpus` and `--queries`, JSONL of `{"_id": .., "text": .., "title": ..}` as BEIR has them, with `--qrels` in trec's or ranx's form.
//! `--output` gets `report.md`, `report.tex`, `results.json`, a run a model in trec's form, and the embeddings, which
//! are not computed again when the benchmark is repeated on the same texts.
//!
//! Replies of the chat model are stored in `--output`, so that an interrupted run asks for no question twice. What was asked is written
//! there, too: `questions.jsonl` for `--pairs` and for the example `embed_train`, and the judgements as `qrels.trec` with `corpus.jsonl`
//! and `queries.jsonl`.
//!
//! `--precision int8` or `binary` searches on codes, and `--dims` on the first dimensions.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use ft::burn::tensor::Device;
use ft::core::safetensors_folder::write_file;
use ft::core::{HubOptions, Tokenizer, Weights, resolve};
use ft::embed::{
    BinaryIndex, EmbeddingModel, Embeddings, EncodeOptions, ExactIndex, Int8Index, Prompt,
    TextDataset, VectorIndex,
};
use ft::eval::retrieval::{
    Measure, Qrels, Run, Significance, SystemScores, Ties, compare, evaluate,
};
use serde_json::{Value, json};

#[path = "shared/document_questions.rs"]
mod document_questions;

use document_questions::DocumentArgs;

/// Compares embedding models on retrieval.
#[derive(Parser)]
struct Args {
    /// Model folders, or hub ids (needs --features hub), separated by commas.
    #[arg(long, required = true, value_delimiter = ',')]
    models: Vec<String>,
    /// Rows of a query and its document, JSON or JSONL.
    #[arg(long, conflicts_with_all = ["corpus", "queries", "qrels"])]
    pairs: Option<PathBuf>,
    /// Take the rows of --pairs whose label is at least this.
    #[arg(long)]
    min_label: Option<f32>,
    /// Names of the columns of --pairs, separated by commas.
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// The documents, JSONL.
    #[arg(long, requires_all = ["queries", "qrels"])]
    corpus: Option<PathBuf>,
    /// The queries, JSONL.
    #[arg(long)]
    queries: Option<PathBuf>,
    /// The judgements.
    #[arg(long)]
    qrels: Option<PathBuf>,
    #[command(flatten)]
    documents: DocumentArgs,
    /// Use only so many rows of --pairs.
    #[arg(long)]
    limit: Option<usize>,
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
    /// Only so many dimensions.
    #[arg(long)]
    dims: Option<usize>,
    /// So many documents are searched for each query.
    #[arg(long, default_value_t = 100)]
    depth: usize,
    /// cpu, cuda, wgpu, vulkan or metal.
    #[arg(long, default_value = "cpu")]
    device: String,
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

/// Texts with their names.
#[derive(Default)]
struct Texts {
    names: Vec<String>,
    texts: Vec<String>,
}

impl Texts {
    /// Adds a text once, and returns its name.
    fn add(&mut self, known: &mut HashMap<String, String>, text: &str, prefix: char) -> String {
        if let Some(name) = known.get(text) {
            return name.clone();
        }
        let name = format!("{prefix}{}", self.names.len() + 1);
        known.insert(text.to_string(), name.clone());
        self.names.push(name.clone());
        self.texts.push(text.to_string());
        name
    }

    /// A number that changes with any of the texts.
    fn fingerprint(&self, more: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.texts.hash(&mut hasher);
        more.hash(&mut hasher);
        hasher.finish()
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    ft::compute_threads(None);
    let device = ft::device(&args.device)?;
    std::fs::create_dir_all(args.output.join("embeddings"))?;
    let (queries, documents, qrels) = data(&args)?;
    std::fs::create_dir_all(args.output.join("runs"))?;
    let mut systems = Vec::new();
    let mut details = Vec::new();
    for model in &args.models {
        let name = Path::new(model)
            .file_name()
            .map_or(model.clone(), |name| name.to_string_lossy().into());
        ensure!(
            !systems
                .iter()
                .any(|system: &SystemScores| system.name == name),
            "two models are called {name}"
        );
        let (run, detail) = search(&args, model, &name, &queries, &documents, &device)?;
        let trec = run.to_trec(&name, Ties::default());
        std::fs::write(args.output.join("runs").join(format!("{name}.trec")), trec)?;
        let scores = evaluate(&qrels, &run, &args.measures, Ties::default())?;
        for scores in &scores {
            eprintln!("{name}: {} {:.4}", scores.measure, scores.mean());
        }
        details.push(detail);
        systems.push(SystemScores { name, scores });
    }
    let test = match args.test {
        Test::Randomization => Significance::Randomization,
        Test::Student => Significance::Student,
        Test::Tukey => Significance::Tukey,
    };
    let found = compare(systems, test, args.max_p)?;
    let judged = qrels.queries().count();
    let intro = format!(
        "{judged} queries, {} documents. Letters: significantly better than that model (p <= {}, {}, corrected for all pairs).\n\n",
        documents.names.len(),
        args.max_p,
        serde_json::to_value(test)?.as_str().unwrap_or("")
    );
    let report = format!(
        "# Retrieval\n\n{intro}{}\n## Wins, ties, losses\n\n{}",
        found.to_markdown(),
        found.wins_to_markdown()
    );
    std::fs::write(args.output.join("report.md"), &report)?;
    std::fs::write(args.output.join("report.tex"), found.to_latex())?;
    let means: Vec<Value> = (found.systems.iter().zip(details))
        .map(|(system, detail)| {
            let means: BTreeMap<String, f64> = (system.scores.iter())
                .map(|scores| (scores.measure.to_string(), scores.mean()))
                .collect();
            json!({"model": system.name, "means": means, "details": detail})
        })
        .collect();
    let results = json!({
        "queries": judged, "documents": documents.names.len(), "models": means, "tests": found.tests,
        "significance": test, "max_p": args.max_p,
    });
    let mut whole = results.clone();
    whole["systems"] = serde_json::to_value(&found.systems)?;
    std::fs::write(
        args.output.join("results.json"),
        serde_json::to_vec_pretty(&whole)?,
    )?;
    match args.json {
        true => println!("{results}"),
        false => println!("{report}"),
    }
    Ok(())
}

/// The best documents of each query.
fn search(
    args: &Args,
    model: &str,
    name: &str,
    queries: &Texts,
    documents: &Texts,
    device: &Device,
) -> Result<(Run, Value)> {
    let folder = resolve(model, &HubOptions::from_env())?;
    let model = EmbeddingModel::from_pretrained_with(&folder, device, Weights::Stored)?;
    let start = Instant::now();
    // Times of change stand for the contents of files.
    let mut files = Vec::new();
    files_of(&folder, &mut files)?;
    files.sort();
    let encode = |kind: &str, texts: &Texts, prompt: Prompt<'_>| -> Result<(Embeddings, bool)> {
        let version = env!("CARGO_PKG_VERSION");
        let mark = texts.fingerprint(&(&folder, model.prompt_text(prompt)?, &files, version));
        let file = args
            .output
            .join("embeddings")
            .join(format!("{name}-{kind}-{mark:016x}.npy"));
        if file.is_file() {
            return Ok((Embeddings::read_npy(&file)?, true));
        }
        let options = EncodeOptions {
            prompt,
            dims: Some(model.dims()),
            ..EncodeOptions::default()
        };
        let mut next = 0;
        let embeddings = model.encode_with(&texts.texts, &options, &mut |done, of| {
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
    let encoding_s = start.elapsed().as_secs_f64();
    let dims = args.dims.or(model.truncate_dim());
    let dims = dims.unwrap_or(of_queries.dims());
    let similarity = model.similarity();
    let of_queries = similarity.for_index(of_queries.truncated(dims)?)?;
    let of_documents = similarity.for_index(of_documents.truncated(dims)?)?;
    let start = Instant::now();
    let index: Box<dyn VectorIndex> = match args.precision {
        Precision::Float => Box::new(ExactIndex::new(&of_documents)?),
        Precision::Int8 => Box::new(Int8Index::try_from(&of_documents)?),
        Precision::Binary => {
            let mut index = BinaryIndex::new(dims, 4)?;
            index.add(&of_documents)?;
            Box::new(index)
        }
    };
    let found = index.search(&of_queries, args.depth)?;
    let search_s = start.elapsed().as_secs_f64();
    let mut run = Run::new();
    for (query, hits) in queries.names.iter().zip(found) {
        run.answer(query);
        for hit in hits {
            run.insert(query, &documents.names[hit.document], f64::from(hit.score))?;
        }
    }
    let detail = json!({
        "dims": dims, "similarity": similarity, "max_seq_length": model.max_seq_length(), "precision": format!("{:?}", args.precision).to_lowercase(),
        "encoding_s": encoding_s, "search_s": search_s, "cached": cached_queries && cached_documents,
    });
    Ok((run, detail))
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

fn data(args: &Args) -> Result<(Texts, Texts, Qrels)> {
    if let Some(path) = &args.documents.documents {
        return asked(args, path);
    }
    let (mut queries, mut documents, mut qrels) =
        (Texts::default(), Texts::default(), Qrels::new());
    match (&args.pairs, &args.corpus, &args.queries, &args.qrels) {
        (Some(pairs), ..) => {
            let columns: Vec<&str> = args.columns.iter().map(String::as_str).collect();
            let mut dataset = TextDataset::load_columns(pairs, &columns)?;
            dataset.rows.truncate(args.limit.unwrap_or(usize::MAX));
            if let Some(least) = args.min_label {
                dataset = dataset.positives(least)?;
            }
            let labelled = dataset.rows.iter().any(|row| !row.labels.is_empty());
            ensure!(
                !labelled,
                "the rows of --pairs have labels: --min-label 1 takes those whose label is 1 or more"
            );
            let (mut known_queries, mut known) = (HashMap::new(), HashMap::new());
            for row in &dataset.rows {
                let [query, document, ..] = row.texts.as_slice() else {
                    bail!("--pairs needs rows with a query and a document");
                };
                let query = queries.add(&mut known_queries, query, 'q');
                let document = documents.add(&mut known, document, 'd');
                qrels.insert(&query, &document, 1.0)?;
            }
        }
        (None, Some(corpus), Some(from), Some(judged)) => {
            documents = named(corpus)?;
            queries = named(from)?;
            qrels = Qrels::read(judged)?;
            let known = |texts: &Texts| -> std::collections::HashSet<String> {
                texts.names.iter().cloned().collect()
            };
            let (known_queries, known_documents) = (known(&queries), known(&documents));
            for query in qrels.queries() {
                ensure!(
                    known_queries.contains(query),
                    "query {query} is judged, but it is not in --queries"
                );
                let judged = qrels
                    .of(query)
                    .into_iter()
                    .flat_map(|documents| documents.keys());
                for document in judged {
                    ensure!(
                        known_documents.contains(document),
                        "document {document} is judged, but it is not in --corpus"
                    );
                }
            }
        }
        _ => bail!(
            "name the data: --pairs FILE, --documents DIR, or --corpus, --queries and --qrels"
        ),
    }
    Ok((queries, documents, qrels))
}

/// The pieces of documents, and questions about them by a chat model.
fn asked(args: &Args, path: &Path) -> Result<(Texts, Texts, Qrels)> {
    let first = args.models.first().context("there is no model")?;
    let tokenizer = Tokenizer::from_pretrained(&resolve(first, &HubOptions::from_env())?)?;
    let replies = args.output.join("questions.replies.jsonl");
    let asked = (args.documents).ask(path, &tokenizer, &replies, &args.device)?;
    let (mut queries, mut documents, mut qrels) =
        (Texts::default(), Texts::default(), Qrels::new());
    let (mut known_queries, mut known) = (HashMap::new(), HashMap::new());
    for piece in &asked.pieces {
        documents.add(&mut known, piece, 'd');
    }
    let mut pairs = Vec::new();
    for question in &asked.found.questions {
        let piece = &asked.pieces[question.text];
        let query = queries.add(&mut known_queries, &question.question, 'q');
        qrels.insert(&query, &known[piece], 1.0)?;
        pairs.push(json!({"query": question.question, "document": piece}));
    }
    eprintln!(
        "{} questions about {} pieces; {} were left out because they repeat another one, {} pieces have none",
        pairs.len(),
        documents.names.len(),
        asked.found.repeated,
        asked.found.missing.len()
    );
    let write = |name: &str, rows: Vec<Value>| -> Result<()> {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        Ok(write_file(&args.output.join(name), lines.as_bytes())?)
    };
    let named = |texts: &Texts| -> Vec<Value> {
        let rows = texts.names.iter().zip(&texts.texts);
        rows.map(|(name, text)| json!({"_id": name, "text": text}))
            .collect()
    };
    write("questions.jsonl", pairs)?;
    write("corpus.jsonl", named(&documents))?;
    write("queries.jsonl", named(&queries))?;
    write_file(&args.output.join("qrels.trec"), qrels.to_trec().as_bytes())?;
    Ok((queries, documents, qrels))
}

/// Texts of a file in BEIR's form.
fn named(path: &Path) -> Result<Texts> {
    let mut texts = Texts::default();
    for (number, row) in ft::data::read_rows(path)?.iter().enumerate() {
        let field = |name: &str| row.get(name).and_then(Value::as_str);
        let place = || format!("{}: row {}", path.display(), number + 1);
        let name = field("_id")
            .or(field("id"))
            .with_context(|| format!("{} has no _id", place()))?;
        let text = field("text").with_context(|| format!("{} has no text", place()))?;
        texts.names.push(name.to_string());
        texts
            .texts
            .push(match field("title").filter(|title| !title.is_empty()) {
                Some(title) => format!("{title} {text}"),
                None => text.to_string(),
            });
    }
    let mut names = texts.names.clone();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|two| two[0] == two[1]) {
        bail!("{}: the name {} stands twice", path.display(), twice[0]);
    }
    Ok(texts)
}
