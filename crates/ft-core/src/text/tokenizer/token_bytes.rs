//! The bytes that a token stands for, whatever its neighbours are.
//!
//! Text is not enough to find a string in a stream of tokens: a character may be several tokens, and decoders leave out
//! special tokens and a leading space. The rules are those of `StopStringCriteria` in transformers.

use serde_json::Value;

use super::Tokenizer;
use crate::Result;

/// A text that stands before a token when it is decoded, so that no decoder takes the token for the first one.
const BEFORE: &str = "abcdef";

/// From token ids to bytes.
#[derive(Debug)]
pub(crate) struct TokenBytes {
    byte_level: bool,
    byte_fallback: bool,
    before: Vec<u32>,
    before_text: String,
}

impl TokenBytes {
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let decoder = serde_json::to_value(tokenizer.inner.get_decoder()).unwrap_or_default();
        // A vocabulary may lack these letters.
        let before = tokenizer.encode(BEFORE, false).unwrap_or_default();
        Ok(Self {
            byte_level: has_type(&decoder, "ByteLevel"),
            byte_fallback: has_type(&decoder, "ByteFallback"),
            before_text: tokenizer.decode(&before, false)?,
            before,
        })
    }

    /// The bytes of a token; none if the vocabulary lacks it.
    pub(crate) fn of(&self, id: u32, tokenizer: &Tokenizer) -> Result<Vec<u8>> {
        let Some(token) = tokenizer.id_to_token(id) else {
            return Ok(Vec::new());
        };
        if self.byte_fallback {
            if let Some(byte) = byte_token(&token) {
                return Ok(vec![byte]);
            }
        } else if self.byte_level
            && let Some(bytes) = token.chars().map(byte_of_char).collect()
        {
            return Ok(bytes);
        }
        let mut ids = self.before.clone();
        ids.push(id);
        let text = tokenizer.decode(&ids, false)?;
        match text.strip_prefix(&self.before_text) {
            Some(text) => Ok(text.into()),
            None => Ok(tokenizer.decode(&[id], false)?.into()),
        }
    }
}

impl Tokenizer {
    /// Whether [`decode`](Self::decode) leaves a token out if special tokens are skipped.
    pub(crate) fn is_left_out(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        self.id_to_token(id)
            .is_none_or(|token| added.is_special_token(&token))
    }

    /// Whether a token is a byte, as tokenizers with byte fallback write what their vocabulary lacks.
    pub(crate) fn is_byte(&self, id: u32) -> bool {
        self.id_to_token(id)
            .is_some_and(|token| byte_token(&token).is_some())
    }
}

/// `<0x0A>` is the byte 10.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let byte = || u8::from_str_radix(digits, 16).ok();
    (digits.len() == 2).then(byte)?
}

/// The byte that a character of a byte-level vocabulary stands for: printable ones for themselves, the others in order from
/// U+0100 on.
fn byte_of_char(c: char) -> Option<u8> {
    let code = u32::from(c);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// Whether a decoder is of a type or has a part that is.
fn has_type(decoder: &Value, name: &str) -> bool {
    match decoder {
        Value::Object(map) => {
            decoder["type"] == name || map.values().any(|value| has_type(value, name))
        }
        Value::Array(parts) => parts.iter().any(|part| has_type(part, name)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn every_character_of_the_alphabet_is_a_byte() {
        let bytes: BTreeSet<u8> = ByteLevel::alphabet()
            .into_iter()
            .map(|c| byte_of_char(c).expect("of the alphabet"))
            .collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(byte_of_char('Ġ'), Some(b' '));
        assert_eq!(byte_of_char('Ċ'), Some(b'\n'));
        assert_eq!(byte_of_char('▁'), None);
    }

    #[test]
    fn byte_tokens_have_two_digits() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xF>"), None);
        assert_eq!(byte_token("<0xGG>"), None);
        assert_eq!(byte_token("A"), None);
    }
}
