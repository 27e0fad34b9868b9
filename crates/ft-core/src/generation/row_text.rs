//! The text of one row while its tokens come: what is final, what may be shown, and where a stop string ends it.

use crate::text::tokenizer::token_bytes::TokenBytes;
use crate::{Result, Tokenizer};

/// The text of one row.
///
/// The pieces that [`push`](Self::push) returns add up to the row's text, which is what
/// [`Tokenizer::decode`] makes of all its tokens without special ones, up to a stop string.
#[derive(Debug, Default)]
pub(crate) struct RowText {
    /// The tokens so far but those that are left out of the text.
    ids: Vec<u32>,
    /// What the first `read` of them decode to. Tokens that follow do not change it.
    text: String,
    read: usize,
    /// Decoding begins at this token, not after `read`, since decoders treat the first token in a way of its own.
    window: usize,
    /// What the tokens from `window` to `read` decode to: a character that is not white space at least, unless they begin
    /// the text.
    before: String,
    /// How much of the text has been returned.
    streamed: usize,
    /// None if there are no stop strings.
    stops: Option<Stops>,
}

impl RowText {
    pub(crate) fn new(stops: &[String], tokenizer: &Tokenizer) -> Result<Self> {
        let stops = match stops {
            [] => None,
            stops => Some(Stops::new(stops, TokenBytes::new(tokenizer)?)),
        };
        Ok(Self {
            stops,
            ..Self::default()
        })
    }

    /// Takes the next token; returns the text that is now new and final, and whether a stop string has appeared. After
    /// the `last` token all is final.
    pub(crate) fn push(
        &mut self,
        token: u32,
        last: bool,
        tokenizer: &Tokenizer,
    ) -> Result<(String, bool)> {
        let shown = !tokenizer.is_left_out(token);
        if shown {
            self.ids.push(token);
        }
        let mut held = 0;
        if let Some(stops) = &mut self.stops {
            stops.push(token, shown, tokenizer)?;
            if let Some(at) = stops.find() {
                return Ok((self.cut(at, tokenizer)?, true));
            }
            held = stops.shown_in(stops.beginning());
        }
        if last {
            return Ok((self.rest(tokenizer)?, false));
        }
        if shown {
            self.read(tokenizer)?;
        }
        if let Some(stops) = &self.stops {
            // What is not in the text yet is held back already.
            held = held.saturating_sub(stops.last_bytes(self.ids.len() - self.read));
        }
        Ok((self.show(self.text.len().saturating_sub(held)), false))
    }

    /// All text that has not been returned: no token follows.
    pub(crate) fn rest(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        self.settle(tokenizer.decode(&self.ids, true)?);
        Ok(self.show(self.text.len()))
    }

    /// Decodes the tokens that are not read, if what they decode to is final.
    fn read(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        // Byte fallback decodes a run of bytes as a whole: it is characters only if all of it is.
        if self.ids.last().is_some_and(|&id| tokenizer.is_byte(id)) {
            return Ok(());
        }
        let after = tokenizer.decode(&self.ids[self.window..], true)?;
        // A character that is not complete, in a byte-level vocabulary.
        if after.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(());
        }
        let Some(fresh) = after.strip_prefix(&self.before) else {
            return Ok(());
        };
        self.text.push_str(fresh);
        if fresh.contains(|c: char| !c.is_whitespace()) {
            self.window = self.read;
            self.before = tokenizer.decode(&self.ids[self.window..], true)?;
        } else {
            self.before = after;
        }
        self.read = self.ids.len();
        Ok(())
    }

    /// Ends the text where the stop string begins, at the byte `at` of `stops`.
    fn cut(&mut self, at: usize, tokenizer: &Tokenizer) -> Result<String> {
        let Some(stops) = &self.stops else {
            return Ok(String::new());
        };
        let whole = tokenizer.decode(&self.ids, true)?;
        let text = match whole.strip_suffix(&stops.shown_from(at)) {
            Some(text) => text.to_string(),
            // The decoder does not show the bytes as they are: a leading space, or a run that is not text.
            None => {
                let (tokens, bytes) = stops.shown_before(at);
                tokenizer.decode(&self.ids[..tokens], true)? + &String::from_utf8_lossy(bytes)
            }
        };
        self.settle(text);
        Ok(self.show(self.text.len()))
    }

    /// Sets the whole text, which goes on from what was returned.
    fn settle(&mut self, text: String) {
        let streamed = &self.text[..self.streamed];
        if text.starts_with(streamed) {
            self.text = text;
        } else {
            self.text.truncate(self.streamed);
        }
    }

    /// The text from what was returned to `end`, or to the character before it.
    fn show(&mut self, end: usize) -> String {
        let end = self.text.floor_char_boundary(end).max(self.streamed);
        let fresh = self.text[self.streamed..end].to_string();
        self.streamed = end;
        fresh
    }
}

/// Finds stop strings in the bytes of the tokens, special ones included.
#[derive(Debug)]
struct Stops {
    strings: Vec<Vec<u8>>,
    longest: usize,
    token_bytes: TokenBytes,
    bytes: Vec<u8>,
    tokens: Vec<Piece>,
}

/// The bytes of one token.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: usize,
    end: usize,
    /// Whether the token is part of the text.
    shown: bool,
}

impl Stops {
    fn new(stops: &[String], token_bytes: TokenBytes) -> Self {
        Self {
            strings: stops.iter().map(|stop| stop.clone().into()).collect(),
            longest: stops.iter().map(String::len).max().unwrap_or(0),
            token_bytes,
            bytes: Vec::new(),
            tokens: Vec::new(),
        }
    }

    fn push(&mut self, token: u32, shown: bool, tokenizer: &Tokenizer) -> Result<()> {
        let start = self.bytes.len();
        self.bytes.extend(self.token_bytes.of(token, tokenizer)?);
        let end = self.bytes.len();
        self.tokens.push(Piece { start, end, shown });
        Ok(())
    }

    /// Where the first stop string begins that ends within the last token.
    fn find(&self) -> Option<usize> {
        let last = self.tokens.last()?;
        let begins = |stop: &Vec<u8>| {
            let from = (last.start + 1).saturating_sub(stop.len());
            let mut windows = self.bytes[from..].windows(stop.len());
            windows
                .position(|window| window == stop)
                .map(|at| from + at)
        };
        self.strings.iter().filter_map(begins).min()
    }

    /// Where the longest end of the bytes begins that begins a stop string.
    fn beginning(&self) -> usize {
        let from = (self.bytes.len() + 1).saturating_sub(self.longest);
        (from..self.bytes.len())
            .find(|&at| {
                let end = &self.bytes[at..];
                self.strings.iter().any(|stop| stop.starts_with(end))
            })
            .unwrap_or(self.bytes.len())
    }

    /// How many bytes from `at` on are part of the text.
    fn shown_in(&self, at: usize) -> usize {
        self.shown(at).map(<[u8]>::len).sum()
    }

    /// The bytes from `at` on that are part of the text, as text.
    fn shown_from(&self, at: usize) -> String {
        let mut parts: Vec<&[u8]> = self.shown(at).collect();
        parts.reverse();
        String::from_utf8_lossy(&parts.concat()).into_owned()
    }

    /// The bytes from `at` on that are part of the text, the last token first.
    fn shown(&self, at: usize) -> impl Iterator<Item = &[u8]> {
        let tokens = self.tokens.iter().rev();
        tokens
            .take_while(move |token| token.end > at)
            .filter(|token| token.shown)
            .map(move |token| &self.bytes[token.start.max(at)..token.end])
    }

    /// How many tokens of the text end before `at`, and the bytes of the next one before `at`.
    fn shown_before(&self, at: usize) -> (usize, &[u8]) {
        let whole = self.tokens.partition_point(|token| token.end <= at);
        let count = self.tokens[..whole].iter().filter(|token| token.shown);
        let part = self.tokens.get(whole).filter(|token| token.shown);
        let part = part.map_or(&[][..], |token| &self.bytes[token.start..at]);
        (count.count(), part)
    }

    /// How many bytes the last `count` tokens of the text have.
    fn last_bytes(&self, count: usize) -> usize {
        let shown = self.tokens.iter().rev().filter(|token| token.shown);
        shown.take(count).map(|token| token.end - token.start).sum()
    }
}

#[cfg(test)]
mod tests;
