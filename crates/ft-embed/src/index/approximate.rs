//! Search in a graph of neighbours, for sets in which comparing every document takes too long.

use std::path::Path;

use rayon::prelude::*;
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use super::top::before;
use super::{Hit, VectorIndex, check_queries};
use crate::{Embeddings, Error, Result};

/// Settings of an [`ApproximateIndex`]. The defaults are those of usearch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphSettings {
    /// Neighbours of a document in the graph. More find more and take more memory.
    pub connectivity: usize,
    /// Candidates that are looked at for the neighbours of a new document. More find more; adding takes longer.
    pub expansion_add: usize,
    /// Candidates that are looked at for a query. More find more; searching takes longer.
    pub expansion_search: usize,
}

impl Default for GraphSettings {
    fn default() -> Self {
        Self {
            connectivity: 16,
            expansion_add: 128,
            expansion_search: 64,
        }
    }
}

/// Approximate search by dot product: a graph of neighbours (HNSW: Malkov and Yashunin, 2018, arXiv:1603.09320), by the
/// library usearch.
///
/// A search visits some hundreds of documents instead of all of them, and may miss some of the best. Use
/// [`ExactIndex`](crate::ExactIndex) up to some hundred thousand documents. Normalize embeddings: the graph is worse at finding
/// documents by dot product if their lengths differ. Documents are added by all threads of rayon, so the graph, and what a
/// search misses, is not the same in every run.
pub struct ApproximateIndex {
    graph: Index,
    settings: GraphSettings,
}

impl std::fmt::Debug for ApproximateIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApproximateIndex")
            .field("len", &self.len())
            .field("dims", &self.graph.dimensions())
            .field("settings", &self.settings)
            .finish()
    }
}

impl ApproximateIndex {
    /// An empty index of documents with so many dimensions.
    ///
    /// # Errors
    ///
    /// If a number is 0, or there is no memory.
    pub fn new(dims: usize, settings: GraphSettings) -> Result<Self> {
        let GraphSettings {
            connectivity,
            expansion_add,
            expansion_search,
        } = settings;
        if [dims, connectivity, expansion_add, expansion_search].contains(&0) {
            return Err(Error::Settings(format!(
                "{dims} dimensions and {settings:?}: all numbers must be positive"
            )));
        }
        let options = IndexOptions {
            dimensions: dims,
            metric: MetricKind::IP,
            quantization: ScalarKind::F32,
            connectivity,
            expansion_add,
            expansion_search,
            multi: false,
        };
        let graph = Index::new(&options).map_err(|error| Error::Settings(error.to_string()))?;
        Ok(Self { graph, settings })
    }

    /// Writes the index to a file of usearch. The file is replaced as a whole.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut bytes = vec![0; self.graph.serialized_length()];
        let written = self.graph.save_to_buffer(&mut bytes);
        written.map_err(|error| Error::file(path, error.to_string()))?;
        Ok(ft_core::safetensors_folder::write_file(path, &bytes)?)
    }

    /// Reads the file of an index. Its settings are not in the file.
    ///
    /// The library does not check the graph in the file: read files only from where you would run programs from.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is no index, or is one of other numbers or another metric.
    pub fn load(path: &Path, settings: GraphSettings) -> Result<Self> {
        let wrong = |reason: String| Error::file(path, reason);
        let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
        let about = Index::metadata_from_buffer(&bytes).map_err(|e| wrong(e.to_string()))?;
        if (about.metric, about.quantization) != (MetricKind::IP, ScalarKind::F32) || about.multi {
            return Err(wrong(
                "this index does not compare numbers in f32 by dot product: build it with ApproximateIndex".into(),
            ));
        }
        let index = Self::new(about.dimensions as usize, settings)?;
        let read = index.graph.load_from_buffer(&bytes);
        read.map_err(|error| wrong(error.to_string()))?;
        if index.len() as u64 != about.count_present {
            return Err(wrong(format!(
                "{} of {} documents are in the file: write it again",
                index.len(),
                about.count_present
            )));
        }
        Ok(index)
    }
}

impl VectorIndex for ApproximateIndex {
    fn len(&self) -> usize {
        self.graph.size()
    }

    fn add(&mut self, documents: &Embeddings) -> Result<()> {
        documents.check_finite()?;
        if documents.is_empty() {
            return Ok(());
        }
        if documents.dims() != self.graph.dimensions() {
            return Err(Error::Embeddings(format!(
                "the index has documents of {} dimensions, not {}",
                self.graph.dimensions(),
                documents.dims()
            )));
        }
        let first = self.len();
        let threads = rayon::current_num_threads() + 1;
        self.graph
            .reserve_capacity_and_threads(first + documents.len(), threads)
            .map_err(|error| Error::Embeddings(error.to_string()))?;
        let rows = documents.values().par_chunks_exact(documents.dims());
        rows.enumerate()
            .try_for_each(|(row, values)| self.graph.add((first + row) as u64, values))
            .map_err(|error| Error::Embeddings(error.to_string()))
    }

    fn search(&self, queries: &Embeddings, k: usize) -> Result<Vec<Vec<Hit>>> {
        check_queries(queries, self.graph.dimensions(), self.len())?;
        if self.is_empty() || queries.is_empty() || k == 0 {
            return Ok(vec![Vec::new(); queries.len()]);
        }
        let rows = queries.values().par_chunks_exact(queries.dims());
        rows.map(|query| {
            let found = self.graph.search(query, k.min(self.len()));
            let found = found.map_err(|error| Error::Embeddings(error.to_string()))?;
            let hits = found.keys.iter().zip(&found.distances);
            let mut hits: Vec<Hit> = hits
                .map(|(&key, distance)| Hit {
                    document: key as usize,
                    score: 1.0 - distance,
                })
                .collect();
            hits.sort_by(before);
            Ok(hits)
        })
        .collect()
    }
}
