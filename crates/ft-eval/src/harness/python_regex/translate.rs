//! Translation of Python's pattern syntax to that of `fancy-regex`.
//!
//! | Python | here |
//! |---|---|
//! | `$` also before a last line end | `(?=\n?\z)` |
//! | `\Z` | `\z` |
//! | `\w` is `str.isalnum` and `_` | `[\p{L}\p{N}_]` |
//! | `\s` has the four ASCII separators | `[\s\x1c-\x1f]` |
//! | `[`, `&&`, `--`, `~~` in a class are characters | written as `\x{..}` |
//! | `{` that does not begin a repetition is a character, `{,n}` | `\x{7B}`, `{0,n}` |
//! | `\<`, `\>` are characters | `\x{3C}` |

/// Python's `\w`, for use inside of a class.
const WORD: &str = r"\p{L}\p{N}_";
/// Python's `\s`, for use inside of a class.
const SPACE: &str = r"\s\x1c-\x1f";

/// `re.escape`.
pub(in super::super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "()[]{}?*+-|^$\\.&~# \t\n\r\u{b}\u{c}".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator {
        chars: pattern.chars().collect(),
        at: 0,
        multi_line: false,
        out: String::new(),
    };
    translator.run()?;
    Ok(translator.out)
}

struct Translator {
    chars: Vec<char>,
    at: usize,
    multi_line: bool,
    out: String,
}

impl Translator {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.get(self.at).copied();
        self.at += 1;
        c
    }

    fn looking_at(&self, text: &str) -> bool {
        text.chars()
            .enumerate()
            .all(|(i, c)| self.chars.get(self.at + i) == Some(&c))
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(c) = self.next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' if self.looking_at("?") => self.group()?,
                '{' => self.brace(),
                '}' | ']' => self.literal(c),
                '$' if self.multi_line => self.out.push_str("(?m:$)"),
                '$' => self.out.push_str(r"(?=\n?\z)"),
                _ => self.out.push(c),
            }
        }
        Ok(())
    }

    /// A literal character.
    fn literal(&mut self, c: char) {
        if c.is_alphanumeric() || c == '_' {
            self.out.push(c);
        } else {
            self.out.push_str(&format!("\\x{{{:X}}}", c as u32));
        }
    }

    /// A group, after its `(`.
    fn group(&mut self) -> Result<(), String> {
        if self.looking_at("?#") {
            while let Some(c) = self.next() {
                if c == ')' {
                    return Ok(());
                }
            }
            return Err("a comment does not end".to_string());
        }
        let start = self.at + 1;
        let length = self.chars[start..]
            .iter()
            .take_while(|c| matches!(c, 'a' | 'i' | 'L' | 'm' | 's' | 'u' | 'x' | '-'))
            .count();
        let end = self.chars.get(start + length);
        if length == 0 || !matches!(end, Some(')' | ':')) {
            if self.looking_at("?P=") {
                let name: String = self.chars[self.at..]
                    .iter()
                    .take_while(|c| **c != ')')
                    .collect();
                self.at += name.chars().count() + 1;
                self.out.push_str(&format!("({name})"));
                return Ok(());
            }
            self.out.push('(');
            return Ok(());
        }
        let flags: String = self.chars[start..start + length].iter().collect();
        if let Some(flag) = flags.chars().find(|c| matches!(c, 'a' | 'L')) {
            return Err(format!("the flag {flag} is not supported"));
        }
        let global = end == Some(&')');
        if flags.contains('m') {
            if !global {
                return Err("the flag m is supported for a whole pattern only".to_string());
            }
            self.multi_line = true;
        }
        let kept = flags.replace('u', "");
        self.at = start + length + 1;
        match (global, kept.is_empty()) {
            (true, true) => {}
            (true, false) => self.out.push_str(&format!("(?{kept})")),
            (false, true) => self.out.push_str("(?:"),
            (false, false) => self.out.push_str(&format!("(?{kept}:")),
        }
        Ok(())
    }

    /// A `{`: the start of a repetition, or itself.
    fn brace(&mut self) {
        let rest = &self.chars[self.at..];
        let inside: String = rest.iter().take_while(|c| **c != '}').collect();
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let closed = rest.len() > inside.chars().count();
        let repetition = match inside.split_once(',') {
            _ if !closed || inside.is_empty() => None,
            None if digits(&inside) => Some(format!("{{{inside}}}")),
            Some((low, high)) if digits(low) && digits(high) => {
                let low = if low.is_empty() { "0" } else { low };
                Some(format!("{{{low},{high}}}"))
            }
            _ => None,
        };
        match repetition {
            Some(repetition) => {
                self.at += inside.chars().count() + 1;
                self.out.push_str(&repetition);
            }
            None => self.literal('{'),
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        let c = self.next().ok_or("it ends in a backslash")?;
        match c {
            'A' => self.out.push_str(r"\A"),
            'Z' => self.out.push_str(r"\z"),
            'b' => self.out.push_str(&format!(
                "(?:(?<=[{WORD}])(?![{WORD}])|(?<![{WORD}])(?=[{WORD}]))"
            )),
            'B' => self.out.push_str(&format!(
                "(?:(?<=[{WORD}])(?=[{WORD}])|(?<![{WORD}])(?![{WORD}]))"
            )),
            'w' => self.out.push_str(&format!("[{WORD}]")),
            'W' => self.out.push_str(&format!("[^{WORD}]")),
            's' => self.out.push_str(&format!("[{SPACE}]")),
            'S' => self.out.push_str(&format!("[^{SPACE}]")),
            'd' | 'D' => self.out.extend(['\\', c]),
            '1'..='9' if !self.is_octal(c) => {
                let mut group = c.to_string();
                if let Some(digit) = self.chars.get(self.at).filter(|c| c.is_ascii_digit()) {
                    group.push(*digit);
                    self.at += 1;
                }
                self.out.push_str(&format!("(?:\\{group})"));
            }
            _ => {
                let c = self.character(c)?;
                self.literal(c);
            }
        }
        Ok(())
    }

    /// Three octal digits are a character, fewer a group.
    fn is_octal(&self, first: char) -> bool {
        let octal = |c: Option<&char>| c.is_some_and(|c| ('0'..='7').contains(c));
        octal(Some(&first)) && octal(self.chars.get(self.at)) && octal(self.chars.get(self.at + 1))
    }

    /// The character of an escape.
    fn character(&mut self, c: char) -> Result<char, String> {
        let code = match c {
            'a' => 7,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            'x' => self.digits(2, 2, 16)?,
            'u' => self.digits(4, 4, 16)?,
            'U' => self.digits(8, 8, 16)?,
            '0' => self.digits(0, 2, 8)?,
            '1'..='7' => {
                self.at -= 1;
                self.digits(3, 3, 8)?
            }
            c if c.is_ascii_alphanumeric() => return Err(format!("\\{c} is not supported")),
            c => c as u32,
        };
        char::from_u32(code).ok_or_else(|| format!("\\{c} names no character"))
    }

    fn digits(&mut self, least: usize, most: usize, radix: u32) -> Result<u32, String> {
        let (mut code, mut count) = (0, 0);
        while count < most
            && let Some(digit) = self.chars.get(self.at).and_then(|c| c.to_digit(radix))
        {
            code = code * radix + digit;
            count += 1;
            self.at += 1;
        }
        if count < least {
            return Err(format!("an escape needs {least} digits"));
        }
        Ok(code)
    }

    /// A class. Its members are escaped, so that only ranges have a meaning.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.looking_at("^") {
            self.out.push('^');
            self.at += 1;
        }
        let mut first = true;
        loop {
            let c = self.next().ok_or("a class does not end")?;
            if c == ']' && !first {
                break;
            }
            first = false;
            let Some(low) = self.member(c)? else {
                continue;
            };
            self.literal(low);
            let is_range =
                self.looking_at("-") && !self.looking_at("-]") && self.at + 1 < self.chars.len();
            if is_range {
                self.at += 1;
                let c = self.next().ok_or("a class does not end")?;
                let mark = self.out.len();
                match self.member(c)? {
                    Some(high) => {
                        self.out.push('-');
                        self.literal(high);
                    }
                    None => {
                        self.out.truncate(mark);
                        return Err("a range in a class ends in a class".to_string());
                    }
                }
            }
        }
        self.out.push(']');
        Ok(())
    }

    /// One member of a class: a character, or a class, which is written immediately.
    fn member(&mut self, c: char) -> Result<Option<char>, String> {
        if c != '\\' {
            return Ok(Some(c));
        }
        let c = self.next().ok_or("it ends in a backslash")?;
        let class = match c {
            'w' => WORD.to_string(),
            'W' => format!("[^{WORD}]"),
            's' => SPACE.to_string(),
            'S' => format!("[^{SPACE}]"),
            'd' => r"\d".to_string(),
            'D' => r"\D".to_string(),
            'b' => return Ok(Some('\u{8}')),
            '1'..='7' if !self.is_octal(c) => {
                self.at -= 1;
                let code = self.digits(1, 3, 8)?;
                return Ok(char::from_u32(code));
            }
            _ => return self.character(c).map(Some),
        };
        self.out.push_str(&class);
        Ok(None)
    }
}
