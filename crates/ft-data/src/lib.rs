#![doc = include_str!("../README.md")]

mod batch;
mod collate_packed;
mod collate_padded;
mod columns;
mod dataset;
mod error;
mod fingerprint;
mod format;
mod loader;
mod message_mask;
mod pack;
mod report;
mod response_spans;
mod rows;
mod sample;
mod sft_batches;
mod shuffle;
mod tokenize;

pub use batch::{Batch, Batches};
pub use collate_packed::collate_packed;
pub use collate_padded::collate_padded;
pub use dataset::SftDataset;
pub use error::{Error, Result};
pub use fingerprint::fingerprint;
pub use format::Format;
pub use loader::Loader;
pub use report::DatasetReport;
pub use rows::read_rows;
pub use sample::{Conversation, Sample};
pub use sft_batches::{Collation, SftBatches};
pub use tokenize::{Tokenized, tokenize};
