//! The pairs of texts for benchmarks.

/// Predictions and their references from the file given as argument, whose lines are `[prediction, reference]`. `None`
/// without a file.
pub(crate) fn pairs() -> Option<(Vec<String>, Vec<[String; 1]>)> {
    let mut paths = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"));
    let Some(path) = paths.next() else {
        eprintln!("give a file of pairs: the Python script of the same name makes one");
        return None;
    };
    let text = std::fs::read_to_string(path).expect("the file of pairs can be read");
    let pairs = text.lines().map(|line| {
        let (prediction, reference): (String, String) =
            serde_json::from_str(line).expect("a line is a pair of texts");
        (prediction, [reference])
    });
    Some(pairs.unzip())
}
