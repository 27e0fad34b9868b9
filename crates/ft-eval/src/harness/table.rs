//! The results as a Markdown table in the format of `lm_eval`.
//!
//! Rows, columns and order are the same: groups before their members, which are indented, the rest by name.
//! Numbers always have four decimals, where the reference's table library omits zeros.

use super::Evaluation;
use super::evaluation::TaskResult;
use super::python_value::PyValue;

const HEADERS: [&str; 9] = [
    "", "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr",
];
const RIGHT: [bool; 9] = [false, true, false, true, false, false, true, false, true];

impl Evaluation {
    /// The table of all tasks and groups.
    pub fn table(&self) -> String {
        self.table_of("Tasks", |_| true)
    }

    /// The table of the groups that have numbers; `None` if there are none.
    pub fn groups_table(&self) -> Option<String> {
        let has_numbers = |name: &str| {
            self.groups
                .iter()
                .any(|group| group.name == name && group.has_numbers)
        };
        let any = self.groups.iter().any(|group| group.has_numbers);
        any.then(|| self.table_of("Groups", has_numbers))
    }

    fn table_of(&self, title: &str, shown: impl Fn(&str) -> bool) -> String {
        let shots = self.num_fewshot();
        let better = self.higher_is_better();
        let mut rows = Vec::new();
        for (result, depth) in self.in_order() {
            if !shown(&result.name) {
                continue;
            }
            let mut name = match depth {
                0 => result.alias.clone(),
                depth => format!("{}- {}", " ".repeat(depth), result.alias),
            };
            let mut version = self.version(&result.name);
            let shots = shots.iter().find(|(name, _)| *name == result.name);
            let shots = shots.map_or(String::new(), |(_, count)| count.to_string());
            let directions = better.iter().find(|(name, _)| *name == result.name);
            let mut metrics: Vec<_> = result.metrics.iter().collect();
            metrics.sort_by_key(|metric| format!("{},{}", metric.name, metric.filter));
            for metric in metrics {
                let direction = directions
                    .and_then(|(_, metrics)| metrics.iter().find(|(name, _)| *name == metric.name))
                    .and_then(|(_, better)| *better);
                rows.push([
                    std::mem::take(&mut name),
                    std::mem::take(&mut version),
                    metric.filter.clone(),
                    shots.clone(),
                    metric.name.clone(),
                    direction
                        .map_or("", |up| if up { "↑" } else { "↓" })
                        .to_string(),
                    format!("{:.4}", metric.value),
                    "±".to_string(),
                    metric
                        .stderr
                        .map_or("N/A".to_string(), |error| format!("{error:.4}")),
                ]);
            }
        }
        let mut headers = HEADERS.map(str::to_string);
        headers[0] = title.to_string();
        markdown(&headers, &RIGHT, &rows)
    }

    fn version(&self, name: &str) -> String {
        let of_task = self.tasks.iter().find(|task| task.name == name);
        let of_group = || self.groups.iter().find(|group| group.name == name);
        match of_task {
            // 1.0 is shown as 1.
            Some(task) => match &task.version {
                PyValue::Float(version) => version.to_string(),
                version => version.str(),
            },
            None => of_group().map_or("N/A".to_string(), |group| group.version.clone()),
        }
    }

    /// The order of the rows with their depth: top-level groups by name, each followed by its members, then the tasks
    /// without a group.
    fn in_order(&self) -> Vec<(&TaskResult, usize)> {
        fn visit<'a>(
            evaluation: &'a Evaluation,
            name: &str,
            depth: usize,
            ordered: &mut Vec<(&'a TaskResult, usize)>,
        ) {
            ordered.extend(evaluation.result(name).map(|result| (result, depth)));
            if let Some(group) = evaluation.groups.iter().find(|group| group.name == name) {
                let mut children = group.children.clone();
                children.sort();
                for child in children {
                    visit(evaluation, &child, depth + 1, ordered);
                }
            }
        }
        let mut ordered = Vec::new();
        let is_child = |name: &str| {
            self.groups
                .iter()
                .any(|group| group.children.iter().any(|child| child == name))
        };
        let mut roots: Vec<&str> = self
            .groups
            .iter()
            .map(|group| group.name.as_str())
            .collect();
        roots.retain(|name| !is_child(name));
        roots.sort_unstable();
        for root in roots {
            visit(self, root, 0, &mut ordered);
        }
        let mut rest: Vec<&TaskResult> = self.results.iter().collect();
        rest.retain(|result| !ordered.iter().any(|(known, _)| known.name == result.name));
        rest.sort_by_key(|result| &result.name);
        ordered.extend(rest.into_iter().map(|result| (result, 0)));
        ordered
    }
}

/// A Markdown table with columns of equal width.
pub(super) fn markdown<const N: usize>(
    headers: &[String; N],
    right: &[bool; N],
    rows: &[[String; N]],
) -> String {
    let width = |text: &String| text.chars().count();
    let widths: Vec<usize> = (0..N)
        .map(|column| {
            let cells = rows.iter().map(|row| width(&row[column]));
            cells.chain([width(&headers[column]), 3]).max().unwrap_or(3)
        })
        .collect();
    let mut out = String::from("|");
    for (header, width) in headers.iter().zip(&widths) {
        out.push_str(&format!("{header:^width$}|"));
    }
    out.push_str("\n|");
    for (right, width) in right.iter().zip(&widths) {
        out.push_str(&format!(
            "{}{}|",
            "-".repeat(width - 1),
            if *right { ':' } else { '-' }
        ));
    }
    out.push('\n');
    for row in rows {
        out.push('|');
        for ((cell, right), width) in row.iter().zip(right).zip(&widths) {
            let cell = cell.replace('|', "\\|");
            out.push_str(&if *right {
                format!("{cell:>width$}|")
            } else {
                format!("{cell:<width$}|")
            });
        }
        out.push('\n');
    }
    out
}
