//! Sorts documents by how well they answer a query, with a cross-encoder, or reranks a run.
//!
//! ```sh
//! cargo run --release --example rerank -- --model ms-marco-MiniLM-L6-v2 --query "how tall is the tower" \
//!     --documents documents.txt
//! ```
//!
//! `--documents` has a document a line. With `--retriever` an embedding model finds `--depth` of them first, and only these are
//! reranked.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ft::core::{HubOptions, Weights, resolve};
use ft::embed::{CrossEncoder, EmbeddingModel, ExactIndex, VectorIndex};
use serde_json::json;

#[path = "shared/computation.rs"]
mod computation;
use computation::Computation;

/// Sorts documents by how well they answer a query.
#[derive(Parser)]
struct Args {
    /// Folder of a cross-encoder, or hub id (needs --features hub).
    #[arg(long)]
    model: String,
    /// The query.
    #[arg(long)]
    query: String,
    /// A document a line.
    #[arg(long)]
    documents: PathBuf,
    /// Folder of an embedding model that finds candidates.
    #[arg(long)]
    retriever: Option<String>,
    /// So many candidates are reranked.
    #[arg(long, default_value_t = 50)]
    depth: usize,
    /// So many documents are shown.
    #[arg(long, default_value_t = 10)]
    top: usize,
    #[command(flatten)]
    computation: Computation,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ft::compute_threads(None);
    let device = args.computation.device()?;
    let text = std::fs::read_to_string(&args.documents)
        .with_context(|| format!("cannot read {}", args.documents.display()))?;
    let documents: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    ensure!(
        !documents.is_empty(),
        "{} has no documents",
        args.documents.display()
    );
    let hub = HubOptions::from_env();
    let mut candidates: Vec<usize> = (0..documents.len()).collect();
    if let Some(retriever) = &args.retriever {
        let folder = resolve(retriever, &hub)?;
        let model = EmbeddingModel::from_pretrained_with(&folder, &device, Weights::Stored)?;
        let similarity = model.similarity();
        let embeddings = similarity.for_index(model.encode_documents(&documents)?)?;
        let index = ExactIndex::new(&embeddings)?;
        let query = similarity.for_index(model.encode_queries(&[&args.query])?)?;
        let hits = index.search(&query, args.depth)?;
        candidates = hits.iter().flatten().map(|hit| hit.document).collect();
    }
    let folder = resolve(&args.model, &hub)?;
    let model = CrossEncoder::from_pretrained_with(&folder, &device, Weights::Stored)?;
    let start = Instant::now();
    let texts: Vec<&str> = candidates
        .iter()
        .map(|&document| documents[document])
        .collect();
    let ranked = model.rank(&args.query, &texts)?;
    let seconds = start.elapsed().as_secs_f64();
    let shown = ranked.iter().take(args.top);
    let shown: Vec<(usize, f32)> = shown
        .map(|&(place, score)| (candidates[place], score))
        .collect();
    for &(document, score) in &shown {
        if !args.json {
            println!("{score:.4} {}", documents[document]);
        }
    }
    if args.json {
        let results: Vec<_> = (shown.iter())
            .map(|&(document, score)| json!({"document": document, "score": score, "text": documents[document]}))
            .collect();
        println!(
            "{}",
            json!({
                "documents": documents.len(), "reranked": candidates.len(),
                "pairs_per_s": candidates.len() as f64 / seconds, "results": results,
            })
        );
    }
    Ok(())
}
