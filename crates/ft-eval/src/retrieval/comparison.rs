//! Several systems on the same queries: means, which differences are significant, wins, ties and losses; as tables.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Scores;
use crate::significance::{
    Randomization, holm, paired_t_test, randomization_test, tukey_hsd_blocked,
};
use crate::{Error, Result};

/// The paired test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Significance {
    /// Fisher's randomization test, corrected by Holm's method for all pairs of systems.
    Randomization,
    /// Student's t-test on the differences, corrected by Holm's method for all pairs of systems.
    Student,
    /// Tukey's honestly significant difference with the queries as blocks, which is about all pairs already.
    Tukey,
}

/// A system and its scores, one for each measure, on the same queries as those of the other systems.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SystemScores {
    /// The name.
    pub name: String,
    /// The scores by measure.
    pub scores: Vec<Scores>,
}

/// The test of two systems on one measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairTest {
    /// The index of the first system.
    pub first: usize,
    /// The index of the second system, which is larger.
    pub second: usize,
    /// The difference of the means, first minus second.
    pub difference: f64,
    /// Two-sided, corrected for all pairs of systems.
    pub p_value: f64,
    /// On how many queries the first system is better.
    pub wins: usize,
    /// On how many both are equal.
    pub ties: usize,
    /// On how many the second system is better.
    pub losses: usize,
}

/// What [`compare`] found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The systems in the order in which they were given.
    pub systems: Vec<SystemScores>,
    /// Of each measure the tests of all pairs of systems.
    pub tests: Vec<Vec<PairTest>>,
    /// Which test.
    pub significance: Significance,
    /// Differences with a p-value up to this one are significant.
    pub max_p: f64,
}

/// Compares systems on every measure that they were scored with.
///
/// # Errors
///
/// If systems were scored on different queries or measures, there are more than 26 of them, or `max_p` is not between 0
/// and 1.
pub fn compare(
    systems: Vec<SystemScores>,
    significance: Significance,
    max_p: f64,
) -> Result<Comparison> {
    if !(max_p > 0.0 && max_p < 1.0) {
        return Err(Error::Settings(format!(
            "max_p is {max_p}: it must be between 0 and 1"
        )));
    }
    let Some(first) = systems.first() else {
        return Err(Error::Input("there are no systems to compare".to_string()));
    };
    if systems.len() > 26 {
        return Err(Error::Input(format!(
            "{} systems are more than there are letters for: compare at most 26",
            systems.len()
        )));
    }
    let shape = |system: &SystemScores| -> Vec<_> {
        let scores = system.scores.iter();
        scores
            .map(|scores| (scores.measure, scores.queries.clone()))
            .collect()
    };
    let expected = shape(first);
    if let Some(other) = systems.iter().find(|system| shape(system) != expected) {
        return Err(Error::Input(format!(
            "{} and {} were not scored on the same queries with the same measures",
            first.name, other.name
        )));
    }
    let tests = (0..first.scores.len())
        .map(|measure| {
            let values: Vec<&[f64]> = (systems.iter())
                .map(|system| system.scores[measure].values.as_slice())
                .collect();
            tests(&values, significance)
        })
        .collect::<Result<_>>()?;
    Ok(Comparison {
        systems,
        tests,
        significance,
        max_p,
    })
}

fn tests(values: &[&[f64]], significance: Significance) -> Result<Vec<PairTest>> {
    let pairs: Vec<(usize, usize)> = (0..values.len())
        .flat_map(|a| (a + 1..values.len()).map(move |b| (a, b)))
        .collect();
    let p_values = match significance {
        Significance::Tukey if values.len() < 2 => Vec::new(),
        Significance::Tukey => {
            let tests = tukey_hsd_blocked(values, 0.95)?;
            tests.into_iter().map(|test| test.p_value).collect()
        }
        Significance::Randomization | Significance::Student => {
            let raw = pairs.iter().map(|&(a, b)| match significance {
                Significance::Student => {
                    paired_t_test(values[a], values[b], 0.95).map(|t| t.p_value)
                }
                _ => {
                    let settings = Randomization::default();
                    randomization_test(values[a], values[b], &settings).map(|test| test.p_value)
                }
            });
            // Equal scores give 0/0: there is no difference.
            let raw: Vec<f64> = raw
                .map(|p| p.map(|p| if p.is_nan() { 1.0 } else { p }))
                .collect::<Result<_>>()?;
            match raw.is_empty() {
                true => raw,
                false => holm(&raw, 0.05)?.p_values,
            }
        }
    };
    let results = pairs.iter().zip(p_values).map(|(&(a, b), p)| {
        let count = |f: fn(f64, f64) -> bool| {
            let both = values[a].iter().zip(values[b]);
            both.filter(|(x, y)| f(**x, **y)).count()
        };
        PairTest {
            first: a,
            second: b,
            difference: mean(values[a]) - mean(values[b]),
            p_value: if p.is_nan() { 1.0 } else { p },
            wins: count(|x, y| x > y),
            ties: count(|x, y| x == y),
            losses: count(|x, y| x < y),
        }
    });
    Ok(results.collect())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

impl Comparison {
    /// The letter of a system in the tables.
    fn letter(system: usize) -> char {
        char::from(b'a' + u8::try_from(system).unwrap_or(0))
    }

    /// The letters of the systems that this one is significantly better than.
    pub fn better_than(&self, measure: usize, system: usize) -> String {
        let tests = self.tests[measure]
            .iter()
            .filter(|test| test.p_value <= self.max_p);
        let mut letters: Vec<char> = tests
            .filter_map(|test| match system {
                _ if test.first == system && test.difference > 0.0 => {
                    Some(Self::letter(test.second))
                }
                _ if test.second == system && test.difference < 0.0 => {
                    Some(Self::letter(test.first))
                }
                _ => None,
            })
            .collect();
        letters.sort_unstable();
        letters.into_iter().collect()
    }

    /// Whether no system has a higher mean, at three decimals.
    fn is_best(&self, measure: usize, system: usize) -> bool {
        let at = |system: &SystemScores| (system.scores[measure].mean() * 1000.0).round();
        let own = at(&self.systems[system]);
        self.systems.iter().all(|other| at(other) <= own)
    }

    /// The object that ranx's `Report.save` writes: of each system its `scores`, and by other system and measure the p-values
    /// (`comparisons`) and wins, ties and losses (`win_tie_loss`). P-values are those of [`tests`](Self::tests), which are corrected
    /// for all pairs; ranx corrects none but Tukey's.
    pub fn to_ranx(&self) -> Value {
        let measures = self.systems.first().map_or(&[][..], |first| &first.scores);
        let metrics: Vec<String> = (measures.iter())
            .map(|scores| scores.measure.to_string())
            .collect();
        let names: Vec<&str> = self.systems.iter().map(|own| own.name.as_str()).collect();
        let test = match self.significance {
            Significance::Randomization => "fisher",
            Significance::Student => "student",
            Significance::Tukey => "tukey",
        };
        let mut report = json!({"stat_test": test, "metrics": metrics, "model_names": names});
        for (number, system) in self.systems.iter().enumerate() {
            let scores = metrics.iter().zip(&system.scores);
            let scores = scores.map(|(metric, scores)| (metric.clone(), json!(scores.mean())));
            let mut own = json!({
                "scores": Map::from_iter(scores), "comparisons": {}, "win_tie_loss": {},
            });
            for (metric, tests) in metrics.iter().zip(&self.tests) {
                for test in tests {
                    let (other, wins, losses) = match number {
                        _ if number == test.first => (test.second, test.wins, test.losses),
                        _ if number == test.second => (test.first, test.losses, test.wins),
                        _ => continue,
                    };
                    let (other, ties) = (names[other], test.ties);
                    own["comparisons"][other][metric] = test.p_value.into();
                    own["win_tie_loss"][other][metric] = json!({"W": wins, "T": ties, "L": losses});
                }
            }
            report[&system.name] = own;
        }
        report
    }

    /// A table with a row a system and a column a measure. Letters behind a mean name the systems that are significantly
    /// worse; the best means are bold.
    pub fn to_markdown(&self) -> String {
        let measures = self
            .systems
            .first()
            .map_or(&[][..], |system| &system.scores);
        let mut text = String::from("| # | model |");
        for scores in measures {
            let _ = write!(text, " {} |", scores.measure);
        }
        text.push_str("\n|---|---|");
        text.push_str(&"---|".repeat(measures.len()));
        text.push('\n');
        for (number, system) in self.systems.iter().enumerate() {
            let name = system.name.replace('|', "\\|");
            let _ = write!(text, "| {} | {name} |", Self::letter(number));
            for (measure, scores) in system.scores.iter().enumerate() {
                let mean = format!("{:.3}", scores.mean());
                let mean = match self.is_best(measure, number) {
                    true => format!("**{mean}**"),
                    false => mean,
                };
                let letters = self.better_than(measure, number);
                match letters.is_empty() {
                    true => {
                        let _ = write!(text, " {mean} |");
                    }
                    false => {
                        let _ = write!(text, " {mean} <sup>{letters}</sup> |");
                    }
                }
            }
            text.push('\n');
        }
        text
    }

    /// The same table for LaTeX, with the package booktabs.
    pub fn to_latex(&self) -> String {
        let measures = self
            .systems
            .first()
            .map_or(&[][..], |system| &system.scores);
        let mut text = format!(
            "\\begin{{tabular}}{{ll{}}}\n\\toprule\n\\# & model",
            "c".repeat(measures.len())
        );
        for scores in measures {
            let _ = write!(text, " & {}", escaped(&scores.measure.to_string()));
        }
        text.push_str(" \\\\\n\\midrule\n");
        for (number, system) in self.systems.iter().enumerate() {
            let _ = write!(text, "{} & {}", Self::letter(number), escaped(&system.name));
            for (measure, scores) in system.scores.iter().enumerate() {
                let mean = format!("{:.3}", scores.mean());
                let mean = match self.is_best(measure, number) {
                    true => format!("\\textbf{{{mean}}}"),
                    false => mean,
                };
                let letters = self.better_than(measure, number);
                let _ = write!(text, " & {mean}$^{{{letters}}}$");
            }
            text.push_str(" \\\\\n");
        }
        text.push_str("\\bottomrule\n\\end{tabular}\n");
        text
    }

    /// Wins, ties and losses of every pair, a row a pair and a column a measure.
    pub fn wins_to_markdown(&self) -> String {
        let measures = self
            .systems
            .first()
            .map_or(&[][..], |system| &system.scores);
        let mut text = String::from("| pair |");
        for scores in measures {
            let _ = write!(text, " {} (W/T/L, p) |", scores.measure);
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(measures.len()));
        text.push('\n');
        let pairs = self.tests.first().map_or(0, Vec::len);
        for pair in 0..pairs {
            let of = &self.tests[0][pair];
            let _ = write!(
                text,
                "| {} - {} |",
                Self::letter(of.first),
                Self::letter(of.second)
            );
            for tests in &self.tests {
                let PairTest {
                    wins,
                    ties,
                    losses,
                    p_value,
                    ..
                } = &tests[pair];
                let _ = write!(text, " {wins}/{ties}/{losses}, {p_value:.4} |");
            }
            text.push('\n');
        }
        text
    }
}

fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '_' | '&' | '%' | '#' | '$' | '{' | '}' => format!("\\{c}"),
        '\\' => "\\textbackslash{}".to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(name: &str, values: Vec<f64>) -> SystemScores {
        let queries = (0..values.len()).map(|i| i.to_string()).collect();
        let scores = Scores {
            measure: "ndcg@10".parse().expect("a measure"),
            queries,
            values,
            unanswered: 0,
        };
        SystemScores {
            name: name.to_string(),
            scores: vec![scores],
        }
    }

    #[test]
    fn letters_name_what_is_significantly_worse() {
        let good: Vec<f64> = (0..40).map(|i| 0.8 + 0.001 * f64::from(i % 7)).collect();
        let bad: Vec<f64> = (0..40).map(|i| 0.3 + 0.002 * f64::from(i % 5)).collect();
        for kind in [
            Significance::Randomization,
            Significance::Student,
            Significance::Tukey,
        ] {
            let systems = vec![
                system("bad_1", bad.clone()),
                system("good", good.clone()),
                system("same", good.clone()),
            ];
            let found = compare(systems, kind, 0.01).expect("compares");
            assert_eq!(found.better_than(0, 1), "a", "{kind:?}");
            assert_eq!(
                (found.better_than(0, 0), found.better_than(0, 2)),
                (String::new(), "a".into())
            );
            let table = found.to_markdown();
            assert!(
                table.contains("| b | good | **0.803** <sup>a</sup> |"),
                "{table}"
            );
            assert!(
                found.to_latex().contains("a & bad\\_1 & 0.304$^{}$"),
                "{}",
                found.to_latex()
            );
            assert!(found.wins_to_markdown().contains("| a - b | 0/0/40, 0.0"));
            assert!(
                found
                    .wins_to_markdown()
                    .contains("| b - c | 0/40/0, 1.0000 |")
            );
        }
    }

    #[test]
    fn reports_of_ranx_have_both_sides_of_a_pair() {
        let systems = vec![
            system("low", vec![0.0, 0.5, 0.25]),
            system("high", vec![1.0, 0.5, 0.75]),
        ];
        let found = compare(systems, Significance::Student, 0.01).expect("compares");
        let p = found.tests[0][0].p_value;
        let expected = json!({
            "stat_test": "student", "metrics": ["ndcg@10"], "model_names": ["low", "high"],
            "low": {
                "scores": {"ndcg@10": 0.25}, "comparisons": {"high": {"ndcg@10": p}},
                "win_tie_loss": {"high": {"ndcg@10": {"W": 0, "T": 1, "L": 2}}},
            },
            "high": {
                "scores": {"ndcg@10": 0.75}, "comparisons": {"low": {"ndcg@10": p}},
                "win_tie_loss": {"low": {"ndcg@10": {"W": 2, "T": 1, "L": 0}}},
            },
        });
        assert_eq!(found.to_ranx(), expected);
    }

    #[test]
    fn systems_must_be_scored_alike() {
        let systems = vec![system("a", vec![1.0, 0.5]), system("b", vec![1.0])];
        let error = compare(systems, Significance::Student, 0.01).expect_err("two and one");
        assert!(error.to_string().contains("same queries"), "{error}");
        assert!(compare(Vec::new(), Significance::Student, 0.01).is_err());
    }
}
