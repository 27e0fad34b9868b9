//! Streams: all kinds of files, and a position that is exact wherever a run is killed.

use std::fs;
use std::path::Path;

use ft_data::{
    BadRows, Collation, Format, RowStream, StoppingStrategy, StreamLoader, StreamOptions, read_rows,
};
use serde_json::{Value, json};

use crate::tiny as tokenizer;

fn row(question: &str, answer: &str) -> Value {
    json!({"messages": [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]})
}

fn write(folder: &Path, name: &str, rows: impl IntoIterator<Item = Value>) {
    let lines: String = rows.into_iter().map(|row| format!("{row}\n")).collect();
    fs::write(folder.join(name), lines).expect("writes");
}

fn all(stream: &mut RowStream) -> Vec<Value> {
    let mut rows = Vec::new();
    while let Some(row) = stream.next().expect("reads") {
        rows.push(row.expect("can be used").value);
    }
    rows
}

#[test]
fn all_kinds_of_files_give_the_same_rows() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(
        path("a.json"),
        "[{\"q\": \"x,\\\"y\\\"\", \"n\": \"1\"},\n {\"q\": \"ä\", \"n\": \"2\"}]",
    )
    .expect("writes");
    fs::write(
        path("b.jsonl"),
        "{\"q\": \"x,\\\"y\\\"\", \"n\": \"1\"}\n\n{\"q\": \"ä\", \"n\": \"2\"}",
    )
    .expect("writes");
    fs::write(path("c.csv"), "q,n\n\"x,\"\"y\"\"\",1\nä,2\n").expect("writes");
    fs::write(
        path("d.tsv"),
        "\u{feff}q\tn\r\n\"x,\"\"y\"\"\"\t1\r\nä\t2\r\n",
    )
    .expect("writes");
    let expected = [
        json!({"q": "x,\"y\"", "n": "1"}),
        json!({"q": "ä", "n": "2"}),
    ];
    for name in ["a.json", "b.jsonl", "c.csv", "d.tsv"] {
        assert_eq!(read_rows(path(name)).expect("reads"), expected, "{name}");
    }
    assert_eq!(
        read_rows(folder.path()).expect("reads"),
        [&expected[..]; 4].concat()
    );
    assert_eq!(read_rows(path("[ab].json*")).expect("reads").len(), 4);

    fs::write(path("e.txt"), "one\n\n  two\n").expect("writes");
    let lines = [json!({"text": "one"}), json!({"text": "  two"})];
    assert_eq!(read_rows(path("e.txt")).expect("reads"), lines);
}

#[cfg(feature = "gzip")]
#[test]
fn compressed_files_are_recognised_by_their_bytes() {
    use std::io::Write;
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("a.jsonl.gz");
    let file = fs::File::create(&path).expect("creates");
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gzip.write_all(b"{\"n\": 1}\n{\"n\": 2}\n").expect("writes");
    let mut file = gzip.finish().expect("writes");
    // A second member follows, as `cat a.gz b.gz` makes it.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"{\"n\": 3}\n").expect("writes");
    file.write_all(&gzip.finish().expect("compresses"))
        .expect("writes");
    drop(file);
    let rows = [json!({"n": 1}), json!({"n": 2}), json!({"n": 3})];
    assert_eq!(read_rows(&path).expect("reads"), rows);

    let whole = fs::read(&path).expect("reads");
    fs::write(&path, &whole[..whole.len() / 2]).expect("writes");
    let error = read_rows(&path).expect_err("is cut off").to_string();
    assert!(error.contains("a.jsonl.gz"), "{error}");
}

#[cfg(feature = "zstd")]
#[test]
fn zstd_is_read() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("a.jsonl.zst");
    let bytes = zstd::encode_all(&b"{\"n\": 1}\n{\"n\": 2}\n"[..], 3).expect("compresses");
    fs::write(&path, bytes).expect("writes");
    assert_eq!(
        read_rows(&path).expect("reads"),
        [json!({"n": 1}), json!({"n": 2})]
    );
}

/// `golden/rows.py` wrote it with pyarrow.
#[cfg(feature = "parquet")]
#[test]
fn parquet_of_pyarrow_is_read() {
    let rows = read_rows("tests/golden/rows.parquet").expect("reads");
    let golden = fs::read("tests/golden/rows.json").expect("reads");
    let golden: Vec<Value> = serde_json::from_slice(&golden).expect("is JSON");
    assert_eq!(rows, golden);
    let mut stream = RowStream::open("tests/golden/rows.parquet")
        .expect("opens")
        .skip(1);
    assert_eq!(all(&mut stream), golden[1..]);
}

/// Every step of a stream is below: files, concatenation, filter, map, shard, buffered shuffle, mixture, repetition.
fn complicated(folder: &Path) -> RowStream {
    let domain = RowStream::concatenate([
        RowStream::open(folder.join("domain")).expect("opens"),
        RowStream::open(folder.join("more.csv")).expect("opens"),
    ])
    .filter(|row| row["n"] != json!("7"))
    .shard(2, 1)
    .shuffle(16, 5)
    .repeat();
    let general = RowStream::open(folder.join("general.jsonl"))
        .expect("opens")
        .skip(3)
        .shuffle(4, 6);
    RowStream::interleave(
        [domain, general],
        Some(&[0.7, 0.3]),
        9,
        StoppingStrategy::AllExhausted,
    )
    .expect("mixes")
    .map(|row| match row["n"].as_str() {
        Some(n) if n.ends_with('9') => Err(format!("{n} ends in 9")),
        _ => Ok(row),
    })
    .take(300)
}

#[test]
fn a_stream_continues_exactly_from_every_position() {
    let folder = tempfile::tempdir().expect("temporary folder");
    fs::create_dir(folder.path().join("domain")).expect("makes a folder");
    for (name, range) in [
        ("domain/a.jsonl", 0..40),
        ("domain/b.jsonl", 40..55),
        ("general.jsonl", 1000..1040),
    ] {
        write(
            folder.path(),
            name,
            range.map(|n: i32| json!({"n": n.to_string()})),
        );
    }
    fs::write(folder.path().join("more.csv"), "n\n200\n201\n202\n").expect("writes");

    let mut stream = complicated(folder.path());
    let (mut states, mut rows) = (vec![stream.state()], Vec::new());
    while let Some(row) = stream.next().expect("reads") {
        rows.push(row);
        states.push(stream.state());
    }
    assert!(
        rows.iter().any(Result::is_err) && rows.len() > 300,
        "{}",
        rows.len()
    );
    for (place, state) in states.iter().enumerate() {
        // What a checkpoint has is text.
        let state: Value = serde_json::from_str(&state.to_string()).expect("is JSON");
        let mut resumed = complicated(folder.path());
        resumed.restore(&state).expect("restores");
        for (index, expected) in rows[place..].iter().enumerate().take(40) {
            let row = resumed.next().expect("reads").expect("is there");
            assert_eq!(row, *expected, "row {index} after {place}");
        }
        if place + 40 > rows.len() {
            assert_eq!(resumed.next().expect("reads"), None);
        }
    }
}

#[test]
fn a_position_of_another_stream_is_refused() {
    let rows = || (0..5).map(|n| json!({"n": n})).collect::<Vec<_>>();
    let mut stream = RowStream::from_rows(rows()).shuffle(2, 0);
    let other = RowStream::from_rows(rows()).take(3);
    let error = stream
        .restore(&other.state())
        .expect_err("differs")
        .to_string();
    assert!(error.contains("shuffle was expected"), "{error}");

    let folder = tempfile::tempdir().expect("temporary folder");
    write(folder.path(), "a.jsonl", rows());
    let open = || RowStream::open(folder.path()).expect("opens");
    let mut stream = open();
    all(&mut stream);
    let mut half = open();
    half.next().expect("reads");
    half.next().expect("reads");
    let state = half.state();
    write(folder.path(), "a.jsonl", [json!({"n": 1})]);
    let error = open().restore(&state).expect_err("is shorter").to_string();
    assert!(error.contains("the file ends after 1 rows"), "{error}");
}

#[test]
fn epochs_have_the_same_rows_in_other_orders() {
    let rows: Vec<Value> = (0..30).map(|n| json!(n)).collect();
    let repeated = all(&mut RowStream::from_rows(rows).shuffle(8, 3).repeat().take(90));
    let epochs: Vec<&[Value]> = repeated.chunks(30).collect();
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
    for epoch in epochs {
        let mut numbers: Vec<u64> = epoch.iter().filter_map(Value::as_u64).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..30).collect::<Vec<_>>());
    }
}

#[test]
fn a_table_and_a_stream_are_mixed_alike() {
    use ft_data::Table;
    let rows = |from: i32| {
        (from..from + 50)
            .map(|n| json!({"n": n}))
            .collect::<Vec<_>>()
    };
    for stopping in [
        StoppingStrategy::FirstExhausted,
        StoppingStrategy::AllExhausted,
    ] {
        let tables = [0, 100, 200].map(|from| Table::from_rows(rows(from)));
        let table = Table::interleave(&tables, Some(&[0.5, 0.3, 0.2]), 4, stopping).expect("mixes");
        let streams = [0, 100, 200].map(|from| RowStream::from_rows(rows(from)));
        let stream = RowStream::interleave(streams, Some(&[0.5, 0.3, 0.2]), 4, stopping);
        assert_eq!(table.rows(), all(&mut stream.expect("mixes")));
    }
}

#[test]
fn bad_rows_are_reported_with_file_number_and_reason_up_to_a_share() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut text: String = (0..96)
        .map(|n| format!("{}\n", row(&n.to_string(), "b")))
        .collect();
    text.push_str("{\"messages\": [\n{\"text\": \"c\"}\n");
    text.push_str(&row("d", "e").to_string());
    fs::write(folder.path().join("a.jsonl"), text).expect("writes");
    let load = |share: f64| {
        let mut bad = BadRows::at_most(share);
        let loaded = ft_data::SftDataset::load_with(
            folder.path(),
            Format::Messages,
            &tokenizer(),
            64,
            &mut bad,
        );
        (
            loaded
                .map(|dataset| dataset.len())
                .map_err(|error| error.to_string()),
            bad,
        )
    };
    let (loaded, bad) = load(0.05);
    assert_eq!(loaded, Ok(97));
    let shown = bad.to_string();
    assert!(shown.contains("2 of 99 rows cannot be used"), "{shown}");
    assert!(shown.contains("a.jsonl: line 97: "), "{shown}");
    assert!(
        shown.contains("a.jsonl: row 98: there is no column `messages`"),
        "{shown}"
    );
    let error = load(0.01).0.expect_err("are too many");
    assert!(
        error.contains("more than 1.00% of the rows") && error.contains("row 98"),
        "{error}"
    );
    let error = load(0.0).0.expect_err("none is allowed");
    assert!(error.contains("a.jsonl: line 97"), "{error}");
}

#[test]
fn batches_of_a_stream_continue_exactly() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let answer = |n: usize| "x ".repeat(1 + n * 7 % 11);
    write(
        folder.path(),
        "a.jsonl",
        (0..60).map(|n| row(&n.to_string(), &answer(n))),
    );
    for collation in [
        Collation::Packed { seq_len: 48 },
        Collation::Padded { multiple: 4 },
    ] {
        let build = || {
            let stream = RowStream::open(folder.path())
                .expect("opens")
                .shuffle(10, 1)
                .repeat();
            let options = StreamOptions {
                batch_size: 3,
                window: 25,
                ..StreamOptions::default()
            };
            StreamLoader::sft(
                stream,
                Format::Messages,
                &tokenizer(),
                48,
                collation,
                options,
            )
            .expect("loads")
        };
        let mut loader = build();
        let (mut batches, mut states) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            states.push(loader.state());
            batches.push(loader.next_batch().expect("reads").expect("has no end"));
        }
        assert!(batches.iter().all(|batch| batch.label_count() > 0));
        for (place, state) in states.iter().enumerate().take(30) {
            let mut resumed = build();
            resumed.restore(state).expect("restores");
            assert_eq!(resumed.state(), *state);
            for expected in &batches[place..place + 5] {
                assert_eq!(
                    resumed.next_batch().expect("reads").as_ref(),
                    Some(expected)
                );
            }
        }
    }
}

/// `FT_TEST_LARGE` names a file of any size; run this test alone, since the memory is that of the process.
#[test]
#[ignore = "needs a large file in FT_TEST_LARGE"]
fn a_file_larger_than_memory_streams() {
    let path = std::env::var("FT_TEST_LARGE").expect("FT_TEST_LARGE names a file");
    let mut stream = RowStream::open(&path).expect("opens").shuffle(10_000, 1);
    let mut rows = 0;
    while let Some(row) = stream.next().expect("reads") {
        row.expect("can be used");
        rows += 1;
    }
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("is there");
    let peak: u64 = peak
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .expect("a number");
    println!("{rows} rows, {} MB at most", peak / 1024);
    assert!(peak < 500 * 1024, "{peak} KiB");
}

/// The maximum length cuts every answer: a stream that repeats would never give a batch.
#[test]
fn a_stream_without_anything_to_learn_is_an_error() {
    let folder = tempfile::tempdir().expect("temporary folder");
    write(
        folder.path(),
        "a.jsonl",
        [row("What is it?", "It is this.")],
    );
    let stream = RowStream::open(folder.path()).expect("opens").repeat();
    let options = StreamOptions {
        batch_size: 2,
        window: 10,
        ..StreamOptions::default()
    };
    let padded = Collation::Padded { multiple: 1 };
    let loader = StreamLoader::sft(stream, Format::Messages, &tokenizer(), 2, padded, options);
    let error = loader
        .expect("loads")
        .next_batch()
        .expect_err("nothing to learn");
    assert!(error.to_string().contains("none of 10 rows"), "{error}");
}
