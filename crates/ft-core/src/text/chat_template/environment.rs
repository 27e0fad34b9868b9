//! The environment in which transformers runs templates.
//!
//! `trim_blocks`, `lstrip_blocks`, loop controls, a `tojson` without HTML escapes, `raise_exception`,
//! `strftime_now`, and values, methods and filters as in Python.

use std::fmt;

use chrono::Local;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, Value};

use super::python_text::str_of;
use super::{filters, string_methods};
use crate::{Error, Result};

/// How much work a rendering may do: instructions, and bytes in units of 64.
///
/// Short conversations need less than a hundredth of the constant part. Some templates look through all messages for
/// each message, so the rest grows with the square. Endless loops and texts that double end within seconds. minijinja
/// counts neither comparisons of lists within lists nor the additions that make them.
pub(super) fn fuel(messages: usize) -> u64 {
    let messages = u64::try_from(messages).unwrap_or(u64::MAX);
    5_000_000_u64.saturating_add(messages.saturating_mul(messages).saturating_mul(50))
}

/// A new environment without templates.
pub(super) fn environment() -> Result<Environment<'static>> {
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| Error::ChatTemplate(error.to_string()))?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    minijinja_contrib::add_to_environment(&mut environment);
    environment.set_unknown_method_callback(string_methods::call);
    environment.set_formatter(|out, _, value| match value.as_str() {
        Some(text) => Ok(out.write_str(text)?),
        None => Ok(out.write_str(&str_of(value)?)?),
    });
    filters::add_to(&mut environment);
    // These print values without end, and otherwise than in Jinja2.
    environment.remove_filter("pprint");
    environment.remove_global("debug");
    environment.add_function("raise_exception", |message: Value| {
        Err::<Value, _>(
            minijinja::Error::new(ErrorKind::InvalidOperation, message.to_string())
                .with_source(Raised(message.to_string())),
        )
    });
    environment.add_function("strftime_now", |format: String| {
        strftime(Local::now().format(&format))
    });
    Ok(environment)
}

/// What a template said through `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// An error of minijinja in words, with the template's own where it has raised one.
pub(super) fn explain(error: &minijinja::Error) -> String {
    let causes = || {
        let error: &dyn std::error::Error = error;
        std::iter::successors(error.source(), |cause| cause.source())
    };
    if let Some(Raised(message)) = causes().find_map(|cause| cause.downcast_ref()) {
        return format!("the template refuses this conversation: {message}");
    }
    let out_of_fuel = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<minijinja::Error>();
        cause.is_some_and(|cause| cause.kind() == ErrorKind::OutOfFuel)
    };
    if error.kind() == ErrorKind::OutOfFuel || causes().any(out_of_fuel) {
        return "rendering was stopped after more work than any conversation needs: the template loops too often or \
                builds texts that are too large"
            .to_string();
    }
    let mut text = format!("it does not render this conversation: {error}");
    for cause in causes() {
        text.push_str(&format!(": {cause}"));
    }
    text
}

/// A date as text; chrono reports an unknown `%` letter only while it writes.
pub(super) fn strftime(date: impl fmt::Display) -> Result<String, minijinja::Error> {
    use fmt::Write as _;
    let mut text = String::new();
    write!(text, "{date}").map_err(|_| {
        minijinja::Error::new(
            ErrorKind::InvalidOperation,
            "strftime_now: the format has an unknown % directive",
        )
    })?;
    Ok(text)
}
