//! Jinja2's language as minijinja reads it.
//!
//! Two things are rewritten in the source before it is parsed; everything else stays as it is, lines
//! included. The `{% generation %}` block of transformers, which marks what the assistant says, becomes
//! a `{% with %}` block: like the original it prints its body and has a scope of its own. The
//! operators of expressions are the subject of [`operators`](super::operators).

use super::operators;

/// Translates a template; comments, strings and raw blocks are left alone.
pub(super) fn translate(template: &str) -> String {
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
                let end = tag_end(tag, "}}");
                (operators::rewrite(&tag[..end], 0), &tag[end..])
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

/// A block tag, rewritten where needed, and what follows it. A raw block is taken as a whole.
fn block(tag: &str) -> (String, &str) {
    let name_start = 2 + tag[2..]
        .find(|c: char| !(c.is_ascii_whitespace() || c == '-' || c == '+'))
        .unwrap_or(tag.len() - 2);
    let name_end = tag[name_start..]
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .map_or(tag.len(), |len| name_start + len);
    let end = tag_end(tag, "%}");
    let renamed = match &tag[name_start..name_end] {
        "generation" => "with",
        "endgeneration" => "endwith",
        "raw" => {
            let end = raw_end(tag, end);
            return (tag[..end].to_string(), &tag[end..]);
        }
        _ => {
            let head = name_end.saturating_sub(2).min(end.saturating_sub(2));
            return (operators::rewrite(&tag[..end], head), &tag[end..]);
        }
    };
    let kept = format!(
        "{}{renamed}{}",
        &tag[..name_start],
        &tag[name_end.min(end)..end]
    );
    (kept, &tag[end..])
}

/// Where a tag ends, just after its closing delimiter; string literals and brackets do not close it.
fn tag_end(tag: &str, close: &str) -> usize {
    let bytes = tag.as_bytes();
    let mut quote = None;
    let mut depth = 0usize;
    let mut i = 2;
    while i < bytes.len() {
        match (quote, bytes[i]) {
            (Some(_), b'\\') => i += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'\'' | b'"')) => quote = Some(byte),
            (None, _) if depth == 0 && bytes[i..].starts_with(close.as_bytes()) => {
                return i + close.len();
            }
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
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
    fn only_the_name_of_the_generation_tag_changes() {
        assert_eq!(
            translate("a{%- generation +%}b{%endgeneration-%}c"),
            "a{%- with +%}b{%endwith-%}c"
        );
    }

    #[test]
    fn operators_change_in_expressions_and_tags() {
        assert_eq!(
            translate("{{- a % {'b': {'c': 2}} -}}{%-if a % 2-%}{%set b = '~' ~ 1%}%"),
            "{{- (a)|_percent({'b': {'c': 2}}) -}}{%-if (a)|_percent(2)-%}{%set b = '~' ~ (1)|string%}%"
        );
    }

    #[test]
    fn comments_strings_and_raw_blocks_are_left_alone() {
        for text in [
            "{# {% generation %} {{ a % b }} #}",
            "{{ '{% generation %}' }}",
            "{% set x = \"%} {% generation %}\" %}",
            "{% raw %}{% generation %}{{ a % b }}{% endraw %}",
            "{% set generation = 1 %}{{ generation }}",
        ] {
            assert_eq!(translate(text), text);
        }
    }

    #[test]
    fn broken_templates_pass_through() {
        for text in [
            "{%",
            "{% generation",
            "{{ 'é",
            "{#",
            "{% raw %}{%",
            "{",
            "{{ (",
            "{%-",
            "{{-}}",
            "{% %}",
            "{% é ~",
            "{{ ] % ~ }}",
            "{{ a ~ }}",
            "{{ % }}",
        ] {
            translate(text);
        }
        assert_eq!(translate("{{ 'é"), "{{ 'é");
    }
}
