//! Claims are extracted, weighted and checked against evidence.

use ft_eval::factuality::{Bm25, Evidence, Finding, check_facts};
use ft_eval::judges::Panel;
use serde_json::{Value, json};

use super::mock_server::between;
use super::rules::Rules;

/// Splits at full stops, and supports claims that occur literally in the evidence. For heights it invents a quote.
fn reader(shown: &str) -> Value {
    if !shown.contains("<claim>") {
        let claims = between(shown, "<text>", "</text>")
            .split('.')
            .filter(|claim| !claim.trim().is_empty());
        let claims = claims.map(|claim| json!({"claim": claim.trim(), "importance": if claim.contains("Paris") { 3 } else { 1 }}));
        return json!({"claims": claims.collect::<Vec<_>>()});
    }
    let (evidence, claim) = (
        between(shown, "<evidence>", "</evidence>"),
        between(shown, "<claim>", "</claim>"),
    );
    let (quote, verdict) = match claim {
        claim if claim.contains("high") => ("it is 999 m high", "supported"),
        claim if evidence.contains(claim) => (claim, "supported"),
        claim if claim.contains("1890") => ("built in 1889", "contradicted"),
        _ => ("", "not enough"),
    };
    json!({"quote": quote, "reason": "r", "verdict": verdict})
}

const CONTEXT: &str = "The tower is in Paris. It was built in 1889 by Eiffel.";
const TEXT: &str =
    "The tower is in Paris. The tower was built in 1890. It is 999 m high. It sleeps. It sleeps.";

#[test]
fn claims_are_checked_against_a_context() {
    let panel = Panel::default();
    let report = check_facts(
        &Rules(reader),
        TEXT,
        Evidence::Context(CONTEXT),
        &panel,
        &mut |_, _| (),
    )
    .unwrap();
    let findings: Vec<Finding> = report
        .claims
        .iter()
        .map(|claim| claim.finding.clone().unwrap())
        .collect();
    assert_eq!(
        findings,
        [
            Finding::Supported,
            Finding::Contradicted,
            Finding::Unverified,
            Finding::Unverified
        ]
    );
    // One claim of weight 3 out of a weight of 6; one of four.
    assert_eq!((report.score, report.plain_score), (Some(0.5), Some(0.25)));
    assert!(report.claims[2].reason.contains("not in the evidence"));
    let markdown = report.to_markdown();
    assert!(
        markdown.contains("| The tower is in Paris | 3 | supported | The tower is in Paris | r |"),
        "{markdown}"
    );
    let nothing = check_facts(
        &Rules(reader),
        " ",
        Evidence::Context(CONTEXT),
        &panel,
        &mut |_, _| (),
    )
    .unwrap();
    assert_eq!((nothing.score, nothing.claims.len()), (None, 0));
}

#[test]
fn claims_are_checked_against_passages_that_are_found() {
    let passages = ["Cats sleep a lot", "The tower is in Paris", "Rome is old"].map(str::to_string);
    let index = Bm25::new(passages.to_vec());
    let text = "The tower is in Paris. Mars weeps.";
    let report = check_facts(
        &Rules(reader),
        text,
        Evidence::Retrieved(&index, 1),
        &Panel::default(),
        &mut |_, _| (),
    )
    .unwrap();
    assert_eq!((report.supported, report.unverified), (1, 1));
    assert!(report.claims[1].reason.contains("no passage was found"));
}

#[test]
fn a_failure_to_split_is_an_error_and_a_failure_to_verify_gives_no_finding() {
    let panel = Panel {
        attempts: 2,
        ..Panel::default()
    };
    let missing = check_facts(
        &Rules(|_: &str| json!("what?")),
        TEXT,
        Evidence::Context(CONTEXT),
        &panel,
        &mut |_, _| (),
    )
    .unwrap_err();
    assert_eq!(missing.attempts, 2);
    let half = |shown: &str| {
        if shown.contains("<text>") {
            reader(shown)
        } else {
            json!({"verdict": "yes"})
        }
    };
    let report = check_facts(
        &Rules(half),
        TEXT,
        Evidence::Context(CONTEXT),
        &panel,
        &mut |_, _| (),
    )
    .unwrap();
    assert_eq!((report.missing, report.score), (4, None));
}
