//! Measures of generated texts against references.

mod bleu;
mod bleu_tokenizer;
mod chrf;
mod edit_distance;
mod exact_match;
mod lcs;
mod meteor;
mod ngrams;
mod perplexity;
mod porter_stemmer;
pub(crate) mod python_characters;
mod rouge;
mod rouge_words;
mod signature;
mod squad;
mod ter;
mod ter_edits;
mod token_f1;
mod word_tokenize;
#[cfg(feature = "wordnet")]
mod wordnet;

pub use bleu::{
    BleuOptions, BleuScore, BleuSmoothing, HfBleuScore, corpus_bleu, hf_bleu, sentence_bleu,
};
pub use bleu_tokenizer::BleuTokenizer;
pub use chrf::{ChrfOptions, ChrfScore, corpus_chrf, sentence_chrf};
pub use edit_distance::{
    char_edit_distance, char_error_rate, edit_distance, normalized_edit_distance,
    word_edit_distance, word_error_rate,
};
pub use exact_match::{ExactMatchOptions, exact_match, exact_match_with};
pub use meteor::{MeteorOptions, corpus_meteor, meteor_score, single_meteor_score};
pub use perplexity::{bits_per_byte, count_words, perplexity};
pub use porter_stemmer::porter_stem;
pub use rouge::{Rouge, RougeOptions, RougeScore, corpus_rouge, rouge, rouge_multi, rouge_pairs};
pub use rouge_words::RougeWords;
pub use squad::{SquadScores, SquadV2Scores, squad, squad_v2};
pub use ter::{TerOptions, TerScore, corpus_ter, sentence_ter};
pub use token_f1::{corpus_token_f1, normalize_answer, token_f1, token_f1_multi};
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

/// Checks that there is at least one prediction, and a list of references for each that is not empty.
pub(crate) fn each_has_a_reference<P, R, S>(predictions: &[P], references: &[R]) -> Result<()>
where
    R: AsRef<[S]>,
{
    not_empty(predictions.len())?;
    same_length(predictions.len(), references.len())?;
    match references.iter().position(|r| r.as_ref().is_empty()) {
        Some(i) => Err(Error::Input(format!(
            "prediction {i} has no reference: give at least one"
        ))),
        None => Ok(()),
    }
}

fn not_empty(predictions: usize) -> Result<()> {
    if predictions > 0 {
        return Ok(());
    }
    Err(Error::Input("no predictions: give at least one".into()))
}

/// The mean of a score of each prediction and its references.
fn mean_of_pairs<P, R, S>(
    predictions: &[P],
    references: &[R],
    score: impl Fn(&str, &[S]) -> Result<f64>,
) -> Result<f64>
where
    P: AsRef<str>,
    R: AsRef<[S]>,
{
    not_empty(predictions.len())?;
    same_length(predictions.len(), references.len())?;
    let mut sum = 0.0;
    for (i, (prediction, references)) in predictions.iter().zip(references).enumerate() {
        sum += score(prediction.as_ref(), references.as_ref())
            .map_err(|error| Error::Input(format!("prediction {i}: {error}")))?;
    }
    Ok(sum / predictions.len() as f64)
}
