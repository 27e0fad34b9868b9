//! Words whose tokens are known, since most words of a text were in texts before: the tokenizer is asked for new ones only.
//!
//! A text is cut before a space, and behind a line break, that stands alone between two visible characters. The rules of splitting
//! that are supported here (see [`pre_tokenizer`]) always end a token there, and look no further than to the next character for
//! the one before, so the tokens of a text are those of its pieces. A tokenizer with other rules, or with added tokens that such a cut
//! would divide, has no words.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::RwLock;

use serde_json::Value;
use tokenizers::models::ModelWrapper;

use super::pre_tokenizer;
use crate::{Error, Result};

/// Longer pieces are not kept: they seldom come again.
const LONGEST: usize = 64;
/// Words that are kept in each part, of about 100 bytes each, 600 at most.
const WORDS: usize = 8192;
/// Parts, each of which one thread writes to at a time.
const PARTS: usize = 16;

/// The tokens of words.
pub(super) struct Words {
    parts: [RwLock<Part>; PARTS],
    hasher: RandomState,
    /// Whether nothing is added around a text.
    plain: bool,
}

type Part = HashMap<Box<str>, Box<[Token]>>;

/// A token, and the bytes of its word that it covers.
#[derive(Clone, Copy, Debug)]
struct Token {
    id: u32,
    start: u8,
    end: u8,
}

impl fmt::Debug for Words {
    /// How many there are: they are parts of somebody's texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |part: &RwLock<Part>| part.read().map_or(0, |part| part.len());
        let count: usize = self.parts.iter().map(count).sum();
        f.debug_struct("Words")
            .field("count", &count)
            .finish_non_exhaustive()
    }
}

impl Words {
    /// No words yet; none if the tokens of a text are not those of its pieces.
    pub(super) fn new(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let json = |part: serde_json::Result<Value>| part.unwrap_or(Value::Bool(false));
        let rules = json(serde_json::to_value(tokenizer.get_pre_tokenizer()));
        let mut known = pre_tokenizer::all().into_iter();
        let splits = known.any(|known| pre_tokenizer::same(&known.rules, &rules));
        let normalizer = json(serde_json::to_value(tokenizer.get_normalizer()));
        let normalizes = normalizer.is_null() || normalizer["type"] == "NFC";
        let processor = json(serde_json::to_value(tokenizer.get_post_processor()));
        let added = tokenizer.get_added_tokens_decoder();
        let whole = added.values().all(|token| {
            let around = format!("a{}a", token.content);
            let inside = 2..around.len() - 1;
            let cut = pieces(&around).any(|piece| inside.contains(&piece.start));
            // Such a token is looked for in another form, which a cut may divide.
            let other_form = token.normalized && !normalizer.is_null() && !token.content.is_ascii();
            !(token.lstrip || token.rstrip || token.single_word || cut || other_form)
        });
        let model = match tokenizer.get_model() {
            ModelWrapper::BPE(model) => model.dropout.is_none_or(|share| share == 0.0),
            _ => false,
        };
        let plain = tokenizer.encode("", true).is_ok_and(|none| none.is_empty());
        (splits && normalizes && whole && model && moves_offsets_alike(&processor)).then(|| Self {
            parts: Default::default(),
            hasher: RandomState::new(),
            plain,
        })
    }

    /// Whether the tokens of a text are those of its pieces also with the tokens around it.
    pub(super) fn has(&self, add_special_tokens: bool) -> bool {
        self.plain || !add_special_tokens
    }

    /// Calls `each` with the tokens of a text and the bytes that they cover.
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses a piece.
    pub(super) fn encode(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        text: &str,
        mut each: impl FnMut(u32, Range<usize>),
    ) -> Result<()> {
        for range in pieces(text) {
            let (piece, first) = (&text[range.clone()], range.start);
            let part = (piece.len() <= LONGEST).then(|| {
                let hash = self.hasher.hash_one(piece) as usize;
                &self.parts[hash % PARTS]
            });
            let mut room = false;
            if let Some(part) = part {
                let known = part.read().expect("no thread panics here");
                if let Some(tokens) = known.get(piece) {
                    for token in tokens {
                        each(
                            token.id,
                            first + usize::from(token.start)..first + usize::from(token.end),
                        );
                    }
                    continue;
                }
                room = known.len() < WORDS;
            }
            let encoding = (tokenizer.encode(piece, false))
                .map_err(|error| Error::Tokenizer(error.to_string()))?;
            let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
            for (&id, &(start, end)) in tokens.clone() {
                each(id, first + start..first + end);
            }
            if let Some(part) = part.filter(|_| room) {
                let small = |place: usize| u8::try_from(place).expect("a short piece");
                let tokens = tokens.map(|(&id, &(start, end))| Token {
                    id,
                    start: small(start),
                    end: small(end),
                });
                let tokens = tokens.collect();
                let mut part = part.write().expect("no thread panics here");
                part.insert(piece.into(), tokens);
            }
        }
        Ok(())
    }
}

/// Whether offsets behind the first of a text change as the first do.
fn moves_offsets_alike(processor: &Value) -> bool {
    match processor["type"].as_str() {
        None => processor.is_null(),
        Some("TemplateProcessing") => true,
        Some("ByteLevel") => {
            processor["trim_offsets"] == false || processor["add_prefix_space"] == false
        }
        Some("Sequence") => (processor["processors"].as_array())
            .is_some_and(|steps| steps.iter().all(moves_offsets_alike)),
        Some(_) => false,
    }
}

/// The pieces of a text, which are encoded alone.
fn pieces(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let bytes = text.as_bytes();
    let cuts = bytes.iter().enumerate().filter_map(move |(place, byte)| {
        let lone = matches!(byte, b' ' | b'\n')
            && is_visible(text[..place].chars().next_back())
            && is_visible(text[place + 1..].chars().next());
        lone.then(|| place + usize::from(*byte == b'\n'))
    });
    let mut start = 0;
    let ends = cuts.chain((!text.is_empty()).then_some(text.len()));
    ends.map(move |end| std::mem::replace(&mut start, end)..end)
}

/// Whether a character is certainly no space for any rule. A mark counts as visible: it composes with no space and no line break.
fn is_visible(character: Option<char>) -> bool {
    character.is_some_and(|c| c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn pieces_begin_with_a_lone_space_or_behind_a_lone_line_break() {
        let of = |text: &str| -> Vec<String> {
            pieces(text).map(|range| text[range].to_string()).collect()
        };
        assert_eq!(of(""), [""; 0]);
        assert_eq!(
            of("a b\nc  d \ne\n\nf g "),
            ["a", " b\n", "c  d \ne\n\nf", " g "]
        );
        assert_eq!(
            of(" über\u{a0}x 'tis\r\ny — z"),
            [" über\u{a0}x", " 'tis\r\ny — z"]
        );
    }

    /// Random texts of difficult characters, by all rules: the tokenizer's own ids and offsets.
    #[test]
    fn tokens_of_pieces_are_those_of_the_text() {
        let alphabet = [
            " ", " ", " ", "\n", "\r", "\t", "a", "b", "ab", "Z", "1", "2", "12", ".", ",", "'",
            "'s", "'LL", "-", "<|x|>", "é", "e\u{301}", "\u{301}", "中", "\u{a0}", "\u{200b}",
            "नि", "ि", "😀", "²", "ⅷ", "\u{85}", "ß", "_",
        ];
        let mut state = 1u64;
        let mut random = move |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for rules in pre_tokenizer::all() {
            let tokenizer = byte_level(
                &rules.rules,
                &rules.normalizer,
                json!([added("<|x|>", false)]),
            );
            let words = Words::new(&tokenizer).expect("rules of the table");
            let mut cuts = 0;
            for _ in 0..4000 {
                let text: String = (0..random(24))
                    .map(|_| alphabet[random(alphabet.len())])
                    .collect();
                cuts += pieces(&text).count().saturating_sub(1);
                let (mut ids, mut offsets) = (Vec::new(), Vec::new());
                let each = |id, range: Range<usize>| {
                    ids.push(id);
                    offsets.push((range.start, range.end));
                };
                words.encode(&tokenizer, &text, each).expect("encodes");
                let expected = tokenizer.encode(text.as_str(), false).expect("encodes");
                assert_eq!(ids, expected.get_ids(), "{text:?} {}", rules.names[0]);
                assert_eq!(
                    offsets,
                    expected.get_offsets(),
                    "{text:?} {}",
                    rules.names[0]
                );
            }
            assert!(cuts > 1000, "{cuts}");
        }
    }

    #[test]
    fn tokenizers_whose_pieces_are_not_texts_have_no_words() {
        let gpt2 = &pre_tokenizer::all()[0].rules;
        let has = |tokenizer: tokenizers::Tokenizer| Words::new(&tokenizer).is_some();
        let of = |token: Value| has(byte_level(gpt2, &Value::Null, json!([token])));
        assert!(of(added("<|x|>", false)));
        assert!(of(added("   ", false)));
        assert!(!of(added("x y", false)));
        assert!(!of(added("x\ny", false)));
        assert!(!of(added("<mask>", true)));
        // NFC makes one character of two, which is then visible.
        let decomposed = |normalized: bool| {
            let mut token = added("e\u{301} b", false);
            token["normalized"] = normalized.into();
            byte_level(gpt2, &json!({"type": "NFC"}), json!([token]))
        };
        assert!(has(decomposed(false)) && !has(decomposed(true)));
        let prefix = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        assert!(!has(byte_level(&prefix, &Value::Null, json!([]))));
        assert!(!has(byte_level(
            gpt2,
            &json!({"type": "Lowercase"}),
            json!([])
        )));
    }

    fn added(content: &str, lstrip: bool) -> Value {
        json!({
            "id": 300, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": false, "normalized": false,
            "special": true,
        })
    }

    /// All bytes, and some merges.
    fn byte_level(rules: &Value, normalizer: &Value, added: Value) -> tokenizers::Tokenizer {
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let merges = [
            ["a", "b"],
            ["Ġ", "a"],
            ["Ġ", "ab"],
            ["Ġ", "Ġ"],
            ["Ċ", "Ċ"],
            [".", "Ċ"],
            ["1", "2"],
            ["Ġ", "1"],
            ["'", "s"],
            ["Ġ", "'"],
            ["Ġ", "."],
            ["Ã", "©"],
        ];
        let tokens = (alphabet.iter().map(char::to_string)).chain(merges.map(|pair| pair.concat()));
        let vocab: serde_json::Map<String, Value> = tokens
            .enumerate()
            .map(|(id, token)| (token, id.into()))
            .collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": rules, "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
            "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "model": {"type": "BPE", "vocab": vocab, "merges": merges.map(|pair| pair.join(" ")), "dropout": null,
                "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false},
        });
        tokenizers::Tokenizer::from_bytes(tokenizer.to_string()).expect("a tokenizer")
    }
}
