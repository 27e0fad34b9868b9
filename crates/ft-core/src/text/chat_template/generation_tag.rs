//! The `{% generation %}` block of transformers, which marks what the assistant says.
//!
//! minijinja knows no tags but its own, so the block becomes a `{% with %}` block: like the
//! original it prints its body and has a scope of its own, and since only the name changes, `-` and
//! `+` and the trimming of lines work on it as on any tag.

/// Renames the tags `generation` and `endgeneration`, outside of comments, strings and raw blocks.
pub(super) fn neutralize(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = next_delimiter(rest) {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let (kept, after) = match &tag[..2] {
            "{#" => {
                let end = tag.find("#}").map_or(tag.len(), |end| end + 2);
                (tag[..end].to_string(), &tag[end..])
            }
            "{{" => {
                let end = expression_end(tag, "}}");
                (tag[..end].to_string(), &tag[end..])
            }
            _ => block(tag),
        };
        out.push_str(&kept);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Where the next `{{`, `{%` or `{#` begins.
fn next_delimiter(text: &str) -> Option<usize> {
    text.as_bytes()
        .windows(2)
        .position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
}

/// A block tag, renamed where needed, and what follows it. A raw block is taken as a whole.
fn block(tag: &str) -> (String, &str) {
    let name_start = 2 + tag[2..]
        .find(|c: char| !(c.is_ascii_whitespace() || c == '-' || c == '+'))
        .unwrap_or(tag.len() - 2);
    let name_len = tag[name_start..]
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(tag.len() - name_start);
    let name = &tag[name_start..name_start + name_len];
    let end = expression_end(tag, "%}");
    let renamed = match name {
        "generation" => "with",
        "endgeneration" => "endwith",
        "raw" => {
            let end = raw_end(tag, end);
            return (tag[..end].to_string(), &tag[end..]);
        }
        _ => return (tag[..end].to_string(), &tag[end..]),
    };
    let kept = format!(
        "{}{renamed}{}",
        &tag[..name_start],
        &tag[(name_start + name_len).min(end)..end]
    );
    (kept, &tag[end..])
}

/// Where an expression or tag ends, just after its closing delimiter; string literals do not close it.
fn expression_end(tag: &str, close: &str) -> usize {
    let bytes = tag.as_bytes();
    let mut quote = None;
    let mut i = 2;
    while i < bytes.len() {
        match (quote, bytes[i]) {
            (Some(_), b'\\') => i += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'\'' | b'"')) => quote = Some(byte),
            (None, _) if bytes[i..].starts_with(close.as_bytes()) => return i + close.len(),
            _ => {}
        }
        i += 1;
    }
    tag.len()
}

/// Where the `endraw` tag that closes a raw block begins, counted from the start of the raw tag.
fn raw_end(tag: &str, body: usize) -> usize {
    let mut at = body;
    while let Some(found) = tag[at..].find("{%") {
        let start = at + found;
        let name = tag[start + 2..].trim_start_matches(['-', '+']).trim_start();
        if name.starts_with("endraw") {
            return start;
        }
        at = start + 2;
    }
    tag.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_the_tag_changes() {
        assert_eq!(
            neutralize("a{%- generation +%}b{%endgeneration-%}c"),
            "a{%- with +%}b{%endwith-%}c"
        );
    }

    #[test]
    fn comments_strings_and_raw_blocks_are_left_alone() {
        for text in [
            "{# {% generation %} #}",
            "{{ '{% generation %}' }}",
            "{% set x = \"%} {% generation %}\" %}",
            "{% raw %}{% generation %}{% endraw %}",
            "{% set generation = 1 %}{{ generation }}",
        ] {
            assert_eq!(neutralize(text), text);
        }
    }

    #[test]
    fn broken_templates_pass_through() {
        for text in ["{%", "{% generation", "{{ 'é", "{#", "{% raw %}{%", "{"] {
            neutralize(text);
        }
        assert_eq!(neutralize("{{ 'é"), "{{ 'é");
    }
}
