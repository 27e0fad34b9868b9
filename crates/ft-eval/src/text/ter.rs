//! Translation edit rate (Snover et al., 2006, <https://aclanthology.org/2006.amta-papers.25>), as in sacreBLEU 2.6.0's
//! implementation of Tercom.
//!
//! The least number of insertions, deletions, substitutions and shifts of word sequences that convert a prediction to a
//! reference, divided by the mean length of its references. In percent; above 100 if there are more edits than words.

use rayon::prelude::*;
use serde::Serialize;

use super::bleu_tokenizer::{ENTITIES, apart, is_western_symbol, periods_and_dashes};
use super::each_has_a_reference;
use super::python_characters::{is_space, split};
use super::signature::Signature;
use super::ter_edits::edits;
use crate::Result;

/// Options of TER. The defaults are those of sacreBLEU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerOptions {
    /// Whether punctuation is separated, lines are joined and XML entities are decoded.
    pub normalized: bool,
    /// Whether punctuation is removed.
    pub no_punct: bool,
    /// Whether Chinese characters are separated (with `normalized`), and their punctuation is removed (with `no_punct`).
    pub asian_support: bool,
    /// Whether case matters.
    pub case_sensitive: bool,
}

/// TER and its components.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TerScore {
    /// The score in percent of the references' words; 100 if these have none and the predictions some.
    pub score: f64,
    /// The number of edits, to the nearest of several references.
    pub edits: usize,
    /// The number of words of the references; the mean of several.
    pub reference_length: f64,
    /// The signature that sacreBLEU 2.6.0 prints for these settings.
    pub signature: String,
}

/// TER of a corpus.
///
/// # Errors
///
/// If there are no predictions, the number of reference lists is another one, or a prediction has no reference.
///
/// ```
/// use ft_eval::text::{TerOptions, corpus_ter};
///
/// // One shift, five words.
/// let ter = corpus_ter(&["down sat the cat here"], &[["the cat sat down here"]], &TerOptions::default())?;
/// assert_eq!((ter.edits, ter.score), (2, 40.0));
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn corpus_ter<P, R, S>(
    predictions: &[P],
    references: &[R],
    options: &TerOptions,
) -> Result<TerScore>
where
    P: AsRef<str> + Sync,
    R: AsRef<[S]> + Sync,
    S: AsRef<str>,
{
    each_has_a_reference(predictions, references)?;
    let pairs: Vec<(usize, f64)> = (predictions.par_iter().zip(references).with_min_len(4))
        .map(|(prediction, references)| of_pair(prediction.as_ref(), references.as_ref(), options))
        .collect();
    // Summed in order, so that the last bit does not depend on threads.
    let edits: usize = pairs.iter().map(|(edits, _)| edits).sum();
    let reference_length: f64 = pairs.iter().map(|(_, length)| length).sum();
    let yes = |flag: bool| if flag { "yes" } else { "no" };
    let signature = Signature::new(references.iter().map(|r| r.as_ref().len()))
        .with(
            "case",
            if options.case_sensitive {
                "mixed"
            } else {
                "lc"
            },
        )
        .with("tok", "tercom")
        .with("norm", yes(options.normalized))
        .with("punct", yes(!options.no_punct))
        .with("asian", yes(options.asian_support));
    let share = match edits {
        _ if reference_length > 0.0 => edits as f64 / reference_length,
        0 => 0.0,
        _ => 1.0,
    };
    Ok(TerScore {
        score: 100.0 * share,
        edits,
        reference_length,
        signature: signature.to_string(),
    })
}

/// TER of one text.
///
/// # Errors
///
/// As [`corpus_ter`].
pub fn sentence_ter<S: AsRef<str> + Sync>(
    prediction: &str,
    references: &[S],
    options: &TerOptions,
) -> Result<TerScore> {
    corpus_ter(&[prediction], &[references], options)
}

/// Edits to the nearest reference, and the mean length of the references.
fn of_pair<S: AsRef<str>>(
    prediction: &str,
    references: &[S],
    options: &TerOptions,
) -> (usize, f64) {
    let prediction = normalize(prediction, options);
    let prediction = words_of(&prediction);
    let (mut fewest, mut words) = (usize::MAX, 0);
    for reference in references {
        // sacreBLEU normalises references twice, which matters if the first time leaves other white space.
        let reference = normalize(&normalize(reference.as_ref(), options), options);
        let reference = words_of(&reference);
        words += reference.len();
        fewest = fewest.min(edits(&prediction, &reference));
    }
    (fewest, words as f64 / references.len() as f64)
}

/// The words of a normalised text.
fn words_of(text: &str) -> Vec<&str> {
    text.split(' ').filter(|word| !word.is_empty()).collect()
}

/// The text in Tercom's normal form, with a space between its words.
fn normalize(text: &str, options: &TerOptions) -> String {
    let mut text = text.trim_end_matches(is_space).to_string();
    if text.is_empty() {
        return text;
    }
    if !options.case_sensitive {
        text = text.to_lowercase();
    }
    if options.normalized {
        text = text.replace("\n-", "").replace('\n', " ");
        for (from, to) in ENTITIES {
            text = text.replace(from, to);
        }
        text = apart(&format!(" {text} "), is_western_symbol);
        text = periods_and_dashes(&text.replace("'s ", " 's "));
        if options.asian_support {
            // The reference's rules for kana match only at the beginning of the text, where there is a space: they never apply.
            text = apart(&text, |c| is_asian(c) || is_asian_punctuation(c));
        }
    }
    if options.no_punct {
        let western = |c: char| matches!(c, '.' | ',' | '?' | ':' | ';' | '!' | '"' | '(' | ')');
        text.retain(|c| !(western(c) || options.asian_support && is_asian_punctuation(c)));
    }
    split(&text).collect::<Vec<_>>().join(" ")
}

/// Ideographs, strokes, radicals, compatibility forms, and enclosed characters; the reference's range of the latter ends
/// at U+3F22.
fn is_asian(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{31c0}'..='\u{31ef}'
        | '\u{2e80}'..='\u{2eff}'
        | '\u{3300}'..='\u{33ff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe4f}'
        | '\u{3200}'..='\u{3f22}')
}

fn is_asian_punctuation(c: char) -> bool {
    matches!(c,
        '\u{3001}' | '\u{3002}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}' | '\u{ff61}'..='\u{ff65}'
        | '\u{30fb}' | '\u{ff0e}' | '\u{ff0c}' | '\u{ff1f}' | '\u{ff1a}' | '\u{ff1b}' | '\u{ff01}' | '\u{ff02}'
        | '\u{ff08}' | '\u{ff09}')
}
