//! SWE-bench (Jimenez et al., 2023, arXiv:2310.06770): predictions in the format of its own tool.
//!
//! SWE-bench's tool tests patches by running a repository's tests in containers. The predictions are its input:
//!
//! ```sh
//! python -m swebench.harness.run_evaluation --predictions_path predictions.jsonl \
//!     --dataset_name SWE-bench/SWE-bench_Lite --run_id NAME
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::results_files::write_whole;
use crate::{Error, Result};

/// A model's patch for one issue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwePrediction {
    /// The issue, such as `django__django-11099`.
    pub instance_id: String,
    /// The model.
    pub model_name_or_path: String,
    /// A unified diff. It is empty if the model gave none; the issue then counts as unresolved.
    pub model_patch: String,
}

/// The patch in a reply: the text in `<patch>` tags, a fenced code block with a diff, or the reply from the beginning of a
/// diff. `None` if there is no patch.
///
/// ```
/// use ft_eval::harness::extract_patch;
///
/// let reply = "Here:\n```diff\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n```\nDone.";
/// assert_eq!(extract_patch(reply).unwrap(), "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n");
/// ```
pub fn extract_patch(reply: &str) -> Option<String> {
    let tagged = reply.rsplit_once("<patch>").map(|(_, rest)| rest);
    let tagged = tagged.map(|rest| rest.split("</patch>").next().unwrap_or(rest));
    let text = tagged.unwrap_or(reply);
    let patch = fenced_diff(text).unwrap_or(text);
    let start = diff_start(patch)?;
    // The text after a fence is not part of a patch.
    let patch = patch[start..].split("\n```").next().unwrap_or("");
    Some(format!("{}\n", patch.trim_end_matches('\n')))
}

/// The last fenced code block with a diff.
fn fenced_diff(text: &str) -> Option<&str> {
    let mut found = None;
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("```") {
        // The name of the language ends the line.
        let (_, body) = after.split_once('\n')?;
        let end = body.find("\n```").map_or(body.len(), |end| end + 1);
        if diff_start(&body[..end]).is_some() {
            found = Some(&body[..end]);
        }
        rest = body.get(end + 3..).unwrap_or("");
    }
    found
}

/// The position of the first line of a diff: `diff --git`, or `---` before `+++`.
fn diff_start(text: &str) -> Option<usize> {
    let mut at = 0;
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let follows = lines.peek().is_some_and(|next| next.starts_with("+++ "));
        if line.starts_with("diff --git ") || line.starts_with("--- ") && follows {
            return Some(at);
        }
        at += line.len();
    }
    None
}

/// Writes predictions as JSON lines. The file is written whole or not at all.
///
/// # Errors
///
/// If there are no predictions, an issue occurs twice, or the file cannot be written.
pub fn write_swe_predictions(path: &Path, predictions: &[SwePrediction]) -> Result<()> {
    let mut ids: Vec<&str> = predictions.iter().map(|p| p.instance_id.as_str()).collect();
    ids.sort_unstable();
    if ids.is_empty() {
        return Err(Error::Input("there are no predictions to write".into()));
    }
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::Input(format!(
            "{} has two predictions: keep one",
            pair[0]
        )));
    }
    write_whole(path, |file| {
        predictions.iter().try_for_each(|prediction| {
            let line = serde_json::to_string(prediction).map_err(std::io::Error::other)?;
            writeln!(file, "{line}")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n+b\n c\n";

    #[test]
    fn patches_are_found_in_any_surrounding_text() {
        for reply in [
            DIFF.to_string(),
            format!("Sure:\n\n{DIFF}"),
            format!("```python\nx = 1\n```\nThen\n```patch\n{DIFF}```\nbye"),
            format!("```diff\n{DIFF}```"),
            format!("thoughts <patch>\n{DIFF}</patch> more"),
            format!("<patch>\n```diff\n{DIFF}```\n</patch>"),
            DIFF.trim_end().to_string(),
        ] {
            assert_eq!(extract_patch(&reply).as_deref(), Some(DIFF), "{reply}");
        }
        for reply in ["", "I cannot.", "```\nx\n```", "--- a rule", "```"] {
            assert_eq!(extract_patch(reply), None, "{reply}");
        }
    }

    #[test]
    fn predictions_are_json_lines_in_the_tools_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.jsonl");
        let prediction = |id: &str| SwePrediction {
            instance_id: id.into(),
            model_name_or_path: "m".into(),
            model_patch: DIFF.into(),
        };
        write_swe_predictions(&path, &[prediction("a__b-1"), prediction("a__b-2")]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let row: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(row["instance_id"], "a__b-1");
        assert_eq!(row["model_patch"], DIFF);
        assert!(write_swe_predictions(&path, &[prediction("a"), prediction("a")]).is_err());
        assert!(write_swe_predictions(&path, &[]).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
