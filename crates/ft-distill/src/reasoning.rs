//! Replies of reasoning models: what they think, and what they answer.

/// A reply in its two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reasoned<'a> {
    /// What stands in `<think>...</think>`, without blanks around it; none if the reply has no such part.
    pub thinking: Option<&'a str>,
    /// The rest, without blanks around it.
    pub answer: &'a str,
}

/// Splits a reply at its first `</think>`. The opening tag may be missing, since some templates end their prompt with it; text before
/// it is left out. None if the thinking has no end, as in a reply that was cut.
///
/// ```
/// use ft_distill::split_thinking;
///
/// let reply = split_thinking("<think>\n2 and 2 is 4.\n</think>\n\nIt is 4.").unwrap();
/// assert_eq!((reply.thinking, reply.answer), (Some("2 and 2 is 4."), "It is 4."));
/// assert_eq!(split_thinking("It is 4.").unwrap().thinking, None);
/// assert_eq!(split_thinking("<think>2 and"), None);
/// ```
pub fn split_thinking(reply: &str) -> Option<Reasoned<'_>> {
    let opened = reply.split_once("<think>").map(|(_, rest)| rest);
    match opened.unwrap_or(reply).split_once("</think>") {
        Some((thinking, answer)) => Some(Reasoned {
            thinking: Some(thinking.trim()),
            answer: answer.trim(),
        }),
        None if opened.is_some() => None,
        None => Some(Reasoned {
            thinking: None,
            answer: reply.trim(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_may_have_opened_the_thinking() {
        let reply = split_thinking("2 and 2 is 4.</think>4").expect("whole");
        assert_eq!((reply.thinking, reply.answer), (Some("2 and 2 is 4."), "4"));
        let reply = split_thinking("Sure. <think>a</think> b").expect("whole");
        assert_eq!((reply.thinking, reply.answer), (Some("a"), "b"));
        assert_eq!(split_thinking("Sure. <think>a"), None);
        // Tags of the answer stay.
        let reply = split_thinking("<think></think>a </think> b").expect("whole");
        assert_eq!((reply.thinking, reply.answer), (Some(""), "a </think> b"));
    }
}
