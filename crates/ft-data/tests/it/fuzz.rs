//! Damaged data: what is read from outside gives an error or rows, and never a panic, a hang, or memory that has nothing to do with the
//! size of the file. The readers are those of JSON, JSONL, CSV, text, registries, templates, and with their features
//! Parquet, Arrow and documents (HTML, DOCX, PDF).
//!
//! The test runs some hundred cases from a fixed seed. `FT_FUZZ_MINUTES=10 cargo test -p ft-data --all-features --test it damaged_data --
//! --nocapture` runs as long as that for each reader, from a seed that it prints (`FT_FUZZ_SEED` sets it). `FT_FUZZ_READER` names one
//! reader. A failure names its case, and `FT_FUZZ_CASE` runs that case alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ft_core::{ChatOptions, ChatTemplate, Message, mix_seed, split_mix};
#[cfg(feature = "documents")]
use ft_data::document_text;
use ft_data::{DatasetInfo, Format, built_in_template, read_rows};
use serde_json::json;

use crate::memory::peak;

/// Seconds that a case may take.
const LONGEST: u64 = 60;

/// The bytes that may be there at once for a file of this size: as values of JSON, rows of small numbers take many times their bytes.
fn limit(size: usize) -> usize {
    (32 << 20) + 400 * size
}

/// A sequence of numbers.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        split_mix(self.0)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

const NUMBERS: [u64; 10] = [
    0,
    1,
    255,
    65_536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    1 << 63,
    u64::MAX,
];

/// Pieces of the formats, which change more than single bytes do.
const PIECES: [&str; 24] = [
    "\"",
    "{",
    "}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "]",
    ",",
    ":",
    "\n",
    "\\u0000",
    "\\",
    "1e999",
    "null",
    "{%",
    "%}",
    "{{",
    "}}",
    "{% for i in range(99999999) %}x{% endfor %}",
    "{% include '/etc/passwd' %}",
    "endstream",
    "/Length 99999999999",
    "<<",
    ">>",
    "<p><p><p>",
    "\u{feff}é\u{202e}",
];

/// Bytes with one to four changes.
fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        // What describes the rest is at the ends of files.
        let range = match dice.below(3) {
            0 => bytes.len().min(64),
            _ => bytes.len(),
        };
        let mut at = dice.below(range);
        if dice.below(3) == 0 {
            at += bytes.len() - range.min(bytes.len());
        }
        let at = at.min(bytes.len());
        match dice.below(8) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = dice.next() as u8;
                }
            }
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
            2 => bytes.truncate(at),
            3 => {
                let piece = dice.pick(&PIECES).bytes();
                bytes.splice(at..at, piece);
            }
            4 => {
                let end = (at + dice.below(64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, part);
            }
            5 => {
                let end = (at + dice.below(32)).min(bytes.len());
                bytes.drain(at..end);
            }
            width => {
                let number = dice.pick(&NUMBERS).to_le_bytes();
                let size = if width == 6 { 4 } else { 8 };
                let end = (at + size).min(bytes.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
        }
    }
}

/// What reads a file: whether it was read without an error.
type Read = fn(&Path) -> bool;

/// A kind of file: its name, an extension, whole files of it, and what reads them.
struct Reader {
    name: &'static str,
    /// Names below a folder; the one that is damaged is the first. The path that is read is `opened`.
    files: Vec<Vec<(&'static str, Vec<u8>)>>,
    opened: &'static str,
    read: Read,
}

fn rows(path: &Path) -> bool {
    let Ok(rows) = read_rows(path) else {
        return false;
    };
    for row in &rows {
        for format in Format::ALL {
            let _ = format.parse(row, 1);
        }
    }
    true
}

fn registry(path: &Path) -> bool {
    let Ok(info) = DatasetInfo::read(path) else {
        return false;
    };
    let row = json!({"q": "1 + 1?", "a": "2", "dialog": [{"who": "U", "text": "x"}, {"who": "B", "text": "y"}]});
    let entries = info.names().map(|name| info.get(name));
    entries.flatten().fold(true, |_, entry| {
        let _ = entry.format.parse(&row, 1);
        true
    })
}

fn template(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap();
    let source = String::from_utf8_lossy(&bytes);
    let Ok(template) = ChatTemplate::new(&source) else {
        return false;
    };
    let messages = [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")];
    let messages = messages.map(|(role, content)| Message::new(role, content));
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let text = template.render(&messages, &tokens, &ChatOptions::default());
    text.is_ok_and(|text| {
        assert!(!text.contains("root:"), "a template has read a file");
        true
    })
}

#[cfg(any(feature = "arrow", feature = "parquet"))]
fn golden(name: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name),
    )
    .unwrap()
}

fn json_lines() -> String {
    let rows = [
        json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}),
        json!({"instruction": "Add", "input": "1, 2", "output": "3", "history": [["a", "b"]]}),
        json!({"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}], "tools": "[]"}),
        json!({"prompt": "p", "completion": "c", "n": [1, 2.5, -3e-7, null, true]}),
        json!({"text": "\u{e9}\u{1f600} \\ \" \n"}),
    ];
    rows.map(|row| row.to_string()).join("\n")
}

fn readers() -> Vec<Reader> {
    let lines = json_lines();
    let array = format!("[{}]", lines.replace('\n', ",\n"));
    let one = |name, file: &'static str, bytes: Vec<u8>, read: Read| Reader {
        name,
        files: vec![vec![(file, bytes)]],
        opened: file,
        read,
    };
    let csv = "text,label\n\"a, \"\"b\"\"\nc\",1\n\u{e9},\n,2\n";
    let mut readers = vec![
        one("jsonl", "rows.jsonl", lines.clone().into_bytes(), rows),
        one("json", "rows.json", array.into_bytes(), rows),
        one("csv", "rows.csv", csv.into(), rows),
        one("text", "rows.txt", "One line\n\nand \u{e9}\n".into(), rows),
        Reader {
            name: "templates",
            files: ["chatml", "llama3", "deepseek", "gemma", "alpaca"]
                .map(|name| {
                    let template = built_in_template(name).unwrap();
                    vec![("template.jinja", template.source().as_bytes().to_vec())]
                })
                .into(),
            opened: "template.jinja",
            read: template,
        },
    ];
    let entries = json!({
        "math": {"file_name": "a.json", "columns": {"prompt": "q", "response": "a"}},
        "chat": {"hf_hub_url": "org/chat", "formatting": "sharegpt", "split": "test", "columns": {"messages": "dialog"},
                 "tags": {"role_tag": "who", "content_tag": "text", "user_tag": "U", "assistant_tag": "B"}},
    });
    let entries = entries.to_string().into_bytes();
    readers.push(one("registry", "dataset_info.json", entries, registry));
    #[cfg(feature = "gzip")]
    {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(lines.as_bytes()).unwrap();
        readers.push(one("gzip", "rows.jsonl.gz", gzip.finish().unwrap(), rows));
    }
    #[cfg(feature = "parquet")]
    readers.push(one("parquet", "rows.parquet", golden("rows.parquet"), rows));
    #[cfg(feature = "arrow")]
    for (name, file) in [
        ("arrow stream", "saved/shards/data-00000-of-00002.arrow"),
        ("arrow file", "saved/others.arrow"),
    ] {
        readers.push(one(name, "rows.arrow", golden(file), rows));
    }
    #[cfg(feature = "documents")]
    {
        let document = |path: &Path| document_text(path).is_ok();
        let html = "<html><head><title>t</title></head><body><h1>A</h1><p>b &amp; c</p><ul><li>d</ul><table><tr><td>e</table>";
        readers.push(one("html", "page.html", html.into(), document));
        readers.push(one("docx", "text.docx", docx(), document));
        readers.push(one("pdf", "text.pdf", pdf(), document));
    }
    readers
}

#[cfg(feature = "documents")]
fn docx() -> Vec<u8> {
    use std::io::Write;
    let mut file = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    file.start_file("word/document.xml", options).unwrap();
    let text = "<w:document><w:body><w:p><w:pPr><w:pStyle w:val=\"Heading1\"/></w:pPr><w:r><w:t>One</w:t></w:r></w:p>\
                <w:p><w:r><w:t>two &amp; &#233;</w:t><w:br/></w:r></w:p></w:body></w:document>";
    file.write_all(text.as_bytes()).unwrap();
    file.finish().unwrap().into_inner()
}

/// A file of one page, whose text is compressed.
#[cfg(feature = "documents")]
fn pdf() -> Vec<u8> {
    use std::io::Write;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(b"BT /F1 12 Tf 72 720 Td (Hello from a page.) Tj ET")
        .unwrap();
    let stream = zlib.finish().unwrap();
    let mut file = b"%PDF-1.4\n".to_vec();
    let mut places = Vec::new();
    let mut add = |file: &mut Vec<u8>, object: &[u8]| {
        places.push(file.len());
        file.extend(format!("{} 0 obj\n", places.len()).bytes());
        file.extend(object);
        file.extend(b"\nendobj\n");
    };
    add(&mut file, b"<< /Type /Catalog /Pages 2 0 R >>");
    add(&mut file, b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>");
    add(
        &mut file,
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
    );
    let mut content = format!(
        "<< /Filter /FlateDecode /Length {} >>\nstream\n",
        stream.len()
    )
    .into_bytes();
    content.extend(&stream);
    content.extend(b"\nendstream");
    add(&mut file, &content);
    add(
        &mut file,
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    );
    let at = file.len();
    file.extend(b"xref\n0 6\n0000000000 65535 f \n");
    for place in places {
        file.extend(format!("{place:010} 00000 n \n").bytes());
    }
    file.extend(format!("trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{at}\n%%EOF\n").bytes());
    file
}

/// Writes the files, the first of them damaged by `dice`.
fn write(files: &[(&str, Vec<u8>)], folder: &Path, dice: Option<&mut Dice>) -> usize {
    let mut dice = dice;
    let mut size = 0;
    for (name, bytes) in files {
        let mut bytes = bytes.clone();
        if let Some(dice) = dice.take() {
            damage(&mut bytes, dice);
        }
        size += bytes.len();
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    size
}

#[test]
fn damaged_data_gives_errors() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a whole number"))
    };
    let minutes = number("FT_FUZZ_MINUTES");
    let now = || {
        std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_secs())
    };
    let seed = number("FT_FUZZ_SEED").unwrap_or_else(|| minutes.map_or(1, |_| now()));
    let only = number("FT_FUZZ_CASE");
    let chosen = std::env::var("FT_FUZZ_READER").ok();
    let start = Instant::now();
    // The case, and the second in which it began; a thread of its own ends a run that hangs.
    let running = Arc::new((AtomicU64::new(0), AtomicU64::new(u64::MAX)));
    let seen = running.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(5));
            let (case, since) = (&seen.0, &seen.1);
            let since = since.load(Ordering::Relaxed);
            if since != u64::MAX && start.elapsed().as_secs() > since + LONGEST {
                let case = case.load(Ordering::Relaxed);
                eprintln!("seed {seed}, case {case} hangs");
                std::process::abort();
            }
        }
    });
    // A panic of a reader prints nothing: a backtrace would take more memory than the file.
    let (hook, this) = (
        Arc::new(std::panic::take_hook()),
        std::thread::current().id(),
    );
    let reads = Arc::new(AtomicBool::new(false));
    let (printed, reading) = (hook.clone(), reads.clone());
    std::panic::set_hook(Box::new(move |panic| {
        if !(reading.load(Ordering::Relaxed) && std::thread::current().id() == this) {
            printed(panic);
        }
    }));
    let mut failures = Vec::new();
    for reader in readers() {
        let name = reader.name;
        if chosen.as_ref().is_some_and(|chosen| chosen != name) {
            continue;
        }
        for files in &reader.files {
            let folder = tempfile::tempdir().unwrap();
            write(files, folder.path(), None);
            let path = folder.path().join(reader.opened);
            assert!((reader.read)(&path), "{name}: the whole file is not read");
        }
        let began = Instant::now();
        let (mut cases, mut accepted) = (0u64, 0u64);
        for case in only.unwrap_or(0).. {
            let done = match (only, minutes) {
                (Some(only), _) => case > only,
                (None, Some(minutes)) => began.elapsed().as_secs() >= minutes * 60,
                (None, None) => case >= 100,
            };
            if done || failures.len() >= 10 {
                break;
            }
            running.0.store(case, Ordering::Relaxed);
            running
                .1
                .store(start.elapsed().as_secs(), Ordering::Relaxed);
            let mut dice = Dice(mix_seed(seed, case));
            let files = dice.pick(&reader.files);
            let folder = tempfile::tempdir().unwrap();
            let size = write(files, folder.path(), Some(&mut dice));
            let path = folder.path().join(reader.opened);
            reads.store(true, Ordering::Relaxed);
            let (result, most) = peak(|| catch_unwind(AssertUnwindSafe(|| (reader.read)(&path))));
            reads.store(false, Ordering::Relaxed);
            if most > limit(size) {
                failures.push(format!(
                    "{name}, case {case}: {size} bytes take {most} bytes of memory"
                ));
            }
            match result {
                Ok(whole) => accepted += u64::from(whole),
                Err(panic) => {
                    let text = (panic.downcast_ref::<String>().cloned())
                        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
                    let text = text.unwrap_or_default();
                    failures.push(format!("{name}, case {case} panics: {text}"));
                }
            }
            cases += 1;
        }
        running.1.store(u64::MAX, Ordering::Relaxed);
        println!("{name}, seed {seed}: {cases} cases, {accepted} of them read without an error");
    }
    std::panic::set_hook(Box::new(move |panic| hook(panic)));
    assert!(failures.is_empty(), "seed {seed}: {failures:#?}");
}
