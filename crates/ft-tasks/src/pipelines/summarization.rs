//! Summaries by chat models.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use ft_core::{Message, Streamed};
use serde::Serialize;

use super::TextGeneration;
use crate::Result;

/// The request to the model; the text follows.
const REQUEST: &str =
    "Summarize the following text in a few sentences. Answer with the summary only.\n\n";

/// A summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The text.
    pub summary_text: String,
}

/// Summaries, by a chat model. The JSON is that of transformers 4, whose models were trained for summaries alone.
#[derive(Debug)]
pub struct Summarization {
    chat: TextGeneration,
    request: String,
}

impl Summarization {
    /// Loads the folder or the GGUF file of a chat model.
    ///
    /// # Errors
    ///
    /// As [`TextGeneration::from_pretrained`].
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        TextGeneration::from_pretrained(folder, device).map(Self::new)
    }

    /// Summaries by this model.
    pub fn new(chat: TextGeneration) -> Self {
        Self {
            chat,
            request: REQUEST.to_string(),
        }
    }

    /// Asks with other words, which come before the text.
    #[must_use]
    pub fn with_request(self, request: &str) -> Self {
        Self {
            request: request.to_string(),
            ..self
        }
    }

    /// The summaries of texts. `listen` gets every token as it comes.
    ///
    /// # Errors
    ///
    /// As [`TextGeneration::chat`].
    pub fn summarize(
        &self,
        texts: &[&str],
        listen: &mut dyn FnMut(Streamed<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Summary>> {
        let ask = |text: &&str| vec![Message::new("user", format!("{}{text}", self.request))];
        let conversations: Vec<Vec<Message>> = texts.iter().map(ask).collect();
        let answers = self.chat.chat(&conversations, listen)?;
        Ok(answers
            .into_iter()
            .map(|summary_text| Summary { summary_text })
            .collect())
    }
}
