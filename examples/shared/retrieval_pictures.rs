// Pictures of a model's embeddings: queries and documents by t-SNE, and their similarities.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use ft::embed::{Embeddings, PicturePoint, TsneConfig, heat_map_svg, points_svg, tsne};

use crate::embedding_models::{Encoded, rows_of};
use crate::retrieval_data::{Benchmark, Scenario, Texts, word};

/// The most queries and documents of a picture of points, and of one of similarities.
const POINTS: usize = 1000;
const CELLS: usize = 40;

/// Draws the embeddings of a model; returns the names of the pictures.
pub(crate) fn draw(
    output: &Path,
    model: &str,
    encoded: &Encoded,
    data: &Benchmark,
) -> Result<Vec<String>> {
    std::fs::create_dir_all(output.join("pictures"))?;
    let mut names = Vec::new();
    let mut write = |kind: &str, svg: String| -> Result<()> {
        let name = format!("pictures/{model}.{kind}.svg");
        std::fs::write(output.join(&name), svg)?;
        names.push(name);
        Ok(())
    };
    // Queries with their documents first, so that what belongs together is there.
    let main = &data.scenarios[0];
    let (queries, documents) = (rows_of(&encoded.queries), rows_of(&encoded.documents));
    let numbers: HashMap<&str, usize> = (main.documents.iter())
        .map(|&document| (data.documents.names[document].as_str(), document))
        .collect();
    let relevant = |scenario: &Scenario, query: usize| -> Vec<usize> {
        let judged = scenario.qrels.of(&data.queries.names[query]);
        let judged = judged.into_iter().flatten();
        let judged = judged.filter(|(_, relevance)| **relevance > 0.0);
        let judged = judged.filter_map(|(name, _)| numbers.get(name.as_str()).copied());
        judged
            .filter(|document| documents.contains_key(document))
            .collect()
    };
    let mut shown: Vec<(bool, usize)> = Vec::new();
    let mut place: HashMap<(bool, usize), usize> = HashMap::new();
    let mut lines = Vec::new();
    for &query in main
        .queries
        .iter()
        .filter(|query| queries.contains_key(*query))
    {
        let own = relevant(main, query);
        if shown.len() + 1 + own.len() > POINTS {
            break;
        }
        let mut add = |text: (bool, usize)| {
            *place.entry(text).or_insert_with(|| {
                shown.push(text);
                shown.len() - 1
            })
        };
        let from = add((true, query));
        lines.extend(
            own.into_iter()
                .map(|document| (from, add((false, document)))),
        );
    }
    let others = main
        .documents
        .iter()
        .filter(|document| documents.contains_key(*document));
    let others = others.filter(|document| !place.contains_key(&(false, **document)));
    let others: Vec<(bool, usize)> = others.map(|document| (false, *document)).collect();
    let room = POINTS.saturating_sub(shown.len());
    shown.extend(others.into_iter().take(room));
    let mut values = Vec::new();
    for &(query, text) in &shown {
        values.extend_from_slice(match query {
            true => encoded.queries.embeddings.row(queries[&text]),
            false => encoded.documents.embeddings.row(documents[&text]),
        });
    }
    if shown.len() >= 4 {
        let dims = values.len() / shown.len();
        let plane = tsne(&Embeddings::new(values, dims)?, &TsneConfig::default())?;
        let languages: Vec<String> = match data.languages.is_empty() {
            true => vec![String::new()],
            false => data.languages.clone(),
        };
        let groups: Vec<String> = ["queries", "documents"]
            .iter()
            .flat_map(|kind| {
                languages
                    .iter()
                    .map(move |own| format!("{kind} {own}").trim().to_string())
            })
            .collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let points: Vec<PicturePoint<'_>> = (shown.iter().zip(&plane.points))
            .map(|(&(query, text), &place)| {
                let texts = if query {
                    &data.queries
                } else {
                    &data.documents
                };
                let own = |language: &String| {
                    texts.names[text].ends_with(&format!("@{}", word(language)))
                };
                let language = languages.iter().position(own).unwrap_or(0);
                PicturePoint {
                    place,
                    group: usize::from(!query) * languages.len() + language,
                    label: &texts.texts[text],
                }
            })
            .collect();
        let title = format!("{model}: t-SNE of {} texts", points.len());
        write("tsne", points_svg(&title, &groups, &points, &lines))?;
    }
    // Across languages where there are two: what a query has to find is then in the diagonal.
    let scenario = data.scenarios.get(2).unwrap_or(main);
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    for &query in scenario
        .queries
        .iter()
        .filter(|query| queries.contains_key(*query))
    {
        let own = relevant(scenario, query)
            .into_iter()
            .find(|own| !columns.contains(own));
        if let Some(document) = own.filter(|_| rows.len() < CELLS) {
            rows.push(query);
            columns.push(document);
        }
    }
    if !rows.is_empty() {
        let mut values: Vec<f32> = Vec::with_capacity(rows.len() * columns.len());
        for query in &rows {
            let query = encoded.queries.embeddings.row(queries[query]);
            for document in &columns {
                let document = encoded.documents.embeddings.row(documents[document]);
                values.push(query.iter().zip(document).map(|(a, b)| a * b).sum());
            }
        }
        let text = |texts: &Texts, numbers: &[usize]| -> Vec<String> {
            numbers
                .iter()
                .map(|&number| texts.texts[number].clone())
                .collect()
        };
        let (rows, columns) = (text(&data.queries, &rows), text(&data.documents, &columns));
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let title = format!("{model}: queries (rows) and the documents that answer them");
        write("similarity", heat_map_svg(&title, &rows, &columns, &values))?;
    }
    Ok(names)
}
