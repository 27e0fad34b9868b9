//! Rows of solutions in steps, each of which is right or wrong, for process reward models.
//!
//! Columns are TRL's: `prompt` (a text), `completions` (a list of texts, the steps), `labels` (for each step true or false, or 1 or 0).

use std::path::Path;

use ft_core::{IGNORE_INDEX, Tokenizer};
use serde_json::Value;

use crate::columns::Row;
use crate::in_parallel::in_parallel;
use crate::{Error, Result, SftDataset, Tokenized, read_rows};

/// A solution in steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepwiseSample {
    /// The question.
    pub prompt: String,
    /// The steps, and whether each is right.
    pub steps: Vec<(String, bool)>,
}

impl StepwiseSample {
    /// Reads one row. `row_number` counts from 1 and appears in error messages.
    ///
    /// # Errors
    ///
    /// If a column is missing or has a wrong type, there are no steps, or not as many labels as steps.
    pub fn parse(row: &Value, row_number: usize) -> Result<Self> {
        let row = Row::new(row, row_number, None)?;
        let list = |name: &str| {
            row.value(name)?;
            row.optional_list(name)
        };
        let (steps, labels) = (list("completions")?, list("labels")?);
        if steps.is_empty() || steps.len() != labels.len() {
            return Err(row.error(format!(
                "there are {} steps in `completions` and {} in `labels`: each step needs a label, and there must be one",
                steps.len(),
                labels.len()
            )));
        }
        let steps = (steps.iter().zip(labels).enumerate()).map(|(number, (step, label))| {
            let right = match label {
                Value::Bool(right) => Some(*right),
                Value::Number(number) => match number.as_f64() {
                    Some(1.0) => Some(true),
                    Some(0.0) => Some(false),
                    _ => None,
                },
                _ => None,
            };
            match (step, right) {
                (Value::String(step), Some(right)) => Ok((step.clone(), right)),
                _ => Err(row.error(format!(
                    "step {}: {step} must be a text, and its label {label} true, false, 1 or 0",
                    number + 1
                ))),
            }
        });
        Ok(Self {
            prompt: row.text("prompt")?.to_string(),
            steps: steps.collect::<Result<_>>()?,
        })
    }

    /// The tokens of prompt and steps, each step followed by `separator`. The last token of a separator has the label of its
    /// step, 1 if that is right and 0 if it is wrong; the others have [`IGNORE_INDEX`]. Labels are not shifted: a token is
    /// scored on its own label.
    ///
    /// Prompt, steps and separators are tokenized apart, as in TRL, so that a step ends at a token.
    ///
    /// # Errors
    ///
    /// If the tokenizer refuses a text, or the separator has no tokens.
    pub fn tokenize(&self, tokenizer: &Tokenizer, separator: &str) -> Result<Tokenized> {
        let steps = self
            .steps
            .iter()
            .map(|(step, right)| (step.as_str(), i64::from(*right)));
        tokenize_steps(&self.prompt, steps, tokenizer, separator)
    }
}

/// The tokens of a prompt and of steps, each with a label for its last token, as [`StepwiseSample::tokenize`] makes them.
///
/// # Errors
///
/// If the tokenizer refuses a text, or the separator has no tokens.
pub fn tokenize_steps<'a>(
    prompt: &str,
    steps: impl IntoIterator<Item = (&'a str, i64)>,
    tokenizer: &Tokenizer,
    separator: &str,
) -> Result<Tokenized> {
    let separator = tokenizer.encode(separator, false)?;
    if separator.is_empty() {
        return Err(Error::Dataset(
            "the separator of steps has no tokens: use another, such as a line break".into(),
        ));
    }
    let mut input_ids = tokenizer.encode(prompt, false)?;
    let start = tokenizer.bos_token_id();
    if let Some(start) = start.filter(|&start| input_ids.first() != Some(&start)) {
        input_ids.insert(0, start);
    }
    let mut labels = vec![IGNORE_INDEX; input_ids.len()];
    for (step, label) in steps {
        input_ids.extend(tokenizer.encode(step, false)?);
        input_ids.extend(&separator);
        labels.resize(input_ids.len() - 1, IGNORE_INDEX);
        labels.push(label);
    }
    Ok(Tokenized { input_ids, labels })
}

/// Reads a JSON or JSONL file of [`StepwiseSample`]s and tokenizes it. Rows with more than `max_len` tokens are left out, and their
/// number is returned.
///
/// # Errors
///
/// If the file cannot be read, a row does not have the columns, or no row is left.
pub fn load_stepwise(
    path: &Path,
    tokenizer: &Tokenizer,
    separator: &str,
    max_len: usize,
) -> Result<(SftDataset, usize)> {
    let rows = read_rows(path)?;
    let read = || {
        let samples =
            (rows.iter().zip(1..)).map(|(row, number)| StepwiseSample::parse(row, number));
        let samples = samples.collect::<Result<Vec<_>>>()?;
        let all = in_parallel(&samples, |sample| sample.tokenize(tokenizer, separator))?;
        let count = all.len();
        let (kept, longer): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|row| row.len() <= max_len);
        if kept.is_empty() {
            return Err(Error::Dataset(format!(
                "no row is left of {count}: {} are longer than {max_len} tokens (raise the maximum length)",
                longer.len()
            )));
        }
        Ok((SftDataset::from_examples(kept), longer.len()))
    };
    read().map_err(|error| error.in_file(path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokenizer() -> Tokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
        Tokenizer::from_pretrained(&folder).expect("loads")
    }

    #[test]
    fn labels_stand_at_the_ends_of_steps() {
        let row = json!({"prompt": "1 + 1 + 1?", "completions": ["1 + 1 is 2.", "2 + 1 is 4."], "labels": [true, 0]});
        let sample = StepwiseSample::parse(&row, 1).expect("parses");
        let tokenizer = tokenizer();
        let Tokenized { input_ids, labels } = sample.tokenize(&tokenizer, "\n").expect("tokens");
        let line = tokenizer.encode("\n", false).expect("tokens");
        let ends: Vec<(usize, i64)> = labels
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, label)| *label >= 0)
            .collect();
        assert_eq!(
            ends.iter().map(|(_, label)| *label).collect::<Vec<_>>(),
            [1, 0]
        );
        assert_eq!(ends[1].0, input_ids.len() - 1);
        for (end, _) in ends {
            assert_eq!(input_ids[end + 1 - line.len()..=end], line);
        }
        assert_eq!(input_ids.first().copied(), tokenizer.bos_token_id());
        assert!(sample.tokenize(&tokenizer, "").is_err());
    }

    #[test]
    fn rows_that_do_not_fit_are_named() {
        for (row, part) in [
            (
                json!({"prompt": "a", "completions": ["b"], "labels": []}),
                "each step needs a label",
            ),
            (
                json!({"prompt": "a", "completions": [], "labels": []}),
                "must be one",
            ),
            (
                json!({"prompt": "a", "completions": ["b"], "labels": [2]}),
                "step 1",
            ),
            (json!({"prompt": "a", "completions": ["b"]}), "`labels`"),
            (json!({"completions": ["b"], "labels": [1]}), "`prompt`"),
        ] {
            let error = StepwiseSample::parse(&row, 6).expect_err(part).to_string();
            assert!(error.contains("row 6") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn long_rows_are_counted() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("steps.jsonl");
        let row =
            |step: &str| json!({"prompt": "a", "completions": [step], "labels": [1]}).to_string();
        std::fs::write(
            &path,
            format!("{}\n{}\n", row("b"), row(&"word ".repeat(50))),
        )
        .expect("writes");
        let (rows, longer) = load_stepwise(&path, &tokenizer(), "\n", 20).expect("loads");
        assert_eq!((rows.len(), longer), (1, 1));
        let error = load_stepwise(&path, &tokenizer(), "\n", 2)
            .expect_err("none left")
            .to_string();
        assert!(
            error.contains("no row is left of 2") && error.contains("steps.jsonl"),
            "{error}"
        );
    }
}
