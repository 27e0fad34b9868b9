//! Long texts in pieces that fit into a row.
//!
//! - By **paragraph**: paragraphs, which blank lines separate, are joined while they fit. One that does not fit is cut at the ends of
//!   sentences, and a sentence that does not fit, by tokens.
//! - By **tokens**: windows of a length that overlap, with nothing lost and nothing changed between them.
//! - By **structure**: as by paragraph, but a piece does not cross a heading of Markdown, and begins with the headings that it is
//!   under.

use std::ops::Range;

use ft_core::Tokenizer;

use crate::tokenize::byte_ranges;
use crate::{Error, Result};

/// How a text is cut into pieces of at most a number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// Whole paragraphs.
    Paragraphs {
        /// Tokens of a piece.
        max_tokens: usize,
    },
    /// Windows.
    Tokens {
        /// Tokens of a window.
        size: usize,
        /// Tokens that a window has in common with the one before.
        overlap: usize,
    },
    /// Whole paragraphs under their headings.
    Structure {
        /// Tokens of a piece, headings included.
        max_tokens: usize,
    },
}

impl Chunking {
    /// The pieces of a text, in order. White space around a piece is removed; pieces of white space are left out.
    ///
    /// # Errors
    ///
    /// If a length is 0, the overlap is not smaller than the window, or the tokenizer refuses the text.
    pub fn chunks(self, text: &str, tokenizer: &Tokenizer) -> Result<Vec<String>> {
        let pieces = match self {
            Self::Tokens { size, overlap } => {
                if overlap >= size {
                    return Err(Error::Settings(format!(
                        "windows of {size} tokens with an overlap of {overlap} do not advance: make the overlap smaller"
                    )));
                }
                windows(text, size, overlap, tokenizer)?
            }
            Self::Paragraphs { max_tokens: 0 } | Self::Structure { max_tokens: 0 } => {
                return Err(Error::Settings(
                    "a piece of 0 tokens has no text".to_string(),
                ));
            }
            Self::Paragraphs { max_tokens } => joined(text, max_tokens, tokenizer)?,
            Self::Structure { max_tokens } => {
                let mut pieces = Vec::new();
                for (headings, body) in sections(text) {
                    let length = tokenizer.encode(&headings, false)?.len();
                    // Headings that leave less than half of the piece are not repeated: they are the first paragraph.
                    let (prefix, left, body) = match max_tokens.saturating_sub(length + 1) {
                        left if left * 2 >= max_tokens => (headings.as_str(), left, body),
                        _ if body.trim().is_empty() => continue,
                        _ => ("", max_tokens, format!("{headings}\n\n{body}")),
                    };
                    let body = joined(&body, left, tokenizer)?;
                    pieces.extend(body.into_iter().map(|piece| match prefix {
                        "" => piece,
                        prefix => format!("{prefix}\n\n{piece}"),
                    }));
                }
                pieces
            }
        };
        let trimmed = pieces
            .iter()
            .map(|piece| piece.trim())
            .filter(|piece| !piece.is_empty());
        Ok(trimmed.map(str::to_string).collect())
    }
}

/// Windows of tokens, as slices of the text. A character that several tokens share belongs to the first of them.
fn windows(text: &str, size: usize, overlap: usize, tokenizer: &Tokenizer) -> Result<Vec<String>> {
    let (_, offsets) = tokenizer.encode_with_offsets(text, false)?;
    let ranges = byte_ranges(&offsets);
    let cut = |token: usize| match token {
        0 => 0,
        token if token == ranges.len() => text.len(),
        token => {
            let mut at = ranges[token].start.max(ranges[token - 1].end);
            while !text.is_char_boundary(at) {
                at += 1;
            }
            at
        }
    };
    let mut pieces = Vec::new();
    let mut begin = 0;
    while begin < ranges.len() {
        let end = (begin + size).min(ranges.len());
        pieces.extend(text.get(cut(begin)..cut(end)).map(str::to_string));
        if end == ranges.len() {
            break;
        }
        begin = end - overlap;
    }
    Ok(pieces)
}

/// Paragraphs that are joined while they fit.
fn joined(text: &str, max_tokens: usize, tokenizer: &Tokenizer) -> Result<Vec<String>> {
    let mut units = Vec::new();
    for paragraph in paragraphs(text) {
        if length(paragraph, tokenizer)? <= max_tokens {
            units.push((paragraph, "\n\n"));
            continue;
        }
        for (place, sentence) in sentences(paragraph).enumerate() {
            units.push((sentence, if place == 0 { "\n\n" } else { " " }));
        }
    }
    let mut pieces: Vec<String> = Vec::new();
    let mut open = false;
    for (unit, separator) in units {
        if length(unit, tokenizer)? > max_tokens {
            pieces.extend(windows(unit, max_tokens, 0, tokenizer)?);
            open = false;
            continue;
        }
        if let (Some(last), true) = (pieces.last_mut(), open) {
            let longer = format!("{last}{separator}{unit}");
            if length(&longer, tokenizer)? <= max_tokens {
                *last = longer;
                continue;
            }
        }
        pieces.push(unit.to_string());
        open = true;
    }
    Ok(pieces)
}

fn length(text: &str, tokenizer: &Tokenizer) -> Result<usize> {
    Ok(tokenizer.encode(text, false)?.len())
}

/// What blank lines separate.
fn paragraphs(text: &str) -> Vec<&str> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let (mut at, mut after_blank) = (0, true);
    for line in text.split_inclusive('\n') {
        let range = at..at + line.len();
        at = range.end;
        if line.trim().is_empty() {
            after_blank = true;
        } else if let (Some(last), false) = (found.last_mut(), after_blank) {
            last.end = range.end;
        } else {
            found.push(range);
            after_blank = false;
        }
    }
    found
        .into_iter()
        .map(|range| text[range].trim_end())
        .collect()
}

/// Parts that end in a full stop, question or exclamation mark before white space.
fn sentences(paragraph: &str) -> impl Iterator<Item = &str> {
    let mut rest = paragraph;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let mut characters = rest.char_indices().peekable();
        while let Some((_, character)) = characters.next() {
            let Some(&(next, space)) = characters.peek() else {
                break;
            };
            if ['.', '!', '?', '。', '！', '？'].contains(&character) && space.is_whitespace() {
                let (sentence, after) = rest.split_at(next);
                rest = after;
                return Some(sentence);
            }
        }
        Some(std::mem::take(&mut rest))
    })
}

/// The parts of a Markdown text between headings, each with the headings that it is under.
fn sections(text: &str) -> Vec<(String, String)> {
    let mut headings: Vec<(usize, &str)> = Vec::new();
    let mut sections: Vec<(String, String)> = vec![(String::new(), String::new())];
    let mut fenced = false;
    for line in text.split_inclusive('\n') {
        fenced ^= line.trim_start().starts_with("```");
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        let is_heading =
            !fenced && (1..=6).contains(&level) && line[level..].starts_with([' ', '\t']);
        if is_heading {
            headings.retain(|(other, _)| *other < level);
            headings.push((level, line.trim_end()));
            let path: Vec<&str> = headings.iter().map(|(_, heading)| *heading).collect();
            sections.push((path.join("\n"), String::new()));
        } else if let Some((_, body)) = sections.last_mut() {
            body.push_str(line);
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_sentences_and_sections_lose_nothing() {
        assert_eq!(paragraphs("a\nb\n\n \nc\n"), ["a\nb", "c"]);
        assert_eq!(
            sentences("One. Two 3.5! Three? four").collect::<Vec<_>>(),
            ["One.", "Two 3.5!", "Three?", "four"]
        );
        let text = "intro\n# A\nx\n## B\ny\n```\n# code\n```\n# C\nz\n";
        let expected = [
            ("", "intro\n"),
            ("# A", "x\n"),
            ("# A\n## B", "y\n```\n# code\n```\n"),
            ("# C", "z\n"),
        ];
        let found = sections(text);
        assert_eq!(found.len(), expected.len());
        for ((headings, body), expected) in found.iter().zip(expected) {
            assert_eq!((headings.as_str(), body.as_str()), expected);
        }
    }
}
