//! What a stage's evaluation found, as JSON and as Markdown.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Stage;

/// Which direction of a measure is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// It is reported, and judged by nobody.
    Neither,
}

/// One number of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What was measured.
    pub name: String,
    /// Which direction is the good one.
    pub better: Better,
    /// The model of the stage before, where there is one.
    pub previous: Option<f64>,
    /// The model in question.
    pub candidate: f64,
    /// 95% interval of the mean difference per item, candidate minus previous.
    pub difference_interval: Option<[f64; 2]>,
    /// How many texts or replies it rests on.
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

/// A reply that can be read beside its prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What was asked.
    pub prompt: String,
    /// The reply of the stage before.
    pub previous: Option<String>,
    /// The reply of the model in question.
    pub candidate: String,
}

/// What a stage's evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Which stage.
    pub stage: Stage,
    /// The model in question.
    pub candidate: String,
    /// The model of the stage before.
    pub previous: Option<String>,
    /// All numbers.
    pub measures: Vec<Measure>,
    /// What suits the stage and was not measured, and why.
    pub skipped: Vec<String>,
    /// Replies to look at: numbers do not show everything.
    pub samples: Vec<Sample>,
    /// Whether nothing regressed.
    pub passed: bool,
}

impl StageReport {
    /// The measure of a name.
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

/// Text of a model as a quotation, so that its own marks do not become marks of the report.
fn quoted(text: &str) -> String {
    if text.trim().is_empty() {
        return "> *(nothing)*\n".into();
    }
    text.lines().map(|line| format!(">     {line}\n")).collect()
}
