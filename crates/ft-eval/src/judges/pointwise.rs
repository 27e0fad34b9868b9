//! Ratings of single replies by criteria, with the reason before the score.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ChatMessage, ChatModel, Missing, Panel, ask};
use crate::server::in_parallel;

/// A reply to judge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The prompt.
    pub prompt: String,
    /// The reply.
    pub response: String,
    /// A good reply to compare with, if there is one.
    #[serde(default)]
    pub reference: Option<String>,
}

/// The scale of scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// 1 if the criteria are met, otherwise 0. Judges and people agree most easily on this scale.
    Binary,
    /// Whole numbers from 1, the worst, to this number.
    Points(u32),
}

/// A judgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The reason.
    pub reason: String,
    /// The score, on the judge's scale.
    pub score: f64,
}

/// An example of a judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Shot {
    /// The reply.
    pub item: Item,
    /// The right judgement.
    pub verdict: Verdict,
}

/// Criteria, scale and examples for ratings.
#[derive(Clone, Debug, PartialEq)]
pub struct PointJudge {
    /// The criteria, in words.
    pub criteria: String,
    /// The scale of the scores.
    pub scale: Scale,
    /// Examples that illustrate the criteria.
    pub shots: Vec<Shot>,
}

impl PointJudge {
    /// The conversation that requests a judgement. The judge replies to the last message.
    pub fn messages(&self, item: &Item) -> Vec<ChatMessage> {
        let scale = match self.scale {
            Scale::Binary => {
                "\"passes\": true if the response meets the criteria, false if it does not"
                    .to_string()
            }
            Scale::Points(most) => {
                format!("\"score\": a whole number from 1 (worst) to {most} (best)")
            }
        };
        let system = format!(
            "You judge the responses of an assistant. Judge by these criteria and by nothing else, neither by length nor by \
             style:\n\n{}\n\nAnswer with a JSON object: first \"reason\", one to three sentences that weigh the response \
             against the criteria, then {scale}.",
            self.criteria.trim()
        );
        let mut messages = vec![ChatMessage::new("system", system)];
        for shot in &self.shots {
            messages.push(ChatMessage::new("user", shown(&shot.item)));
            messages.push(ChatMessage::new(
                "assistant",
                self.answer(&shot.verdict).to_string(),
            ));
        }
        messages.push(ChatMessage::new("user", shown(item)));
        messages
    }

    fn answer(&self, verdict: &Verdict) -> Value {
        match self.scale {
            Scale::Binary => json!({"reason": verdict.reason, "passes": verdict.score > 0.5}),
            Scale::Points(_) => json!({"reason": verdict.reason, "score": verdict.score}),
        }
    }

    /// The schema of the judge's reply.
    pub fn schema(&self) -> Value {
        let (key, score) = match self.scale {
            Scale::Binary => ("passes", json!({"type": "boolean"})),
            Scale::Points(most) => (
                "score",
                json!({"type": "integer", "minimum": 1, "maximum": most}),
            ),
        };
        // In this order: the reason comes first.
        json!({
            "type": "object",
            "properties": {"reason": {"type": "string"}, key: score},
            "required": ["reason", key],
            "additionalProperties": false,
        })
    }

    fn verdict(&self, reply: &Value) -> Verdict {
        let score = match self.scale {
            Scale::Binary => f64::from(u8::from(reply["passes"] == true)),
            Scale::Points(_) => reply["score"].as_f64().unwrap_or(f64::NAN),
        };
        Verdict {
            reason: reply["reason"].as_str().unwrap_or_default().to_string(),
            score,
        }
    }
}

fn shown(item: &Item) -> String {
    let mut text = format!("<prompt>\n{}\n</prompt>\n", item.prompt);
    if let Some(reference) = &item.reference {
        text.push_str(&format!("<reference>\n{reference}\n</reference>\n"));
    }
    text.push_str(&format!("<response>\n{}\n</response>", item.response));
    text
}

/// A verdict for each item, or the reason why it is missing.
pub fn judge_each(
    model: &dyn ChatModel,
    judge: &PointJudge,
    items: &[Item],
    panel: &Panel,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Vec<Result<Verdict, Missing>> {
    let schema = judge.schema();
    let one = |i: usize| {
        let reply = ask(model, &judge.messages(&items[i]), &schema, panel)?;
        Ok(judge.verdict(&reply))
    };
    in_parallel(items.len(), panel.concurrency, one, progress)
}
