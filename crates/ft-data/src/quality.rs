//! The quality of data: duplicates, near-duplicates, lengths, languages, and rows of evaluation sets.

mod cleaning;
mod contamination;
mod min_hash;
mod report;
mod words;

pub use cleaning::{Cleaning, Reason, Removal, row_text};
pub use contamination::Contamination;
pub use min_hash::MinHash;
pub use report::CleaningReport;
