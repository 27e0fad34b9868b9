//! Texts in another language, by a chat model: for retrieval across languages.

use serde_json::{Value, json};

use super::ask::{Missing, Panel, ask};
use super::{ChatMessage, ChatModel};
use crate::server::in_parallel;

/// The system message of a request. `{language}` is replaced by the language.
const INSTRUCTION: &str = "Translate the text of the user into {language}. Keep its meaning, its form (a question stays a question) and its \
    names; add nothing and leave nothing out. Do not answer questions in the text. Answer with a JSON object: {\"translation\": \"...\"}.";

/// Translates texts with a chat model.
///
/// ```no_run
/// use std::path::Path;
///
/// use ft_eval::judges::{CachedModel, OpenAiClient, ServerOptions, Translator};
///
/// let client = OpenAiClient::new("http://localhost:8080/v1", "default", ServerOptions::default())?;
/// let model = CachedModel::open(client, Path::new("translation.replies.jsonl"))?;
/// let found = Translator::new(&model, "German").translate(&["The tower is 330 metres high."], &mut |_, _| ());
/// println!("{:?}", found[0]);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub struct Translator<'a> {
    model: &'a dyn ChatModel,
    language: String,
    /// How the model is asked.
    pub panel: Panel,
    /// The message of the system. `{language}` stands for the language; the reply must be a JSON object with a text `translation`.
    pub instruction: String,
}

impl<'a> Translator<'a> {
    /// Translations into a language, by this model.
    pub fn new(model: &'a dyn ChatModel, language: &str) -> Self {
        Self {
            model,
            language: language.to_string(),
            panel: Panel {
                max_tokens: 2048,
                ..Panel::default()
            },
            instruction: INSTRUCTION.to_string(),
        }
    }

    /// The translation of each text, or why it is missing. `progress` gets the number of texts that are done, and that of all.
    pub fn translate(
        &self,
        texts: &[&str],
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Vec<Result<String, Missing>> {
        let translate = |number: usize| self.of_text(texts[number]);
        in_parallel(texts.len(), self.panel.concurrency, translate, progress)
    }

    fn of_text(&self, text: &str) -> Result<String, Missing> {
        let instruction = self.instruction.replace("{language}", &self.language);
        let messages = [
            ChatMessage::new("system", instruction),
            ChatMessage::new("user", text),
        ];
        let reply = ask(self.model, &messages, &schema(), &self.panel)?;
        match reply["translation"].as_str().map(str::trim) {
            Some(translation) if !translation.is_empty() => Ok(translation.to_string()),
            _ => Err(Missing {
                reason: "the translation is empty".into(),
                attempts: 1,
            }),
        }
    }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"translation": {"type": "string"}},
        "required": ["translation"],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judges::{ChatReply, ChatRequest};

    /// Writes the language before a text; gives nothing for `bad`.
    struct Writer;

    impl ChatModel for Writer {
        fn identity(&self) -> String {
            "writer".into()
        }

        fn chat(&self, request: &ChatRequest) -> crate::Result<ChatReply> {
            let german = request.messages[0].content.contains("into German");
            let text = match (german, request.messages[1].content.as_str()) {
                (true, "bad") => json!({"translation": " "}),
                (true, text) => json!({"translation": format!("auf Deutsch: {text}\n")}),
                (false, _) => json!({}),
            };
            Ok(ChatReply {
                text: text.to_string(),
                reasoning: None,
                finish_reason: None,
                usage: None,
            })
        }
    }

    #[test]
    fn texts_are_translated_in_order_and_gaps_are_reported() {
        let found =
            Translator::new(&Writer, "German").translate(&["one", "bad", "two"], &mut |_, _| ());
        assert_eq!(found[0].as_deref(), Ok("auf Deutsch: one"));
        assert_eq!(found[2].as_deref(), Ok("auf Deutsch: two"));
        let missing = found[1].as_ref().expect_err("empty");
        assert!(missing.reason.contains("empty"), "{missing:?}");
        let other = Translator::new(&Writer, "French").translate(&["one"], &mut |_, _| ());
        assert_eq!(other[0].as_ref().expect_err("no text").attempts, 3);
    }
}
