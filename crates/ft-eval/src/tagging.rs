//! Entities in tagged sequences, with the rules and scores of seqeval 1.2.2.
//!
//! Without a scheme tags are read leniently, as in conlleval: an entity begins at any change of type, or at a tag that
//! begins an entity. With a [`TagScheme`] only sequences that the scheme allows are entities, and a tag that is not in the
//! scheme is an error.
//!
//! ```
//! use ft_eval::tagging::{TagOptions, entity_scores};
//!
//! let truth = [vec!["B-PER", "I-PER", "O", "B-LOC"]];
//! let predicted = [vec!["B-PER", "I-PER", "O", "B-ORG"]];
//! let scores = entity_scores(&truth, &predicted, &TagOptions::default())?;
//! assert_eq!(scores.micro_average.f, 0.5);
//! # Ok::<(), ft_eval::Error>(())
//! ```

mod chunks;
mod schemes;

use std::collections::{BTreeMap, HashSet};

use crate::classification::{Counts, ScoreTable};
use crate::{Error, Result};

pub use schemes::TagScheme;

/// An entity: its type and its range of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity {
    /// The type; `_` if the tags have none.
    pub kind: String,
    /// The index of the first token.
    pub start: usize,
    /// The index after the last token.
    pub end: usize,
}

/// How tags are read. The default is that of seqeval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagOptions {
    /// The scheme for strict reading (seqeval's `mode='strict'`); `None` for lenient reading.
    pub scheme: Option<TagScheme>,
    /// Whether the position follows the type, as in `PER-B`.
    pub suffix: bool,
}

/// The entities of one sequence.
///
/// # Errors
///
/// If a tag is empty, or is not in the scheme.
pub fn entities<S: AsRef<str>>(tags: &[S], options: &TagOptions) -> Result<Vec<Entity>> {
    match options.scheme {
        None => chunks::entities(tags, options.suffix),
        Some(scheme) => schemes::entities(tags, scheme, options.suffix),
    }
}

/// Precision, recall and F1 of entities by type, and their averages. An entity is correct if its type, beginning and end are.
///
/// # Errors
///
/// If truth and predictions have different lengths, or as [`entities`].
pub fn entity_scores<T, P, S>(
    truth: &[T],
    predictions: &[P],
    options: &TagOptions,
) -> Result<ScoreTable<String>>
where
    T: AsRef<[S]>,
    P: AsRef<[S]>,
    S: AsRef<str>,
{
    same_lengths(truth, predictions)?;
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    for (i, (truth, predicted)) in truth.iter().zip(predictions).enumerate() {
        let of = |tags: &[S]| {
            entities(tags, options).map_err(|error| Error::Input(format!("sequence {i}: {error}")))
        };
        let truth: HashSet<Entity> = of(truth.as_ref())?.into_iter().collect();
        let predicted: HashSet<Entity> = of(predicted.as_ref())?.into_iter().collect();
        for entity in &truth {
            let counts = counts.entry(entity.kind.clone()).or_default();
            counts.actual += 1;
            counts.correct += usize::from(predicted.contains(entity));
        }
        for entity in &predicted {
            counts.entry(entity.kind.clone()).or_default().predicted += 1;
        }
    }
    Ok(ScoreTable::new(counts.into_iter().collect(), 1.0))
}

/// Share of the tokens whose tags are equal.
///
/// # Errors
///
/// If truth and predictions have different lengths, or there are no tokens.
pub fn tag_accuracy<T, P, S>(truth: &[T], predictions: &[P]) -> Result<f64>
where
    T: AsRef<[S]>,
    P: AsRef<[S]>,
    S: AsRef<str>,
{
    same_lengths(truth, predictions)?;
    let pairs = truth.iter().zip(predictions);
    let pairs = pairs.flat_map(|(t, p)| t.as_ref().iter().zip(p.as_ref()));
    let equal: Vec<bool> = pairs.map(|(t, p)| t.as_ref() == p.as_ref()).collect();
    if equal.is_empty() {
        return Err(Error::Input("there are no tokens".into()));
    }
    Ok(equal.iter().filter(|equal| **equal).count() as f64 / equal.len() as f64)
}

fn same_lengths<T, P, S>(truth: &[T], predictions: &[P]) -> Result<()>
where
    T: AsRef<[S]>,
    P: AsRef<[S]>,
{
    if truth.len() != predictions.len() {
        return Err(Error::Input(format!(
            "{} tagged sequences and {} predicted ones",
            truth.len(),
            predictions.len()
        )));
    }
    let lengths = truth.iter().zip(predictions);
    let mut lengths = lengths.map(|(t, p)| (t.as_ref().len(), p.as_ref().len()));
    match lengths.clone().position(|(t, p)| t != p) {
        Some(i) => {
            let (t, p) = lengths.nth(i).unwrap_or_default();
            Err(Error::Input(format!(
                "sequence {i} has {t} tags, and its prediction {p}"
            )))
        }
        None => Ok(()),
    }
}
