//! Which columns of a file are the text, the second text of a pair, and the label.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::columns::Row;
use crate::{Error, Result};

/// The usual names of a text, each with those of its partner in a pair. The first one that a row has is taken.
const TEXTS: [(&str, &[&str]); 10] = [
    ("text", &["text_pair"]),
    ("sentence1", &["sentence2"]),
    ("premise", &["hypothesis"]),
    ("question1", &["question2"]),
    ("question", &["sentence", "answer"]),
    ("query", &["passage", "document"]),
    ("sentence", &[]),
    ("review", &[]),
    ("content", &[]),
    ("comment", &[]),
];
/// Names of labels.
const LABELS: [&str; 2] = ["label", "labels"];
/// Names of columns that may be labels or something else. Two of them in a row are an error.
const PERHAPS_LABELS: [&str; 4] = ["class", "category", "score", "stars"];

/// Names of columns. `"text,label"` and `"premise,hypothesis,label"` parse as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextColumns {
    /// The text, or the first one of a pair.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The label.
    pub label: String,
}

impl fmt::Display for TextColumns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, pair, label } = self;
        match pair {
            None => write!(f, "{text},{label}"),
            Some(pair) => write!(f, "{text},{pair},{label}"),
        }
    }
}

impl FromStr for TextColumns {
    type Err = Error;

    fn from_str(names: &str) -> Result<Self> {
        let names: Vec<String> = names
            .split(',')
            .map(|name| name.trim().to_string())
            .collect();
        let (text, pair, label) = match names.as_slice() {
            [text, label] => (text, None, label),
            [text, pair, label] => (text, Some(pair.clone()), label),
            _ => {
                return Err(Error::Settings(format!(
                    "the columns must be text,label or text,pair,label, not {}",
                    names.join(",")
                )));
            }
        };
        Ok(Self {
            text: text.clone(),
            pair,
            label: label.clone(),
        })
    }
}

impl TextColumns {
    /// The columns with usual names.
    ///
    /// # Errors
    ///
    /// If there is no column with a usual name, or several may be the label.
    pub(crate) fn usual(row: &Value) -> Result<Self> {
        let row = Row::new(row, 1, None)?;
        let found = TEXTS.iter().find(|(text, _)| row.has(text));
        let (text, partners) = found.ok_or_else(|| row.missing(TEXTS[0].0))?;
        let pair = partners.iter().find(|name| row.has(name));
        let named = LABELS.iter().find(|name| row.has(name));
        let label = match named {
            Some(label) => label,
            None => {
                let mut perhaps = PERHAPS_LABELS.iter().filter(|name| row.has(name));
                match (perhaps.next(), perhaps.next()) {
                    (None, _) => return Err(row.missing(LABELS[0])),
                    (Some(label), None) => label,
                    (Some(one), Some(other)) => {
                        return Err(row.error(format!(
                            "`{one}` or `{other}` may be the label: name the columns"
                        )));
                    }
                }
            }
        };
        Ok(Self {
            text: (*text).to_string(),
            pair: pair.map(|name| (*name).to_string()),
            label: (*label).to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn usual(row: Value) -> String {
        match TextColumns::usual(&row) {
            Ok(columns) => columns.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_second_text_is_the_partner_of_the_first() {
        let metadata = json!({"text": "It leaks.", "document": "shop-17/0042", "label": "bad"});
        assert_eq!(usual(metadata), "text,label");
        let pair = json!({"label": 1, "hypothesis": "b", "premise": "a"});
        assert_eq!(usual(pair), "premise,hypothesis,label");
        let question = json!({"sentence": "b", "question": "a", "label": 1});
        assert_eq!(usual(question), "question,sentence,label");
    }

    #[test]
    fn a_label_is_not_guessed() {
        assert_eq!(
            usual(json!({"text": "a", "stars": 3, "label": "x"})),
            "text,label"
        );
        assert_eq!(usual(json!({"text": "a", "stars": 3})), "text,stars");
        let error = usual(json!({"text": "a", "stars": 3, "category": "x"}));
        assert!(error.contains("`category` or `stars`"), "{error}");
        let parsed: TextColumns = "a, b,c".parse().expect("three names");
        assert_eq!(parsed.to_string(), "a,b,c");
        assert!("a".parse::<TextColumns>().is_err());
    }
}
