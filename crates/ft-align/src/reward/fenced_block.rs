//! Blocks of Markdown between lines of three backticks.

/// The blocks of a text with their languages, in order. A block that is not closed is left out.
pub(super) fn fenced_blocks(text: &str) -> Vec<(&str, &str)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, usize)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let fence = line.trim().strip_prefix("```");
        match (open, fence) {
            (None, Some(language)) => open = Some((language.trim(), at + line.len())),
            (Some((language, start)), Some("")) => {
                blocks.push((language, &text[start..at]));
                open = None;
            }
            _ => {}
        }
        at += line.len();
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_blocks_are_found_with_their_languages() {
        let text = "So:\n```python\na = 1\n```\nprints\n```\n1\n```\n  ```py\nb\n";
        assert_eq!(fenced_blocks(text), [("python", "a = 1\n"), ("", "1\n")]);
        assert_eq!(fenced_blocks("```\n```"), [("", "")]);
        assert!(fenced_blocks("no `code` ```here```").is_empty());
    }
}
