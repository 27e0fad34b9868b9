//! The text of a PDF file.
//!
//! The parts of a file are decompressed by the parser, which has no bound: a file that is made for it can fill the memory. Files of
//! unknown origin are to be read in a process with a limit.

use std::panic;

/// The text of all pages. A page that is a picture has none.
pub(super) fn text(bytes: &[u8]) -> Result<String, String> {
    // The parser panics on some damaged files.
    let read = panic::catch_unwind(|| pdf_extract::extract_text_from_mem(bytes));
    match read {
        Ok(Ok(text)) => Ok(tidied(&text)),
        Ok(Err(error)) => Err(format!("the PDF file cannot be read: {error}")),
        Err(_) => {
            Err("the PDF file is damaged, or has something that is not supported".to_string())
        }
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
    fn damaged_files_are_errors_and_do_not_panic() {
        let whole = pdf("Hello");
        for bytes in [&b"no pdf"[..], b"", &whole[..whole.len() / 2], &whole[..60]] {
            assert!(text(bytes).is_err(), "{}", bytes.len());
        }
    }
}
