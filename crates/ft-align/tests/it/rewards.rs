//! Rewards by name and from files, sums of them, and batches in which they fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ft_align::Error;
use ft_align::reward::{
    BoxError, Completion, FailureKind, PromptRef, Reward, WeightedSum, by_name, from_fn, named,
    score_batch,
};
use serde_json::{Map, Value, json};

const LONG: Duration = Duration::from_secs(60);

/// Threads that are left behind count for the whole process, so batches do not run at the same time.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn columns(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn completion<'a>(text: &'a str, columns: &'a Map<String, Value>) -> Completion<'a> {
    Completion {
        prompt: PromptRef::Text("How many?"),
        text,
        token_count: text.len(),
        finished: true,
        columns,
    }
}

fn score(reward: &dyn Reward, text: &str, row: Value) -> Option<f64> {
    reward.score(&completion(text, &columns(row))).unwrap()
}

#[test]
fn names_give_rewards_with_one_setting() {
    let row = json!({"answer": "4 * 2\n#### 8", "schema": {"type": "integer"}});
    for (name, text, expected) in [
        ("gsm8k", "It is $8.00.", 1.0),
        ("numeric", "9", 0.0),
        ("exact", "4 * 2 #### 8", 1.0),
        ("regex:^a:b$", "a:b", 1.0),
        ("format", "<reasoning>a</reasoning><answer>8</answer>", 1.0),
        (
            "format: think, answer",
            "<think>a</think> <answer>8</answer>",
            1.0,
        ),
        ("length:4", "abc", -0.25),
        ("overlong:10", "123456789", -0.5),
        ("json", "8", 1.0),
    ] {
        let reward = by_name(name).unwrap();
        assert_eq!(score(&*reward, text, row.clone()), Some(expected), "{name}");
        assert_eq!(reward.name(), name.split(':').next().unwrap());
    }
}

#[test]
fn unknown_names_and_missing_settings_are_explained() {
    for (name, parts) in [
        (
            "gsm",
            vec![
                "`gsm`",
                "gsm8k, numeric, regex:PATTERN, format:TAGS, length:TOKENS",
            ],
        ),
        ("regex", vec!["`regex`", "`pattern`", "regex:PATTERN"]),
        ("regex:(", vec!["`regex`", "unclosed group"]),
        ("length:long", vec!["`long`", "length:TOKENS"]),
        ("length:0", vec!["`length`"]),
        ("gsm8k:3", vec!["`gsm8k:3`"]),
        ("format:", vec!["`format`", "empty"]),
        ("", vec!["exact"]),
    ] {
        let error = by_name(name).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{name}: {part}: {error}");
        }
    }
    #[cfg(unix)]
    assert!(
        by_name("code")
            .unwrap_err()
            .to_string()
            .contains("`command`")
    );
    assert!(matches!(
        by_name("x"),
        Err(Error::UnknownName { kind: "reward", .. })
    ));
}

#[test]
fn a_file_has_rewards_with_weights_and_settings() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rewards.json");
    let list = json!([
        "gsm8k",
        {"name": "format", "tags": ["think", "answer"], "soft": true, "weight": 0.5},
        {"name": "regex", "pattern": "because", "label": "reasons", "weight": -1},
        {"name": "json", "schema": {"type": "object"}, "weight": 10},
        {"name": "numeric", "column": "lower", "tolerance": 1.5},
    ]);
    std::fs::write(&path, list.to_string()).unwrap();
    let rewards = WeightedSum::load(&path).unwrap();
    let row = columns(json!({"answer": "#### 8"}));
    let texts = ["<answer>8</answer> because", "7"];
    let batch = texts.map(|text| completion(text, &row));
    let scores = rewards.score_batch(&batch, LONG);
    // 1 + 0.5 · 2/4 - 1 + 10 · 0, and nothing.
    assert_eq!(scores.sums, [Some(0.25), Some(0.0)]);
    assert_eq!(
        scores.parts.names,
        ["gsm8k", "format", "reasons", "json", "numeric"]
    );
    let metrics = scores.parts.metrics();
    assert_eq!(metrics[0], ("rewards/gsm8k/mean".to_string(), 0.5));
    assert_eq!(
        metrics[1],
        ("rewards/gsm8k/std".to_string(), 0.5_f64.sqrt())
    );
    assert_eq!(metrics.len(), 8);
    let warning = scores.parts.warning().unwrap();
    assert!(
        warning.contains("`numeric`: it applies to none of the 2"),
        "{warning}"
    );
    for (text, sum) in texts.into_iter().zip(scores.sums) {
        assert_eq!(score(&rewards, text, Value::Object(row.clone())), sum);
    }
}

#[test]
fn mistakes_of_a_file_name_it_and_the_reward() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rewards.json");
    for (text, part) in [
        ("[", "no valid JSON"),
        ("{}", "no list"),
        ("[]", "no rewards"),
        ("[3]", "no name"),
        (r#"[{"weight": 1}]"#, "no `name`"),
        (r#"["gsm8"]"#, "there is no reward `gsm8`"),
        (
            r#"[{"name": "gsm8k", "colum": "a"}]"#,
            "unknown field `colum`",
        ),
        (
            r#"[{"name": "gsm8k", "weight": "1"}]"#,
            "its weight is \"1\"",
        ),
        (r#"[{"name": "gsm8k", "label": 1}]"#, "its label is 1"),
        (r#"["gsm8k", "gsm8k"]"#, "`label`"),
        (
            r#"[{"name": "format", "tags": []}]"#,
            "the reward `format`: there are no tags",
        ),
        (
            r#"[{"name": "overlong", "max": 10, "cache": 20}]"#,
            "1..=10",
        ),
        (
            r#"[{"name": "json", "schema": {"format": "date"}}]"#,
            "`format` is not checked",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = WeightedSum::load(&path).unwrap_err().to_string();
        assert!(
            error.contains("rewards.json") && error.contains(part),
            "{part}: {error}"
        );
    }
    let error = WeightedSum::load(folder.path().join("none.json")).unwrap_err();
    assert!(error.to_string().contains("none.json"), "{error}");
    let weight = WeightedSum::new([(by_name("exact").unwrap(), f64::NAN)]);
    assert!(weight.unwrap_err().to_string().contains("NaN"));
}

#[test]
fn rewards_that_do_not_apply_add_nothing() {
    let sum = WeightedSum::new([
        (by_name("exact").unwrap(), 2.0),
        (by_name("json").unwrap(), 1.0),
    ])
    .unwrap();
    assert_eq!(score(&sum, "a", json!({"answer": "a"})), Some(2.0));
    assert_eq!(
        score(&sum, "1", json!({"answer": "a", "schema": true})),
        Some(1.0)
    );
    assert_eq!(score(&sum, "a", json!({})), None);
}

/// Every kind of failure in one batch; the good scores are all there.
#[test]
fn no_failure_stops_the_others() {
    let _alone = alone();
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let bad: Arc<dyn Reward> = Arc::new(from_fn("bad", move |completion| match completion.text {
        "panic" => panic!("no {}", completion.text),
        // Until the gate is dropped, which is after the batch.
        "slow" => Ok(gate.lock().unwrap().recv().ok().map(|()| 1.0)),
        "error" => Err("disk full".into()),
        "nan" => Ok(Some(f64::NAN)),
        "none" => Ok(None),
        _ => Ok(Some(2.0)),
    }));
    let length = by_name("length:10").unwrap();
    let row = columns(json!({}));
    let texts = ["a", "panic", "slow", "error", "nan", "none", "b", "panic"];
    let batch = texts.map(|text| completion(text, &row));
    // Printing the trace of a panic takes its time, too.
    let scores = score_batch(&[bad, length], &batch, Duration::from_secs(5));
    drop(open);
    std::thread::sleep(Duration::from_millis(200));
    let expected = [Some(2.0), None, None, None, None, None, Some(2.0), None];
    assert_eq!(scores.values[0], expected);
    assert!(scores.values[1].iter().all(Option::is_some));
    let failures: Vec<(usize, FailureKind, &str)> = (scores.failures.iter())
        .map(|failure| (failure.completion, failure.kind, failure.message.as_str()))
        .collect();
    assert_eq!(
        failures,
        [
            (1, FailureKind::Panic, "no panic"),
            (2, FailureKind::Timeout, "no score within 5s"),
            (3, FailureKind::Error, "disk full"),
            (4, FailureKind::Error, "the score is NaN"),
            (7, FailureKind::Panic, "no panic"),
        ]
    );
    assert_eq!(
        scores.warning().unwrap(),
        "rewards without a score: `bad`: 2 × panic, first at completion 1: no panic; `bad`: 1 × timeout, first at \
         completion 2: no score within 5s; `bad`: 2 × error, first at completion 3: disk full"
    );
}

/// Rewards that never return use up the threads that may be left behind. When they return, scoring works again.
#[test]
fn threads_that_are_left_behind_are_limited() {
    let _alone = alone();
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let started = Arc::new(AtomicUsize::new(0));
    let stuck: Arc<dyn Reward> = Arc::new(from_fn("stuck", {
        let (gate, started) = (Arc::clone(&gate), Arc::clone(&started));
        move |_| {
            started.fetch_add(1, Ordering::SeqCst);
            let (open, opened) = &*gate;
            let mut open = open.lock().unwrap();
            while !*open {
                open = opened.wait(open).unwrap();
            }
            Ok(Some(1.0))
        }
    }));
    let quick = by_name("length:1").unwrap();
    let row = columns(json!({}));
    let batch = vec![completion("a", &row); 100];
    let scores = score_batch(
        std::slice::from_ref(&stuck),
        &batch,
        Duration::from_millis(20),
    );
    assert!(scores.values[0].iter().all(Option::is_none));
    assert_eq!(scores.failures.len(), 100);
    let left = scores.failures.iter();
    let left = left
        .filter(|failure| failure.message.contains("no score within"))
        .count();
    assert_eq!((left, started.load(Ordering::SeqCst)), (64, 64));
    let refused = score_batch(std::slice::from_ref(&quick), &batch[..1], LONG);
    assert!(
        refused.failures[0]
            .message
            .contains("not started, since 64")
    );

    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let start = Instant::now();
    while !score_batch(std::slice::from_ref(&quick), &batch, LONG)
        .failures
        .is_empty()
    {
        assert!(start.elapsed() < LONG, "the threads never ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    let scores = score_batch(&[stuck, quick], &batch, LONG);
    assert!(scores.values.iter().flatten().all(Option::is_some));
    assert_eq!(scores.failures, []);
}

/// A reward model gets several completions at a time, and their scores come in order.
#[test]
fn completions_are_scored_in_batches_of_the_size_that_the_reward_names() {
    struct Model {
        sizes: Mutex<Vec<usize>>,
        missing: usize,
    }

    impl Reward for Model {
        fn name(&self) -> &str {
            "model"
        }

        fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
            Ok(Some(completion.text.parse()?))
        }

        fn score_all(&self, completions: &[Completion<'_>]) -> Vec<Result<Option<f64>, BoxError>> {
            self.sizes.lock().unwrap().push(completions.len());
            let kept = completions.len() - self.missing;
            completions[..kept]
                .iter()
                .map(|one| self.score(one))
                .collect()
        }

        fn batch_size(&self) -> usize {
            4
        }
    }

    let _alone = alone();
    let row = columns(json!({}));
    let texts: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let batch: Vec<Completion<'_>> = texts.iter().map(|text| completion(text, &row)).collect();
    let model = Arc::new(Model {
        sizes: Mutex::default(),
        missing: 0,
    });
    let scores = score_batch(&[named("m", model.clone())], &batch, LONG);
    let expected: Vec<Option<f64>> = (0..10).map(|i| Some(f64::from(i))).collect();
    assert_eq!(scores.values, [expected]);
    assert_eq!(scores.names, ["m"]);
    let mut sizes = model.sizes.lock().unwrap().clone();
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 4, 4]);

    let model: Arc<dyn Reward> = Arc::new(Model {
        sizes: Mutex::default(),
        missing: 1,
    });
    let scores = score_batch(&[model], &batch, LONG);
    assert_eq!(scores.failures.len(), 10);
    assert_eq!(
        scores.failures[9].message,
        "it returned 1 scores for 2 completions"
    );
}

#[test]
fn batches_run_on_several_threads_and_may_be_empty() {
    let _alone = alone();
    assert_eq!(
        score_batch(&[by_name("json").unwrap()], &[], LONG).values,
        [[]; 1]
    );
    assert_eq!(score_batch(&[], &[], LONG).failures, []);
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    // Each of two completions waits until the other is being scored.
    let (sender, receiver) = channel();
    let receiver = Mutex::new(receiver);
    let meet = from_fn("meet", move |completion| {
        if completion.text == "a" {
            sender.send(())?;
        } else {
            receiver.lock().unwrap().recv_timeout(LONG)?;
        }
        Ok(Some(1.0))
    });
    let row = columns(json!({}));
    let batch = ["b", "a"].map(|text| completion(text, &row));
    let scores = score_batch(&[Arc::new(meet)], &batch, LONG);
    assert_eq!(scores.values, [[Some(1.0); 2]]);
}

/// Text that a model may produce or that a data set may have.
#[test]
fn hostile_texts_are_scored_quickly() {
    let row = json!({"answer": "#### 1", "schema": {"type": "object"}, "tests": ":"});
    let million = |part: &str| part.repeat(1_000_000 / part.len());
    let names = [
        "exact",
        "gsm8k",
        "format",
        "json",
        "length:5",
        "regex:(a|a)*$",
        "overlong:5",
    ];
    let start = Instant::now();
    for text in [
        million("a"),
        million("1"),
        million("<answer>"),
        million("<answer></answer>"),
        million("#### 1"),
        million("{\"a\":"),
        million("[[{"),
        million("```\n"),
        million("\u{0}"),
        million("𝟙\u{200b}"),
        million("-.,$"),
    ] {
        for name in names {
            let found = score(&*by_name(name).unwrap(), &text, row.clone());
            assert!(found.unwrap().is_finite());
        }
    }
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
}
