//! Whether the answer is the number of a column, as in GSM8K (Cobbe et al., 2021, arXiv:2110.14168).
//!
//! Numbers are extracted with the patterns of lm-evaluation-harness (task `gsm8k`), without `$`, commas and points at the
//! end. It compares what is left as text. Here `18.00` equals `18` too, and extracted text without a digit, such as
//! `...` at the end of a sentence, is not taken for the last number.

use serde::Deserialize;
use serde_json::Value;

use super::answer_tag::tagged_answer;
use super::number::Decimal;
use super::{BoxError, Completion, Reward};

/// 1 if the answer of the completion is the number of the column, else 0.
///
/// The number of the column is a JSON number, or a text: what follows its last `####`, or the whole text. The reward
/// does not apply to rows without the column.
///
/// ```
/// use ft_align::reward::{Completion, NumericAnswer, PromptRef, Reward};
/// use serde_json::{Map, json};
///
/// let columns = Map::from_iter([("answer".to_string(), json!("9 * 2 = <<9*2=18>>18\n#### 18"))]);
/// let completion = Completion {
///     prompt: PromptRef::Text("..."),
///     text: "She sells 9 eggs for $2 each and makes $18.00.",
///     token_count: 14,
///     finished: true,
///     columns: &columns,
/// };
/// assert_eq!(NumericAnswer::default().score(&completion)?, Some(1.0));
/// # Ok::<(), ft_align::reward::BoxError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NumericAnswer {
    /// The column with the right answer.
    pub column: String,
    /// What counts as the answer of the completion.
    ///
    /// False: the last number in the last `<answer>...</answer>`, or in the whole completion if there is none.
    ///
    /// True: the whole content of the last `<answer>...</answer>`, or the number behind the first `#### ` if there is none.
    pub strict: bool,
    /// The largest difference of numbers that count as equal. With 0, all digits must agree, however many there are.
    pub tolerance: f64,
}

impl Default for NumericAnswer {
    /// The column `answer`, not strict, without a tolerance.
    fn default() -> Self {
        Self {
            column: "answer".to_string(),
            strict: false,
            tolerance: 0.0,
        }
    }
}

impl Reward for NumericAnswer {
    fn name(&self) -> &str {
        "numeric"
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        let Some(column) = completion.column(&self.column) else {
            return Ok(None);
        };
        let right = number_of(column).ok_or_else(|| {
            format!(
                "the column `{}` has no number: it must be a number, or a text that is one or ends with `#### NUMBER`",
                self.column
            )
        })?;
        let text = completion.text;
        let answer = match (self.strict, tagged_answer(text)) {
            (false, tagged) => Decimal::last_in(tagged.unwrap_or(text)),
            (true, Some(tagged)) => Decimal::parse(tagged),
            (true, None) => Decimal::marked_in(text),
        };
        let equal = answer.is_some_and(|answer| {
            answer == right
                || (self.tolerance > 0.0
                    && (answer.to_f64() - right.to_f64()).abs() <= self.tolerance)
        });
        Ok(Some(f64::from(u8::from(equal))))
    }
}

fn number_of(column: &Value) -> Option<Decimal> {
    match column {
        Value::String(text) => {
            let marked = text.rsplit_once("####").map(|(_, number)| number);
            Decimal::parse(marked.unwrap_or(text))
        }
        Value::Number(number) if number.is_f64() => {
            // Unlike JSON, this writes no exponent.
            Decimal::parse(&format!("{}", number.as_f64()?))
        }
        Value::Number(number) => Decimal::parse(&number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::completion::score_of;
    use super::*;

    /// Answers in the form of GSM8K's rows.
    const ANSWERS: [(&str, &str); 4] = [
        (
            "There are 16 - 3 - 4 = <<16-3-4=9>>9 eggs left.\nThat makes 9 * 2 = $<<9*2=18>>18.\n#### 18",
            "18",
        ),
        (
            "It grows to 3*50000 = <<3*50000=150000>>150,000.\n#### 150,000",
            "150000",
        ),
        ("He owes 5-12=<<5-12=-7>>-7 dollars.\n#### -7", "-7"),
        ("Half of 5 is <<5/2=2.5>>2.5 cups.\n#### 2.5", "2.5"),
    ];

    fn scores(text: &str, answer: &Value) -> [f64; 2] {
        [false, true].map(|strict| {
            let reward = NumericAnswer {
                strict,
                ..NumericAnswer::default()
            };
            let score = score_of(&reward, text, json!({ "answer": answer }));
            score.expect("no error").expect("applies")
        })
    }

    #[test]
    fn solutions_of_the_data_are_right_and_those_of_other_rows_wrong() {
        for (i, (solution, number)) in ANSWERS.iter().enumerate() {
            for (j, (answer, _)) in ANSWERS.iter().enumerate() {
                let right = f64::from(u8::from(i == j));
                assert_eq!(scores(solution, &json!(answer)), [right; 2]);
                assert_eq!(
                    scores(&format!("It is {number}."), &json!(answer)),
                    [right, 0.0]
                );
            }
        }
    }

    #[test]
    fn forms_of_an_answer() {
        let answer = json!("...\n#### 1250");
        for (text, expected) in [
            ("The total is $1,250.", [1.0, 0.0]),
            ("1250.00 dollars", [1.0, 0.0]),
            ("#### 1250", [1.0, 1.0]),
            ("#### 1,250.\nQuestion: 7", [0.0, 1.0]),
            ("<answer>$1,250</answer>", [1.0, 1.0]),
            ("<answer>1250 dollars</answer> is 3 times more", [1.0, 0.0]),
            ("#### 1250 <answer>7</answer>", [0.0, 0.0]),
            ("1250 or 7", [0.0, 0.0]),
            ("", [0.0, 0.0]),
            ("<answer></answer> 1250", [0.0, 0.0]),
        ] {
            assert_eq!(scores(text, &answer), expected, "{text}");
        }
    }

    #[test]
    fn columns_may_be_numbers() {
        for (column, text) in [
            (json!(18), "18"),
            (json!(-2.5), "-2.50"),
            (json!(1e21), "1000000000000000000000"),
            (json!("$1,000"), "1000"),
            (json!(u64::MAX), "18446744073709551615"),
        ] {
            assert_eq!(scores(text, &column)[0], 1.0, "{column}");
        }
        assert_eq!(scores("18446744073709551616", &json!(u64::MAX))[0], 0.0);
    }

    #[test]
    fn a_tolerance_is_a_difference() {
        let reward = NumericAnswer {
            tolerance: 0.01,
            ..NumericAnswer::default()
        };
        let score = |text| score_of(&reward, text, json!({"answer": 2.71801}));
        assert_eq!(score("about 2.72"), Ok(Some(1.0)));
        assert_eq!(score("about 2.7"), Ok(Some(0.0)));
    }

    #[test]
    fn columns_without_a_number_are_errors_and_missing_ones_do_not_count() {
        let reward = NumericAnswer::default();
        assert_eq!(score_of(&reward, "1", json!({})), Ok(None));
        for column in [json!("many"), json!("#### "), json!([1])] {
            let error = score_of(&reward, "1", json!({ "answer": column })).expect_err("an error");
            assert!(error.contains("`answer`"), "{error}");
        }
    }
}
