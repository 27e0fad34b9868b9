//! Questions about texts by a chat model: a retrieval benchmark, or pairs to train on, from one's own documents.
//!
//! A question belongs to the text that it was asked about, which is then its relevant document (Bonifacio et al., 2022,
//! arXiv:2202.05144). Other texts may answer it, too, so measures are lower bounds.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::ask::{Missing, Panel, ask};
use super::{ChatMessage, ChatModel};
use crate::random::mix_seed;
use crate::server::in_parallel;
use crate::{Error, Result};

/// What the model is asked; `{count}` stands for the number of questions.
const INSTRUCTION: &str = "Read the text of the user. Write {count} different questions that it answers, as somebody would \
    type them into a search field who has never seen the text. Each question must be clear without the text: name what it is about, and \
    do not speak of \"the text\" or \"the author\". Use other words than the text where you can, and its language. Answer with a JSON \
    object: {\"questions\": [\"...\"]}.";

/// Asks a chat model for questions about texts.
///
/// ```no_run
/// use std::path::Path;
///
/// use ft_eval::judges::{CachedModel, OpenAiClient, ServerOptions, QuestionWriter};
///
/// let client = OpenAiClient::new("http://localhost:8080/v1", "default", ServerOptions::default())?;
/// // Replies are stored, so that an interrupted run asks for none twice.
/// let model = CachedModel::open(client, Path::new("questions.replies.jsonl"))?;
/// let found = QuestionWriter::new(&model).write(&["The tower is 330 metres high."], &mut |_, _| ())?;
/// for question in &found.questions {
///     println!("{} {}", question.text, question.question);
/// }
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub struct QuestionWriter<'a> {
    model: &'a dyn ChatModel,
    /// How the model is asked. Replies are sampled if the temperature is above 0.
    pub panel: Panel,
    /// How many questions are asked about a text.
    pub per_text: usize,
    /// The message of the system. `{count}` stands for the number of questions; the reply must be a JSON object with a list
    /// `questions`.
    pub instruction: String,
}

/// A question about a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrittenQuestion {
    /// The number of the text.
    pub text: usize,
    /// The question.
    pub question: String,
}

/// Questions about texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WrittenQuestions {
    /// The questions in the order of their texts.
    pub questions: Vec<WrittenQuestion>,
    /// Texts without questions, and why.
    pub missing: Vec<(usize, Missing)>,
    /// How many questions were left out because an earlier one has the same words.
    pub repeated: usize,
}

impl<'a> QuestionWriter<'a> {
    /// Two questions about each text, by this model.
    pub fn new(model: &'a dyn ChatModel) -> Self {
        Self {
            model,
            panel: Panel {
                temperature: 0.7,
                ..Panel::default()
            },
            per_text: 2,
            instruction: INSTRUCTION.to_string(),
        }
    }

    /// Questions about texts. `progress` gets the number of texts that are done, and that of all. A text whose questions cannot be
    /// had does not stop the others.
    ///
    /// # Errors
    ///
    /// If no text gets a question, with the first reason, or the number of questions is 0.
    pub fn write(
        &self,
        texts: &[&str],
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<WrittenQuestions> {
        if self.per_text == 0 {
            return Err(Error::Settings(
                "0 questions a text make no benchmark: ask for 1 or more".into(),
            ));
        }
        let threads = self.panel.concurrency;
        let replies = in_parallel(
            texts.len(),
            threads,
            |i| self.of_text(texts[i], i),
            progress,
        );
        let mut found = WrittenQuestions::default();
        let mut known = HashSet::new();
        for (text, reply) in replies.into_iter().enumerate() {
            match reply {
                Err(missing) => found.missing.push((text, missing)),
                Ok(questions) => {
                    for question in questions {
                        match known.insert(question.to_lowercase()) {
                            true => found.questions.push(WrittenQuestion { text, question }),
                            false => found.repeated += 1,
                        }
                    }
                }
            }
        }
        match (found.questions.is_empty(), found.missing.first()) {
            (true, Some((text, missing))) => Err(Error::Input(format!(
                "no text has a question; the first reason, of text {}: {}",
                text + 1,
                missing.reason
            ))),
            (true, None) => Err(Error::Input("there are no texts to ask about".into())),
            (false, _) => Ok(found),
        }
    }

    fn of_text(&self, text: &str, number: usize) -> Result<Vec<String>, Missing> {
        let instruction = self
            .instruction
            .replace("{count}", &self.per_text.to_string());
        let messages = [
            ChatMessage::new("system", instruction),
            ChatMessage::new("user", text),
        ];
        let panel = Panel {
            seed: mix_seed(self.panel.seed, number as u64),
            ..self.panel
        };
        let reply = ask(self.model, &messages, &schema(), &panel)?;
        let questions = reply["questions"].as_array().into_iter().flatten();
        let questions = questions.filter_map(Value::as_str).map(str::trim);
        let questions: Vec<String> = questions
            .filter(|question| !question.is_empty())
            .take(self.per_text)
            .map(str::to_string)
            .collect();
        match questions.is_empty() {
            true => Err(Missing {
                reason: "the reply has no question".into(),
                attempts: 1,
            }),
            false => Ok(questions),
        }
    }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"questions": {"type": "array", "items": {"type": "string"}}},
        "required": ["questions"],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::judges::{CachedModel, ChatReply, ChatRequest};

    /// Asks about the first word of a text; gives nothing for texts that begin with `bad`, and fails after so many replies.
    struct Writer {
        replies: AtomicUsize,
        most: usize,
    }

    impl ChatModel for Writer {
        fn identity(&self) -> String {
            "writer".into()
        }

        fn chat(&self, request: &ChatRequest) -> Result<ChatReply> {
            if self.replies.fetch_add(1, Ordering::Relaxed) >= self.most {
                return Err(Error::Input("the server is gone".into()));
            }
            let text = &request.messages[1].content;
            let word = text.split(' ').next().unwrap_or("");
            let text = match word {
                "bad" => "no JSON".to_string(),
                _ => json!({"questions": [format!("What is {word}?"), "Why?", "left out"]})
                    .to_string(),
            };
            Ok(ChatReply {
                text,
                reasoning: None,
                finish_reason: None,
                usage: None,
            })
        }
    }

    fn writer(most: usize) -> Writer {
        Writer {
            replies: AtomicUsize::new(0),
            most,
        }
    }

    #[test]
    fn questions_belong_to_their_texts_and_none_is_asked_twice() {
        let model = writer(100);
        let texts = ["iron is a metal", "bad text", "gold is one too"];
        let found = QuestionWriter::new(&model)
            .write(&texts, &mut |_, _| ())
            .expect("questions");
        let questions: Vec<(usize, &str)> = (found.questions.iter())
            .map(|own| (own.text, own.question.as_str()))
            .collect();
        assert_eq!(
            questions,
            [(0, "What is iron?"), (0, "Why?"), (2, "What is gold?")]
        );
        assert_eq!(found.repeated, 1);
        assert_eq!(found.missing[0].0, 1);
        assert_eq!(found.missing[0].1.attempts, 3);
        let none = QuestionWriter::new(&model).write(&["bad"], &mut |_, _| ());
        assert!(none.expect_err("none").to_string().contains("no JSON"));
    }

    #[test]
    fn an_interrupted_run_asks_for_no_question_twice() {
        let folder = tempfile::TempDir::new().expect("folder");
        let store = folder.path().join("replies.jsonl");
        let texts: Vec<String> = (0..6).map(|i| format!("word{i} is here")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let run = |most| {
            let model = CachedModel::open(writer(most), &store).expect("opens");
            let found = QuestionWriter::new(&model).write(&texts, &mut |_, _| ());
            (found.expect("some"), model.spent())
        };
        let (first, spent) = run(4);
        assert_eq!((first.missing.len(), spent.replies), (2, 4));
        let (second, spent) = run(100);
        assert_eq!(
            (second.missing.len(), spent.replies, spent.cached),
            (0, 2, 4)
        );
        assert_eq!(second.questions.len(), 7);
    }
}
