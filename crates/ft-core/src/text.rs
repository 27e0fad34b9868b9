//! From text to token ids and back.

pub(crate) mod chat_template;
pub(crate) mod tokenizer;
