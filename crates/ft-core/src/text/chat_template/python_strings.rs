//! Texts as Python takes them apart and writes them in capitals.

use minijinja::{Error, ErrorKind, Value};

/// White space in Python.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip`: white space, or any of `chars`.
pub(super) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let drop = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left {
        text.trim_start_matches(drop)
    } else {
        text
    };
    if right {
        text.trim_end_matches(drop)
    } else {
        text
    }
}

pub(super) fn not_empty(separator: String) -> Result<String, Error> {
    match separator.is_empty() {
        true => Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        false => Ok(separator),
    }
}

pub(super) fn title_case(c: char) -> String {
    let upper: String = c.to_uppercase().collect();
    let mut chars = upper.chars();
    // A ligature of several letters has only its first one large.
    chars
        .next()
        .into_iter()
        .chain(chars.flat_map(char::to_lowercase))
        .collect()
}

/// `str.title`: a letter that follows no letter is large, all others are small.
pub(super) fn title(text: &str) -> String {
    let lower = text.to_lowercase();
    if lower.chars().count() != text.chars().count() {
        return titled(text.chars().map(|c| (c, c.to_lowercase().collect())));
    }
    titled(text.chars().zip(lower.chars().map(String::from)))
}

fn titled(letters: impl Iterator<Item = (char, String)>) -> String {
    let mut out = String::new();
    let mut inside = false;
    for (c, lower) in letters {
        match inside {
            true => out.push_str(&lower),
            false => out.push_str(&title_case(c)),
        }
        inside = c.is_uppercase() || c.is_lowercase();
    }
    out
}

/// `str.splitlines`, which knows more line ends than `\n`.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(
            |c| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'),
        );
        let at = end.unwrap_or(rest.len());
        let mark = match &rest[at..] {
            after if after.starts_with("\r\n") => 2,
            after => after.chars().next().map_or(0, char::len_utf8),
        };
        found.push(&rest[..at + if keep { mark } else { 0 }]);
        rest = &rest[at + mark..];
    }
    found
}

/// `str.split` and `str.rsplit`: at white space, or at a separator.
pub(super) fn split(
    text: &str,
    separator: Option<&str>,
    most: Option<usize>,
    right: bool,
) -> Result<Value, Error> {
    let most = most.unwrap_or(usize::MAX - 1);
    let mut parts: Vec<&str> = Vec::new();
    if let Some(separator) = separator {
        not_empty(separator.to_string())?;
        match right {
            true => parts.extend(text.rsplitn(most + 1, separator)),
            false => parts.extend(text.splitn(most + 1, separator)),
        }
    } else {
        let mut rest = strip(text, None, true, true);
        while !rest.is_empty() && parts.len() < most {
            let cut = if right {
                rest.rfind(is_space)
            } else {
                rest.find(is_space)
            };
            let Some(at) = cut else { break };
            let next = at + rest[at..].chars().next().map_or(0, char::len_utf8);
            let (part, remaining) = if right {
                (&rest[next..], &rest[..at])
            } else {
                (&rest[..at], &rest[next..])
            };
            parts.push(part);
            rest = strip(remaining, None, !right, right);
        }
        if !rest.is_empty() {
            // What is left over keeps the white space of its far end.
            let (from, to) = match right {
                true => (0, offset(text, rest) + rest.len()),
                false => (offset(text, rest), text.len()),
            };
            let full = &text[from..to];
            parts.push(if parts.len() < most { rest } else { full });
        }
    }
    if right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Where a part of `text` begins in it.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}
