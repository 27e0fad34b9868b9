//! Texts with a tag for each word: read as words with tags, or as character spans with labels.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use ft_core::{IGNORE_INDEX, Truncation};
use serde_json::Value;

use crate::columns::Row;
use crate::in_parallel::in_parallel;
use crate::split::split_by;
use crate::tag_position::{inside, joined};
use crate::words::words_of;
use crate::{Error, Result, TextInput, TextTokens, read_rows};

const WORDS: &[&str] = &["tokens", "words"];
const TAGS: &[&str] = &["tags", "ner_tags", "labels"];
const SPANS: &[&str] = &["spans", "entities", "label", "labels"];

/// How spans become tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TagStyle {
    /// `B-` at the beginning, `I-` inside (IOB2).
    #[default]
    Bio,
    /// Also `L-` at the end, and `U-` for spans of one word.
    Bilou,
}

/// Which tokens of a word are learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubwordLabels {
    /// The first one.
    #[default]
    First,
    /// All of them; those after the first one have the tag `I-` of the word's type, if there is such a tag.
    All,
}

/// A text, the places of its words in bytes, and a tag for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaggedText {
    /// The text.
    pub text: String,
    /// The words.
    pub words: Vec<Range<usize>>,
    /// Their tags.
    pub tags: Vec<String>,
}

/// A part of a text with a label, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The index of its first byte.
    pub start: usize,
    /// The index after its last byte.
    pub end: usize,
    /// Its label.
    pub label: String,
}

/// Texts with tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaggedTexts {
    /// The texts, in the order of the file.
    pub rows: Vec<TaggedText>,
    /// How many spans began or ended within a word, and were widened to whole words.
    pub widened: usize,
}

/// A text as token ids with labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagExample {
    /// The token ids.
    pub tokens: TextTokens,
    /// The number of the tag of each token, [`IGNORE_INDEX`] where nothing is learnt.
    pub labels: Vec<i64>,
    /// The first token of each word. A token that holds several words is that of all of them. None if the word was cut off or has
    /// no token.
    pub firsts: Vec<Option<usize>>,
}

impl TaggedText {
    /// Words with their tags. The text is the words with a blank between two of them.
    ///
    /// # Errors
    ///
    /// If there are not as many tags as words.
    pub fn from_words(words: &[&str], tags: Vec<String>) -> Result<Self> {
        if words.len() != tags.len() {
            return Err(Error::Sample(format!(
                "there are {} words, but {} tags",
                words.len(),
                tags.len()
            )));
        }
        let mut text = String::new();
        let mut places = Vec::with_capacity(words.len());
        for (number, word) in words.iter().enumerate() {
            if number > 0 {
                text.push(' ');
            }
            places.push(text.len()..text.len() + word.len());
            text.push_str(word);
        }
        Ok(Self {
            text,
            words: places,
            tags,
        })
    }

    /// A text with labelled spans, and how many of them were widened. Words are runs of letters and digits. Any other
    /// character that is not blank is a word of its own, and so is each letter of a script without blanks between words
    /// (Chinese, Japanese, Thai, Lao, Burmese, Khmer).
    ///
    /// # Errors
    ///
    /// If a span is empty, reaches beyond the text, is within a character, holds no word, or overlaps another one.
    pub fn from_spans(text: &str, spans: &[Span], style: TagStyle) -> Result<(Self, usize)> {
        let words = words_of(text);
        let mut tags = vec!["O".to_string(); words.len()];
        let mut widened = 0;
        for span in spans {
            let wrong = |what: &str| {
                Error::Sample(format!(
                    "the span {}..{} ({}) {what}",
                    span.start, span.end, span.label
                ))
            };
            let Some(part) = text
                .get(span.start..span.end)
                .filter(|part| !part.is_empty())
            else {
                return Err(wrong("is no part of the text"));
            };
            let covered = |word: &Range<usize>| word.start < span.end && word.end > span.start;
            let Some(first) = words.iter().position(covered) else {
                return Err(wrong("holds no word"));
            };
            let last = words.iter().rposition(covered).unwrap_or(first);
            if tags[first..=last].iter().any(|tag| tag != "O") {
                return Err(wrong("overlaps another one"));
            }
            let blank = part.len() - part.trim_start().len();
            let whole = words[first].start == span.start + blank
                && words[last].end == span.start + part.trim_end().len();
            widened += usize::from(!whole);
            for (word, tag) in tags.iter_mut().enumerate().take(last + 1).skip(first) {
                let position = match (style, word == first, word == last) {
                    (TagStyle::Bilou, true, true) => 'U',
                    (TagStyle::Bilou, false, true) => 'L',
                    (_, true, _) => 'B',
                    (_, false, _) => 'I',
                };
                *tag = format!("{position}-{}", span.label);
            }
        }
        let text = text.to_string();
        Ok((Self { text, words, tags }, widened))
    }
}

impl TaggedTexts {
    /// Reads a JSON or JSONL file. Rows have `tokens` (or `words`) and `tags` (or `ner_tags`, `labels`), which are names; or
    /// `text` and `spans` (or `entities`, `label`), objects with `start`, `end` and `label` or lists of these three, counted in
    /// characters.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, a row lacks a column, or as [`TaggedText::from_words`] and [`TaggedText::from_spans`].
    pub fn load(path: impl AsRef<Path>, style: TagStyle) -> Result<Self> {
        let path = path.as_ref();
        let mut all = Self::default();
        let rows = read_rows(path)?;
        for (index, row) in rows.iter().enumerate() {
            let (row, widened) = tagged(row, index + 1, style)
                .and_then(with_words)
                .map_err(|error| error.in_row(index + 1).in_file(path))?;
            all.rows.push(row);
            all.widened += widened;
        }
        Ok(all)
    }

    /// The tags, `O` first, then by their type.
    pub fn tags(&self) -> Vec<String> {
        let tags = self.rows.iter().flat_map(|row| &row.tags);
        let key = |tag: &String| {
            let (position, kind) = tag.split_once('-').unwrap_or(("", tag));
            (tag != "O", kind.to_string(), position.to_string())
        };
        let sorted: BTreeSet<_> = tags.map(|tag| (key(tag), tag)).collect();
        sorted.into_iter().map(|(_, tag)| tag.clone()).collect()
    }

    /// Two parts by chance, the second with about `fraction` of the rows. Rows with the same text are in the same part.
    ///
    /// # Errors
    ///
    /// If the fraction is not between 0 and 1, or all rows have the same text.
    pub fn split(self, fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let key = |row: &TaggedText| row.text.clone();
        let (train, held) = split_by(self.rows, key, fraction, seed)?;
        let widened = self.widened;
        Ok((
            Self {
                rows: train,
                widened,
            },
            Self {
                rows: held,
                widened,
            },
        ))
    }

    /// The rows as examples of a model with these tags. A token belongs to the word that its first character is part of. If it
    /// holds further words whole, it is theirs, too, and its tag is that of all of them: [`spread_tag`](crate::spread_tag) gives
    /// the tags of words back.
    ///
    /// # Errors
    ///
    /// If a tag is not among them, or a text cannot be tokenized.
    pub fn tokenize(
        &self,
        input: &TextInput,
        tags: &[String],
        subwords: SubwordLabels,
    ) -> Result<Vec<TagExample>> {
        let number = |tag: &str| tags.iter().position(|known| known == tag);
        in_parallel(&self.rows, |row| {
            let ids: Vec<usize> = (row.tags.iter())
                .map(|tag| {
                    number(tag).ok_or_else(|| {
                        Error::Sample(format!(
                            "the tag {tag:?} is not among the model's: {}",
                            tags.join(", ")
                        ))
                    })
                })
                .collect::<Result<_>>()?;
            let encoded = input.encode(&row.text, None, Truncation::OnlyFirst)?;
            let mut labels = vec![IGNORE_INDEX; encoded.len()];
            let mut firsts = vec![None; row.words.len()];
            for (token, &(start, end)) in encoded.offsets.iter().enumerate() {
                if encoded.sequence[token].is_none() {
                    continue;
                }
                let own = row.text.get(start..end).unwrap_or("");
                let place = start + own.len() - own.trim_start().len();
                let word = row.words.partition_point(|word| word.end <= place);
                if row.words.get(word).is_none_or(|own| own.start > place) {
                    continue;
                }
                if firsts[word].is_some() {
                    if subwords == SubwordLabels::All {
                        let within = inside(&row.tags[word]).and_then(|tag| number(&tag));
                        labels[token] = within.unwrap_or(ids[word]) as i64;
                    }
                    continue;
                }
                // The words that end within the token are its own.
                let last = row.words[word + 1..].partition_point(|word| word.end <= end) + word;
                firsts[word..=last].fill(Some(token));
                let tag = joined(&row.tags[word..=last]).and_then(|tag| number(&tag));
                labels[token] = tag.unwrap_or(ids[word]) as i64;
            }
            Ok(TagExample {
                tokens: input.tokens(&encoded),
                labels,
                firsts,
            })
        })
    }
}

fn with_words(row: (TaggedText, usize)) -> Result<(TaggedText, usize)> {
    match row.0.words.is_empty() {
        true => Err(Error::Sample("there are no words: remove the row".into())),
        false => Ok(row),
    }
}

fn tagged(row: &Value, number: usize, style: TagStyle) -> Result<(TaggedText, usize)> {
    let row = Row::new(row, number, None)?;
    if let Some(column) = WORDS.iter().find(|name| row.has(name)) {
        let texts = |name: &str| -> Result<Vec<&str>> {
            let list = row.value(name)?.as_array();
            let texts = list.and_then(|list| list.iter().map(Value::as_str).collect());
            texts.ok_or_else(|| row.error(format!("`{name}` must be a list of texts")))
        };
        let tags = texts(row.first_of(TAGS)?)?;
        let tags = tags.into_iter().map(str::to_string).collect();
        return Ok((TaggedText::from_words(&texts(column)?, tags)?, 0));
    }
    let text = row.text("text")?;
    let spans = row.optional_list(row.first_of(SPANS)?)?;
    let places: Vec<usize> = text
        .char_indices()
        .map(|(place, _)| place)
        .chain([text.len()])
        .collect();
    let spans = spans.iter().map(|span| span_of(span, &places));
    let spans = spans.collect::<Option<Vec<Span>>>().ok_or_else(|| {
        row.error(
            "a span must have `start`, `end` and `label` (or be a list of these three), counted in characters, within the text"
                .into(),
        )
    })?;
    TaggedText::from_spans(text, &spans, style)
}

/// A span whose offsets count characters; `places` are those of the characters in bytes.
fn span_of(span: &Value, places: &[usize]) -> Option<Span> {
    let get = |name: &str, index: usize| span.get(name).or_else(|| span.get(index));
    let place = |value: &Value| {
        let character = usize::try_from(value.as_u64()?).ok()?;
        places.get(character).copied()
    };
    let label = get("label", 2).or_else(|| span.get("entity_group"))?;
    Some(Span {
        start: place(get("start", 0)?)?,
        end: place(get("end", 1)?)?,
        label: label.as_str()?.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_in_characters_become_tags_of_words() {
        let row = json!({"text": "Ünder Nordwind X2, 5 €!", "spans": [
            {"start": 6, "end": 17, "label": "PRODUCT"}, [19, 22, "PRICE"]]});
        let (bio, widened) = tagged(&row, 1, TagStyle::Bio).expect("reads");
        let words: Vec<&str> = bio
            .words
            .iter()
            .map(|word| &bio.text[word.clone()])
            .collect();
        assert_eq!(words, ["Ünder", "Nordwind", "X2", ",", "5", "€", "!"]);
        assert_eq!(
            bio.tags,
            [
                "O",
                "B-PRODUCT",
                "I-PRODUCT",
                "O",
                "B-PRICE",
                "I-PRICE",
                "O"
            ]
        );
        assert_eq!(widened, 0);
        let (bilou, _) = tagged(&row, 1, TagStyle::Bilou).expect("reads");
        assert_eq!(bilou.tags[1..3], ["B-PRODUCT", "L-PRODUCT"]);
        let row = json!({"text": "the Nordwinds", "entities": [[4, 12, "BRAND"]]});
        let (row, widened) = tagged(&row, 1, TagStyle::Bilou).expect("reads");
        assert_eq!((row.tags[1].as_str(), widened), ("U-BRAND", 1));
    }

    #[test]
    fn spans_in_a_script_without_blanks_are_exact() {
        let row = json!({"text": "我住在北京和上海", "spans": [[3, 5, "LOC"], [6, 8, "LOC"]]});
        let (row, widened) = tagged(&row, 1, TagStyle::Bio).expect("reads");
        let tags = ["O", "O", "O", "B-LOC", "I-LOC", "O", "B-LOC", "I-LOC"];
        assert_eq!(
            (row.tags.as_slice(), widened),
            (&tags.map(str::to_string)[..], 0)
        );
    }

    /// A vocabulary of words of several characters, as SentencePiece has them.
    #[test]
    fn a_token_of_several_words_has_the_tag_of_all_of_them() {
        let folder = tempfile::TempDir::new().expect("folder");
        let pieces = ["<unk>", "我住在", "北京", "和上", "海", "€5"];
        let vocab: Vec<_> = pieces.iter().map(|piece| json!([piece, -1.0])).collect();
        let file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false}});
        std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).expect("writes");
        let tokenizer = ft_core::Tokenizer::from_pretrained(folder.path()).expect("loads");
        let input = TextInput::new(&tokenizer, 20, None);
        for (style, tag) in [(TagStyle::Bio, "B-LOC"), (TagStyle::Bilou, "U-LOC")] {
            let row = json!({"text": "我住在北京和上海", "spans": [[3, 5, "LOC"], [6, 8, "LOC"]]});
            let (row, _) = tagged(&row, 1, style).expect("reads");
            let rows = vec![row];
            let all = TaggedTexts { rows, widened: 0 };
            let tags = ["O", "B-LOC", "I-LOC", "L-LOC", "U-LOC"].map(str::to_string);
            let examples = all
                .tokenize(&input, &tags, SubwordLabels::First)
                .expect("tokenizes");
            let expected: Vec<i64> = ([
                "O",
                tag,
                "O",
                if style == TagStyle::Bio {
                    "I-LOC"
                } else {
                    "L-LOC"
                },
            ])
            .map(|own| tags.iter().position(|tag| tag == own).expect("known") as i64)
            .to_vec();
            assert_eq!(examples[0].labels, expected);
            let firsts = [0, 0, 0, 1, 1, 2, 2, 3].map(Some);
            assert_eq!(examples[0].firsts, firsts);
        }
    }

    #[test]
    fn impossible_spans_and_tags_are_errors() {
        let fails = |row: Value| {
            let error = tagged(&row, 7, TagStyle::Bio).expect_err("wrong");
            error.in_row(7).to_string()
        };
        let beyond = fails(json!({"text": "ab", "spans": [[0, 9, "X"]]}));
        assert!(
            beyond.contains("row 7") && beyond.contains("characters"),
            "{beyond}"
        );
        let overlap = fails(json!({"text": "a b", "spans": [[0, 3, "X"], [2, 3, "Y"]]}));
        assert!(overlap.contains("overlaps"), "{overlap}");
        let count = fails(json!({"tokens": ["a", "b"], "tags": ["O"]}));
        assert!(count.contains("2 words, but 1 tags"), "{count}");
        let numbers = fails(json!({"tokens": ["a"], "ner_tags": [3]}));
        assert!(numbers.contains("list of texts"), "{numbers}");
    }

    #[test]
    fn tags_are_sorted_with_o_first() {
        let row = TaggedText::from_words(
            &["a", "b", "c", "d"],
            ["I-B", "O", "B-B", "B-A"].map(str::to_string).to_vec(),
        );
        let rows = vec![row.expect("a row")];
        let all = TaggedTexts { rows, widened: 0 };
        assert_eq!(all.tags(), ["O", "B-A", "B-B", "I-B"]);
    }
}
