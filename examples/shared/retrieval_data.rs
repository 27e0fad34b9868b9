// The data of a retrieval benchmark: queries, documents and judgements, in one language or two.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ft::core::Tokenizer;
use ft::core::safetensors_folder::write_file;
use ft::embed::TextDataset;
use ft::eval::judges::{CachedModel, Panel, Translator};
use ft::eval::retrieval::Qrels;
use serde_json::{Value, json};

use crate::document_questions::DocumentArgs;

/// Where the data comes from.
#[derive(Args)]
pub(crate) struct DataArgs {
    /// Rows of a query and its document, JSON or JSONL.
    #[arg(long, conflicts_with_all = ["corpus", "queries", "qrels"])]
    pairs: Option<PathBuf>,
    /// Take the rows of --pairs whose label is at least this.
    #[arg(long)]
    min_label: Option<f32>,
    /// Names of the columns of --pairs, separated by commas.
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// Use only so many rows of --pairs.
    #[arg(long)]
    limit: Option<usize>,
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
    pub(crate) documents: DocumentArgs,
    /// The language of the texts and another one, separated by a comma: retrieval is measured within and across both.
    #[arg(long, value_delimiter = ',')]
    languages: Vec<String>,
    /// The chat model translates all texts into the second language.
    #[arg(long, requires = "languages")]
    translate: bool,
    /// The documents in the second language, JSONL with the same names.
    #[arg(long, requires_all = ["languages", "translated_queries"], conflicts_with = "translate")]
    translated_corpus: Option<PathBuf>,
    /// The queries in the second language, JSONL with the same names.
    #[arg(long, requires = "translated_corpus")]
    translated_queries: Option<PathBuf>,
}

/// Texts with their names.
#[derive(Default)]
pub(crate) struct Texts {
    pub(crate) names: Vec<String>,
    pub(crate) texts: Vec<String>,
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

    /// Rows for a file in BEIR's form.
    fn rows(&self) -> Vec<Value> {
        let rows = self.names.iter().zip(&self.texts);
        rows.map(|(name, text)| json!({"_id": name, "text": text}))
            .collect()
    }
}

/// A part of the texts that is measured.
pub(crate) struct Scenario {
    /// Empty if all is measured at once.
    pub(crate) name: String,
    pub(crate) queries: Vec<usize>,
    pub(crate) documents: Vec<usize>,
    pub(crate) qrels: Qrels,
}

/// All texts, and what is measured on them. The first scenario is the main one.
pub(crate) struct Benchmark {
    pub(crate) queries: Texts,
    pub(crate) documents: Texts,
    pub(crate) scenarios: Vec<Scenario>,
    /// One language, or two.
    pub(crate) languages: Vec<String>,
}

impl DataArgs {
    /// Reads or makes the data; files about it are written to `output`.
    pub(crate) fn load(
        &self,
        tokenizer: &dyn Fn() -> Result<Tokenizer>,
        output: &Path,
        device: &str,
    ) -> Result<Benchmark> {
        let (queries, documents, qrels) = match &self.documents.documents {
            Some(path) => self.asked(path, &tokenizer()?, output, device)?,
            None => self.read()?,
        };
        let (first, second) = match self.languages.as_slice() {
            [] => {
                let scenario = Scenario {
                    name: String::new(),
                    queries: (0..queries.texts.len()).collect(),
                    documents: (0..documents.texts.len()).collect(),
                    qrels,
                };
                return Ok(Benchmark {
                    queries,
                    documents,
                    scenarios: vec![scenario],
                    languages: Vec::new(),
                });
            }
            [first, second] if first != second => (first, second),
            _ => bail!("--languages are two, such as English,German"),
        };
        let (queries, other_queries) =
            self.translated("queries", queries, &self.translated_queries, output, device)?;
        let (documents, other_documents) =
            self.translated("corpus", documents, &self.translated_corpus, output, device)?;
        in_both(
            [first, second],
            [queries, other_queries],
            [documents, other_documents],
            &qrels,
        )
    }

    fn read(&self) -> Result<(Texts, Texts, Qrels)> {
        let (mut queries, mut documents, mut qrels) =
            (Texts::default(), Texts::default(), Qrels::new());
        match (&self.pairs, &self.corpus, &self.queries, &self.qrels) {
            (Some(pairs), ..) => {
                let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
                let mut dataset = TextDataset::load_columns(pairs, &columns)?;
                dataset.rows.truncate(self.limit.unwrap_or(usize::MAX));
                if let Some(least) = self.min_label {
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
                let known_queries: HashSet<&String> = queries.names.iter().collect();
                let known_documents: HashSet<&String> = documents.names.iter().collect();
                for query in qrels.queries() {
                    ensure!(
                        known_queries.contains(&query.to_string()),
                        "query {query} is judged, but it is not in --queries"
                    );
                    for document in qrels.of(query).into_iter().flatten().map(|(name, _)| name) {
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
    fn asked(
        &self,
        path: &Path,
        tokenizer: &Tokenizer,
        output: &Path,
        device: &str,
    ) -> Result<(Texts, Texts, Qrels)> {
        let replies = output.join("questions.replies.jsonl");
        let asked = (self.documents).ask(path, tokenizer, &replies, device)?;
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
        write_rows(&output.join("questions.jsonl"), pairs)?;
        write_rows(&output.join("corpus.jsonl"), documents.rows())?;
        write_rows(&output.join("queries.jsonl"), queries.rows())?;
        write_file(&output.join("qrels.trec"), qrels.to_trec().as_bytes())?;
        Ok((queries, documents, qrels))
    }

    /// Texts and their translations, in the same order. A text without a translation is left out of both.
    fn translated(
        &self,
        what: &str,
        texts: Texts,
        given: &Option<PathBuf>,
        output: &Path,
        device: &str,
    ) -> Result<(Texts, Texts)> {
        let mut other: HashMap<String, String> = HashMap::new();
        let language = &self.languages[1];
        match given {
            Some(path) => {
                let read = named(path)?;
                other.extend(read.names.into_iter().zip(read.texts));
            }
            None => {
                ensure!(
                    self.translate,
                    "--languages needs --translate, or --translated-corpus and --translated-queries"
                );
                let (model, concurrency) = self.documents.model(device)?;
                let replies = output.join("translations.replies.jsonl");
                let model = CachedModel::open(model, &replies)?;
                let mut translator = Translator::new(&model, language);
                translator.panel = Panel {
                    concurrency,
                    ..translator.panel
                };
                let originals: Vec<&str> = texts.texts.iter().map(String::as_str).collect();
                let found = translator.translate(&originals, &mut |done, of| {
                    if done.is_multiple_of(20) || done == of {
                        eprintln!("translated {done} of {of} texts of the {what}");
                    }
                });
                for (name, found) in texts.names.iter().zip(found) {
                    match found {
                        Ok(text) => drop(other.insert(name.clone(), text)),
                        Err(missing) => eprintln!("{name} is not translated: {}", missing.reason),
                    }
                }
            }
        }
        let (mut both, before) = ((Texts::default(), Texts::default()), texts.names.len());
        for (name, text) in texts.names.into_iter().zip(texts.texts) {
            if let Some(translation) = other.remove(&name) {
                both.0.names.push(name.clone());
                both.0.texts.push(text);
                both.1.names.push(name);
                both.1.texts.push(translation);
            }
        }
        let kept = both.0.names.len();
        if kept < before {
            eprintln!(
                "{} of {before} texts of the {what} have no translation and are left out",
                before - kept
            );
        }
        if given.is_none() {
            let path = output.join(format!("{what}.{}.jsonl", word(language)));
            write_rows(&path, both.1.rows())?;
        }
        Ok(both)
    }
}

/// The four directions of two languages, and both languages in one index.
fn in_both(
    languages: [&String; 2],
    queries: [Texts; 2],
    documents: [Texts; 2],
    qrels: &Qrels,
) -> Result<Benchmark> {
    let name = |name: &str, language: usize| format!("{name}@{}", word(languages[language]));
    let (query_count, document_count) = (queries[0].names.len(), documents[0].names.len());
    let known: HashSet<&str> = queries[0].names.iter().map(String::as_str).collect();
    let known_documents: HashSet<&str> = documents[0].names.iter().map(String::as_str).collect();
    let judged = |from: &[usize], to: &[usize]| -> Result<Qrels> {
        let mut both = Qrels::new();
        for query in qrels.queries().filter(|query| known.contains(query)) {
            for (document, relevance) in qrels.of(query).into_iter().flatten() {
                if !known_documents.contains(document.as_str()) {
                    continue;
                }
                for &from in from {
                    for &to in to {
                        both.insert(&name(query, from), &name(document, to), *relevance)?;
                    }
                }
            }
        }
        Ok(both)
    };
    let numbers = |languages: &[usize], count: usize| -> Vec<usize> {
        let of = |language: &usize| language * count..(language + 1) * count;
        languages.iter().flat_map(of).collect()
    };
    let scenario = |name: String, from: &[usize], to: &[usize]| -> Result<Scenario> {
        Ok(Scenario {
            name,
            queries: numbers(from, query_count),
            documents: numbers(to, document_count),
            qrels: judged(from, to)?,
        })
    };
    let mut scenarios = vec![scenario("both in one index".to_string(), &[0, 1], &[0, 1])?];
    for from in 0..2 {
        for to in 0..2 {
            let title = format!("{} to {}", languages[from], languages[to]);
            scenarios.push(scenario(title, &[from], &[to])?);
        }
    }
    let join = |texts: [Texts; 2]| {
        let mut all = Texts::default();
        for (language, texts) in texts.into_iter().enumerate() {
            (all.names).extend(texts.names.iter().map(|own| name(own, language)));
            all.texts.extend(texts.texts);
        }
        all
    };
    // The names of texts are borrowed until here.
    drop((known, known_documents));
    Ok(Benchmark {
        queries: join(queries),
        documents: join(documents),
        scenarios,
        languages: languages.map(String::clone).to_vec(),
    })
}

/// A language in names of texts, which hold no blanks.
pub(crate) fn word(language: &str) -> String {
    language.split_whitespace().collect::<Vec<_>>().join("_")
}

fn write_rows(path: &Path, rows: Vec<Value>) -> Result<()> {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    Ok(write_file(path, lines.as_bytes())?)
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
