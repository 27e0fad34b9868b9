//! Factuality of texts: decompose, verify, aggregate.
//!
//! A model splits the text into claims that can be checked one by one (Min et al., 2023, FActScore, arXiv:2305.14251). Each is
//! checked against a context, or against passages that a [`Retriever`] finds for it (as Wei et al., 2024, SAFE,
//! arXiv:2403.18802, do with a search engine): supported, contradicted, or not enough to tell. A claim counts as
//! supported or contradicted only if the model's quote occurs in the evidence.

mod bm25;
mod report;

use serde::Serialize;
use serde_json::{Value, json};

use crate::judges::{ChatMessage, ChatModel, Missing, Panel, ask};
use crate::server::in_parallel;

pub use bm25::Bm25;
pub use report::FactualityReport;

/// Finds passages that are relevant for a claim.
pub trait Retriever: Sync {
    /// At most `count` passages, the best first.
    fn retrieve(&self, claim: &str, count: usize) -> Vec<String>;
}

/// The evidence for claims.
#[derive(Clone, Copy)]
pub enum Evidence<'a> {
    /// This text.
    Context(&'a str),
    /// The passages found for each claim, at most this many.
    Retrieved(&'a dyn Retriever, usize),
}

/// The result for a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The evidence supports the claim.
    Supported,
    /// The evidence contradicts the claim.
    Contradicted,
    /// The evidence does not decide, or the quote is not in it.
    Unverified,
}

/// A claim and its finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// A sentence that can be understood without the text.
    pub text: String,
    /// The importance, from 1 to 3.
    pub weight: f64,
    /// The finding, or the reason why there is none.
    pub finding: Result<Finding, Missing>,
    /// The quote from the evidence, if it occurs there.
    pub quote: Option<String>,
    /// The reason, in the model's words.
    pub reason: String,
}

/// Splits a text into claims and verifies each.
///
/// # Errors
///
/// If the model cannot split the text. A claim without a finding is not an error; it is part of the report.
pub fn check_facts(
    model: &dyn ChatModel,
    text: &str,
    evidence: Evidence<'_>,
    panel: &Panel,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<FactualityReport, Missing> {
    let claims = decompose(model, text, panel)?;
    let verify = |i: usize| {
        let (text, weight) = &claims[i];
        verify(model, text, *weight, evidence, panel)
    };
    let claims = in_parallel(claims.len(), panel.concurrency, verify, progress);
    Ok(FactualityReport::new(claims))
}

/// The claims of a text with their weights.
///
/// # Errors
///
/// If no reply of the model is valid.
pub fn decompose(
    model: &dyn ChatModel,
    text: &str,
    panel: &Panel,
) -> Result<Vec<(String, f64)>, Missing> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let system = "Split the text into claims of fact, each a short sentence that can be checked by itself: one fact only, with names instead \
        of pronouns. Leave out opinions, questions and advice. Do not add anything that the text does not say, and do not correct it. Answer with \
        a JSON object: \"claims\", a list of objects with \"claim\" and \"importance\", from 1 (a detail) to 3 (what the text is about).";
    let schema = json!({
        "type": "object",
        "properties": {"claims": {"type": "array", "items": {
            "type": "object",
            "properties": {"claim": {"type": "string"}, "importance": {"type": "integer", "minimum": 1, "maximum": 3}},
            "required": ["claim", "importance"],
            "additionalProperties": false,
        }}},
        "required": ["claims"],
        "additionalProperties": false,
    });
    let messages = [
        ChatMessage::new("system", system),
        ChatMessage::new("user", format!("<text>\n{text}\n</text>")),
    ];
    let reply = ask(model, &messages, &schema, panel)?;
    let mut claims: Vec<(String, f64)> = Vec::new();
    for claim in reply["claims"].as_array().into_iter().flatten() {
        let text = claim["claim"].as_str().unwrap_or_default().trim();
        // Equal claims are one claim.
        if !text.is_empty() && claims.iter().all(|(known, _)| known != text) {
            claims.push((
                text.to_string(),
                claim["importance"].as_f64().unwrap_or(1.0),
            ));
        }
    }
    Ok(claims)
}

fn verify(
    model: &dyn ChatModel,
    claim: &str,
    weight: f64,
    evidence: Evidence<'_>,
    panel: &Panel,
) -> Claim {
    let passages = match evidence {
        Evidence::Context(context) => vec![context.to_string()],
        Evidence::Retrieved(retriever, count) => retriever.retrieve(claim, count),
    };
    let mut found = Claim {
        text: claim.to_string(),
        weight,
        finding: Ok(Finding::Unverified),
        quote: None,
        reason: String::new(),
    };
    let given = passages.join("\n\n");
    if given.trim().is_empty() {
        found.reason = "no passage was found for the claim".to_string();
        return found;
    }
    let system = "Check a claim against the evidence, and against nothing that you know besides. Answer with a JSON object: first \
        \"quote\", the words of the evidence that decide, copied exactly, or an empty text if there are none; then \"reason\", one sentence; then \
        \"verdict\": \"supported\", \"contradicted\" or \"not enough\".";
    let schema = json!({
        "type": "object",
        "properties": {"quote": {"type": "string"}, "reason": {"type": "string"},
            "verdict": {"enum": ["supported", "contradicted", "not enough"]}},
        "required": ["quote", "reason", "verdict"],
        "additionalProperties": false,
    });
    let text = format!("<evidence>\n{given}\n</evidence>\n<claim>\n{claim}\n</claim>");
    let messages = [
        ChatMessage::new("system", system),
        ChatMessage::new("user", text),
    ];
    match ask(model, &messages, &schema, panel) {
        Ok(reply) => settle(&mut found, &reply, &given),
        Err(missing) => found.finding = Err(missing),
    }
    found
}

/// Stores a verdict if its quote occurs in the evidence.
fn settle(claim: &mut Claim, reply: &Value, given: &str) {
    claim.reason = reply["reason"].as_str().unwrap_or_default().to_string();
    let quote = reply["quote"].as_str().unwrap_or_default().trim();
    let finding = match reply["verdict"].as_str() {
        Some("supported") => Finding::Supported,
        Some("contradicted") => Finding::Contradicted,
        _ => return,
    };
    if stands_in(quote, given) {
        claim.quote = Some(quote.to_string());
        claim.finding = Ok(finding);
    } else {
        claim.reason = format!(
            "the quote is not in the evidence: {quote:?} ({})",
            claim.reason
        );
    }
}

/// Whether a quote is in a text. White space, case, and quotation marks and full stops around the quote are ignored.
fn stands_in(quote: &str, text: &str) -> bool {
    let plain = |text: &str| {
        let lower = text.to_lowercase().replace(['\u{2018}', '\u{2019}'], "'");
        lower.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let around = |c: char| {
        c.is_whitespace() || matches!(c, '"' | '\u{201c}' | '\u{201d}' | '\'' | '.' | '\u{2026}')
    };
    let quote = plain(quote.trim_matches(around));
    !quote.is_empty() && plain(text).contains(&quote)
}

#[cfg(test)]
mod tests {
    use super::stands_in;

    #[test]
    fn quotes_have_to_occur_in_the_evidence() {
        let text = "The tower, built in\n1889, is 330 m high. It’s in Paris.";
        for quote in [
            "built in 1889",
            "\u{201c}is 330 m high.\u{201d}",
            "it's in paris",
            "The Tower,",
        ] {
            assert!(stands_in(quote, text), "{quote}");
        }
        for quote in ["", "...", "built in 1890", "is 300 m high"] {
            assert!(!stands_in(quote, text), "{quote}");
        }
    }
}
