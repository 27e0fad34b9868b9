//! Text to token ids and back, from a Hugging Face folder.
//!
//! The tokenizer itself is the `tokenizers` crate, which transformers uses too. What is added here is
//! what transformers adds: the named special tokens and the chat template of `tokenizer_config.json`
//! (or `chat_template.jinja`), tokens that the configuration has beyond `tokenizer.json`, and the
//! same files written back. Truncation and padding that `tokenizer.json` asks for are not applied,
//! only kept for saving: who encodes decides about both.

mod added_tokens;
pub(crate) mod encoded;
mod files;
mod gguf;
mod pre_tokenizer;
pub(crate) mod token_bytes;
mod word_pieces;
mod words;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

pub(crate) use gguf::{end_tokens, from_gguf};
use serde_json::{Map, Value};
use tokenizers::{PaddingParams, TruncationParams};

use self::words::Words;
use crate::gguf::{GgufFile, Metadata, is_gguf};
use crate::{ChatOptions, ChatTemplate, Error, Message, Result};

/// The special tokens that have names, in the order in which transformers adds missing ones.
const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Token ids and, for each, the bytes of the text that it covers.
pub(crate) type IdsWithOffsets = (Vec<u32>, Vec<(usize, usize)>);

/// A tokenizer with its special tokens and its chat template. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// Tokens of words that were encoded before.
    words: Arc<Option<Words>>,
    truncation: Option<TruncationParams>,
    padding: Option<PaddingParams>,
    /// `tokenizer_config.json` as it was read, without the chat template.
    config: Map<String, Value>,
    /// Names as `eos_token` and their tokens.
    named: Vec<(String, String)>,
    /// Special tokens without a name.
    extra: Vec<String>,
    special_ids: HashSet<u32>,
    templates: Vec<NamedTemplate>,
}

/// A chat template of the folder. One that does not parse is an error only to who uses it.
#[derive(Clone, Debug)]
struct NamedTemplate {
    name: String,
    source: String,
    /// The template, or why it does not parse.
    parsed: std::result::Result<ChatTemplate, String>,
}

impl NamedTemplate {
    fn new(name: &str, source: &str) -> Self {
        Self {
            name: name.to_string(),
            source: source.to_string(),
            parsed: ChatTemplate::new(source).map_err(|error| match error {
                Error::ChatTemplate(reason) => reason,
                other => other.to_string(),
            }),
        }
    }
}

impl Tokenizer {
    /// Reads the tokenizer of a folder, or of a GGUF file.
    ///
    /// `tokenizer.json` is needed. `tokenizer_config.json`, `special_tokens_map.json`,
    /// `added_tokens.json`, `chat_template.jinja` and `additional_chat_templates/` are read where they exist.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or does not parse, or if the files contradict each other about the
    /// id of a token.
    pub fn from_pretrained(folder: &Path) -> Result<Self> {
        match is_gguf(folder) {
            true => gguf::from_gguf(folder, GgufFile::open(folder)?.metadata()),
            false => files::load(folder),
        }
    }

    /// The tokenizer beside an adapter, if there is one, else that of its model. An adapter that was trained with a chat template that
    /// its model lacks comes with a tokenizer that has it.
    ///
    /// # Errors
    ///
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn for_adapter(adapter: &Path, model: &Path) -> Result<Self> {
        let has_own = adapter.join("tokenizer.json").is_file();
        Self::from_pretrained(if has_own { adapter } else { model })
    }

    /// Writes the keys of a GGUF file for this tokenizer and its chat template. A model with more `rows` than tokens gets
    /// tokens that are not used, as llama.cpp wants it.
    ///
    /// # Errors
    ///
    /// If llama.cpp has no such tokenizer, or no name for its rules of splitting texts.
    pub fn write_gguf(&self, rows: usize, metadata: &mut Metadata) -> Result<()> {
        gguf::to_gguf(self, rows, metadata)
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and the chat template, each file whole or not at all.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn save_pretrained(&self, folder: &Path) -> Result<()> {
        files::save(self, folder)
    }

    /// The ids of `text`, with the tokens that the model expects around it (such as `<s>`) if asked for.
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses the text, which happens with vocabularies that lack an unknown token.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        if let Some(words) = self.words(add_special_tokens) {
            let mut ids = Vec::with_capacity(text.len() / 4);
            words.encode(&self.inner, text, |id, _| ids.push(id))?;
            return Ok(ids);
        }
        let encoding = self
            .inner
            .encode_fast(text, add_special_tokens)
            .map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of `text`, and for each the range of bytes of `text` that it comes from.
    ///
    /// A token that was added around the text has an empty range. Byte-level tokenizers may leave a
    /// token's leading space out of its range.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_with_offsets(
        &self,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<IdsWithOffsets> {
        if let Some(words) = self.words(add_special_tokens) {
            let (mut ids, mut offsets) = (Vec::new(), Vec::new());
            words.encode(&self.inner, text, |id, range| {
                ids.push(id);
                offsets.push((range.start, range.end));
            })?;
            // Datasets keep them.
            ids.shrink_to_fit();
            return Ok((ids, offsets));
        }
        let encoding = self
            .inner
            .encode(text, add_special_tokens)
            .map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok((encoding.get_ids().to_vec(), encoding.get_offsets().to_vec()))
    }

    /// The words, if texts are those of their pieces.
    fn words(&self, add_special_tokens: bool) -> Option<&Words> {
        let words = self.words.as_ref().as_ref();
        words.filter(|words| words.has(add_special_tokens))
    }

    /// The text of `ids`; ids that the vocabulary lacks are ignored.
    ///
    /// # Errors
    ///
    /// If the tokenizer's decoder refuses them.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special_tokens)
            .map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// How many tokens there are, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Checks that every token has a row in the embedding of a model with `model_vocab` rows.
    ///
    /// A model may have more rows than the tokenizer has tokens; many are padded so.
    ///
    /// # Errors
    ///
    /// If a token's id is `model_vocab` or more, with both sizes.
    pub fn check_vocab(&self, model_vocab: usize) -> Result<()> {
        let vocab = self.inner.get_vocab(true);
        let unfit = vocab.values().filter(|&&id| id as usize >= model_vocab);
        let unfit = unfit.count();
        match vocab.iter().max_by_key(|&(_, &id)| id) {
            Some((token, id)) if *id as usize >= model_vocab => Err(Error::Tokenizer(format!(
                "it does not belong to this model: of its {} tokens {unfit} have ids beyond the model's \
                 vocabulary of {model_vocab} (the highest is {id}, `{token}`); use the tokenizer that came \
                 with the model, or give the model rows for them with resize_token_embeddings",
                self.vocab_size(),
            ))),
            _ => Ok(()),
        }
    }

    /// Whether both give the same numbers to the same tokens.
    pub fn has_tokens_of(&self, other: &Self) -> bool {
        self.inner.get_vocab(true) == other.inner.get_vocab(true)
    }

    /// The id of a token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, as it stands in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether a token is special: it stands for structure, not for text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special_ids.contains(&id)
    }

    /// The token that begins a text.
    pub fn bos_token(&self) -> Option<&str> {
        self.named("bos_token")
    }

    /// The token that ends a text.
    pub fn eos_token(&self) -> Option<&str> {
        self.named("eos_token")
    }

    /// The token that fills up short rows.
    pub fn pad_token(&self) -> Option<&str> {
        self.named("pad_token")
    }

    /// The token that stands for what the vocabulary lacks.
    pub fn unk_token(&self) -> Option<&str> {
        self.named("unk_token")
    }

    /// The token that a model of masked tokens fills in.
    pub fn mask_token(&self) -> Option<&str> {
        self.named("mask_token")
    }

    /// The id of [`bos_token`](Self::bos_token).
    pub fn bos_token_id(&self) -> Option<u32> {
        self.bos_token().and_then(|token| self.token_to_id(token))
    }

    /// The id of [`eos_token`](Self::eos_token).
    pub fn eos_token_id(&self) -> Option<u32> {
        self.eos_token().and_then(|token| self.token_to_id(token))
    }

    /// The id of [`pad_token`](Self::pad_token).
    pub fn pad_token_id(&self) -> Option<u32> {
        self.pad_token().and_then(|token| self.token_to_id(token))
    }

    /// The id of [`unk_token`](Self::unk_token).
    pub fn unk_token_id(&self) -> Option<u32> {
        self.unk_token().and_then(|token| self.token_to_id(token))
    }

    /// The id of [`mask_token`](Self::mask_token).
    pub fn mask_token_id(&self) -> Option<u32> {
        self.mask_token().and_then(|token| self.token_to_id(token))
    }

    /// A setting of `tokenizer_config.json`.
    pub fn setting(&self, name: &str) -> Option<&Value> {
        self.config.get(name)
    }

    /// Changes a setting of `tokenizer_config.json`.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.config.insert(name.to_string(), value.into());
        self
    }

    /// The special tokens that have names, as pairs like `("bos_token", "<s>")`.
    pub fn special_tokens(&self) -> Vec<(&str, &str)> {
        self.named
            .iter()
            .map(|(name, token)| (name.as_str(), token.as_str()))
            .collect()
    }

    /// The chat template, if there is one and it parses.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        let template = self.template("default")?;
        template.parsed.as_ref().ok()
    }

    /// The template for conversations with tools: one of that name (`tool_use`), else the chat template.
    pub fn tool_template(&self) -> Option<&ChatTemplate> {
        let template = self
            .template("tool_use")
            .or_else(|| self.template("default"))?;
        template.parsed.as_ref().ok()
    }

    /// Replaces the chat template.
    #[must_use]
    pub fn with_chat_template(mut self, template: ChatTemplate) -> Self {
        self.templates = vec![NamedTemplate {
            name: "default".to_string(),
            source: template.source().to_string(),
            parsed: Ok(template),
        }];
        self
    }

    /// Renders a conversation with the chat template and the special tokens of this tokenizer.
    ///
    /// The text holds its special tokens already: encode it with `add_special_tokens` off.
    ///
    /// # Errors
    ///
    /// If there is no template, if it does not parse, or as [`ChatTemplate::render`].
    pub fn apply_chat_template(
        &self,
        messages: &[Message],
        tools: Option<&[Value]>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        self.apply_chat_template_with(
            messages,
            &ChatOptions {
                tools,
                add_generation_prompt,
                ..ChatOptions::default()
            },
        )
    }

    /// As [`apply_chat_template`](Self::apply_chat_template), with arguments of the template and a final message that
    /// is left open.
    ///
    /// # Errors
    ///
    /// As [`apply_chat_template`](Self::apply_chat_template).
    pub fn apply_chat_template_with(
        &self,
        messages: &[Message],
        options: &ChatOptions<'_>,
    ) -> Result<String> {
        let for_tools = options.tools.and_then(|_| self.template("tool_use"));
        let template = match for_tools.or_else(|| self.template("default")) {
            Some(template) => template.parsed.as_ref(),
            None => {
                return Err(Error::ChatTemplate(
                    "the tokenizer has none; use an instruction-tuned model, put a chat_template.jinja \
                     beside tokenizer.json, set one with Tokenizer::with_chat_template, or work on plain text"
                        .to_string(),
                ));
            }
        };
        template
            .map_err(|reason| Error::ChatTemplate(reason.clone()))?
            .render(messages, &self.special_tokens(), options)
    }

    fn named(&self, name: &str) -> Option<&str> {
        let mut named = self.named.iter();
        named
            .find(|(known, _)| known == name)
            .map(|(_, token)| token.as_str())
    }

    fn template(&self, name: &str) -> Option<&NamedTemplate> {
        self.templates.iter().find(|template| template.name == name)
    }
}
