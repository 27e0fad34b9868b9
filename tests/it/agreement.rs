//! The agreement example on realistic files.

use serde_json::{Value, json};

use crate::examples::run;

/// The output of the example for a file: its JSON and its text.
fn of(csv: &[u8], more: &[&str]) -> (Value, String) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, csv).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let output = run(
        "agreement",
        &[&["--ratings", path, "--json"], more].concat(),
    );
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let json = stdout.lines().last().map(serde_json::from_str);
    (json.transpose().expect("JSON").unwrap_or_default(), stderr)
}

#[test]
fn the_example_measures_numbers_with_missing_ratings() {
    let (json, _) = of(b"a,b,c\n1,1,1.0\n2,3,\n3,3,3\n,2,2\n1,2,1\n", &[]);
    assert_eq!((&json["items"], &json["raters"]), (&json!(5), &json!(3)));
    // sklearn.metrics.cohen_kappa_score of each pair, and krippendorff.alpha.
    for (key, expected) in [
        ("cohen", 0.6363636363636364),
        ("krippendorff_nominal", 0.5714285714285714),
        ("krippendorff_ordinal", 0.7934472934472935),
        ("krippendorff_interval", 0.7931034482758621),
    ] {
        let value = json[key].as_f64().expect(key);
        assert!((value - expected).abs() < 1e-9, "{key}: {value}");
        let ends = &json[format!("{key}_interval")];
        assert!(ends[0].as_f64() <= Some(value) && Some(value) <= ends[1].as_f64());
    }
    assert_eq!(json["fleiss"], Value::Null);
}

#[test]
fn the_example_reads_quotes_byte_order_marks_and_blank_lines() {
    let csv =
        b"\xef\xbb\xbf\"r 1\",\"r,2\"\r\n\r\nyes,\"yes\"\r\nno,yes\r\n  \r\nno,\r\n\"no\",no\r\n";
    let (json, stderr) = of(csv, &[]);
    assert_eq!((&json["items"], &json["raters"]), (&json!(4), &json!(2)));
    assert_eq!(json["krippendorff_ordinal"], Value::Null);
    assert!(json["krippendorff_nominal"].is_f64() && json["cohen_analytic_interval"].is_array());
    assert!(
        stderr.contains("r 1, r,2") && stderr.contains("words"),
        "{stderr}"
    );
    let (json, _) = of(csv, &["--no-header"]);
    assert_eq!(json["items"], json!(5));
}

#[test]
fn the_example_reports_undefined_values_and_unreadable_files() {
    let (json, stderr) = of(b"1,1\n1,1\n", &[]);
    assert_eq!(
        (&json["cohen"], &json["advice"]),
        (&Value::Null, &Value::Null)
    );
    assert!(stderr.contains("undefined: "), "{stderr}");
    for (csv, told) in [
        (&b"1,2\n1\n"[..], "row 2 has 1 cells"),
        (b"", "0 items"),
        (b"1\n2\n", "by 1 raters"),
        (b"1,\xff\n", "UTF-8"),
    ] {
        let (json, stderr) = of(csv, &[]);
        assert!(json.is_null() && stderr.contains(told), "{stderr}");
    }
    assert!(of(b"1,1\n1,1\n", &["--resamples", "0"]).0.is_null());
}
