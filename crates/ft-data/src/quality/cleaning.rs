//! Removes rows that should not be trained on.

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::words::Words;
use crate::in_parallel::in_parallel;
use crate::{CleaningReport, Contamination, MinHash, Table};

/// What is removed. The filters act in the order of the fields, and a row is removed by the first that applies.
///
/// ```
/// use ft_data::{Cleaning, Table};
/// use serde_json::json;
///
/// let rows = ["one two three", "One, two, three!", "one"].map(|text| json!({"text": text}));
/// let cleaning = Cleaning { min_words: 2, ..Cleaning::default() };
/// let (kept, report) = cleaning.apply(Table::from_rows(rows.to_vec()));
/// assert_eq!(kept.len(), 1);
/// assert_eq!(report.removed[0].to_string(), "row 2: the same words as row 1");
/// ```
#[derive(Clone, Debug)]
pub struct Cleaning {
    /// Rows of fewer words are removed.
    pub min_words: usize,
    /// Rows of more words are removed.
    pub max_words: usize,
    /// Codes of ISO 639-3 (`eng`, `deu`). Rows that are reliably in another language are removed; without codes none are.
    pub languages: Vec<String>,
    /// Evaluation sets, whose rows are removed.
    pub contamination: Option<Contamination>,
    /// Rows whose words are those of an earlier row are removed.
    pub exact_duplicates: bool,
    /// Rows that are nearly those of an earlier row are removed.
    pub near_duplicates: Option<MinHash>,
}

impl Default for Cleaning {
    fn default() -> Self {
        Self {
            min_words: 1,
            max_words: usize::MAX,
            languages: Vec::new(),
            contamination: None,
            exact_duplicates: true,
            near_duplicates: Some(MinHash::default()),
        }
    }
}

/// Why a row was removed. Rows are counted from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// The row.
    pub row: usize,
    /// Why.
    pub reason: Reason,
}

/// Why a row was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It has so many words, which are too few.
    TooShort(usize),
    /// It has so many words, which are too many.
    TooLong(usize),
    /// It is in this language.
    Language(String),
    /// It has these words of an evaluation set.
    Contaminated(String),
    /// It has the words of this row.
    Duplicate(usize),
    /// It is nearly this row.
    NearDuplicate(usize),
}

impl Reason {
    /// The heading under which it is counted.
    pub fn heading(&self) -> &'static str {
        match self {
            Self::TooShort(_) => "too short",
            Self::TooLong(_) => "too long",
            Self::Language(_) => "another language",
            Self::Contaminated(_) => "text of an evaluation set",
            Self::Duplicate(_) => "duplicates",
            Self::NearDuplicate(_) => "near-duplicates",
        }
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}: ", self.row)?;
        match &self.reason {
            Reason::TooShort(words) => write!(f, "only {words} words"),
            Reason::TooLong(words) => write!(f, "{words} words"),
            Reason::Language(code) => write!(f, "its language is {code}"),
            Reason::Contaminated(ngram) => write!(f, "\"{ngram}\" is in an evaluation set"),
            Reason::Duplicate(of) => write!(f, "the same words as row {of}"),
            Reason::NearDuplicate(of) => write!(f, "nearly the same as row {of}"),
        }
    }
}

impl Cleaning {
    /// The rows that are kept, and what was removed and why. The text of a row is [`row_text`].
    pub fn apply(&self, table: Table) -> (Table, CleaningReport) {
        let texts: Vec<String> = table.rows().iter().map(row_text).collect();
        // It has no errors.
        let looked = in_parallel(&texts, |text| Ok(self.look(text))).unwrap_or_default();
        let mut reasons: Vec<Option<Reason>> = Vec::with_capacity(texts.len());
        let mut first: HashMap<u128, usize> = HashMap::new();
        for (row, (reason, hash)) in looked.into_iter().enumerate() {
            let earlier = match reason {
                None if self.exact_duplicates => *first.entry(hash).or_insert(row),
                _ => row,
            };
            reasons.push(match reason {
                None if earlier != row => Some(Reason::Duplicate(earlier + 1)),
                reason => reason,
            });
        }
        if let Some(minhash) = &self.near_duplicates {
            let left: Vec<usize> = (0..texts.len())
                .filter(|row| reasons[*row].is_none())
                .collect();
            let left_texts: Vec<&str> = left.iter().map(|row| texts[*row].as_str()).collect();
            for (place, first) in minhash.clusters(&left_texts).into_iter().enumerate() {
                if first != place {
                    reasons[left[place]] = Some(Reason::NearDuplicate(left[first] + 1));
                }
            }
        }
        let (mut kept, mut removed, mut kept_texts) = (Vec::new(), Vec::new(), Vec::new());
        for (row, ((value, text), reason)) in table
            .into_rows()
            .into_iter()
            .zip(texts)
            .zip(reasons)
            .enumerate()
        {
            match reason {
                None => {
                    kept.push(value);
                    kept_texts.push(text);
                }
                Some(reason) => removed.push(Removal {
                    row: row + 1,
                    reason,
                }),
            }
        }
        let report = CleaningReport::new(&kept_texts, removed);
        (Table::from_rows(kept), report)
    }

    /// What is wrong with a text on its own, and a hash of its words.
    fn look(&self, text: &str) -> (Option<Reason>, u128) {
        let words = Words::of(text);
        let hash = xxh3_128(words.as_str().as_bytes());
        let count = words.len();
        let reason = if count < self.min_words {
            Some(Reason::TooShort(count))
        } else if count > self.max_words {
            Some(Reason::TooLong(count))
        } else {
            let language = self.other_language(text).map(Reason::Language);
            language.or_else(|| {
                let contamination = self.contamination.as_ref()?;
                contamination.found(text).map(Reason::Contaminated)
            })
        };
        (reason, hash)
    }

    fn other_language(&self, text: &str) -> Option<String> {
        if self.languages.is_empty() {
            return None;
        }
        let found = whatlang::detect(text).filter(|found| found.is_reliable())?;
        let code = found.lang().code();
        let wanted = self.languages.iter().any(|language| language == code);
        (!wanted).then(|| code.to_string())
    }
}

/// The text of a row: all its texts, in order, a line each. Names of columns, roles and senders are no part of it, and neither are
/// names of rows, the columns `id`, `uuid`, and those that end in `_id`, which would hide that two rows are equal.
///
/// ```
/// use serde_json::json;
///
/// let row = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]});
/// assert_eq!(ft_data::row_text(&row), "Hi\nHello");
/// ```
pub fn row_text(row: &Value) -> String {
    fn add(value: &Value, out: &mut String) {
        match value {
            Value::String(text) => {
                if !out.is_empty() {
                    out.push('\n');
                }
                out.push_str(text);
            }
            Value::Array(values) => values.iter().for_each(|value| add(value, out)),
            Value::Object(columns) => {
                let is_text = |name: &str| {
                    !["role", "from", "id", "uuid"].contains(&name) && !name.ends_with("_id")
                };
                let texts = columns.iter().filter(|(name, _)| is_text(name));
                texts.for_each(|(_, value)| add(value, out));
            }
            _ => {}
        }
    }
    let mut out = String::new();
    add(row, &mut out);
    out
}
