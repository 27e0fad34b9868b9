//! `ast.literal_eval`: a parser for Python's notation of values.
//!
//! Task files write lists of choices as templates such as `{{[sol1, sol2]}}`. The result is Python's notation of a
//! list, which the harness parses. Supported are None, booleans, numbers, strings in every notation (prefixes `r`,
//! `u`; triple quotes; adjacent strings), lists, tuples and dictionaries. Bytes, sets, complex numbers and `\N{...}`
//! are errors.

use super::python_value::PyValue;

/// Reads one value.
pub(super) fn literal_eval(text: &str) -> Result<PyValue, String> {
    let mut reader = Reader {
        chars: text.chars().collect(),
        at: 0,
        depth: 0,
        open: 0,
    };
    let value = reader.tuple_or_value(None)?;
    reader.skip_space();
    match reader.peek() {
        None => Ok(value),
        Some(c) => Err(format!("'{c}' is left over after the value")),
    }
}

/// The maximum depth of nesting.
const DEEPEST: usize = 100;

struct Reader {
    chars: Vec<char>,
    at: usize,
    depth: usize,
    /// The number of open brackets. Only in brackets can a value continue on the next line.
    open: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn peek_at(&self, offset: usize) -> Option<char> {
        self.chars.get(self.at + offset).copied()
    }

    /// Skips white space and comments.
    fn skip_space(&mut self) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\n' | '\r' | '\u{c}' => self.at += 1,
                '#' => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => break,
            }
        }
    }

    fn take(&mut self, expected: char) -> bool {
        self.skip_space();
        let found = self.peek() == Some(expected);
        self.at += usize::from(found);
        found
    }

    /// Values up to `close`, or to the end. With a comma they are a tuple.
    fn tuple_or_value(&mut self, close: Option<char>) -> Result<PyValue, String> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            self.skip_space();
            if self.peek() == close && (comma || close.is_some()) {
                break;
            }
            items.push(self.value()?);
            self.skip_space();
            if !self.take(',') {
                break;
            }
            comma = true;
        }
        self.skip_space();
        if let Some(close) = close
            && !self.take(close)
        {
            return Err(format!("'{close}' is missing"));
        }
        match items.pop() {
            Some(value) if !comma => Ok(value),
            last => {
                items.extend(last);
                Ok(PyValue::Tuple(items))
            }
        }
    }

    fn value(&mut self) -> Result<PyValue, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("it is nested too deeply".to_string());
        }
        self.skip_space();
        let value = match self.peek() {
            None => Err("a value is missing".to_string()),
            Some(bracket @ ('[' | '(' | '{')) => {
                self.at += 1;
                self.open += 1;
                let value = match bracket {
                    '[' => self.list(),
                    '(' => self.tuple_or_value(Some(')')),
                    _ => self.dict(),
                };
                self.open -= 1;
                value
            }
            Some(c) if c == '-' || c == '+' => {
                self.at += 1;
                self.skip_space();
                if matches!(self.peek(), Some('-' | '+')) {
                    return Err("there are two signs before a number".to_string());
                }
                match self.value()? {
                    PyValue::Int(value) if c == '-' => Ok(PyValue::Int(-value)),
                    PyValue::Float(value) if c == '-' => Ok(PyValue::Float(-value)),
                    value @ (PyValue::Int(_) | PyValue::Float(_)) => Ok(value),
                    other => Err(format!("'{c}' must not be before {}", other.repr())),
                }
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some('\'' | '"') => self.texts(),
            Some(_) => self.word(),
        };
        self.depth -= 1;
        value
    }

    fn list(&mut self) -> Result<PyValue, String> {
        let mut items = Vec::new();
        while !self.take(']') {
            items.push(self.value()?);
            if !self.take(',') {
                if self.take(']') {
                    break;
                }
                return Err("',' or ']' is missing in a list".to_string());
            }
        }
        Ok(PyValue::List(items))
    }

    fn dict(&mut self) -> Result<PyValue, String> {
        let mut fields: Vec<(PyValue, PyValue)> = Vec::new();
        while !self.take('}') {
            let key = self.value()?;
            if matches!(key, PyValue::List(_) | PyValue::Dict(_)) {
                return Err(format!("{} cannot be a key", key.repr()));
            }
            if !self.take(':') {
                return Err("':' is missing in a dictionary".to_string());
            }
            let value = self.value()?;
            match fields.iter_mut().find(|(old, _)| *old == key) {
                Some((_, old)) => *old = value,
                None => fields.push((key, value)),
            }
            if !self.take(',') {
                if self.take('}') {
                    break;
                }
                return Err("',' or '}' is missing in a dictionary".to_string());
            }
        }
        Ok(PyValue::Dict(fields))
    }

    fn word(&mut self) -> Result<PyValue, String> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            self.at += 1;
        }
        let word: String = self.chars[start..self.at].iter().collect();
        if matches!(self.peek(), Some('\'' | '"'))
            && matches!(word.to_ascii_lowercase().as_str(), "r" | "u")
        {
            self.at = start;
            return self.texts();
        }
        match word.as_str() {
            "None" => Ok(PyValue::None),
            "True" => Ok(PyValue::Bool(true)),
            "False" => Ok(PyValue::Bool(false)),
            "" => Err(format!("'{}' begins no value", self.peek().unwrap_or(' '))),
            _ => Err(format!("'{word}' is not a value")),
        }
    }

    fn number(&mut self) -> Result<PyValue, String> {
        let start = self.at;
        while let Some(c) = self.peek() {
            let exponent_sign = matches!(c, '+' | '-')
                && matches!(self.chars[self.at - 1], 'e' | 'E')
                && self.at > start;
            if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || exponent_sign) {
                break;
            }
            self.at += 1;
        }
        let written: String = self.chars[start..self.at].iter().collect();
        let wrong = || format!("'{written}' is not a number");
        let underscores_are_between_digits = written
            .split('_')
            .all(|part| !part.is_empty() && part.chars().all(|c| c != '_'));
        if !underscores_are_between_digits {
            return Err(wrong());
        }
        let plain = written.replace('_', "").to_ascii_lowercase();
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
            if let Some(digits) = plain.strip_prefix(prefix) {
                return i64::from_str_radix(digits, radix)
                    .map(PyValue::Int)
                    .map_err(|_| wrong());
            }
        }
        if plain.bytes().all(|byte| byte.is_ascii_digit()) {
            if plain.starts_with('0') && plain.bytes().any(|byte| byte != b'0') {
                return Err(format!("'{written}' is a number with leading zeros"));
            }
            return match plain.parse() {
                Ok(whole) => Ok(PyValue::Int(whole)),
                Err(_) => Err(format!("{written} is too large")),
            };
        }
        if plain
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'+' | b'-'))
        {
            return plain.parse().map(PyValue::Float).map_err(|_| wrong());
        }
        Err(wrong())
    }

    /// One string, or several adjacent ones.
    fn texts(&mut self) -> Result<PyValue, String> {
        let mut text = String::new();
        loop {
            let start = self.at;
            let mut raw = false;
            while let Some(c @ ('r' | 'R' | 'u' | 'U')) = self.peek() {
                raw |= matches!(c, 'r' | 'R');
                self.at += 1;
            }
            let Some(quote @ ('\'' | '"')) = self.peek() else {
                self.at = start;
                return Ok(PyValue::Str(text));
            };
            let triple = self.peek_at(1) == Some(quote) && self.peek_at(2) == Some(quote);
            self.at += if triple { 3 } else { 1 };
            self.text(quote, triple, raw, &mut text)?;
            if self.open == 0 {
                while matches!(self.peek(), Some(' ' | '\t')) {
                    self.at += 1;
                }
            } else {
                self.skip_space();
            }
        }
    }

    fn text(
        &mut self,
        quote: char,
        triple: bool,
        raw: bool,
        out: &mut String,
    ) -> Result<(), String> {
        loop {
            let Some(c) = self.peek() else {
                return Err("a string does not end".to_string());
            };
            self.at += 1;
            match c {
                '\\' if raw => {
                    out.push('\\');
                    out.extend(self.peek());
                    self.at += 1;
                }
                '\\' => self.escape(out)?,
                '\n' if !triple => return Err("a string does not end on its line".to_string()),
                _ if c == quote && !triple => return Ok(()),
                _ if c == quote && self.peek() == Some(quote) && self.peek_at(1) == Some(quote) => {
                    self.at += 2;
                    return Ok(());
                }
                _ => out.push(c),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), String> {
        let c = self.peek().ok_or("a string ends in a backslash")?;
        self.at += 1;
        let hex = |reader: &mut Self, digits: usize| {
            let end = reader.at + digits;
            let code = reader
                .chars
                .get(reader.at..end)
                .map(|digits| digits.iter().collect::<String>())
                .and_then(|digits| u32::from_str_radix(&digits, 16).ok())
                .and_then(char::from_u32)
                .ok_or_else(|| {
                    format!("\\{c} is not followed by {digits} digits of a character")
                })?;
            reader.at = end;
            Ok::<char, String>(code)
        };
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            'x' => out.push(hex(self, 2)?),
            'u' => out.push(hex(self, 4)?),
            'U' => out.push(hex(self, 8)?),
            'N' => return Err("\\N{...} in a string is not supported".to_string()),
            '0'..='7' => {
                let mut code = c.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else {
                        break;
                    };
                    code = code * 8 + digit;
                    self.at += 1;
                }
                out.extend(char::from_u32(code));
            }
            other => out.extend(['\\', other]),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repr_writes_is_read_back() {
        let value = PyValue::List(vec![
            PyValue::from("it's \"x\"\n\u{200b}\\"),
            PyValue::Float(1e-5),
            PyValue::Int(-3),
            PyValue::Tuple(vec![PyValue::None, PyValue::Bool(true)]),
            PyValue::Tuple(vec![PyValue::Int(1)]),
            PyValue::Dict(vec![(PyValue::Int(1), PyValue::List(vec![]))]),
        ]);
        assert_eq!(literal_eval(&value.repr()), Ok(value));
    }

    #[test]
    fn notations_of_python_are_read() {
        for (text, expected) in [
            ("'a' \"b\"", PyValue::from("ab")),
            ("r'\\n'", PyValue::from("\\n")),
            ("'''a\n'b'''", PyValue::from("a\n'b")),
            ("'\\x41\\u00e9\\101\\q'", PyValue::from("AéA\\q")),
            ("1_000", PyValue::Int(1000)),
            ("0", PyValue::Int(0)),
            (".5", PyValue::Float(0.5)),
            ("1e3", PyValue::Float(1000.0)),
            ("(1)", PyValue::Int(1)),
            ("1,", PyValue::Tuple(vec![PyValue::Int(1)])),
            ("()", PyValue::Tuple(vec![])),
            ("[1,]", PyValue::List(vec![PyValue::Int(1)])),
        ] {
            assert_eq!(literal_eval(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_invalid_value_is_an_error() {
        for text in [
            "", "007", "a", "[1", "'a", "[1 2]", "1 2", "{'a'}", "b'x'", "-'a'", "²", "1_",
        ] {
            assert!(literal_eval(text).is_err(), "{text}");
        }
        assert!(literal_eval(&"[".repeat(5000)).is_err());
    }
}
