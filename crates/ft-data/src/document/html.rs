//! The text of HTML, from the tokens of a conforming tokenizer. Scripts, styles and what is not shown are left out.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{
    BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer,
};

use super::Paragraphs;

/// The text of the page.
///
/// # Errors
///
/// If reading takes longer than ten seconds, and one for each mebibyte: the tokenizer compares each attribute of a tag with all others.
pub(super) fn text(html: &str) -> Result<String, String> {
    text_within(html, Duration::from_secs(10 + (html.len() >> 20) as u64))
}

fn text_within(html: &str, longest: Duration) -> Result<String, String> {
    const PIECE: usize = 1 << 14;
    let ends = Instant::now() + longest;
    let input = BufferQueue::default();
    let tokenizer = Tokenizer::new(Sink::default(), Default::default());
    let mut rest = html;
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.floor_char_boundary(PIECE));
        input.push_back(StrTendril::from_slice(piece));
        // A script would pause the tokenizer; this sink has none.
        let _ = tokenizer.feed(&input);
        if Instant::now() > ends {
            return Err("reading the HTML takes too long: a tag has too many attributes".into());
        }
        rest = more;
    }
    tokenizer.end();
    Ok(tokenizer.sink.0.into_inner().paragraphs.finish())
}

#[derive(Default)]
struct Sink(RefCell<State>);

#[derive(Default)]
struct State {
    paragraphs: Paragraphs,
    /// How many elements are open that are not shown.
    hidden: usize,
    /// How many elements are open that keep their white space.
    preformatted: usize,
}

/// Elements whose content is not text of the page.
const HIDDEN: [&str; 7] = [
    "script", "style", "title", "textarea", "template", "noscript", "svg",
];

/// Elements that begin a paragraph.
const BLOCKS: [&str; 28] = [
    "p",
    "div",
    "section",
    "article",
    "header",
    "footer",
    "main",
    "nav",
    "aside",
    "ul",
    "ol",
    "dl",
    "dt",
    "dd",
    "table",
    "tr",
    "blockquote",
    "figure",
    "figcaption",
    "form",
    "fieldset",
    "address",
    "details",
    "summary",
    "hr",
    "body",
    "head",
    "html",
];

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        let mut state = self.0.borrow_mut();
        match token {
            Token::CharacterTokens(text) if state.hidden == 0 => state.characters(&text),
            Token::TagToken(tag) => {
                state.tag(&tag);
                if tag.kind == TagKind::StartTag {
                    match &*tag.name {
                        "script" => return TokenSinkResult::RawData(RawKind::ScriptData),
                        "style" => return TokenSinkResult::RawData(RawKind::Rawtext),
                        "title" | "textarea" => return TokenSinkResult::RawData(RawKind::Rcdata),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

impl State {
    /// White space is one space, unless it is preformatted.
    fn characters(&mut self, text: &str) {
        if self.preformatted > 0 {
            return self.paragraphs.push(text);
        }
        for character in text.chars() {
            if !character.is_whitespace() {
                self.paragraphs.open.push(character);
            } else if !self.paragraphs.open.ends_with([' ', '\n'])
                && !self.paragraphs.open.is_empty()
            {
                self.paragraphs.open.push(' ');
            }
        }
    }

    fn tag(&mut self, tag: &Tag) {
        let (name, begins) = (&*tag.name, tag.kind == TagKind::StartTag);
        let count = |open: &mut usize| match (begins, tag.self_closing) {
            (true, false) => *open += 1,
            (true, true) => {}
            (false, _) => *open = open.saturating_sub(1),
        };
        if HIDDEN.contains(&name) {
            return count(&mut self.hidden);
        }
        if self.hidden > 0 {
            return;
        }
        match name {
            "pre" => {
                count(&mut self.preformatted);
                self.paragraphs.next("");
            }
            "br" => self.paragraphs.push("\n"),
            "td" | "th" if begins => self.paragraphs.push(" "),
            "li" => self.paragraphs.next(if begins { "- " } else { "" }),
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                let level = usize::from(name.as_bytes()[1] - b'0');
                let prefix = format!("{} ", "#".repeat(level));
                self.paragraphs.next(if begins { &prefix } else { "" });
            }
            name if BLOCKS.contains(&name) => self.paragraphs.next(""),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_lists_and_entities_stay_and_scripts_do_not() {
        let html = "<!doctype html><html><head><title>no</title><style>p { color: red }</style></head><body>\
                    <h2>A &amp; B</h2><p>One\n  two<br>three</p><script>if (a < b) { x = '<p>no</p>' }</script>\
                    <ul><li>first<li>second</ul><pre>a\n  b</pre><table><tr><td>1<td>2</table><p>&uuml;</body>";
        assert_eq!(
            text(html).as_deref(),
            Ok("## A & B\n\nOne two\nthree\n\n- first\n\n- second\n\na\n  b\n\n1 2\n\nü")
        );
    }

    #[test]
    fn broken_html_is_read_as_far_as_it_goes() {
        for (html, read) in [
            ("</script></pre><p>a<b>c</p", "ac"),
            ("<p>a<script>b", "a"),
            ("", ""),
        ] {
            assert_eq!(text(html).as_deref(), Ok(read));
        }
    }

    #[test]
    fn nesting_has_no_bound_and_attributes_have_one() {
        let nested = "<div>".repeat(200_000) + "deep";
        assert_eq!(text(&nested).as_deref(), Ok("deep"));
        let attributes: String = (0..50_000).map(|number| format!(" a{number}")).collect();
        let error = text_within(&format!("<p{attributes}>b"), Duration::from_millis(20));
        assert!(error.is_err_and(|error| error.contains("too many attributes")));
    }

    #[test]
    fn pages_are_read_in_pieces() {
        let word = "ä &amp; <b class='x y'>ö</b> ";
        let html = format!("<p>{}</p>", word.repeat(5000));
        assert_eq!(text(&html).as_deref(), Ok("ä & ö ".repeat(5000).trim_end()));
    }
}
