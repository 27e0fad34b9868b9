//! The content of `<answer>`.

/// The text between the last `</answer>` and the last `<answer>` before it. None if there is no closed answer.
pub(super) fn tagged_answer(text: &str) -> Option<&str> {
    let (before, _) = text.rsplit_once("</answer>")?;
    let (_, answer) = before.rsplit_once("<answer>")?;
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_closed_answer_counts() {
        assert_eq!(
            tagged_answer("<answer>1</answer> <answer> 2 </answer>."),
            Some(" 2 ")
        );
        assert_eq!(tagged_answer("<answer>1</answer> <answer>2"), Some("1"));
        assert_eq!(tagged_answer("1</answer>"), None);
        assert_eq!(tagged_answer("<answer>1"), None);
    }
}
