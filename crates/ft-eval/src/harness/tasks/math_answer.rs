//! Extracts the answer of a solution in LaTeX: in a box, or between dollars.

/// The text between the first and the last dollar.
pub(super) fn between_dollars(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('$')?;
    rest.rsplit_once('$').map(|(inside, _)| inside)
}

/// The content of the last box. `\boxed 5` has no braces and ends at a dollar.
pub(super) fn boxed(text: &str) -> Option<&str> {
    const BARE: &str = r"\boxed ";
    if let Some(start) = text.rfind(BARE) {
        return text[start + BARE.len()..].split('$').next();
    }
    // The reference also finds an `\fbox` without a `\boxed`, and then ignores it.
    let tail = &text[text.rfind(r"\boxed")?..];
    let mut open = 0;
    let end = tail.char_indices().find_map(|(i, c)| {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        (c == '}' && open == 0).then_some(i)
    })?;
    tail[..end].strip_prefix(r"\boxed{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_closed_box_is_found() {
        for (text, inside) in [
            (r"\boxed{1} \boxed{\frac{1}{2}} {3}", Some(r"\frac{1}{2}")),
            (r"\boxed{1} \boxed 5$ more \boxed{6}", Some("5")),
            (r"\boxed{1} \boxed{2", None),
            (r"\boxed\{1}", None),
            (r"\fbox{1}", None),
            ("", None),
        ] {
            assert_eq!(boxed(text), inside, "{text}");
        }
        assert_eq!(between_dollars("a $b$ c $d$"), Some("b$ c $d"));
        assert_eq!(between_dollars("a $b"), None);
    }
}
