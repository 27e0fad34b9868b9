//! Python's `re`: `findall` and `sub` with patterns in Python's syntax.
//!
//! Filters and metrics of task files have patterns for Python. They are translated to the syntax of `fancy-regex`
//! (look-around, back-references) where the two differ ([`translate`]). The search follows Python: after an empty
//! match the next one at the same place must not be empty, and an empty match directly after another match counts
//! (Python 3.7 and later).
//!
//! The flags `a` and `L`, and `\N{...}`, are errors. Case is folded character by character in both, with slightly
//! different versions of Unicode.

mod replacement;
mod translate;

use fancy_regex::{Captures, Regex, RegexBuilder};

use replacement::Replacement;
pub(super) use translate::escape;

/// The maximum number of backtracking steps of a search.
const BACKTRACK_LIMIT: usize = 10_000_000;

/// `re.compile(pattern)`.
pub(super) struct PythonRegex {
    pattern: String,
    regex: Regex,
    /// The same pattern for non-empty matches; `None` if the pattern matches only the empty text.
    not_empty: Option<Regex>,
}

/// What `findall` returns for one match: the whole match, its only group, or all its groups.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    Text(String),
    Groups(Vec<String>),
}

impl PythonRegex {
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let translated = translate::translate(pattern)
            .map_err(|reason| format!("the pattern {pattern:?} cannot be used: {reason}"))?;
        let build = |not_empty| {
            RegexBuilder::new(&translated)
                .backtrack_limit(BACKTRACK_LIMIT)
                .find_not_empty(not_empty)
                .build()
        };
        let regex = build(false)
            .map_err(|error| format!("the pattern {pattern:?} cannot be used: {error}"))?;
        Ok(Self {
            pattern: pattern.to_string(),
            regex,
            not_empty: build(true).ok(),
        })
    }

    /// `regex.findall(text)`.
    pub(super) fn find_all(&self, text: &str) -> Result<Vec<Found>, String> {
        let mut found = Vec::new();
        self.each_match(text, |captures| {
            let group = |i| {
                captures
                    .get(i)
                    .map_or("", |group| group.as_str())
                    .to_string()
            };
            found.push(match captures.len() {
                1 => Found::Text(group(0)),
                2 => Found::Text(group(1)),
                n => Found::Groups((1..n).map(group).collect()),
            });
            true
        })?;
        Ok(found)
    }

    /// `regex.sub(replacement, text, count)`; 0 means all matches.
    pub(super) fn sub(
        &self,
        replacement: &str,
        text: &str,
        count: usize,
    ) -> Result<String, String> {
        let names: Vec<Option<&str>> = self.regex.capture_names().collect();
        let replacement = Replacement::new(replacement, &names)?;
        let mut out = String::with_capacity(text.len());
        let (mut copied, mut replaced) = (0, 0);
        self.each_match(text, |captures| {
            if let Some(whole) = captures.get(0) {
                out.push_str(&text[copied..whole.start()]);
                copied = whole.end();
            }
            replacement.expand(
                |group| captures.get(group).map(|group| group.as_str()),
                &mut out,
            );
            replaced += 1;
            count == 0 || replaced < count
        })?;
        out.push_str(&text[copied..]);
        Ok(out)
    }

    /// Calls `each` with every match until it returns false.
    fn each_match<'t>(
        &self,
        text: &'t str,
        mut each: impl FnMut(&Captures<'t, str>) -> bool,
    ) -> Result<(), String> {
        let gave_up = |error| {
            let pattern = &self.pattern;
            format!("the search with the pattern {pattern:?} was aborted: {error}")
        };
        let mut at = 0;
        let mut must_advance = false;
        loop {
            let here = match &self.not_empty {
                Some(regex) if must_advance => regex
                    .captures_from_pos(text, at)
                    .map_err(gave_up)?
                    .filter(|captures| captures.get(0).is_some_and(|whole| whole.start() == at)),
                _ => None,
            };
            let found = match here {
                Some(captures) => Some(captures),
                None => {
                    if must_advance {
                        match text[at..].chars().next() {
                            Some(c) => at += c.len_utf8(),
                            None => return Ok(()),
                        }
                    }
                    self.regex.captures_from_pos(text, at).map_err(gave_up)?
                }
            };
            let Some(captures) = found else {
                return Ok(());
            };
            let Some(whole) = captures.get(0) else {
                return Ok(());
            };
            if !each(&captures) {
                return Ok(());
            }
            at = whole.end();
            must_advance = whole.start() == whole.end();
        }
    }
}
