//! Questions with a text that holds the answer, or does not: the data of extractive question answering, as SQuAD has it.

use std::path::Path;

use serde_json::Value;

use crate::columns::Row;
use crate::in_parallel::in_parallel;
use crate::split::split_by;
use crate::{Error, Result, TextInput, TextTokens, read_rows};

/// A question about a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Its name.
    pub id: String,
    /// The question.
    pub question: String,
    /// The text.
    pub context: String,
    /// The answers; none if the text does not answer the question.
    pub answers: Vec<Answer>,
}

/// An answer: a part of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The part.
    pub text: String,
    /// Its first byte.
    pub start: usize,
}

/// Questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// The questions, in the order of the file.
    pub rows: Vec<Question>,
}

/// A question with a window of its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerExample {
    /// Which question it is.
    pub question: usize,
    /// The token ids of question and window.
    pub tokens: TextTokens,
    /// The first and the last token of the answer; both 0, the token before the question, if it is not within the window.
    pub answer: (usize, usize),
    /// For each token of the text the bytes that it covers; none for all other tokens.
    pub offsets: Vec<Option<(usize, usize)>>,
    /// For each token of the text the number of its word, as the tokenizer splits the text.
    pub words: Vec<Option<u32>>,
}

impl Questions {
    /// Reads SQuAD's file, or a JSON or JSONL file of rows with `question`, `context`, `answers` (SQuAD's `text` and
    /// `answer_start`, as two lists or as a list of objects; no answers if the text does not answer the question) and perhaps
    /// `id`. `answer_start` counts characters.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, a row lacks a column, or an answer is not where it is said to be.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| Error::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let rows = match serde_json::from_slice::<Value>(&bytes) {
            Ok(Value::Object(mut file)) if file.get("data").is_some_and(Value::is_array) => {
                match file.remove("data") {
                    Some(Value::Array(data)) => data.into_iter().flat_map(paragraphs).collect(),
                    _ => Vec::new(),
                }
            }
            _ => read_rows(path)?,
        };
        let parsed = rows.iter().enumerate();
        let parsed = parsed.map(|(index, row)| question(row, index + 1));
        let rows = parsed.collect::<Result<Vec<_>>>();
        let rows = rows.map_err(|error| error.in_file(path))?;
        match rows.is_empty() {
            true => Err(Error::Dataset("there are no questions".into()).in_file(path)),
            false => Ok(Self { rows }),
        }
    }

    /// Two parts by chance, the second with about `fraction` of the questions. Questions about the same text are in the same
    /// part.
    ///
    /// # Errors
    ///
    /// If the fraction is not between 0 and 1, or all questions are about one text.
    pub fn split(self, fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let key = |row: &Question| row.context.clone();
        let (train, held) = split_by(self.rows, key, fraction, seed)?;
        Ok((Self { rows: train }, Self { rows: held }))
    }

    /// The questions as examples: each with the windows of its text, which overlap by `overlap` tokens. The first answer is
    /// learnt, in the windows that hold all of it. Its first token is the last one that begins at or before it, its last token
    /// the first one that ends at or behind its end.
    ///
    /// # Errors
    ///
    /// If a question leaves no room for its text, or the tokenizer puts no token before it.
    pub fn tokenize(&self, input: &TextInput, overlap: usize) -> Result<Vec<AnswerExample>> {
        let numbered: Vec<(usize, &Question)> = self.rows.iter().enumerate().collect();
        let examples = in_parallel(&numbered, |&(number, row)| {
            let question = row.question.trim_start();
            let length = input.max_length();
            let windows =
                input
                    .tokenizer()
                    .encode_windows(question, Some(&row.context), length, overlap)?;
            let windows = windows.into_iter().map(|encoded| {
                if encoded.sequence.first() != Some(&None) {
                    return Err(Error::Sample(
                        "the tokenizer puts no token before the question, which would stand for no answer".into(),
                    ));
                }
                let own = |token: usize| encoded.sequence[token] == Some(1);
                let offsets: Vec<Option<(usize, usize)>> = (0..encoded.len())
                    .map(|token| own(token).then(|| encoded.offsets[token]))
                    .collect();
                Ok(AnswerExample {
                    question: number,
                    tokens: input.tokens(&encoded),
                    answer: place(&offsets, row.answers.first()),
                    words: (0..encoded.len())
                        .map(|token| encoded.words[token].filter(|_| own(token)))
                        .collect(),
                    offsets,
                })
            });
            windows.collect::<Result<Vec<_>>>()
        })?;
        Ok(examples.into_iter().flatten().collect())
    }
}

/// The first and the last token of an answer.
fn place(offsets: &[Option<(usize, usize)>], answer: Option<&Answer>) -> (usize, usize) {
    let tokens = || {
        let all = offsets.iter().enumerate();
        all.filter_map(|(token, own)| own.map(|own| (token, own)))
    };
    let bounds = tokens().next().zip(tokens().next_back());
    let (Some(answer), Some(((_, first), (_, last)))) = (answer, bounds) else {
        return (0, 0);
    };
    let end = answer.start + answer.text.len();
    if first.0 > answer.start || last.1 < end {
        return (0, 0);
    }
    let start = tokens().rfind(|(_, own)| own.0 <= answer.start);
    let end = tokens().find(|(_, own)| own.1 >= end);
    match (start, end) {
        (Some((start, _)), Some((end, _))) if start <= end => (start, end),
        _ => (0, 0),
    }
}

/// The rows of an article of SQuAD's file.
fn paragraphs(article: Value) -> Vec<Value> {
    let list = |value: &Value, name: &str| {
        let list = value.get(name).and_then(Value::as_array);
        list.cloned()
    };
    let Some(paragraphs) = list(&article, "paragraphs") else {
        return vec![article];
    };
    let rows = paragraphs.into_iter().flat_map(|paragraph| {
        let context = paragraph.get("context").cloned().unwrap_or_default();
        let questions = list(&paragraph, "qas").unwrap_or_default();
        questions.into_iter().map(move |mut row| {
            // What is no object is an error of its row.
            if let Some(fields) = row.as_object_mut() {
                fields.insert("context".into(), context.clone());
            }
            row
        })
    });
    rows.collect()
}

fn question(row: &Value, number: usize) -> Result<Question> {
    let row = Row::new(row, number, None)?;
    let context = row.text("context")?;
    let answers = match row.optional("answers") {
        None => Vec::new(),
        Some(Value::Array(answers)) => (answers.iter())
            .map(|answer| (answer.get("text"), answer.get("answer_start")))
            .collect(),
        Some(answers) => {
            let list = |name: &str| {
                let list = answers.get(name).and_then(Value::as_array);
                list.map_or(&[][..], Vec::as_slice)
            };
            let (texts, starts) = (list("text"), list("answer_start"));
            let starts = (0..texts.len()).map(|answer| starts.get(answer));
            texts.iter().map(Some).zip(starts).collect()
        }
    };
    let places: Vec<usize> = context.char_indices().map(|(place, _)| place).collect();
    let answers = answers.into_iter().map(|(text, start)| {
        let text = text.and_then(Value::as_str);
        let start = start.and_then(Value::as_u64);
        let start = start.and_then(|start| places.get(usize::try_from(start).ok()?).copied());
        match (text, start) {
            (Some(""), _) => Err(row.error(
                "an answer is empty: leave `answers` empty if the context does not answer the question".into(),
            )),
            (Some(text), Some(start)) if context[start..].starts_with(text) => Ok(Answer {
                text: text.to_string(),
                start,
            }),
            _ => Err(row.error(format!(
                "the answer {text:?} is not at its `answer_start` of the context, counted in characters"
            ))),
        }
    });
    let id = match row.optional("id") {
        Some(Value::String(id)) => id.clone(),
        Some(other) => other.to_string(),
        None => number.to_string(),
    };
    Ok(Question {
        id,
        question: row.text("question")?.to_string(),
        context: context.to_string(),
        answers: answers.collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn squads_file_and_rows_give_the_same_questions() {
        let folder = tempfile::TempDir::new().expect("folder");
        let write = |name: &str, value: Value| {
            let path = folder.path().join(name);
            std::fs::write(&path, value.to_string()).expect("writes");
            Questions::load(path)
        };
        let nested = json!({"version": "2", "data": [{"title": "t", "paragraphs": [{"context": "É is A.", "qas": [
            {"id": "1", "question": "What?", "answers": [{"text": "A", "answer_start": 5}]},
            {"id": "2", "question": "Who?", "answers": [], "is_impossible": true}]}]}]});
        let flat = json!([
            {"id": 1, "question": "What?", "context": "É is A.", "answers": {"text": ["A"], "answer_start": [5]}},
            {"question": "Who?", "context": "É is A.", "answers": {"text": [], "answer_start": []}}]);
        let nested = write("nested.json", nested).expect("reads");
        assert_eq!(nested, write("flat.json", flat).expect("reads"));
        assert_eq!(nested.rows[0].answers[0].start, 6);
        let wrong = json!([{"question": "q", "context": "abc", "answers": [{"text": "b", "answer_start": 0}]}]);
        let no_object = json!({"data": [{"paragraphs": [{"context": "c", "qas": ["q?"]}]}]});
        let error = write("no_object.json", no_object).expect_err("a text");
        assert!(error.to_string().contains("row 1"), "{error}");
        let empty = json!([{"question": "q", "context": "abc", "answers": {"text": [""], "answer_start": [0]}}]);
        let error = write("empty.json", empty).expect_err("no answer");
        assert!(error.to_string().contains("is empty"), "{error}");
        let error = write("wrong.json", wrong)
            .expect_err("elsewhere")
            .to_string();
        assert!(
            error.contains("row 1") && error.contains("answer_start"),
            "{error}"
        );
    }

    #[test]
    fn an_answer_is_placed_where_all_of_it_is_in_the_window() {
        let offsets = [None, None, Some((4, 7)), Some((7, 9)), Some((10, 12)), None];
        let at = |start: usize, text: &str| {
            let text = text.to_string();
            place(&offsets, Some(&Answer { text, start }))
        };
        assert_eq!(at(4, "abcde"), (2, 3));
        assert_eq!(at(8, "a"), (3, 3));
        assert_eq!(at(2, "ab"), (0, 0));
        assert_eq!(at(10, "abc"), (0, 0));
        assert_eq!(place(&offsets, None), (0, 0));
    }
}
