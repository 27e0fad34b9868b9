//! Two replies compared, in both orders (Zheng et al., 2023, arXiv:2306.05685, section 3.4).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ChatMessage, ChatModel, Missing, Panel, Proportion, ask, proportion};
use crate::server::in_parallel;

/// A pair of replies to compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairItem {
    /// The prompt of both replies.
    pub prompt: String,
    /// Reply A.
    pub response_a: String,
    /// Reply B.
    pub response_b: String,
    /// A good reply to compare with, if there is one.
    #[serde(default)]
    pub reference: Option<String>,
}

/// Which reply is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Preference {
    /// Reply A.
    A,
    /// Reply B.
    B,
    /// Neither.
    #[serde(rename = "tie")]
    Tie,
}

impl Preference {
    /// The preference after the names A and B are swapped.
    fn swapped(self) -> Self {
        match self {
            Preference::A => Preference::B,
            Preference::B => Preference::A,
            Preference::Tie => Preference::Tie,
        }
    }

    /// 1 where A wins, 0 where B does, one half for a tie.
    pub(super) fn points_of_a(self) -> f64 {
        match self {
            Preference::A => 1.0,
            Preference::B => 0.0,
            Preference::Tie => 0.5,
        }
    }
}

/// The verdict of one order, in terms of A and B.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Order {
    /// The better reply.
    pub preference: Preference,
    /// The reason. It calls the replies 1 and 2 in the order in which they were shown.
    pub reason: String,
}

/// Both orders of one pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// With A first.
    pub a_first: Result<Order, Missing>,
    /// With B first.
    pub b_first: Result<Order, Missing>,
}

impl Comparison {
    /// The verdict: the verdict of both orders if they agree, a tie if they contradict each other, `None` if one is missing.
    pub fn verdict(&self) -> Option<Preference> {
        match (&self.a_first, &self.b_first) {
            (Ok(first), Ok(second)) if first.preference == second.preference => {
                Some(first.preference)
            }
            (Ok(_), Ok(_)) => Some(Preference::Tie),
            _ => None,
        }
    }
}

/// Criteria and examples for comparisons.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairJudge {
    /// The criteria, in words.
    pub criteria: String,
    /// Examples: a pair, the better reply, and the reason.
    pub shots: Vec<(PairItem, Order)>,
}

impl PairJudge {
    /// The conversation that requests a comparison, with A first.
    pub fn messages(&self, item: &PairItem) -> Vec<ChatMessage> {
        let system = format!(
            "You compare two responses of assistants to the same prompt. Judge by these criteria and by nothing else, \
             neither by length nor by which comes first:\n\n{}\n\nAnswer with a JSON object: first \"reason\", one to three \
             sentences that weigh both responses against the criteria, then \"winner\": \"1\", \"2\" or \"tie\".",
            self.criteria.trim()
        );
        let mut messages = vec![ChatMessage::new("system", system)];
        for (item, order) in &self.shots {
            let winner = match order.preference {
                Preference::A => "1",
                Preference::B => "2",
                Preference::Tie => "tie",
            };
            let answer = json!({"reason": order.reason, "winner": winner});
            messages.push(ChatMessage::new("user", shown(item)));
            messages.push(ChatMessage::new("assistant", answer.to_string()));
        }
        messages.push(ChatMessage::new("user", shown(item)));
        messages
    }

    /// The schema of the judge's reply.
    pub fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {"reason": {"type": "string"}, "winner": {"enum": ["1", "2", "tie"]}},
            "required": ["reason", "winner"],
            "additionalProperties": false,
        })
    }
}

fn shown(item: &PairItem) -> String {
    let mut text = format!("<prompt>\n{}\n</prompt>\n", item.prompt);
    if let Some(reference) = &item.reference {
        text.push_str(&format!("<reference>\n{reference}\n</reference>\n"));
    }
    let (a, b) = (&item.response_a, &item.response_b);
    text.push_str(&format!(
        "<response_1>\n{a}\n</response_1>\n<response_2>\n{b}\n</response_2>"
    ));
    text
}

/// Compares every pair in both orders.
pub fn judge_pairs(
    model: &dyn ChatModel,
    judge: &PairJudge,
    items: &[PairItem],
    panel: &Panel,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Vec<Comparison> {
    let schema = PairJudge::schema();
    let one = |i: usize| {
        let (item, swapped) = (&items[i / 2], i % 2 == 1);
        let shown = match swapped {
            false => item.clone(),
            true => PairItem {
                response_a: item.response_b.clone(),
                response_b: item.response_a.clone(),
                ..item.clone()
            },
        };
        let reply = ask(model, &judge.messages(&shown), &schema, panel)?;
        let preference = match reply["winner"].as_str() {
            Some("1") => Preference::A,
            Some("2") => Preference::B,
            _ => Preference::Tie,
        };
        Ok(Order {
            preference: if swapped {
                preference.swapped()
            } else {
                preference
            },
            reason: reply["reason"].as_str().unwrap_or_default().to_string(),
        })
    };
    let mut orders = in_parallel(2 * items.len(), panel.concurrency, one, progress).into_iter();
    let mut comparisons = Vec::with_capacity(items.len());
    while let (Some(a_first), Some(b_first)) = (orders.next(), orders.next()) {
        comparisons.push(Comparison { a_first, b_first });
    }
    comparisons
}

/// The numbers of wins, and the win rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WinRate {
    /// A is better.
    pub wins: usize,
    /// B is better.
    pub losses: usize,
    /// Neither is better, or the orders contradict each other.
    pub ties: usize,
    /// There is no verdict; not counted in the rate.
    pub missing: usize,
    /// The share of wins among the verdicts; a tie counts one half.
    pub rate: Proportion,
}

/// The win rate of A.
pub fn win_rate(comparisons: &[Comparison]) -> WinRate {
    let count = |wanted| {
        let verdicts = comparisons.iter().map(Comparison::verdict);
        verdicts.filter(|verdict| *verdict == wanted).count()
    };
    let [wins, losses, ties] =
        [Preference::A, Preference::B, Preference::Tie].map(|wanted| count(Some(wanted)));
    WinRate {
        wins,
        losses,
        ties,
        missing: count(None),
        rate: proportion(wins as f64 + ties as f64 / 2.0, wins + losses + ties),
    }
}
