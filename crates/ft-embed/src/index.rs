//! Search for the documents whose embeddings are nearest to those of queries.
//!
//! [`ExactIndex`] computes every product, [`Int8Index`] and [`BinaryIndex`] do so on codes and score the best candidates
//! again. All of them are [`VectorIndex`], the interface of a store of vectors. With the feature `approximate` there is
//! `ApproximateIndex`, for sets that are too large for them.

#[cfg(feature = "approximate")]
mod approximate;
mod binary;
mod exact;
mod int8;
mod top;

#[cfg(feature = "approximate")]
pub use approximate::{ApproximateIndex, GraphSettings};
pub use binary::BinaryIndex;
pub use exact::ExactIndex;
pub use int8::Int8Index;

use crate::{Embeddings, Result};

/// A document that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The number of the document, in the order in which documents were added.
    pub document: usize,
    /// Its dot product with the query: the cosine if both are normalized.
    pub score: f32,
}

/// A store of vectors that is searched by dot product. Normalize embeddings to search by cosine.
pub trait VectorIndex {
    /// The number of documents.
    fn len(&self) -> usize;

    /// Whether there are no documents.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds documents, which get the next numbers.
    ///
    /// # Errors
    ///
    /// If their number of dimensions differs, or a number is not finite.
    fn add(&mut self, documents: &Embeddings) -> Result<()>;

    /// The `k` best documents of each query, the best first; among equal scores the lower number comes first.
    ///
    /// # Errors
    ///
    /// If the queries have another number of dimensions, or a number is not finite.
    fn search(&self, queries: &Embeddings, k: usize) -> Result<Vec<Vec<Hit>>>;
}

/// Checks that queries fit documents of `dims` dimensions.
fn check_queries(queries: &Embeddings, dims: usize, documents: usize) -> Result<()> {
    if documents > 0 && queries.dims() != dims && !queries.is_empty() {
        return Err(crate::Error::Embeddings(format!(
            "the queries have {} dimensions, the documents {dims}: encode both with one model",
            queries.dims()
        )));
    }
    queries.check_finite()
}
