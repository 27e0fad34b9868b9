//! The operators `%` and `~` of Jinja2's expressions, as filters.
//!
//! `%` formats text if its left side is text, as in Python; minijinja only takes it for the remainder. `~`
//! prints both sides as Python does, which differs from minijinja for some numbers. minijinja's operators
//! cannot be replaced, its filters can: `a % b` becomes `(a)|_percent(b)`, and `a ~ b` becomes
//! `(a)|string ~ (b)|string`. That needs no more of the grammar than how strongly operators bind.

/// One operand or operator, with the white space before it; brackets are one operand with what they hold.
struct Item {
    space: String,
    text: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    /// Text between quotes.
    Literal,
    Operand,
    Symbol,
}

/// Names that end an operand, since all of them bind more weakly than `~`.
const WORDS: [&str; 8] = ["and", "or", "not", "in", "if", "else", "recursive", "as"];

/// Symbols that end an operand.
const WEAK: [&str; 12] = [
    "+", "-", ",", ":", "=", "==", "!=", "<", ">", "<=", ">=", ";",
];

/// Symbols that bind as strongly as `%`.
const PRODUCT: [&str; 4] = ["*", "/", "//", "%"];

/// Rewrites a whole tag, delimiters included; its first `head` bytes after the delimiter hold the name of the tag.
pub(super) fn rewrite(tag: &str, head: usize) -> String {
    let closed = tag.ends_with("}}") || tag.ends_with("%}");
    // A tag that is not closed may end with a character of several bytes.
    let close = if closed { tag.len() - 2 } else { tag.len() };
    if tag.len() < 4 || !tag[2..close].contains(['%', '~']) {
        return tag.to_string();
    }
    let mut start = 2 + head;
    if head == 0 && tag[start..close].starts_with(['-', '+']) {
        start += 1;
    }
    if start >= close {
        return tag.to_string();
    }
    let mut end = close;
    if tag[start..end].ends_with(['-', '+']) {
        end -= 1;
    }
    let mut rest = &tag[start..end];
    let body = level(&mut rest);
    format!("{}{body}{rest}{}", &tag[..start], &tag[end..])
}

/// Rewrites up to a closing bracket or the end, whichever comes first.
fn level(rest: &mut &str) -> String {
    let mut items = Vec::new();
    let tail = loop {
        let space_len = rest.len() - rest.trim_start().len();
        let (space, after) = rest.split_at(space_len);
        let Some(first) = after
            .chars()
            .next()
            .filter(|c| !matches!(c, ')' | ']' | '}'))
        else {
            *rest = after;
            break space;
        };
        let (text, kind) = match first {
            '(' | '[' | '{' => {
                *rest = &after[1..];
                let inner = level(rest);
                let closing = usize::from(!rest.is_empty());
                let text = format!("{first}{inner}{}", &rest[..closing]);
                *rest = &rest[closing..];
                (text, Kind::Operand)
            }
            _ => {
                let (len, kind) = token(after, first);
                *rest = &after[len..];
                (after[..len].to_string(), kind)
            }
        };
        items.push(Item {
            space: space.to_string(),
            text,
            kind,
        });
    };
    let mut out = String::new();
    let mut from = 0;
    for at in 0..items.len() {
        if ends_operand(&items, at) {
            sum(&items[from..at], &mut out);
            out.push_str(&items[at].space);
            out.push_str(&items[at].text);
            from = at + 1;
        }
    }
    sum(&items[from..], &mut out);
    out + tail
}

/// The length and kind of the token at the beginning of `text`.
fn token(text: &str, first: char) -> (usize, Kind) {
    let until = |stop: &dyn Fn(char) -> bool| text.find(stop).unwrap_or(text.len());
    if first == '\'' || first == '"' {
        let mut escaped = false;
        for (at, c) in text.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == first => return (at + 1, Kind::Literal),
                _ => {}
            }
        }
        (text.len(), Kind::Literal)
    } else if first.is_ascii_digit() {
        let mut len = until(&|c| !(c.is_alphanumeric() || c == '_' || c == '.'));
        if text[..len].ends_with(['e', 'E']) && text[len..].starts_with(['-', '+']) {
            let exponent = &text[len + 1..];
            len += 1 + exponent
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(exponent.len());
        }
        (len, Kind::Operand)
    } else if first.is_alphanumeric() || first == '_' {
        (until(&|c| !(c.is_alphanumeric() || c == '_')), Kind::Name)
    } else {
        let two = text
            .get(..2)
            .filter(|two| matches!(*two, "==" | "!=" | "<=" | ">=" | "//" | "**"));
        (two.map_or(first.len_utf8(), str::len), Kind::Symbol)
    }
}

/// Whether the item ends an operand of `~`.
fn ends_operand(items: &[Item], at: usize) -> bool {
    let item = &items[at];
    let before = |back: usize| at.checked_sub(back).map(|at| items[at].text.as_str());
    match item.kind {
        Kind::Name => {
            // After a dot it is an attribute, after `is` a test.
            WORDS.contains(&item.text.as_str())
                && !matches!(before(1), Some("." | "|" | "is"))
                && !(before(1) == Some("not") && before(2) == Some("is"))
        }
        Kind::Symbol => {
            let signs = item.text == "-" || item.text == "+";
            WEAK.contains(&item.text.as_str()) && !(signs && begins_operand(items, at))
        }
        _ => false,
    }
}

/// Whether an operand begins at this item, so that `-` is a sign and `*` unpacks arguments.
fn begins_operand(items: &[Item], at: usize) -> bool {
    at == 0
        || ends_operand(items, at - 1)
        || (items[at - 1].kind == Kind::Symbol && !matches!(items[at - 1].text.as_str(), "." | "|"))
}

/// Operands joined by `~`.
fn sum(items: &[Item], out: &mut String) {
    let parts: Vec<&[Item]> = items.split(|item| is_symbol(item, "~")).collect();
    if parts.len() == 1 || parts.iter().any(|part| part.is_empty()) {
        return product(items, out);
    }
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.push_str(" ~");
        }
        out.push_str(if index > 0 && part[0].space.is_empty() {
            " "
        } else {
            &part[0].space
        });
        let mut text = String::new();
        product(part, &mut text);
        match part {
            [item] if item.kind == Kind::Literal => out.push_str(text.trim_start()),
            _ => out.push_str(&format!("({})|string", text.trim_start())),
        }
    }
}

/// Operands joined by `*`, `/`, `//` and `%`, which bind equally from the left.
fn product(items: &[Item], out: &mut String) {
    let operator = |at: usize| {
        items[at].kind == Kind::Symbol
            && PRODUCT.contains(&items[at].text.as_str())
            && !begins_operand(items, at)
    };
    let space = items.first().map_or("", |item| item.space.as_str());
    let mut text = String::new();
    let mut at = 0;
    while at < items.len() {
        let end = (at + 1..items.len())
            .find(|&next| operator(next))
            .unwrap_or(items.len());
        if is_symbol(&items[at], "%") && operator(at) && at + 1 < end {
            let right = plain(&items[at + 1..end]);
            text = format!("({})|_percent({})", text.trim_start(), right.trim_start());
        } else {
            text.push_str(&plain(&items[at..end]));
        }
        at = end;
    }
    if text.starts_with('(') {
        out.push_str(space);
        out.push_str(&text);
    } else {
        out.push_str(&text);
    }
}

fn is_symbol(item: &Item, symbol: &str) -> bool {
    item.kind == Kind::Symbol && item.text == symbol
}

fn plain(items: &[Item]) -> String {
    items
        .iter()
        .flat_map(|item| [item.space.as_str(), &item.text])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn tags_that_are_not_closed_stay_as_they_are_or_are_rewritten_to_their_end() {
        for tag in [
            "{% if too\u{fffd}",
            "{{ x\u{fffd}",
            "{{",
            "{%}",
            "{% \u{1f600}",
        ] {
            assert_eq!(rewrite(tag, 0), tag);
        }
        assert_eq!(rewrite("{{ a % b }}", 0), "{{ (a)|_percent(b) }}");
        assert!(rewrite("{{ a % \u{e9}", 0).contains("_percent"));
    }
}
