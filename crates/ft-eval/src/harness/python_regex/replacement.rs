//! The replacement of `re.sub`: text with `\1`, `\g<2>`, `\g<name>` and escapes.

/// A replacement in pieces.
pub(super) struct Replacement {
    pieces: Vec<Piece>,
}

enum Piece {
    Text(String),
    Group(usize),
}

impl Replacement {
    /// Reads a replacement for a pattern with these groups, the whole match first.
    pub(super) fn new(source: &str, groups: &[Option<&str>]) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some(at) = rest.find('\\') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let c = rest
                .chars()
                .next()
                .ok_or_else(|| format!("the replacement {source:?} ends in a backslash"))?;
            let after = &rest[c.len_utf8()..];
            rest = after;
            let group = match c {
                'g' => {
                    let (name, after) = after
                        .strip_prefix('<')
                        .and_then(|after| after.split_once('>'))
                        .ok_or_else(|| {
                            format!("\\g needs a <name> in the replacement {source:?}")
                        })?;
                    rest = after;
                    let by_name = || groups.iter().position(|group| *group == Some(name));
                    name.parse().ok().or_else(by_name)
                }
                '0' => {
                    let digits = after
                        .bytes()
                        .take(2)
                        .take_while(|b| (b'0'..b'8').contains(b));
                    let digits = digits.count();
                    let code = u32::from_str_radix(&after[..digits], 8).unwrap_or(0);
                    text.extend(char::from_u32(code));
                    rest = &after[digits..];
                    continue;
                }
                '1'..='9' => {
                    let more = after.bytes().take(1).filter(u8::is_ascii_digit).count();
                    rest = &after[more..];
                    format!("{c}{}", &after[..more]).parse().ok()
                }
                _ => {
                    match c {
                        'a' => text.push('\u{7}'),
                        'b' => text.push('\u{8}'),
                        'f' => text.push('\u{c}'),
                        'n' => text.push('\n'),
                        'r' => text.push('\r'),
                        't' => text.push('\t'),
                        'v' => text.push('\u{b}'),
                        '\\' => text.push('\\'),
                        c if c.is_ascii_alphabetic() => {
                            return Err(format!(
                                "\\{c} is not an escape in the replacement {source:?}"
                            ));
                        }
                        c => text.extend(['\\', c]),
                    }
                    continue;
                }
            };
            let group = group.filter(|&group| group < groups.len()).ok_or_else(|| {
                format!("the replacement {source:?} names a group that does not exist")
            })?;
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(Piece::Group(group));
        }
        text.push_str(rest);
        pieces.push(Piece::Text(text));
        Ok(Self { pieces })
    }

    /// Appends the replacement; a group without a match is empty.
    pub(super) fn expand<'a>(&self, group: impl Fn(usize) -> Option<&'a str>, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Group(index) => out.push_str(group(*index).unwrap_or("")),
            }
        }
    }
}
