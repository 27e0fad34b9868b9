//! One call from text to answer, with the results of transformers' pipelines.
//!
//! Results are typed, and serialize to transformers' JSON. `start` and `end` count characters, as there. The pipelines
//! `question-answering` and `summarization` are those of transformers 4; transformers 5 has none.
//!
//! A pipeline takes several texts at once and returns their results together; [`stream`] returns them one by one.
//!
//! Unlike transformers, a text that is longer than the model's inputs is an error where it would be cut without notice. Pipelines
//! with a `truncated` cut it if that is called, and [`TokenClassification::in_windows`] reads all of it.

mod feature_extraction;
mod fill_mask;
mod question_answering;
mod streaming;
mod summarization;
mod text_classification;
mod text_generation;
mod token_classification;
mod zero_shot;

use std::path::Path;

use ft_core::{Encoded, Tokenizer, Truncation};
use ft_data::TextInput;

use crate::{Error, Result};

pub use feature_extraction::FeatureExtraction;
pub use fill_mask::{FillMask, FilledMask};
pub use question_answering::{ExtractedAnswer, QuestionAnswering, QuestionAnsweringOptions};
pub use streaming::stream;
pub use summarization::{Summarization, Summary};
pub use text_classification::{LabelScore, TextClassification, TextOrPair};
pub use text_generation::{GeneratedText, TextGeneration};
pub use token_classification::{Aggregation, TokenClassification, TokenEntity};
pub use zero_shot::{ZeroShotClassification, ZeroShotOptions, ZeroShotResult};

/// The names of the pipelines.
pub const TASKS: [&str; 8] = [
    "text-classification",
    "zero-shot-classification",
    "token-classification",
    "question-answering",
    "fill-mask",
    "text-generation",
    "summarization",
    "feature-extraction",
];

/// The tokenizer of a folder, for a model of so many rows and positions.
fn input_of(folder: &Path, rows: usize, positions: usize) -> Result<TextInput> {
    let tokenizer = Tokenizer::from_pretrained(folder)?;
    tokenizer.check_vocab(rows)?;
    Ok(TextInput::new(&tokenizer, positions, None))
}

/// A text or a pair with all its tokens, or cut where that is allowed.
fn encode(
    input: &TextInput,
    text: &str,
    pair: Option<&str>,
    cut: Option<Truncation>,
) -> Result<Encoded> {
    if let Some(cut) = cut {
        return Ok(input.encode(text, pair, cut)?);
    }
    let encoded =
        input
            .tokenizer()
            .encode_model_input(text, pair, None, Truncation::LongestFirst)?;
    match encoded.len() > input.max_length() {
        true => Err(Error::Input(format!(
            "a text has {} tokens, but the model reads {}: make it shorter, or allow that it is cut (or read in windows, where there are such)",
            encoded.len(),
            input.max_length()
        ))),
        false => Ok(encoded),
    }
}

/// Places in bytes as places in characters.
struct Characters {
    /// Where each character ends.
    ends: Vec<usize>,
}

impl Characters {
    fn new(text: &str) -> Self {
        let characters = text.char_indices();
        let ends = characters.map(|(start, character)| start + character.len_utf8());
        Self {
            ends: ends.collect(),
        }
    }

    /// The number of characters that end at a byte or before it.
    fn of(&self, byte: usize) -> usize {
        self.ends.partition_point(|end| *end <= byte)
    }
}
