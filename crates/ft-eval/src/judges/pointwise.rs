//! Single replies rated against criteria, the reason before the score.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ChatMessage, ChatModel, Missing, Panel, ask, in_parallel};

/// What is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What the model was asked.
    pub prompt: String,
    /// What it answered.
    pub response: String,
    /// A good answer, to compare with.
    #[serde(default)]
    pub reference: Option<String>,
}

/// Which scores there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// 1: the criteria are met; 0: they are not. The easiest to agree on.
    Binary,
    /// From 1, the worst, to this.
    Points(u32),
}

/// A judgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Why, which was said before the score.
    pub reason: String,
    /// On the judge's scale.
    pub score: f64,
}

/// An example of a judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Shot {
    /// What was judged.
    pub item: Item,
    /// The right judgement.
    pub verdict: Verdict,
}

/// What single replies are judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct PointJudge {
    /// What makes a reply good, in words.
    pub criteria: String,
    /// Which scores there are.
    pub scale: Scale,
    /// Examples, which show what the criteria mean.
    pub shots: Vec<Shot>,
}

impl PointJudge {
    /// The conversation that asks for a judgement; the last message is the judge's turn.
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

/// A verdict for each item, or why there is none.
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
