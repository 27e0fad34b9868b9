//! Retrieval with a model: who finds what, as a run of ft-eval.

use std::collections::HashMap;

use ft_eval::retrieval::{Measure, Qrels, Run, Ties, evaluate};

use crate::encode::Prompt;
use crate::{
    EmbeddingModel, Embeddings, EncodeOptions, Error, ExactIndex, Result, Similarity, TextRow,
    VectorIndex,
};

/// The best `k` documents of each query.
///
/// # Errors
///
/// If names and embeddings are not as many, embeddings do not fit each other or are not finite, or the similarity is a distance.
pub fn search_run(
    queries: (&[String], &Embeddings),
    documents: (&[String], &Embeddings),
    similarity: Similarity,
    k: usize,
) -> Result<Run> {
    for (names, embeddings) in [queries, documents] {
        if names.len() != embeddings.len() {
            return Err(Error::Embeddings(format!(
                "{} names have {} embeddings",
                names.len(),
                embeddings.len()
            )));
        }
    }
    let index = ExactIndex::new(&similarity.for_index(documents.1.clone())?)?;
    let found = index.search(&similarity.for_index(queries.1.clone())?, k)?;
    let mut run = Run::new();
    for (query, hits) in queries.0.iter().zip(found) {
        run.answer(query);
        for hit in hits {
            let document = &documents.0[hit.document];
            run.insert(query, document, f64::from(hit.score))
                .map_err(|error| Error::Embeddings(error.to_string()))?;
        }
    }
    Ok(run)
}

/// The mean NDCG at `k` of the rows' first texts as queries for their second texts, which are searched for among
/// `documents`, with embeddings cut to each of `dims` dimensions. They are compared by the model's
/// [`similarity`](EmbeddingModel::similarity).
///
/// # Errors
///
/// If a row has fewer than two texts, or a label, so that they may not belong together
/// ([`TextDataset::positives`](crate::TextDataset::positives) gives rows without labels); or the model cannot encode a text.
pub fn retrieval_ndcg(
    model: &EmbeddingModel,
    rows: &[TextRow],
    documents: &[&str],
    k: usize,
    dims: &[usize],
) -> Result<Vec<f64>> {
    let mut number: HashMap<&str, usize> = HashMap::new();
    let mut corpus: Vec<&str> = Vec::new();
    let mut qrels = Qrels::new();
    let (mut queries, mut names): (Vec<&str>, HashMap<&str, usize>) = (Vec::new(), HashMap::new());
    let own = rows
        .iter()
        .filter_map(|row| row.texts.get(1))
        .map(String::as_str);
    for text in documents.iter().copied().chain(own) {
        number.entry(text).or_insert_with(|| {
            corpus.push(text);
            corpus.len() - 1
        });
    }
    for (row, texts) in rows.iter().enumerate() {
        if !texts.labels.is_empty() {
            return Err(Error::Settings(format!(
                "row {} has a label, so its texts may not belong together: take the positives",
                row + 1
            )));
        }
        let [query, document, ..] = texts.texts.as_slice() else {
            return Err(Error::Settings(format!(
                "row {} has no pair of texts",
                row + 1
            )));
        };
        let name = *names.entry(query).or_insert_with(|| {
            queries.push(query);
            queries.len() - 1
        });
        let document = number[document.as_str()];
        qrels
            .insert(&name.to_string(), &document.to_string(), 1.0)
            .map_err(|error| Error::Settings(error.to_string()))?;
    }
    let encode = |texts: &[&str], prompt: Prompt<'_>| {
        let options = EncodeOptions {
            prompt,
            dims: Some(model.dims()),
            ..EncodeOptions::default()
        };
        model.encode_with(texts, &options, &mut |_, _| {})
    };
    let of_queries = encode(&queries, model.query_prompt())?;
    let of_documents = encode(&corpus, model.document_prompt())?;
    let numbers = |count: usize| -> Vec<String> { (0..count).map(|n| n.to_string()).collect() };
    let (query_names, document_names) = (numbers(queries.len()), numbers(corpus.len()));
    let measure: Measure = format!("ndcg@{k}")
        .parse()
        .map_err(|error: ft_eval::Error| Error::Settings(error.to_string()))?;
    dims.iter()
        .map(|&dims| {
            let run = search_run(
                (&query_names, &of_queries.truncated(dims)?),
                (&document_names, &of_documents.truncated(dims)?),
                model.similarity(),
                k,
            )?;
            let scores = evaluate(&qrels, &run, &[measure], Ties::default())
                .map_err(|error| Error::Settings(error.to_string()))?;
            Ok(scores.first().map_or(0.0, ft_eval::retrieval::Scores::mean))
        })
        .collect()
}
