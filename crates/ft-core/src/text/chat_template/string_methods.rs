//! Methods of strings, lists and maps, as Python has them.
//!
//! Positions count characters, and white space is Python's, which has the separators U+001C to U+001F too.

use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::dict_views::DictView;
use super::percent::charge_widths;
use super::python_strings::{is_space, lines, not_empty, split, strip, title, title_case};
use super::python_text::str_of;

/// Calls a method that minijinja does not know; methods of maps are those of minijinja-contrib.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let rest = match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            charge(state, text.len())?;
            of_string(state, text, method, &Arguments::new(args)?)?
        }
        ValueKind::Map => match method {
            "keys" if args.is_empty() => Some(DictView::of(value, "keys")?),
            "values" if args.is_empty() => Some(DictView::of(value, "values")?),
            "items" if args.is_empty() => Some(DictView::of(value, "items")?),
            _ => None,
        },
        ValueKind::Seq | ValueKind::Iterable if method == "index" || method == "count" => {
            Some(of_list(state, value, method, args)?)
        }
        _ => None,
    };
    match rest {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Positional and named arguments of a method.
struct Arguments {
    positional: Rest<Value>,
    named: Kwargs,
}

impl Arguments {
    fn new(args: &[Value]) -> Result<Self, Error> {
        let (positional, named) = from_args(args)?;
        Ok(Self { positional, named })
    }

    /// An argument; Python's `None` is as good as none.
    fn get(&self, index: usize, name: &str) -> Result<Option<Value>, Error> {
        let value = match self.positional.get(index) {
            Some(value) => Some(value.clone()),
            None => self.named.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none()))
    }

    fn text(&self, index: usize, name: &str) -> Result<Option<String>, Error> {
        self.get(index, name)?
            .map(|value| string(&value))
            .transpose()
    }

    fn needed(&self, index: usize, name: &str) -> Result<String, Error> {
        self.text(index, name)?
            .ok_or_else(|| Error::from(ErrorKind::MissingArgument))
    }

    fn number(&self, index: usize, name: &str) -> Result<Option<i64>, Error> {
        self.get(index, name)?.map(i64::try_from).transpose()
    }

    /// Checks that there are no arguments beyond those that were read.
    fn end(&self, most: usize) -> Result<(), Error> {
        if self.positional.len() > most {
            return Err(Error::from(ErrorKind::TooManyArguments));
        }
        self.named.assert_all_used()
    }
}

fn string(value: &Value) -> Result<String, Error> {
    value.as_str().map(str::to_string).ok_or_else(|| {
        let kind = value.kind();
        Error::new(
            ErrorKind::InvalidOperation,
            format!("a string is needed, not a value of kind {kind}"),
        )
    })
}

/// A string's method, or `None` if Python's strings have none of this name that is known here.
fn of_string(
    state: &State,
    text: &str,
    method: &str,
    args: &Arguments,
) -> Result<Option<Value>, Error> {
    let names = matches!(method, "split" | "rsplit" | "splitlines" | "format");
    if !names && args.named.args().next().is_some() {
        let reason = format!("{method} takes no arguments by name");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    let (result, most) = match method {
        "strip" | "lstrip" | "rstrip" => {
            let chars = args.text(0, "chars")?;
            let stripped = strip(
                text,
                chars.as_deref(),
                method != "rstrip",
                method != "lstrip",
            );
            (Value::from(stripped), 1)
        }
        "title" => (Value::from(title(text)), 0),
        "capitalize" => {
            let mut chars = text.chars();
            let first = chars.next().map(title_case).unwrap_or_default();
            // The whole text is lowered, since a sigma looks at its neighbours.
            let lower: String = text.to_lowercase();
            let skip = text.chars().next().map_or(0, |c| c.to_lowercase().count());
            (
                Value::from(first + &lower.chars().skip(skip).collect::<String>()),
                0,
            )
        }
        "isspace" => (
            Value::from(!text.is_empty() && text.chars().all(is_space)),
            0,
        ),
        "swapcase" => {
            let swap = |c: char| match c {
                c if c.is_uppercase() => c.to_lowercase().collect::<String>(),
                c => c.to_uppercase().collect(),
            };
            (Value::from(text.chars().map(swap).collect::<String>()), 0)
        }
        "splitlines" => {
            let keep = args.get(0, "keepends")?.is_some_and(|keep| keep.is_true());
            (lines(text, keep).into_iter().map(Value::from).collect(), 1)
        }
        "split" | "rsplit" => {
            let separator = args.text(0, "sep")?;
            let most = args
                .number(1, "maxsplit")?
                .and_then(|most| usize::try_from(most).ok());
            (
                split(text, separator.as_deref(), most, method == "rsplit")?,
                2,
            )
        }
        "partition" | "rpartition" => {
            let separator = not_empty(args.needed(0, "sep")?)?;
            let found = match method {
                "partition" => text.split_once(&separator),
                _ => text.rsplit_once(&separator),
            };
            let parts = match found {
                Some((before, after)) => [before, &separator, after],
                None if method == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            (
                Value::from(minijinja::value::Tuple::new(
                    parts.map(Value::from).to_vec(),
                )),
                1,
            )
        }
        "removeprefix" => {
            let prefix = args.needed(0, "prefix")?;
            (Value::from(text.strip_prefix(&*prefix).unwrap_or(text)), 1)
        }
        "removesuffix" => {
            let suffix = args.needed(0, "suffix")?;
            (Value::from(text.strip_suffix(&*suffix).unwrap_or(text)), 1)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => (search(text, method, args)?, 3),
        "startswith" | "endswith" => (affix(text, method == "startswith", args)?, 3),
        "replace" => {
            let (old, new) = (args.needed(0, "old")?, args.needed(1, "new")?);
            let count = args
                .number(2, "count")?
                .and_then(|count| usize::try_from(count).ok());
            let places = match old.is_empty() {
                true => text.chars().count() + 1,
                false => text.matches(&*old).count(),
            };
            charge(
                state,
                places
                    .min(count.unwrap_or(usize::MAX))
                    .saturating_mul(new.len()),
            )?;
            (
                Value::from(text.replacen(&*old, &new, count.unwrap_or(usize::MAX))),
                3,
            )
        }
        "join" => {
            let parts = args
                .get(0, "iterable")?
                .ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            let mut out = String::new();
            for (index, part) in parts.try_iter()?.checked().enumerate() {
                if index > 0 {
                    charge(state, text.len())?;
                    out.push_str(text);
                }
                out.push_str(&string(&part?)?);
            }
            (Value::from(out), 1)
        }
        "ljust" | "rjust" | "center" | "zfill" => {
            let width = args
                .number(0, "width")?
                .ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            let fill = args.text(1, "fillchar")?.unwrap_or_else(|| " ".to_string());
            (Value::from(pad(state, text, method, width, &fill)?), 2)
        }
        "format" => {
            let mut values = Vec::with_capacity(args.positional.len() + 1);
            for value in args.positional.iter() {
                values.push(printable(value)?);
            }
            let mut named = Vec::new();
            for name in args.named.args() {
                named.push((
                    name.to_string(),
                    printable(&args.named.get::<Value>(name)?)?,
                ));
            }
            if !named.is_empty() {
                values.push(Value::from(Kwargs::from_iter(named)));
            }
            charge_widths(state, text)?;
            if text.contains(":{") {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    "format fields inside of format fields are not supported",
                ));
            }
            let style = minijinja::formatting::FormatStyle::StrFormat;
            (
                Value::from(minijinja::formatting::format(style, text, &values)?),
                usize::MAX,
            )
        }
        _ => return Ok(None),
    };
    args.end(most)?;
    Ok(Some(result))
}

/// A value as `str.format` takes it: minijinja writes strings and plain numbers as Python does.
fn printable(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Number | ValueKind::String => Ok(value.clone()),
        _ => Ok(Value::from(str_of(value)?)),
    }
}

/// Charges for `bytes` that are about to be made.
pub(super) fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(u64::try_from(bytes / 64).unwrap_or(u64::MAX))
}

/// `find`, `index` and `count`, within the characters from `start` to `end`.
fn search(text: &str, method: &str, args: &Arguments) -> Result<Value, Error> {
    let what = args.needed(0, "sub")?;
    let (window, skipped) = window(text, args)?;
    if method == "count" {
        let count = match what.is_empty() {
            true => window.map_or(0, |window| window.chars().count() + 1),
            false => window.map_or(0, |window| window.matches(&*what).count()),
        };
        return Ok(Value::from(count));
    }
    let found = window.and_then(|window| match method.starts_with('r') {
        true => window.rfind(&*what).map(|at| window[..at].chars().count()),
        false => window.find(&*what).map(|at| window[..at].chars().count()),
    });
    match found {
        Some(at) => Ok(Value::from(at + skipped)),
        None if method.ends_with("find") => Ok(Value::from(-1)),
        None => Err(Error::new(
            ErrorKind::InvalidOperation,
            "substring not found",
        )),
    }
}

/// The characters between the arguments `start` and `end`, and how many are before them.
fn window<'a>(text: &'a str, args: &Arguments) -> Result<(Option<&'a str>, usize), Error> {
    let len = text.chars().count();
    let clamp = |at: i64| match usize::try_from(at) {
        Ok(at) => at,
        Err(_) => len.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    let start = args.number(1, "start")?.map_or(0, clamp);
    let end = args.number(2, "end")?.map_or(len, clamp).min(len);
    let byte = |at: usize| {
        text.char_indices()
            .nth(at)
            .map_or(text.len(), |(byte, _)| byte)
    };
    Ok(((start <= end).then(|| &text[byte(start)..byte(end)]), start))
}

/// `startswith` and `endswith`, with one string or a tuple of them.
fn affix(text: &str, at_start: bool, args: &Arguments) -> Result<Value, Error> {
    let name = if at_start { "prefix" } else { "suffix" };
    let affixes = args
        .get(0, name)?
        .ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
    let (window, _) = window(text, args)?;
    let fits = |affix: &str| {
        window.is_some_and(|window| match at_start {
            true => window.starts_with(affix),
            false => window.ends_with(affix),
        })
    };
    if let Some(affix) = affixes.as_str() {
        return Ok(Value::from(fits(affix)));
    }
    if affixes
        .downcast_object_ref::<minijinja::value::Tuple>()
        .is_none()
    {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!(
                "a string or a tuple of strings is needed, not a value of kind {}",
                affixes.kind()
            ),
        ));
    }
    for affix in affixes.try_iter()?.checked() {
        if fits(&string(&affix?)?) {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

/// `str.ljust`, `rjust`, `center` and `zfill`.
pub(super) fn pad(
    state: &State,
    text: &str,
    method: &str,
    width: i64,
    fill: &str,
) -> Result<String, Error> {
    let len = text.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(len);
    charge(state, missing.saturating_mul(fill.len()))?;
    if method == "zfill" {
        let digits = text
            .trim_start_matches(['-', '+'])
            .len()
            .max(text.len().saturating_sub(1));
        let (sign, digits) = text.split_at(text.len() - digits);
        return Ok(format!("{sign}{}{digits}", "0".repeat(missing)));
    }
    if fill.chars().count() != 1 {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "the fill character must be one character",
        ));
    }
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1),
    };
    Ok(format!(
        "{}{text}{}",
        fill.repeat(left),
        fill.repeat(missing - left)
    ))
}

/// `list.index` and `list.count`.
fn of_list(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (what,): (&Value,) = from_args(args)?;
    let mut count = 0;
    for (index, item) in value.try_iter()?.checked().enumerate() {
        charge(state, 64)?;
        if item? == *what {
            if method == "index" {
                return Ok(Value::from(index));
            }
            count += 1;
        }
    }
    match method {
        "count" => Ok(Value::from(count)),
        _ => Err(Error::new(
            ErrorKind::InvalidOperation,
            "the list has no such item",
        )),
    }
}
