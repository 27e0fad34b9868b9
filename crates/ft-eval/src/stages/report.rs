//! The report on a stage, as JSON and as Markdown.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Stage;

/// The better direction of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Higher is better.
    Higher,
    /// Lower is better.
    Lower,
    /// Neither; the measure is only reported.
    Neither,
}

/// One number of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// The name of the measure.
    pub name: String,
    /// The better direction.
    pub better: Better,
    /// The value for the model of the stage before, if there is one.
    pub previous: Option<f64>,
    /// The value for the new model.
    pub candidate: f64,
    /// 95% interval of the mean difference per item, candidate minus previous.
    pub difference_interval: Option<[f64; 2]>,
    /// The number of texts or replies.
    pub items: usize,
    /// The change that fails the report, in the measure's own unit and in the bad direction.
    pub tolerance: Option<f64>,
}

impl Measure {
    /// Candidate minus previous.
    pub fn difference(&self) -> Option<f64> {
        Some(self.candidate - self.previous?)
    }

    /// Whether the candidate is worse than the stage before by more than the tolerance.
    pub fn regressed(&self) -> bool {
        let (Some(difference), Some(tolerance)) = (self.difference(), self.tolerance) else {
            return false;
        };
        match self.better {
            Better::Higher => -difference > tolerance,
            Better::Lower => difference > tolerance,
            Better::Neither => false,
        }
    }

    fn verdict(&self) -> &'static str {
        let Some(difference) = self.difference() else {
            return "";
        };
        let certain = self
            .difference_interval
            .is_none_or(|[low, high]| low > 0.0 || high < 0.0);
        match (self.better, certain) {
            _ if self.regressed() => "REGRESSED",
            (Better::Neither, _) => "",
            (_, false) => "no difference shown",
            (Better::Higher, true) if difference > 0.0 => "better",
            (Better::Lower, true) if difference < 0.0 => "better",
            _ if difference == 0.0 => "same",
            _ => "worse",
        }
    }
}

/// A prompt with its replies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The prompt.
    pub prompt: String,
    /// The reply of the stage before.
    pub previous: Option<String>,
    /// The reply of the new model.
    pub candidate: String,
}

/// The result of a stage's evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// The stage.
    pub stage: Stage,
    /// The name of the new model.
    pub candidate: String,
    /// The name of the model of the stage before.
    pub previous: Option<String>,
    /// All measures.
    pub measures: Vec<Measure>,
    /// Measures that were skipped, with the reasons.
    pub skipped: Vec<String>,
    /// Sample replies.
    pub samples: Vec<Sample>,
    /// Whether nothing regressed.
    pub passed: bool,
}

impl StageReport {
    /// The measure with this name.
    pub fn measure(&self, name: &str) -> Option<&Measure> {
        self.measures.iter().find(|measure| measure.name == name)
    }

    /// The report as Markdown: a table, what was skipped, samples.
    pub fn to_markdown(&self) -> String {
        let mut out = format!("# {}: {}\n\n", self.stage.title(), self.candidate);
        let outcome = if self.passed { "passed" } else { "**failed**" };
        match &self.previous {
            Some(previous) => {
                let _ = writeln!(out, "Compared with {previous}: {outcome}.\n");
            }
            None => {
                out.push_str("Nothing to compare with: no model of the stage before was given.\n\n")
            }
        }
        out.push_str("| measure | better | before | now | difference, 95% interval | items | |\n");
        out.push_str("|---|---|---:|---:|---:|---:|---|\n");
        for measure in &self.measures {
            let _ = writeln!(out, "{}", row(measure));
        }
        if !self.skipped.is_empty() {
            out.push_str("\n## Not measured\n\n");
            for reason in &self.skipped {
                let _ = writeln!(out, "- {reason}");
            }
        }
        if !self.samples.is_empty() {
            out.push_str("\n## Samples\n");
            for sample in &self.samples {
                let _ = write!(out, "\n**Prompt**\n\n{}", quoted(&sample.prompt));
                if let Some(previous) = &sample.previous {
                    let _ = write!(out, "\nBefore:\n\n{}", quoted(previous));
                }
                let _ = write!(out, "\nNow:\n\n{}", quoted(&sample.candidate));
            }
        }
        out
    }
}

fn row(measure: &Measure) -> String {
    let number = |value: f64| format!("{value:.4}");
    let better = match measure.better {
        Better::Higher => "higher",
        Better::Lower => "lower",
        Better::Neither => "",
    };
    let difference = match (measure.difference(), measure.difference_interval) {
        (Some(difference), Some([low, high])) => {
            format!("{difference:+.4} [{low:+.4}, {high:+.4}]")
        }
        (Some(difference), None) => format!("{difference:+.4}"),
        (None, _) => String::new(),
    };
    format!(
        "| {} | {better} | {} | {} | {difference} | {} | {} |",
        measure.name,
        measure.previous.map(number).unwrap_or_default(),
        number(measure.candidate),
        measure.items,
        measure.verdict()
    )
}

/// A model's text as a quotation, so that its Markdown does not become part of the report's.
fn quoted(text: &str) -> String {
    if text.trim().is_empty() {
        return "> *(nothing)*\n".into();
    }
    text.lines().map(|line| format!(">     {line}\n")).collect()
}
