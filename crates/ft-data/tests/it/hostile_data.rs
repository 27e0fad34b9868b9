//! Small files that would become large: an error, or the rows, within bounds of memory and time.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use ft_data::read_rows;
use serde_json::Value;

use crate::memory::peak;

/// What reading a file gives; it must take at most some seconds, and a few times the 16 MiB that a row may have.
fn read(name: &str, bytes: &[u8]) -> Result<Vec<Value>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let began = Instant::now();
    let (rows, most) = peak(|| read_rows(&path));
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{name}: {:?}",
        began.elapsed()
    );
    assert!(most < 80 << 20, "{name}: {most} bytes");
    rows.map_err(|error| error.to_string())
}

/// `begin`, and `piece` until there are `size` bytes.
fn endless(mut file: impl Write, begin: &str, piece: &[u8], size: usize) {
    let pieces = piece.repeat((1 << 16) / piece.len());
    file.write_all(begin.as_bytes()).unwrap();
    for _ in 0..size / pieces.len() {
        file.write_all(&pieces).unwrap();
    }
}

const SIZE: usize = 64 << 20;

/// The files whose rows do not end, and what their error says.
const ENDLESS: [(&str, &str, &[u8], &str); 5] = [
    (
        "rows.jsonl",
        "{\"text\": \"",
        b"a",
        "a line of more than 16777216 bytes",
    ),
    ("rows.txt", "", b"a", "a line of more than 16777216 bytes"),
    (
        "rows.json",
        "[{\"text\": \"",
        b"a",
        "a row of more than 16777216 bytes",
    ),
    ("rows.json", "[", b"[", "a row of more than 16777216 bytes"),
    (
        "rows.csv",
        "text\n\"",
        b"a\n",
        "a row of more than 16777216 bytes",
    ),
];

#[test]
fn rows_without_an_end_are_errors() {
    for (name, begin, piece, reason) in ENDLESS {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        endless(&mut gzip, begin, piece, SIZE);
        let error = read(&format!("{name}.gz"), &gzip.finish().unwrap()).unwrap_err();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[cfg(feature = "zstd")]
#[test]
fn rows_without_an_end_are_errors_in_zstd() {
    for (name, begin, piece, reason) in ENDLESS {
        let mut file = zstd::Encoder::new(Vec::new(), 1).unwrap();
        endless(&mut file, begin, piece, SIZE);
        let error = read(&format!("{name}.zst"), &file.finish().unwrap()).unwrap_err();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn blank_lines_take_no_memory() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(b"{\"text\": \"a\"}").unwrap();
    endless(&mut gzip, "", b"\n", SIZE / 4);
    gzip.write_all(b"{\"text\": \"b\"}").unwrap();
    assert_eq!(
        read("rows.jsonl.gz", &gzip.finish().unwrap()).map(|rows| rows.len()),
        Ok(2)
    );
}

#[test]
fn deep_values_are_errors() {
    let deep = "[".repeat(1 << 20);
    for (name, text) in [
        ("rows.jsonl", format!("{{\"a\": {deep}")),
        ("rows.json", format!("[{deep}")),
    ] {
        let error = read(name, text.as_bytes()).unwrap_err();
        assert!(
            error.contains("recursion limit") || error.contains("ends before"),
            "{name}: {error}"
        );
    }
}

#[cfg(any(feature = "arrow", feature = "parquet"))]
fn golden(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::fs::read(folder.join(name)).unwrap()
}

/// The numbers of rows of the file (3) and of its row groups (2 and 1) as thrift writes them, with the largest number instead.
#[cfg(feature = "parquet")]
#[test]
fn absurd_numbers_of_rows_in_parquet_take_no_memory() {
    const MANY: [u8; 10] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let whole = golden("rows.parquet");
    for field in [[0x16, 6, 0x19], [0x16, 4, 0x26], [0x16, 2, 0x26]] {
        let mut bytes = whole.clone();
        let place = bytes
            .windows(3)
            .rposition(|window| window == field)
            .unwrap()
            + 1;
        bytes.splice(place..place + 1, MANY);
        // The length of the metadata comes behind it.
        let at = bytes.len() - 8;
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) + 9;
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        match read("rows.parquet", &bytes) {
            Ok(rows) => assert_eq!(rows.len(), 3),
            Err(error) => assert!(error.contains("rows.parquet"), "{error}"),
        }
    }
}

/// A message that says that its metadata, or its body, has more bytes than the file.
#[cfg(feature = "arrow")]
#[test]
fn absurd_lengths_in_arrow_are_errors() {
    let whole = golden("saved/shards/data-00000-of-00002.arrow");
    for length in [0x7fff_ff00_u32, u32::MAX - 7] {
        let mut bytes = whole.clone();
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        let error = read("rows.arrow", &bytes).unwrap_err();
        assert!(error.contains("not a valid Arrow file"), "{error}");
    }
    // Whatever 8 bytes become the largest number.
    for place in (0..whole.len() - 8).step_by(8) {
        let mut bytes = whole.clone();
        bytes[place..place + 8].copy_from_slice(&(i64::MAX - 7).to_le_bytes());
        if let Err(error) = read("rows.arrow", &bytes) {
            assert!(error.contains("rows.arrow"), "{error}");
        }
    }
}
