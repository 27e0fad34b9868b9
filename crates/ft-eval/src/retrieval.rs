//! Rankings against judgements of relevance: measures as ranx and trec_eval have them, paired tests between systems, and
//! their files.
//!
//! A query that is judged but that a system did not answer scores 0. Queries without a relevant document are left out, since
//! nothing can be found. Ties of scores are broken by the names of documents, in an order that is chosen
//! ([`Ties`]): results must not depend on the order of a file.

mod comparison;
mod measure;
mod qrels;
mod run;

pub use comparison::{Comparison, PairTest, Significance, SystemScores, compare};
pub use measure::{Measure, Scores, evaluate};
pub use qrels::Qrels;
pub use run::{Run, Ties};
