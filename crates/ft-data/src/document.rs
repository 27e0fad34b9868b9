//! The text of documents: PDF, DOCX, HTML, Markdown and plain text.
//!
//! Headings become lines of Markdown (`## Heading`) where the format has them, and paragraphs are separated by a blank line, so that
//! [`Chunking`](crate::Chunking) finds both. A PDF has neither: its text comes in the order and with the line ends of its pages.

#[cfg(feature = "documents")]
mod docx;
#[cfg(feature = "documents")]
mod html;
#[cfg(feature = "documents")]
mod pdf;

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The largest text of a document. A longer one is an error, so that an archive that explodes does not fill the memory.
#[cfg(feature = "documents")]
const MAX_TEXT: u64 = 1 << 28;

/// The names of documents end in one of these.
const KNOWN: [&str; 7] = ["txt", "md", "markdown", "html", "htm", "docx", "pdf"];

/// The text of a document, by the extension of its name: `.txt`, `.md`, and with the feature `documents` `.html`, `.docx` and `.pdf`.
///
/// Files of unknown origin are read within bounds. The text, and the XML of a DOCX file, may have 256 MiB. In a PDF file, the instructions of a
/// page may have 16 MiB, the objects in compressed streams 32 MiB together, and all that is read for its pages 1 GiB.
///
/// # Errors
///
/// If the file cannot be read, is damaged or of another kind, is beyond these bounds or circular, or has no text, as a scanned page has
/// none.
pub fn document_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|source| Error::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let extension = path
        .extension()
        .and_then(|end| end.to_str())
        .unwrap_or_default();
    let text = match extension.to_ascii_lowercase().as_str() {
        "txt" | "md" | "markdown" => utf8(bytes),
        #[cfg(feature = "documents")]
        "html" | "htm" => utf8(bytes).and_then(|text| html::text(&text)),
        #[cfg(feature = "documents")]
        "docx" => docx::text(&bytes),
        #[cfg(feature = "documents")]
        "pdf" => pdf::text(&bytes),
        #[cfg(not(feature = "documents"))]
        "html" | "htm" | "docx" | "pdf" => Err(
            "this program was built without the feature `documents`: build with --features documents, or convert the file to text"
                .to_string(),
        ),
        _ => Err(format!("the kind of the document is not known: its name must end in .{}", KNOWN.join(", ."))),
    };
    let text = text.and_then(|text| match text.trim() {
        "" => Err(
            "the document has no text: pages that are pictures need character recognition first"
                .to_string(),
        ),
        text => Ok(text.to_string()),
    });
    text.map_err(|reason| Error::Dataset(reason).in_file(path))
}

/// The documents that a path names: itself, or those in a folder and below, in the order of their paths. Others are left out.
///
/// # Errors
///
/// If a folder cannot be read or has no documents.
pub fn documents_in(path: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let path = path.as_ref();
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    let is_document = |path: &Path| {
        let end = path
            .extension()
            .and_then(|end| end.to_str())
            .unwrap_or_default();
        KNOWN.contains(&end.to_ascii_lowercase().as_str())
    };
    crate::source::walk(path, &is_document, &mut files)?;
    if files.is_empty() {
        let names = KNOWN.join(", .");
        return Err(Error::Dataset(format!(
            "the folder has no documents: their names end in .{names}"
        ))
        .in_file(path));
    }
    files.sort();
    Ok(files)
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    let bytes = bytes
        .strip_prefix(b"\xef\xbb\xbf")
        .map(<[u8]>::to_vec)
        .unwrap_or(bytes);
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("byte {at} is not UTF-8: convert the file to UTF-8")
    })
}

/// Paragraphs that are separated by a blank line, without white space at their ends.
#[cfg(feature = "documents")]
#[derive(Default)]
struct Paragraphs {
    done: String,
    open: String,
}

#[cfg(feature = "documents")]
impl Paragraphs {
    /// Ends the paragraph; the next one begins with `prefix`.
    fn next(&mut self, prefix: &str) {
        let text = self.open.trim();
        // A prefix alone is no paragraph.
        if !text.trim_matches(['#', '-', ' ']).is_empty() {
            if !self.done.is_empty() {
                self.done.push_str("\n\n");
            }
            self.done.push_str(text);
        }
        self.open.clear();
        self.open.push_str(prefix);
    }

    fn push(&mut self, text: &str) {
        self.open.push_str(text);
    }

    fn finish(mut self) -> String {
        self.next("");
        self.done
    }
}
