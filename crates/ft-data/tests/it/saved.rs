//! What `datasets` saves is read; `golden/saved.py` wrote it.

use std::path::Path;

use ft_data::{RowStream, read_rows};
use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/saved");

fn expected(name: &str) -> Vec<Value> {
    let text = std::fs::read(Path::new(FOLDER).join("saved.json")).unwrap();
    let mut all: Value = serde_json::from_slice(&text).unwrap();
    serde_json::from_value(all[name].take()).unwrap()
}

fn rows(name: &str) -> Vec<Value> {
    read_rows(Path::new(FOLDER).join(name)).unwrap()
}

#[test]
fn shards_and_splits_have_the_rows_of_the_dataset() {
    let whole = expected("rows");
    assert_eq!(rows("shards"), whole);
    assert_eq!(rows("shards/data-00001-of-00002.arrow"), whole[2..]);
    assert_eq!(rows("shards/*.arrow"), whole);
    // Without a split named, that to train on.
    assert_eq!(rows("splits"), [whole[2].clone(), whole[0].clone()]);
    assert_eq!(rows("splits/test"), whole[..1]);
}

#[test]
fn a_stream_passes_over_rows_of_both_shards() {
    for skipped in 0..3 {
        let mut stream = RowStream::open(Path::new(FOLDER).join("shards"))
            .unwrap()
            .skip(skipped);
        let mut left = Vec::new();
        while let Some(row) = stream.next().unwrap() {
            left.push(row.unwrap().value);
        }
        assert_eq!(left, expected("rows")[skipped..]);
    }
}

#[test]
fn the_file_format_and_other_types_are_read() {
    assert_eq!(rows("others.arrow"), expected("others"));
}
