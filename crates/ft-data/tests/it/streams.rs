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
    assert!(error.contains("take then, shuffle now"), "{error}");

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
    assert!(error.contains("files: files 40 then, 8 now"), "{error}");
    // As large as before, with fewer rows.
    write(
        folder.path(),
        "a.jsonl",
        [json!({"n": "0123456789012345678901234567890"})],
    );
    let error = open().restore(&state).expect_err("is shorter").to_string();
    assert!(error.contains("the file ends after 1 rows"), "{error}");
}

#[test]
fn a_position_is_refused_by_a_stream_with_another_setting_or_other_files() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for name in ["a.jsonl", "b.jsonl", "c.jsonl"] {
        write(folder.path(), name, (0..20).map(|n| json!({"n": n})));
    }
    struct Settings {
        files: [&'static str; 2],
        buffer: usize,
        seed: u64,
        shard: (usize, usize),
        skip: usize,
        share: f64,
        mixing_seed: u64,
        stopping: StoppingStrategy,
        take: usize,
    }
    let usual = || Settings {
        files: ["a.jsonl", "b.jsonl"],
        buffer: 4,
        seed: 1,
        shard: (2, 0),
        skip: 1,
        share: 0.3,
        mixing_seed: 2,
        stopping: StoppingStrategy::FirstExhausted,
        take: 10,
    };
    let build = |settings: &Settings| {
        let [a, b] = settings
            .files
            .map(|name| RowStream::open(folder.path().join(name)).expect("opens"));
        let (count, index) = settings.shard;
        let a = a.shuffle(settings.buffer, settings.seed).repeat();
        let b = b.shard(count, index).skip(settings.skip);
        let shares = [1.0 - settings.share, settings.share];
        RowStream::interleave(
            [a, b],
            Some(&shares),
            settings.mixing_seed,
            settings.stopping,
        )
        .expect("mixes")
        .map(Ok)
        .take(settings.take)
    };
    let mut stream = build(&usual());
    stream.next().expect("reads");
    let state: Value = serde_json::from_str(&stream.state().to_string()).expect("is JSON");
    build(&usual()).restore(&state).expect("is the same");
    type Change = fn(&mut Settings);
    let others: [(Change, &str); 10] = [
        (
            |s| s.files[1] = "c.jsonl",
            "\"b.jsonl\" then, \"c.jsonl\" now",
        ),
        (|s| s.buffer = 5, "shuffle: buffer 4 then, 5 now"),
        (|s| s.seed = 7, "shuffle: seed 1 then, 7 now"),
        (|s| s.shard = (3, 0), "shard: count 2 then, 3 now"),
        (|s| s.shard = (2, 1), "shard: index 0 then, 1 now"),
        (|s| s.skip = 0, "skip: count 1 then, 0 now"),
        (|s| s.share = 0.3 + 1e-16, "interleave: probabilities"),
        (
            |s| s.mixing_seed = 3,
            "take: map: interleave: seed 2 then, 3 now",
        ),
        (
            |s| s.stopping = StoppingStrategy::AllExhausted,
            "\"FirstExhausted\" then",
        ),
        (|s| s.take = 11, "take: count 10 then, 11 now"),
    ];
    for (change, expected) in others {
        let mut settings = usual();
        change(&mut settings);
        let error = build(&settings)
            .restore(&state)
            .expect_err("differs")
            .to_string();
        assert!(error.contains(expected), "{error}");
    }

    // The folder may be elsewhere, but not a file of another size.
    let elsewhere = tempfile::tempdir().expect("temporary folder");
    for name in ["a.jsonl", "b.jsonl"] {
        fs::copy(folder.path().join(name), elsewhere.path().join(name)).expect("copies");
    }
    let open = |folder: &Path| RowStream::open(folder.join("*.jsonl")).expect("opens");
    fs::remove_file(folder.path().join("c.jsonl")).expect("removes");
    let state = open(folder.path()).state();
    open(elsewhere.path()).restore(&state).expect("is the same");
    write(elsewhere.path(), "b.jsonl", [json!({"n": 1})]);
    assert!(open(elsewhere.path()).restore(&state).is_err());
}

#[test]
fn a_mixture_ends_if_a_source_that_must_begin_again_has_no_row_to_use() {
    let bad = RowStream::from_rows(vec![json!(1); 3]).map(|_| Err("is bad".into()));
    let good = RowStream::from_rows(vec![json!(2); 5]);
    let mut mixed =
        RowStream::interleave([bad, good], None, 0, StoppingStrategy::AllExhausted).expect("mixes");
    let mut rows = 0;
    let error = loop {
        match mixed.next() {
            Ok(row) => assert!(row.is_some() && rows < 10, "{rows} rows"),
            Err(error) => break error.to_string(),
        }
        rows += 1;
    };
    assert!(
        error.contains("source 1 of the mixture has no rows that can be used"),
        "{error}"
    );
}

/// 20 of 5000 rows are bad, at places that are spread over the file: less than the hundredth that may be.
#[test]
fn the_share_of_bad_rows_is_one_of_all_rows() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let lines = (0..5000).map(|n| match n % 250 {
        17 => "{\"messages\": [\n".to_string(),
        _ => format!("{}\n", row("a", "b")),
    });
    let path = folder.path().join("a.jsonl");
    fs::write(&path, lines.collect::<String>()).expect("writes");
    let load = |share: f64| {
        let mut bad = BadRows::at_most(share);
        let format = Format::Messages;
        let loaded = ft_data::SftDataset::load_with(&path, format, &tokenizer(), 64, &mut bad);
        loaded.map(|dataset| (dataset.len(), bad.len()))
    };
    assert_eq!(load(0.01).expect("are few"), (4980, 20));
    assert!(load(0.003).is_err());
    let batches = |share: f64| {
        let options = StreamOptions {
            batch_size: 100,
            bad_rows: share,
            ..StreamOptions::default()
        };
        let stream = RowStream::open(&path).expect("opens");
        let padded = Collation::Padded { multiple: 1 };
        let mut loader =
            StreamLoader::sft(stream, Format::Messages, &tokenizer(), 64, padded, options)?;
        while loader.next_batch()?.is_some() {}
        Ok::<_, ft_data::Error>((loader.report().kept, loader.bad_rows().len()))
    };
    assert_eq!(batches(0.01).expect("are few"), (4980, 20));
    assert!(batches(0.003).is_err());
}

#[test]
fn the_format_of_a_file_is_that_of_its_first_row_that_can_be_read() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("a.jsonl");
    fs::write(&path, format!("{{\"text\":\n{}\n{{\n", row("a", "b"))).expect("writes");
    assert_eq!(Format::of_file(&path).expect("finds it"), Format::Messages);
    // What comes after the first row is not read.
    let path = folder.path().join("a.json");
    fs::write(&path, "[{\"text\": \"a\"}, {").expect("writes");
    assert_eq!(Format::of_file(&path).expect("finds it"), Format::Text);
    for (text, expected) in [("", "has no rows"), ("{\n", "line 1")] {
        fs::write(&path, text).expect("writes");
        let error = Format::of_file(&path).expect_err("has none").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_stream_reports_rows_that_are_cut_and_dropped_and_resumes_the_report() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let long = "the cat sat on the mat and ".repeat(20);
    let rows = (0..30).map(|n| match n % 3 {
        0 => row("Hello", "Hi"),
        1 => row("Hello", &long),
        _ => row(&long, "Hi"),
    });
    write(folder.path(), "a.jsonl", rows);
    let build = || {
        let stream = RowStream::open(folder.path()).expect("opens");
        let options = StreamOptions {
            batch_size: 2,
            window: 12,
            ..StreamOptions::default()
        };
        let padded = Collation::Padded { multiple: 1 };
        StreamLoader::sft(stream, Format::Messages, &tokenizer(), 40, padded, options)
            .expect("loads")
    };
    let mut loader = build();
    for _ in 0..6 {
        loader.next_batch().expect("reads").expect("is there");
    }
    let state: Value = serde_json::from_str(&loader.state().to_string()).expect("is JSON");
    let mut resumed = build();
    resumed.restore(&state).expect("restores");
    for loader in [&mut loader, &mut resumed] {
        while loader.next_batch().expect("reads").is_some() {}
        let report = loader.report();
        assert_eq!((report.rows, report.kept), (30, 20));
        assert_eq!((report.truncated, report.dropped_all_masked), (20, 10));
        assert_eq!(report.stop_tokens["<|im_end|>"], 10);
    }
    assert_eq!(resumed.report(), loader.report());

    let mut other = build();
    other
        .restore(&json!({"options": {"batch_size": 3}}))
        .expect_err("has other options");
}

#[test]
fn a_stream_whose_stop_token_is_always_cut_off_is_an_error() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let long = "the cat sat on the mat and ".repeat(20);
    write(folder.path(), "a.jsonl", [row("Hello", &long)]);
    let stream = RowStream::open(folder.path()).expect("opens").repeat();
    let padded = Collation::Padded { multiple: 1 };
    let options = StreamOptions::default();
    let loader = StreamLoader::sft(stream, Format::Messages, &tokenizer(), 40, padded, options);
    let error = loader
        .expect("loads")
        .next_batch()
        .expect_err("is cut off")
        .to_string();
    assert!(error.contains("<|im_end|> never receives loss"), "{error}");
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
