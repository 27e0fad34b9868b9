//! AIME: the answer is taken out of the text and compared as MATH's answers are (Hendrycks et al., 2021,
//! arXiv:2103.03874), after both are brought into one form.
//!
//! Where the reference's normalisation fails with an exception, it compares the texts as they are; so it is here.

use super::super::functions::{
    Doc, Function, FunctionRegistry, FunctionResult, MetricValue, Metrics, Response,
};
use crate::harness::python_value::{PyValue, parse_int};

pub(super) fn register(registry: &mut FunctionRegistry) {
    registry.insert(
        "aime/utils.process_results",
        Function::ProcessResults(process_results),
    );
}

fn process_results(doc: &Doc, responses: &[Response]) -> FunctionResult<Metrics> {
    let Some(Response::Text(text)) = responses.first() else {
        return Err("the filters have to leave one text: use take_first".to_string());
    };
    let fields = doc.as_object().into_iter().flatten();
    let target = fields
        .into_iter()
        .find(|(key, _)| key.to_lowercase() == "answer")
        .map(|(_, value)| PyValue::from(value).str())
        .ok_or("the document has no field \"answer\"")?;
    let equal = is_equivalent(answer(text), &target);
    let value = MetricValue::Int(i64::from(equal));
    Ok(vec![("exact_match".to_string(), value)])
}

/// What is in the last box, else what is between the first and the last dollar sign, else all.
fn answer(text: &str) -> &str {
    let dollars = match (text.find('$'), text.rfind('$')) {
        (Some(first), Some(last)) if first < last => &text[first + 1..last],
        _ => text,
    };
    boxed(text).unwrap_or(dollars)
}

/// The content of the last `\boxed{..}`, or what follows the last `\boxed ` up to a dollar sign.
fn boxed(text: &str) -> Option<&str> {
    if let Some(at) = text.rfind("\\boxed ") {
        let rest = &text[at + "\\boxed ".len()..];
        return rest.split('$').next();
    }
    // The reference finds an \fbox too, and does not open it.
    let start = text.rfind("\\boxed")?;
    let mut open = 0;
    for (at, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            b'{' => open += 1,
            b'}' => {
                open -= 1;
                if open == 0 {
                    let found = &text[start..at];
                    return found.strip_prefix("\\boxed{");
                }
            }
            _ => {}
        }
    }
    None
}

fn is_equivalent(a: &str, b: &str) -> bool {
    match (normalized(a), normalized(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// The form that answers are compared in; `None` where the reference fails.
fn normalized(text: &str) -> Option<String> {
    let mut text = text.to_string();
    for (from, to) in [
        ("\n", ""),
        ("\\!", ""),
        ("\\\\", "\\"),
        ("tfrac", "frac"),
        ("dfrac", "frac"),
        ("\\left", ""),
        ("\\right", ""),
        ("^{\\circ}", ""),
        ("^\\circ", ""),
        ("\\$", ""),
    ] {
        text = text.replace(from, to);
    }
    // Units on the right.
    const UNIT: &str = "\\text{ ";
    match text.matches(UNIT).count() {
        0 => {}
        1 => text.truncate(text.find(UNIT)?),
        _ => return None,
    }
    text = text
        .replace("\\%", "")
        .replace(" .", " 0.")
        .replace("{.", "{0.");
    if text.is_empty() {
        return Some(text);
    }
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    // A short name before the value.
    if text.matches('=').count() == 1
        && let Some((name, value)) = text.split_once('=')
        && name.chars().count() <= 2
    {
        text = value.to_string();
    }
    text = braced_roots(&text)?.replace(' ', "");
    text = braced_fractions(&text)?;
    if text == "0.5" {
        text = "\\frac{1}{2}".to_string();
    }
    slash_to_fraction(text)
}

/// `\sqrt3` to `\sqrt{3}`.
fn braced_roots(text: &str) -> Option<String> {
    let mut parts = text.split("\\sqrt");
    let mut out = parts.next().unwrap_or("").to_string();
    for part in parts {
        let first = part.chars().next()?;
        if first == '{' {
            out.push_str(&format!("\\sqrt{part}"));
        } else {
            out.push_str(&format!("\\sqrt{{{first}}}{}", &part[first.len_utf8()..]));
        }
    }
    Some(out)
}

/// `\frac12` and `\frac1{2}` to `\frac{1}{2}`.
fn braced_fractions(text: &str) -> Option<String> {
    let mut parts = text.split("\\frac");
    let mut out = parts.next().unwrap_or("").to_string();
    for part in parts {
        out.push_str("\\frac");
        let mut chars = part.chars();
        let first = chars.next()?;
        if first == '{' {
            out.push_str(part);
            continue;
        }
        let Some(second) = chars.next() else {
            return Some(text.to_string());
        };
        let rest = chars.as_str();
        match second {
            '{' => out.push_str(&format!("{{{first}}}{{{rest}")),
            _ => out.push_str(&format!("{{{first}}}{{{second}}}{rest}")),
        }
    }
    Some(out)
}

/// `a/b` of whole numbers to `\frac{a}{b}`.
fn slash_to_fraction(text: String) -> Option<String> {
    if text.matches('/').count() != 1 {
        return Some(text);
    }
    let (a, b) = text.split_once('/')?;
    let (a, b) = (parse_int(a)?, parse_int(b)?);
    Some(match text == format!("{a}/{b}") {
        true => format!("\\frac{{{a}}}{{{b}}}"),
        false => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_and_compared() {
        for (text, target, equal) in [
            ("So $x = 204$.", "204", true),
            ("It is \\boxed{\\frac12}.", "\\frac{1}{2}", true),
            ("\\boxed{1/2} and \\boxed{0.5}", "1/2", true),
            ("\\boxed 25$ yes", "25", true),
            ("\\fbox{7}", "7", false),
            ("\\sqrt3", "\\sqrt{3}", true),
            ("33", "033", false),
            ("10\\%", "10", true),
            ("5\\text{ cm}", "5", true),
            ("a/b", "a/b", true),
            ("\\boxed{", "", false),
        ] {
            assert_eq!(is_equivalent(answer(text), target), equal, "{text}");
        }
    }
}
