//! The report on the claims of a text.

use std::fmt::Write;

use serde::Serialize;

use super::{Claim, Finding};

/// The claims of a text and their findings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FactualityReport {
    /// The supported share of the claims with a finding, weighted by importance; `None` if no claim has a finding.
    pub score: Option<f64>,
    /// The same with equal weights (FActScore).
    pub plain_score: Option<f64>,
    /// Claims that the evidence supports.
    pub supported: usize,
    /// Claims that it contradicts.
    pub contradicted: usize,
    /// Claims that it does not decide.
    pub unverified: usize,
    /// Claims without a finding; not counted.
    pub missing: usize,
    /// The claims.
    pub claims: Vec<Claim>,
}

impl FactualityReport {
    pub(super) fn new(claims: Vec<Claim>) -> Self {
        let count = |wanted| {
            let findings = claims
                .iter()
                .filter_map(|claim| claim.finding.as_ref().ok());
            findings.filter(|finding| **finding == wanted).count()
        };
        let share = |weight: fn(&Claim) -> f64| {
            let sum = |wanted: fn(&Claim) -> bool| -> f64 {
                claims
                    .iter()
                    .filter(|claim| wanted(claim))
                    .map(weight)
                    .sum()
            };
            let all = sum(|claim| claim.finding.is_ok());
            (all > 0.0).then(|| sum(|claim| claim.finding == Ok(Finding::Supported)) / all)
        };
        Self {
            score: share(|claim| claim.weight),
            plain_score: share(|_| 1.0),
            supported: count(Finding::Supported),
            contradicted: count(Finding::Contradicted),
            unverified: count(Finding::Unverified),
            missing: claims.iter().filter(|claim| claim.finding.is_err()).count(),
            claims,
        }
    }

    /// The report as a table of the claims with their evidence.
    pub fn to_markdown(&self) -> String {
        let mut text = String::from("# Factuality\n\n");
        let number =
            |score: Option<f64>| score.map_or("undefined".to_string(), |s| format!("{s:.3}"));
        let _ = writeln!(
            text,
            "Score {} by importance, {} with all claims alike: {} supported, {} contradicted, {} unverified, {} without a \
             finding.\n",
            number(self.score),
            number(self.plain_score),
            self.supported,
            self.contradicted,
            self.unverified,
            self.missing
        );
        text.push_str("| Claim | Weight | Finding | Evidence | Reason |\n|---|---|---|---|---|\n");
        for claim in &self.claims {
            let finding = match &claim.finding {
                Ok(Finding::Supported) => "supported".to_string(),
                Ok(Finding::Contradicted) => "contradicted".to_string(),
                Ok(Finding::Unverified) => "unverified".to_string(),
                Err(missing) => format!("missing: {}", missing.reason),
            };
            let cells = [
                &claim.text,
                &claim.weight.to_string(),
                &finding,
                claim.quote.as_ref().unwrap_or(&String::new()),
                &claim.reason,
            ]
            .map(|cell| cell.replace('|', "\\|").replace('\n', " "));
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text
    }
}
