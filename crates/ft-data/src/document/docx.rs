//! The text of a DOCX file: the paragraphs of `word/document.xml`. Headers, footnotes and comments are left out.

use std::io::{Cursor, Read};

use quick_xml::Reader;
use quick_xml::events::Event;
use zip::ZipArchive;

use super::{MAX_TEXT, Paragraphs};

pub(super) fn text(bytes: &[u8]) -> Result<String, String> {
    let damaged = |error: &dyn std::fmt::Display| format!("this is not a valid DOCX file: {error}");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    let part = archive
        .by_name("word/document.xml")
        .map_err(|error| damaged(&error))?;
    let size = part.size();
    if size > MAX_TEXT {
        return Err(damaged(&format!("its text has more than {MAX_TEXT} bytes")));
    }
    let mut xml = String::new();
    let mut limited = part.take(size + 1);
    limited
        .read_to_string(&mut xml)
        .map_err(|error| damaged(&error))?;
    if xml.len() as u64 > size {
        return Err(damaged(&"its text is longer than the archive says"));
    }
    paragraphs(&xml).map_err(|error| damaged(&error))
}

fn paragraphs(xml: &str) -> Result<String, quick_xml::Error> {
    let mut reader = Reader::from_str(xml);
    let mut out = Paragraphs::default();
    // Whether a text is open, and the depth of what is left out: text that a change deleted, and the form of a text box for older
    // programs, which repeats its text.
    let (mut in_text, mut left_out) = (false, 0usize);
    loop {
        match reader.read_event()? {
            Event::Eof => return Ok(out.finish()),
            Event::Start(tag) => match tag.local_name().as_ref() {
                "t" => in_text = left_out == 0,
                "del" | "Fallback" => left_out += 1,
                "p" => out.next(""),
                "pStyle" => heading(&tag, &mut out)?,
                _ => {}
            },
            Event::Empty(tag) => match tag.local_name().as_ref() {
                "tab" if left_out == 0 => out.push("\t"),
                "br" | "cr" if left_out == 0 => out.push("\n"),
                "pStyle" => heading(&tag, &mut out)?,
                _ => {}
            },
            Event::End(tag) => match tag.local_name().as_ref() {
                "t" => in_text = false,
                "del" | "Fallback" => left_out = left_out.saturating_sub(1),
                "p" => out.next(""),
                "tc" => out.push(" "),
                _ => {}
            },
            Event::Text(text) if in_text => out.push(&text.xml10_content()),
            Event::CData(text) if in_text => out.push(&text.xml10_content()),
            Event::GeneralRef(name) if in_text => match name.resolve_char_ref()? {
                Some(character) => out.push(character.encode_utf8(&mut [0; 4])),
                None => out.push(match &*name {
                    "amp" => "&",
                    "lt" => "<",
                    "gt" => ">",
                    "quot" => "\"",
                    "apos" => "'",
                    _ => "",
                }),
            },
            _ => {}
        }
    }
}

/// Begins a heading if the style is one: `Heading2` is `## `.
fn heading(
    style: &quick_xml::events::BytesStart<'_>,
    out: &mut Paragraphs,
) -> Result<(), quick_xml::Error> {
    for attribute in style.attributes() {
        let attribute = attribute?;
        if attribute.key.local_name().as_ref() != "val" {
            continue;
        }
        let value: &str = &attribute.value;
        let level = match value {
            "Title" => Some(1),
            value => value
                .strip_prefix("Heading")
                .and_then(|level| level.parse().ok()),
        };
        if let Some(level) = level.filter(|level| (1..=6).contains(level)) {
            out.next(&format!("{} ", "#".repeat(level)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn docx(body: &str) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file("word/document.xml", options)
            .expect("begins");
        let xml = format!(
            "<?xml version=\"1.0\"?><w:document xmlns:w=\"w\"><w:body>{body}</w:body></w:document>"
        );
        zip.write_all(xml.as_bytes()).expect("writes");
        zip.finish().expect("ends").into_inner()
    }

    #[test]
    fn paragraphs_headings_and_references_are_read() {
        let body = "<w:p><w:pPr><w:pStyle w:val=\"Heading2\"/></w:pPr><w:r><w:t>Title</w:t></w:r></w:p>\
                    <w:p><w:r><w:t xml:space=\"preserve\">a &lt; b &#228; </w:t></w:r><w:r><w:tab/><w:t>c</w:t><w:br/></w:r>\
                    <w:r><w:t>d</w:t></w:r></w:p><w:p/><w:p><w:del><w:r><w:t>gone</w:t></w:r></w:del><w:r><w:t>e</w:t></w:r></w:p>";
        assert_eq!(
            text(&docx(body)).as_deref(),
            Ok("## Title\n\na < b ä \tc\nd\n\ne")
        );
    }

    #[test]
    fn the_text_of_a_box_is_read_once() {
        let text_box = "<w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>";
        let body = format!(
            "<w:p><w:r><mc:AlternateContent><mc:Choice>{text_box}</mc:Choice><mc:Fallback>{text_box}</mc:Fallback>\
             </mc:AlternateContent><w:t>after</w:t></w:r></w:p>"
        );
        assert_eq!(text(&docx(&body)).as_deref(), Ok("boxed\n\nafter"));
    }

    #[test]
    fn other_files_are_refused() {
        for bytes in [&b"no archive"[..], b"", &docx("<w:p>")[..40]] {
            assert!(text(bytes).is_err_and(|error| error.contains("not a valid DOCX")));
        }
        assert!(text(&docx("<w:p></w:q>")).is_err());
    }
}
