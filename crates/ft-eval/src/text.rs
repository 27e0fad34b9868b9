//! Measures of generated texts against references.

mod lcs;
mod meteor;
mod porter_stemmer;
mod python_characters;
mod rouge;
mod rouge_words;
mod word_tokenize;
#[cfg(feature = "wordnet")]
mod wordnet;

pub use meteor::{MeteorOptions, corpus_meteor, meteor_score, single_meteor_score};
pub use porter_stemmer::porter_stem;
pub use rouge::{Rouge, RougeOptions, RougeScore, corpus_rouge, rouge, rouge_multi, rouge_pairs};
pub use rouge_words::RougeWords;
pub use word_tokenize::{whitespace_words, word_tokenize};

use crate::{Error, Result};

/// One list of references for each prediction.
fn same_length(predictions: usize, references: usize) -> Result<()> {
    if predictions == references {
        return Ok(());
    }
    Err(Error::Input(format!(
        "{predictions} predictions, but references for {references}: give one list of references \
         for each prediction"
    )))
}

fn not_empty(predictions: usize) -> Result<()> {
    if predictions > 0 {
        return Ok(());
    }
    Err(Error::Input("no predictions: give at least one".into()))
}
