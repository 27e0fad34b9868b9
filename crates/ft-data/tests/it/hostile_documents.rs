//! Small documents that would become large, or do not end: a clear error, or the text, within bounds of memory and time.

use std::io::{Cursor, Write};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use ft_data::document_text;

use crate::memory::peak;

/// The text, or the error.
fn read(name: &str, bytes: &[u8]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let began = Instant::now();
    let (text, most) = peak(|| document_text(&path));
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    assert!(
        most < 200 << 20,
        "{most} bytes for {} in the file",
        bytes.len()
    );
    text.map_err(|error| error.to_string())
}

fn pdf(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut file = b"%PDF-1.5\n".to_vec();
    for (number, object) in (1..).zip(objects) {
        file.extend(format!("{number} 0 obj\n").bytes());
        file.extend(object);
        file.extend(b"\nendobj\n");
    }
    file.extend(b"trailer\n<< /Root 1 0 R >>\nstartxref\n0\n%%EOF\n");
    file
}

fn stream(dictionary: &str, content: &[u8]) -> Vec<u8> {
    let begin = format!("<< {dictionary} /Length {} >>\nstream\n", content.len());
    [begin.as_bytes(), content, b"\nendstream"].concat()
}

const FLATE: &str = "/Filter /FlateDecode";

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(content).unwrap();
    zlib.finish().unwrap()
}

/// Spaces that take a thousandth of their bytes.
fn spaces(size: usize) -> Vec<u8> {
    deflated(&vec![b' '; size])
}

/// One page that shows "Text", whose page, resources and instructions are as they are given; more objects begin with number 6.
fn page(page: &str, resources: &str, instructions: Vec<u8>, more: Vec<Vec<u8>>) -> Vec<u8> {
    let mut objects: Vec<Vec<u8>> = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_string(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_string(),
        format!("<< /Type /Page /MediaBox [0 0 612 792] /Resources << /Font << /F1 5 0 R >> {resources} >> {page} >>"),
    ]
    .map(String::into_bytes)
    .into();
    objects.push(instructions);
    objects.push(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding /ToUnicode 6 0 R >>".to_vec());
    objects.extend(more);
    pdf(&objects)
}

const CONTENTS: &str = "/Parent 2 0 R /Contents 4 0 R";
const TEXT: &[u8] = b"BT /F1 12 Tf 72 720 Td (Text) Tj ET";

fn table(ranges: &str) -> Vec<u8> {
    stream(
        "",
        format!("1 begincodespacerange <00> <FF> endcodespacerange\n{ranges}\n").as_bytes(),
    )
}

fn letters() -> Vec<u8> {
    table("1 beginbfrange <00> <FF> <0000> endbfrange")
}

#[test]
fn a_plain_page_is_read() {
    let whole = page(CONTENTS, "", stream("", TEXT), vec![letters()]);
    assert_eq!(read("a.pdf", &whole).as_deref(), Ok("Text"));
    // The table of objects is not read, so it may say anything.
    let tables = "<< /Type /XRef /Size 9 /W [0 0 0] /Index [0 4000000000] /Filter /FlateDecode /Length 0 >>\nstream\n\nendstream";
    let with_table = page(
        CONTENTS,
        "",
        stream("", TEXT),
        vec![letters(), tables.into()],
    );
    assert_eq!(read("a.pdf", &with_table).as_deref(), Ok("Text"));
    // A picture is not decompressed.
    let picture = stream(&format!("/Subtype /Image {FLATE}"), &spaces(64 << 20));
    let shows = [TEXT, b" /X Do"].concat();
    let with_picture = page(
        CONTENTS,
        "/XObject << /X 7 0 R >>",
        stream("", &shows),
        vec![letters(), picture],
    );
    assert_eq!(read("a.pdf", &with_picture).as_deref(), Ok("Text"));
}

#[test]
fn later_versions_of_objects_and_objects_in_streams_are_read() {
    let font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>";
    let index = format!("5 0 8 {} ", font.len());
    let packed = deflated(format!("{index}{font} 9").as_bytes());
    let packed = stream(
        &format!("/Type /ObjStm /N 2 /First {} {FLATE}", index.len()),
        &packed,
    );
    let mut file = page(
        CONTENTS,
        "",
        stream("", b"BT (Old) Tj ET"),
        vec![letters(), packed],
    );
    // Its length is an object in a stream, and it has what looks like an object.
    file.extend(b"4 0 obj << /Length 8 0 R >>\nstream\n");
    file.extend(TEXT);
    file.extend(b"\n% 3 0 obj\nendstream\nendobj\n");
    assert_eq!(read("a.pdf", &file).as_deref(), Ok("Text"));
}

#[test]
fn streams_that_explode_are_errors() {
    let bomb = spaces(200 << 20);
    let twice = deflated(&bomb);
    let doubled = "/Filter [/FlateDecode /FlateDecode]";
    for (dictionary, content) in [(FLATE, &bomb), (doubled, &twice)] {
        let file = page(CONTENTS, "", stream(dictionary, content), vec![letters()]);
        let error = read("a.pdf", &file).unwrap_err();
        assert!(
            error.contains("more than 16777216 bytes when decompressed"),
            "{error}"
        );
        let packed = stream(
            &format!("/Type /ObjStm /N 1 /First 4 {dictionary}"),
            content,
        );
        let error = read(
            "a.pdf",
            &page(CONTENTS, "", stream("", TEXT), vec![letters(), packed]),
        )
        .unwrap_err();
        assert!(
            error.contains("more than 33554432 bytes when decompressed"),
            "{error}"
        );
    }
    let row = "/Filter /FlateDecode /DecodeParms << /Predictor 12 /Columns 4000000000 >>";
    let error = read(
        "a.pdf",
        &page(CONTENTS, "", stream(row, &deflated(b"a")), vec![letters()]),
    )
    .unwrap_err();
    assert!(error.contains("when decompressed"), "{error}");
    // The same instructions again and again.
    let contents = format!("/Parent 2 0 R /Contents [{}]", "4 0 R ".repeat(1000));
    let error = read(
        "a.pdf",
        &page(
            &contents,
            "",
            stream(FLATE, &spaces(1 << 20)),
            vec![letters()],
        ),
    )
    .unwrap_err();
    assert!(error.contains("when decompressed"), "{error}");
}

#[test]
fn circles_are_errors() {
    let circle = "/Parent 2 0 R /Contents 4 0 R";
    let file = page(circle, "", stream("", TEXT), vec![letters()]);
    let text = String::from_utf8(file).unwrap();
    let down = text.replace("/Kids [3 0 R]", "/Kids [3 0 R 2 0 R]");
    let error = read("a.pdf", down.as_bytes()).unwrap_err();
    assert!(
        error.contains("the tree of its pages is circular"),
        "{error}"
    );
    let up = text.replace("/Kids [3 0 R]", "/Parent 2 0 R /Kids [3 0 R]");
    let error = read("a.pdf", up.as_bytes()).unwrap_err();
    assert!(
        error.contains("the tree of its pages is circular"),
        "{error}"
    );
    let shown = stream("/Subtype /Form", b"/X Do");
    let file = page(
        CONTENTS,
        "/XObject << /X 7 0 R >>",
        stream("", b"/X Do"),
        vec![letters(), shown],
    );
    let error = read("a.pdf", &file).unwrap_err();
    assert!(error.contains("shows itself"), "{error}");
    let reference = page(
        CONTENTS,
        "/XObject 7 0 R",
        stream("", b"/X Do"),
        vec![letters(), b"8 0 R".into(), b"7 0 R".into()],
    );
    assert!(read("a.pdf", &reference).is_err());
}

/// Each form shows the next one a hundred times.
#[test]
fn forms_that_multiply_are_errors() {
    let shows = b"/X Do ".repeat(100);
    let form = |number: usize| {
        let next = number + 1;
        stream(
            &format!("/Subtype /Form /Resources << /XObject << /X {next} 0 R >> >>"),
            &shows,
        )
    };
    let mut more = vec![letters()];
    more.extend((7..17).map(form));
    more.push(stream("/Subtype /Form", b"q Q"));
    let error = read(
        "a.pdf",
        &page(
            CONTENTS,
            "/XObject << /X 7 0 R >>",
            stream("", b"/X Do"),
            more,
        ),
    )
    .unwrap_err();
    assert!(
        error.contains("more than 1073741824 bytes are to be read"),
        "{error}"
    );
}

#[test]
fn tables_of_characters_have_bounds() {
    for (ranges, reason) in [
        (
            "1 beginbfrange <00000000> <FFFFFFFF> <0041> endbfrange".to_string(),
            "names more than 1048576 characters",
        ),
        ("[".repeat(100_000), "nested too deeply"),
        ("(".repeat(100_000), "nested too deeply"),
        ("<< /a ".repeat(100_000), "nested too deeply"),
    ] {
        let file = page(CONTENTS, "", stream("", TEXT), vec![table(&ranges)]);
        let error = read("a.pdf", &file).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    let large = stream(FLATE, &spaces(64 << 20));
    let error = read("a.pdf", &page(CONTENTS, "", stream("", TEXT), vec![large])).unwrap_err();
    assert!(error.contains("when decompressed"), "{error}");
}

#[test]
fn deep_and_many_damaged_objects_are_passed_over_or_errors() {
    for open in ["[", "<< /a ", "(", "<<"] {
        let deep = open.repeat(100_000).into_bytes();
        let file = page(
            CONTENTS,
            "",
            stream("", TEXT),
            vec![letters(), deep.clone()],
        );
        assert_eq!(read("a.pdf", &file).as_deref(), Ok("Text"), "{open}");
        // In instructions.
        let file = page(
            CONTENTS,
            "",
            stream("", &[TEXT, &deep].concat()),
            vec![letters()],
        );
        let _ = read("a.pdf", &file);
    }
    let damaged = "1 0 obj (".repeat(100_000);
    let error = read("a.pdf", format!("%PDF-1.5\n{damaged}").as_bytes()).unwrap_err();
    assert!(error.contains("are damaged"), "{error}");
}

fn docx(part: impl Fn(&mut dyn Write)) -> Vec<u8> {
    let mut file = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    file.start_file("word/document.xml", options).unwrap();
    part(&mut file);
    file.finish().unwrap().into_inner()
}

#[test]
fn archives_that_explode_are_errors() {
    let mut bomb = docx(|part| {
        let piece = vec![b' '; 1 << 20];
        (0..300).for_each(|_| part.write_all(&piece).unwrap());
    });
    let error = read("a.docx", &bomb).unwrap_err();
    assert!(error.contains("more than 268435456 bytes"), "{error}");
    // It says that it has a hundred bytes, in front of the part and in the list at the end.
    let size = (300u32 << 20).to_le_bytes();
    let places: Vec<usize> = (0..bomb.len() - 4)
        .filter(|&at| bomb[at..at + 4] == size)
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bomb[at..at + 4].copy_from_slice(&100u32.to_le_bytes());
    }
    assert!(read("a.docx", &bomb).is_err());
}

#[test]
fn deep_elements_are_read() {
    let deep =
        |open: &str, close: &str| format!("{}text{}", open.repeat(100_000), close.repeat(100_000));
    let body = deep("<w:r><w:t>", "</w:t></w:r>");
    let file = docx(|part| {
        part.write_all(format!("<w:p>{body}</w:p>").as_bytes())
            .unwrap()
    });
    assert_eq!(read("a.docx", &file).as_deref(), Ok("text"));
    assert_eq!(
        read("a.html", deep("<div><b>", "</b></div>").as_bytes()).as_deref(),
        Ok("text")
    );
}
