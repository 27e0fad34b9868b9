// What a benchmark found, as Markdown, LaTeX and JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use ft::eval::retrieval::{Comparison, Significance, SystemScores, compare};
use serde_json::{Value, json};

use crate::System;
use crate::retrieval_data::Benchmark;

/// Writes `report.md`, `report.tex`, `report.ranx.json` and `results.json`; returns the first and a shorter form of the last. `test` is the paired test and the
/// largest p-value that is significant.
pub(crate) fn write(
    output: &Path,
    data: &Benchmark,
    systems: &[System],
    (test, max_p): (Significance, f64),
    missing: &[Value],
    pictures: &[String],
) -> Result<(String, Value)> {
    let found: Vec<Comparison> = (0..data.scenarios.len())
        .map(|scenario| {
            let scores = (systems.iter()).map(|system| system.scores[scenario].clone());
            compare(scores.collect(), test, max_p)
        })
        .collect::<Result<_, _>>()?;
    let main = &found[0];
    let judged = data.scenarios[0].qrels.queries().count();
    let documents = data.documents.names.len();
    let mut report = format!(
        "# Retrieval\n\n{judged} queries, {documents} documents. Letters: significantly better than that model (p <= {}, {}, corrected for all pairs).\n\n{}\n",
        max_p,
        serde_json::to_value(test)?.as_str().unwrap_or(""),
        main.to_markdown()
    );
    if data.scenarios.len() > 1 {
        report.push_str(&languages_table(data, &found, systems));
    }
    let _ = write!(
        report,
        "## Wins, ties, losses\n\n{}\n",
        main.wins_to_markdown()
    );
    report.push_str(&servers_table(systems));
    if !missing.is_empty() {
        report.push_str("## Missing vectors\n\nQueries without a vector count as not answered; documents without one are not searched.\n\n| model | kind | name | reason |\n|---|---|---|---|\n");
        for missing in missing {
            let field = |name: &str| {
                missing[name]
                    .as_str()
                    .unwrap_or("")
                    .replace(['|', '\n'], " ")
            };
            let _ = writeln!(
                report,
                "| {} | {} | {} | {} |",
                field("model"),
                field("kind"),
                field("name"),
                field("reason")
            );
        }
        report.push('\n');
    }
    if !pictures.is_empty() {
        report.push_str("## Pictures\n\n");
        for name in pictures {
            let _ = writeln!(report, "![{name}]({name})\n");
        }
    }
    std::fs::write(output.join("report.md"), &report)?;
    let mut latex = String::new();
    for (scenario, found) in data.scenarios.iter().zip(&found) {
        if !scenario.name.is_empty() {
            let _ = writeln!(latex, "% {}", scenario.name);
        }
        latex.push_str(&found.to_latex());
    }
    std::fs::write(output.join("report.tex"), latex)?;
    let ranx = serde_json::to_vec_pretty(&main.to_ranx())?;
    std::fs::write(output.join("report.ranx.json"), ranx)?;
    let means = |scores: &SystemScores| -> BTreeMap<String, f64> {
        let scores = scores.scores.iter();
        scores
            .map(|scores| (scores.measure.to_string(), scores.mean()))
            .collect()
    };
    let models: Vec<Value> = (systems.iter())
        .map(|system| {
            let mut model = json!({
                "model": system.name, "means": means(&system.scores[0]),
                "unanswered": system.scores[0].scores.first().map(|scores| scores.unanswered),
                "details": system.details,
            });
            if let Some(own) = system.own_language {
                let directions = data.scenarios[1..].iter().zip(&system.scores[1..]);
                let directions = directions
                    .map(|(scenario, scores)| (scenario.name.clone(), json!(means(scores))));
                model["directions"] = Value::Object(directions.collect());
                model["own_language@10"] = own.into();
            }
            model
        })
        .collect();
    let results = json!({
        "queries": judged, "documents": documents, "models": models, "tests": main.tests,
        "significance": test, "max_p": max_p, "missing": missing, "pictures": pictures,
    });
    let mut whole = results.clone();
    whole["systems"] = serde_json::to_value(&main.systems)?;
    std::fs::write(
        output.join("results.json"),
        serde_json::to_vec_pretty(&whole)?,
    )?;
    Ok((report, results))
}

/// The directions of two languages, a table a measure.
fn languages_table(data: &Benchmark, found: &[Comparison], systems: &[System]) -> String {
    let mut text = String::from("## Languages\n\n");
    let measures = found[0]
        .systems
        .first()
        .map_or(0, |system| system.scores.len());
    for measure in 0..measures {
        let name = found[0].systems[0].scores[measure].measure;
        let _ = write!(text, "| {name} |");
        for scenario in &data.scenarios {
            let _ = write!(text, " {} |", scenario.name);
        }
        text.push_str(" own language in the first ten |\n|---|");
        text.push_str(&"---|".repeat(data.scenarios.len() + 1));
        text.push('\n');
        for (number, system) in systems.iter().enumerate() {
            let _ = write!(text, "| {} |", system.name);
            for found in found {
                let mean = found.systems[number].scores[measure].mean();
                let _ = match found.better_than(measure, number) {
                    letters if letters.is_empty() => write!(text, " {mean:.3} |"),
                    letters => write!(text, " {mean:.3} <sup>{letters}</sup> |"),
                };
            }
            let own = system.own_language.unwrap_or(f64::NAN);
            let _ = writeln!(text, " {own:.3} |");
        }
        text.push('\n');
    }
    text
}

/// What servers were asked, if there are any.
fn servers_table(systems: &[System]) -> String {
    let servers: Vec<&System> = (systems.iter())
        .filter(|system| system.details["spent"].is_object())
        .collect();
    if servers.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "## Servers\n\n| model | requests | failed | vectors | from the file | rejected | tokens | cost |\n|---|---|---|---|---|---|---|---|\n",
    );
    for system in servers {
        let spent = &system.details["spent"];
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {:.4} |",
            system.name,
            spent["requests"],
            spent["failed"],
            spent["vectors"],
            spent["cached"],
            spent["rejected"],
            spent["tokens"],
            system.details["cost"].as_f64().unwrap_or(0.0)
        );
    }
    text.push('\n');
    text
}
