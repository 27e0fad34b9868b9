//! Rows of preference data: two answers to one prompt, of which one is preferred.
//!
//! What is read, by the columns that are there:
//!
//! - `prompt`, `chosen`, `rejected`: texts, or lists of messages. If the answers repeat the prompt's messages, as in
//!   UltraFeedback, the repetition is left out.
//! - `conversations` (or `messages`), `chosen`, `rejected`: the turns so far, and one message each, as LLaMA-Factory has
//!   them.
//! - `instruction`, `input`, `chosen`, `rejected`: Alpaca's columns with two answers.
//! - `chosen`, `rejected` alone: the prompt is what both begin with. Lists of messages are compared by message. Texts are
//!   dialogues in the form of HH-RLHF (`\n\nHuman: ...\n\nAssistant: ...`); a prompt is not guessed by comparing the
//!   characters of other texts, since it would take the common beginning of two answers for a part of the prompt.
//!
//! A column `margin` is read beside each of these; 0 where there is none.

use ft_core::Message;
use serde_json::Value;

use crate::columns::Row;
use crate::format::{alpaca_prompt, role_message, sharegpt_message};
use crate::prompt::after_system;
use crate::{Conversation, Result, Sample};

/// Two answers to one prompt. Only the answers are learnt.
#[derive(Clone, Debug, PartialEq)]
pub struct PreferenceSample {
    /// The prompt with the preferred answer.
    pub chosen: Sample,
    /// The prompt with the other answer.
    pub rejected: Sample,
    /// By how much the score of the preferred answer should be above that of the other one, for reward models.
    pub margin: f32,
}

impl PreferenceSample {
    /// Reads one row. `row_number` counts from 1 and appears in error messages.
    ///
    /// # Errors
    ///
    /// If a column is missing or has a wrong type, or no common prompt is found.
    pub fn parse(row: &Value, row_number: usize) -> Result<Self> {
        let row = Row::new(row, row_number, None)?;
        Ok(Self {
            margin: row.number_or_zero("margin")?,
            ..Self::answers(&row)?
        })
    }

    /// The answers of a row, without its margin.
    fn answers(row: &Row<'_>) -> Result<Self> {
        let answers = [row.value("chosen")?, row.value("rejected")?];
        if row.has("prompt") {
            return match (row.value("prompt")?, answers) {
                (Value::String(prompt), [Value::String(chosen), Value::String(rejected)]) => {
                    Ok(Self::of_texts(prompt, [chosen, rejected]))
                }
                _ => Self::of_messages(row, prompt(row)?),
            };
        }
        for name in ["conversations", "messages"] {
            if row.has(name) {
                let prompt = messages(row, name)?;
                return Self::of_messages(row, prompt);
            }
        }
        if row.has("instruction") {
            return Self::of_messages(row, alpaca_prompt(row)?);
        }
        match answers {
            [Value::String(chosen), Value::String(rejected)] => {
                let dialogue = |name: &str, text: &str| {
                    dialogue(text).ok_or_else(|| {
                        row.error(format!(
                            "`{name}` is a text that is no dialogue of \"\\n\\nHuman: \" and \"\\n\\nAssistant: \", so \
                             its prompt is not known: add a column `prompt`"
                        ))
                    })
                };
                Self::with_common_prompt(
                    row,
                    dialogue("chosen", chosen)?,
                    dialogue("rejected", rejected)?,
                )
            }
            _ => {
                Self::with_common_prompt(row, messages(row, "chosen")?, messages(row, "rejected")?)
            }
        }
    }

    fn of_texts(prompt: &str, [chosen, rejected]: [&String; 2]) -> Self {
        let sample = |completion: &String| Sample::PromptCompletion {
            prompt: prompt.to_string(),
            completion: completion.clone(),
        };
        Self {
            chosen: sample(chosen),
            rejected: sample(rejected),
            margin: 0.0,
        }
    }

    /// The answers of the row to these messages.
    fn of_messages(row: &Row<'_>, prompt: Vec<Message>) -> Result<Self> {
        let turns = prompt.iter().filter(|message| message.role != "system");
        let turns: Vec<Message> = turns.cloned().collect();
        let prompt = after_system(row, prompt)?;
        let answer = |name: &'static str| -> Result<Sample> {
            let mut answer = messages(row, name)?;
            // The answer may repeat the prompt, with or without a system message, which may be its own.
            let own = answer
                .first()
                .filter(|message| message.role == "system")
                .cloned();
            let from = usize::from(own.is_some());
            if answer.len() > from + turns.len() && answer[from..].starts_with(&turns) {
                answer.drain(..from + turns.len());
            }
            let has_system = prompt
                .first()
                .is_some_and(|message| message.role == "system");
            let own = own.filter(|_| !has_system && from > 0);
            let prompt: Vec<Message> = own.into_iter().chain(prompt.iter().cloned()).collect();
            sample(row, &prompt, answer)
        };
        Ok(Self {
            chosen: answer("chosen")?,
            rejected: answer("rejected")?,
            margin: 0.0,
        })
    }

    /// Two conversations whose common beginning is the prompt.
    fn with_common_prompt(
        row: &Row<'_>,
        chosen: Vec<Message>,
        rejected: Vec<Message>,
    ) -> Result<Self> {
        let same = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b);
        // At least the last message of each is an answer.
        let most = chosen.len().min(rejected.len()).saturating_sub(1);
        let common = same.count().min(most);
        if common == 0 {
            return Err(row.error(
                "`chosen` and `rejected` have no message in common that could be their prompt: add a column `prompt`"
                    .to_string(),
            ));
        }
        let (prompt, answer) = chosen.split_at(common);
        Ok(Self {
            chosen: sample(row, prompt, answer.to_vec())?,
            rejected: sample(row, prompt, rejected[common..].to_vec())?,
            margin: 0.0,
        })
    }
}

/// A conversation of which the answer alone is learnt.
pub(crate) fn sample(row: &Row<'_>, prompt: &[Message], answer: Vec<Message>) -> Result<Sample> {
    if !answer.iter().any(|message| message.role == "assistant") {
        return Err(row.error("an answer has no message of the assistant".to_string()));
    }
    Ok(Sample::Conversation(Conversation {
        masked: (0..prompt.len()).collect(),
        messages: prompt.iter().cloned().chain(answer).collect(),
        tools: row.tools()?,
    }))
}

/// The messages of the column `prompt`; a text is the user's.
pub(crate) fn prompt(row: &Row<'_>) -> Result<Vec<Message>> {
    match row.value("prompt")? {
        Value::String(text) => Ok(vec![Message::new("user", text.as_str())]),
        _ => messages(row, "prompt"),
    }
}

/// A message of `role` and `content`, or of `from` and `value`.
pub(crate) fn message(turn: &Row<'_>) -> Result<Message> {
    match turn.has("from") {
        true => sharegpt_message(turn),
        false => role_message(turn),
    }
}

/// The messages of a column: a list of them, one of them, or a text, which is the assistant's.
pub(crate) fn messages(row: &Row<'_>, name: &'static str) -> Result<Vec<Message>> {
    match row.value(name)? {
        Value::String(text) => Ok(vec![Message::new("assistant", text.as_str())]),
        Value::Object(_) => Ok(vec![message(&row.message(name)?)?]),
        _ => {
            let turns = row.turns([name; 2], ["role", "content"])?;
            turns.iter().map(message).collect()
        }
    }
}

/// The turns of a text of HH-RLHF; none if it is no such text.
fn dialogue(text: &str) -> Option<Vec<Message>> {
    const SPEAKERS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];
    let next = |text: &str| {
        let places = SPEAKERS
            .iter()
            .filter_map(|(speaker, role)| Some((text.find(speaker)?, *speaker, *role)));
        places.min_by_key(|(place, ..)| *place)
    };
    let (0, mut speaker, mut role) = next(text)? else {
        return None;
    };
    let mut turns = Vec::new();
    let mut rest = text;
    loop {
        rest = &rest[speaker.len()..];
        let following = next(rest);
        let (content, place) = match following {
            Some((place, ..)) => (&rest[..place], place),
            None => (rest, rest.len()),
        };
        turns.push(Message::new(role, content.trim()));
        rest = &rest[place..];
        match following {
            Some((_, next_speaker, next_role)) => (speaker, role) = (next_speaker, next_role),
            None => return Some(turns),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn turns(sample: &Sample) -> Vec<(String, String, bool)> {
        match sample {
            Sample::Conversation(conversation) => (conversation.messages.iter().enumerate())
                .map(|(i, m)| {
                    let text = m.text().unwrap_or("-").to_string();
                    (m.role.clone(), text, conversation.learns(i))
                })
                .collect(),
            Sample::PromptCompletion { prompt, completion } => vec![
                ("prompt".into(), prompt.clone(), false),
                ("completion".into(), completion.clone(), true),
            ],
        }
    }

    fn parsed(row: Value) -> [Vec<(String, String, bool)>; 2] {
        let sample = PreferenceSample::parse(&row, 1).expect("parses");
        [turns(&sample.chosen), turns(&sample.rejected)]
    }

    fn of(role: &str, text: &str, learnt: bool) -> (String, String, bool) {
        (role.into(), text.into(), learnt)
    }

    /// The same pair in every form.
    #[test]
    fn all_forms_give_the_same_pair() {
        let user = json!({"role": "user", "content": "Hi"});
        let say = |text: &str| json!({"role": "assistant", "content": text});
        let rows = [
            json!({"prompt": [user], "chosen": [say("good")], "rejected": [say("bad")]}),
            json!({"prompt": [user], "chosen": say("good"), "rejected": say("bad")}),
            json!({"prompt": [user], "chosen": [user, say("good")], "rejected": [user, say("bad")]}),
            // UltraFeedback
            json!({"prompt": "Hi", "chosen": [user, say("good")], "rejected": [user, say("bad")]}),
            json!({"chosen": [user, say("good")], "rejected": [user, say("bad")]}),
            json!({"conversations": [{"from": "human", "value": "Hi"}],
                "chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"}}),
            json!({"instruction": "Hi", "input": "", "chosen": "good", "rejected": "bad"}),
            json!({"chosen": "\n\nHuman: Hi\n\nAssistant: good", "rejected": "\n\nHuman: Hi\n\nAssistant: bad"}),
        ];
        for row in rows {
            let expected =
                |answer: &str| vec![of("user", "Hi", false), of("assistant", answer, true)];
            assert_eq!(
                parsed(row.clone()),
                [expected("good"), expected("bad")],
                "{row}"
            );
        }
        // System messages: a column, the first message, or that of the answers.
        let system = json!({"role": "system", "content": "S"});
        for row in [
            json!({"system": "S", "prompt": "Hi", "chosen": [user, say("good")], "rejected": [user, say("bad")]}),
            json!({"system": "S", "messages": [system, user], "chosen": say("good"), "rejected": say("bad")}),
            json!({"prompt": "Hi", "chosen": [system, user, say("good")], "rejected": [system, user, say("bad")]}),
            json!({"prompt": [system, user], "chosen": [system, user, say("good")], "rejected": say("bad")}),
        ] {
            let expected = |answer: &str| {
                vec![
                    of("system", "S", false),
                    of("user", "Hi", false),
                    of("assistant", answer, true),
                ]
            };
            assert_eq!(
                parsed(row.clone()),
                [expected("good"), expected("bad")],
                "{row}"
            );
        }
        let texts = parsed(json!({"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}));
        let expected = |answer: &str| {
            vec![
                of("prompt", "2 + 2 =", false),
                of("completion", answer, true),
            ]
        };
        assert_eq!(texts, [expected(" 4"), expected(" 5")]);
    }

    #[test]
    fn earlier_turns_are_the_prompt_and_not_learnt() {
        let text = |answer: &str| {
            format!("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: {answer}")
        };
        let [chosen, rejected] =
            parsed(json!({"chosen": text("same start d"), "rejected": text("same start e")}));
        assert_eq!(chosen[1], of("assistant", "b", false));
        assert_eq!(chosen[3], of("assistant", "same start d", true));
        assert_eq!(rejected[3], of("assistant", "same start e", true));
    }

    #[test]
    fn what_is_missing_is_explained() {
        let user = json!({"role": "user", "content": "Hi"});
        for (row, part) in [
            (json!({"chosen": "a"}), "`rejected`"),
            (json!({"chosen": "a", "rejected": "b"}), "`prompt`"),
            (json!({"chosen": [user], "rejected": [user]}), "`prompt`"),
            (
                json!({"prompt": [user], "chosen": [user], "rejected": [user]}),
                "assistant",
            ),
            (
                json!({"prompt": "a", "chosen": "b", "rejected": 3}),
                "`rejected` is a number",
            ),
        ] {
            let error = PreferenceSample::parse(&row, 7)
                .expect_err("refused")
                .to_string();
            assert!(
                error.contains("row 7") && error.contains(part),
                "{part}: {error}"
            );
        }
    }

    #[test]
    fn a_margin_is_a_finite_number() {
        let parse = |margin: Value| {
            let row = json!({"prompt": "a", "chosen": "b", "rejected": "c", "margin": margin});
            PreferenceSample::parse(&row, 3)
        };
        assert_eq!(parse(json!(0.5)).expect("parses").margin, 0.5);
        assert_eq!(parse(json!(-2)).expect("parses").margin, -2.0);
        assert_eq!(parse(Value::Null).expect("parses").margin, 0.0);
        for wrong in [json!("large"), json!(1e300)] {
            let error = parse(wrong).expect_err("no margin").to_string();
            assert!(
                error.contains("row 3") && error.contains("`margin`"),
                "{error}"
            );
        }
    }
}
