//! Fields of a message that say whether it is learnt.
//!
//! - `weight` (OpenAI, Mistral): 1 or 0;
//! - `train` or `training` (axolotl): true or false.
//!
//! An assistant message without any of them, or with null, is learnt. Messages of other roles never
//! are. Masks of a part of a message (axolotl's `train_detail`, and `train` or `weight` of a content
//! part) are errors.

use ft_core::Message;
use serde_json::Value;

use crate::Result;
use crate::columns::Row;

const WHOLE: [&str; 3] = ["weight", "train", "training"];
const PARTS: [&str; 4] = [
    "train_detail",
    "training_detail",
    "reasoning_train_detail",
    "reasoning_training_detail",
];

/// Whether the fields of `turn` say that its `message` is not learnt.
///
/// The fields are removed from the message: they are not for the chat template.
///
/// # Errors
///
/// If a field has another value than the two it may have, two fields disagree, a message that is
/// never learnt is to be learnt, or only a part of the message is.
pub(crate) fn take_mask(turn: &Row<'_>, message: &mut Message) -> Result<bool> {
    check_parts(turn, message)?;
    let mut first: Option<(&str, bool)> = None;
    for name in WHOLE {
        let Some(value) = turn.optional(name) else {
            continue;
        };
        let learnt = match (name, value, value.as_f64()) {
            ("weight", _, Some(0.0)) => false,
            ("weight", _, Some(1.0)) => true,
            ("weight", ..) => {
                return Err(turn.error(format!(
                    "`weight` is {value}, but must be 0 (not learnt) or 1 (learnt)"
                )));
            }
            (_, Value::Bool(learnt), _) => *learnt,
            _ => {
                return Err(turn.error(format!(
                    "`{name}` is {value}, but must be false (not learnt) or true (learnt)"
                )));
            }
        };
        match first {
            Some((other, before)) if before != learnt => {
                return Err(turn.error(format!(
                    "`{other}` and `{name}` disagree: remove one of them"
                )));
            }
            _ => first = Some((name, learnt)),
        }
    }
    if let Some((name, true)) = first
        && message.role != "assistant"
    {
        return Err(turn.error(format!(
            "`{name}` asks to learn a message of the role `{}`, but only messages of the role \
             `assistant` are learnt: remove `{name}`",
            message.role
        )));
    }
    for name in WHOLE.iter().chain(&PARTS) {
        message.extra.remove(*name);
    }
    Ok(matches!(first, Some((_, false))))
}

fn check_parts(turn: &Row<'_>, message: &Message) -> Result<()> {
    let detail = PARTS.into_iter().find(|name| turn.optional(name).is_some());
    let of_part = || {
        let parts = message.content.as_array()?.iter();
        let has = |part: &Value, name: &&str| part.get(name).is_some_and(|value| !value.is_null());
        WHOLE
            .into_iter()
            .find(|name| parts.clone().any(|part| has(part, name)))
    };
    match detail.or_else(of_part) {
        None => Ok(()),
        Some(name) => Err(turn.error(format!(
            "`{name}` masks a part of a message, which is not supported: give the whole message \
             `weight` or `train`, or split the row so that the part to learn is a message of its own"
        ))),
    }
}
