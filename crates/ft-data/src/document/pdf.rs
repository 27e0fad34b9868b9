//! The text of a PDF file, within bounds.
//!
//! The parser of instructions and fonts follows whatever a file says. So a document is put together without its own table of objects,
//! what its pages need is checked, and only that is left in it; see the files below.

mod content;
mod objects;
mod work;

use std::io::Write;
use std::panic;

use pdf_extract::{Object, PlainTextOutput, output_doc};

use super::MAX_TEXT;

/// The text of all pages. A page that is a picture has none.
pub(super) fn text(bytes: &[u8]) -> Result<String, String> {
    // The parser panics on some damaged files.
    match panic::catch_unwind(|| extracted(bytes)) {
        Ok(Ok(text)) => Ok(tidied(&text)),
        Ok(Err(reason)) => Err(format!("the PDF file cannot be read: {reason}")),
        Err(_) => {
            Err("the PDF file is damaged, or has something that is not supported".to_string())
        }
    }
}

fn extracted(bytes: &[u8]) -> Result<String, String> {
    let mut document = objects::document(bytes)?;
    let needed = work::needed(&document)?;
    for object in document.objects.values_mut() {
        if let Object::Stream(stream) = object
            && !needed.contains(&work::address(stream))
        {
            stream.set_plain_content(Vec::new());
        }
    }
    let mut text = Text::default();
    let output: &mut dyn Write = &mut text;
    match output_doc(&document, &mut PlainTextOutput::new(output)) {
        _ if text.is_full => Err(format!("its text has more than {MAX_TEXT} bytes")),
        Ok(()) => String::from_utf8(text.bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Text that has an end.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.is_full |= (self.bytes.len() + bytes.len()) as u64 > MAX_TEXT;
        if self.is_full {
            return Err(std::io::Error::other("the text is full"));
        }
        self.bytes.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Without white space at line ends, and one blank line at most between two lines.
fn tidied(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = true;
    for line in text.lines().map(str::trim_end) {
        if line.trim().is_empty() {
            if !blank {
                out.push('\n');
            }
            blank = true;
        } else {
            out.push_str(line);
            out.push('\n');
            blank = false;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PDF file of one page with one line, and its table of objects.
    fn pdf(line: &str) -> Vec<u8> {
        let stream = format!("BT /F1 12 Tf 72 720 Td ({line}) Tj ET");
        let objects = [
            "<< /Type /Catalog /Pages 2 0 R >>".to_string(),
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_string(),
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>"
                .to_string(),
            format!("<< /Length {} >>\nstream\n{stream}\nendstream", stream.len()),
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_string(),
        ];
        let mut file = "%PDF-1.4\n".to_string();
        let mut table = String::new();
        for (number, object) in (1..).zip(&objects) {
            table.push_str(&format!("{:010} 00000 n \n", file.len()));
            file.push_str(&format!("{number} 0 obj\n{object}\nendobj\n"));
        }
        let at = file.len();
        file.push_str(&format!("xref\n0 6\n0000000000 65535 f \n{table}trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{at}\n%%EOF\n"));
        file.into_bytes()
    }

    #[test]
    fn the_text_of_a_page_is_read() {
        assert_eq!(
            text(&pdf("Hello from a page."))
                .map(|text| text.trim().to_string())
                .as_deref(),
            Ok("Hello from a page.")
        );
    }

    #[test]
    fn a_file_that_is_encrypted_without_a_password_is_read() {
        use pdf_extract::{Document, EncryptionState, EncryptionVersion, Permissions};
        let encrypted = |password: &str| {
            let mut document = Document::load_mem(&pdf("Hello")).expect("is a PDF file");
            let id = Object::string_literal("an id of sixteen");
            document.trailer.set("ID", vec![id.clone(), id]);
            let state = EncryptionState::try_from(EncryptionVersion::V2 {
                document: &document,
                owner_password: "owner",
                user_password: password,
                key_length: 128,
                permissions: Permissions::empty(),
            });
            document
                .encrypt(&state.expect("has a key"))
                .expect("encrypts");
            let mut bytes = Vec::new();
            document.save_to(&mut bytes).expect("writes");
            text(&bytes)
        };
        assert_eq!(encrypted("").as_deref().map(str::trim), Ok("Hello"));
        assert!(encrypted("secret").is_err_and(|error| error.contains("it is encrypted")));
    }

    #[test]
    fn damaged_files_are_errors_and_do_not_panic() {
        let whole = pdf("Hello");
        for bytes in [&b"no pdf"[..], b"", &whole[..whole.len() / 2], &whole[..60]] {
            assert!(text(bytes).is_err(), "{}", bytes.len());
        }
    }
}
