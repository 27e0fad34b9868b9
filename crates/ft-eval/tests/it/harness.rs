//! The harness against lm-evaluation-harness 0.4.13: `tests/golden/harness.py` runs it on a mock model
//! that is written here a second time.

use std::path::Path;

use ft_eval::harness::{
    Continuation, Doc, EvaluateOptions, Evaluation, Function, FunctionRegistry, FunctionResult,
    GenerateUntil, LanguageModel, LogLikelihood, MetricValue, Metrics, Response, SavedResults,
    TaskIndex, TaskSet, compare, evaluate,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const REPLIES: [&str; 17] = [
    "The answer is 7.\n#### 7",
    " So 3 + 4 = 7, 12 left.\n#### 1,234.5\n\nQuestion: next",
    "#### -3 and #### 5",
    "(B)",
    " The answer: C because",
    "Paris",
    "  paris. ",
    "",
    "I think it is Guilty of Romance",
    "A",
    "12",
    "yes\n\nno",
    "Été à Paris…",
    "$18.00",
    "the end</s>",
    "\u{663} apples",
    "It's the second one: B",
];

fn digest(parts: &[&str]) -> [u8; 32] {
    Sha256::digest(parts.join("\0").as_bytes()).into()
}

fn share(digest: &[u8; 32]) -> f64 {
    f64::from(u32::from_be_bytes([
        digest[0], digest[1], digest[2], digest[3],
    ])) / 4_294_967_296.0
}

/// The mock model of `harness.py`; counts what it is asked, and may stop in the middle.
#[derive(Default)]
pub(crate) struct Mock {
    asked: std::cell::Cell<usize>,
    fail_after: Option<usize>,
}

impl Mock {
    fn count(&self) -> ft_eval::Result<()> {
        self.asked.set(self.asked.get() + 1);
        match self.fail_after {
            Some(limit) if self.asked.get() > limit => {
                Err(ft_eval::Error::Model("cut off".to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl LanguageModel for Mock {
    fn identity(&self) -> String {
        "mock".to_string()
    }

    fn loglikelihood(
        &self,
        requests: &[Continuation],
        done: &mut dyn FnMut(usize, LogLikelihood) -> ft_eval::Result<()>,
    ) -> ft_eval::Result<()> {
        // Answers may come in any order.
        for (i, request) in requests.iter().enumerate().rev() {
            self.count()?;
            let d = digest(&["pair", &request.context, &request.continuation]);
            let u = if d[5] % 2 == 1 {
                share(&d)
            } else {
                (share(&d) * 4.0).floor() / 4.0
            };
            done(
                i,
                LogLikelihood {
                    logp: -8.0 * u - 0.5,
                    is_greedy: d[4].is_multiple_of(2),
                },
            )?;
        }
        Ok(())
    }

    fn loglikelihood_rolling(
        &self,
        texts: &[String],
        done: &mut dyn FnMut(usize, f64) -> ft_eval::Result<()>,
    ) -> ft_eval::Result<()> {
        for (i, text) in texts.iter().enumerate() {
            self.count()?;
            done(
                i,
                -(text.len() as f64) * (0.5 + share(&digest(&["text", text]))),
            )?;
        }
        Ok(())
    }

    fn generate_until(
        &self,
        requests: &[GenerateUntil],
        done: &mut dyn FnMut(usize, String) -> ft_eval::Result<()>,
    ) -> ft_eval::Result<()> {
        for (i, request) in requests.iter().enumerate() {
            self.count()?;
            let mut reply =
                REPLIES[digest(&["text", &request.context])[0] as usize % REPLIES.len()];
            for stop in &request.until {
                reply = reply.split(stop.as_str()).next().unwrap_or("");
            }
            done(i, reply.to_string())?;
        }
        Ok(())
    }

    fn apply_chat_template(
        &self,
        messages: &[(String, String)],
        add_generation_prompt: bool,
    ) -> ft_eval::Result<String> {
        let parts: Vec<String> = messages
            .iter()
            .map(|(role, content)| format!("<|{role}|>{content}"))
            .collect();
        let end = if add_generation_prompt {
            "</s><|assistant|>"
        } else {
            ""
        };
        Ok(parts.join("</s>") + end)
    }

    fn chat_template(&self) -> Option<String> {
        Some("mock template".to_string())
    }
}

/// The functions of `tasks/own/utils.py`.
fn functions() -> FunctionRegistry {
    fn process_docs(docs: Vec<Doc>) -> FunctionResult<Vec<Doc>> {
        let kept = docs
            .into_iter()
            .filter(|doc| doc["id"].as_i64().unwrap_or(0) % 3 != 0);
        Ok(kept
            .map(|mut doc| {
                let query = doc["question"].as_str().unwrap_or("").trim().to_uppercase();
                doc["query"] = json!(query);
                doc["gold"] = json!(doc["id"].as_i64().unwrap_or(0) % 2);
                doc["size"] = json!(doc["choices"].as_array().map_or(0, Vec::len));
                doc
            })
            .collect())
    }
    fn doc_to_text(doc: &Doc) -> FunctionResult<Value> {
        Ok(json!(format!(
            "{}?",
            doc["query"].as_str().ok_or("no query")?
        )))
    }
    fn doc_to_choice(doc: &Doc) -> FunctionResult<Value> {
        let query: String = doc["query"]
            .as_str()
            .ok_or("no query")?
            .chars()
            .take(5)
            .collect();
        Ok(json!([doc["choices"][0], format!("{query}x")]))
    }
    fn process_results(doc: &Doc, results: &[Response]) -> FunctionResult<Metrics> {
        let mut best = 0;
        let mut logps = Vec::new();
        for result in results {
            let Response::LogLikelihood(answer) = result else {
                return Err("not a log-likelihood".to_string());
            };
            logps.push(answer.logp);
        }
        for (i, logp) in logps.iter().enumerate() {
            if *logp > logps[best] {
                best = i;
            }
        }
        let best = best as i64;
        let gold = doc["gold"].as_i64().ok_or("no gold")?;
        let mut metrics = vec![
            (
                "hit".to_string(),
                MetricValue::Number(f64::from(u8::from(best == gold))),
            ),
            (
                "pair".to_string(),
                MetricValue::List(vec![MetricValue::Int(gold), MetricValue::Int(best)]),
            ),
        ];
        if doc["size"].as_i64() == Some(4) && doc["id"].as_i64().unwrap_or(0) % 2 == 1 {
            metrics.push(("odd".to_string(), MetricValue::Int(best)));
        }
        Ok(metrics)
    }
    fn share_of_ones(items: &[MetricValue]) -> FunctionResult<f64> {
        let ones = MetricValue::List(vec![MetricValue::Int(1), MetricValue::Int(1)]);
        Ok(items.iter().filter(|item| **item == ones).count() as f64 / items.len() as f64)
    }
    let mut functions = FunctionRegistry::new();
    functions.insert(
        "own/utils.process_docs",
        Function::ProcessDocs(process_docs),
    );
    functions.insert("own/utils.doc_to_text", Function::Doc(doc_to_text));
    functions.insert("own/utils.doc_to_choice", Function::Doc(doc_to_choice));
    functions.insert(
        "own/utils.process_results",
        Function::ProcessResults(process_results),
    );
    functions.insert(
        "own/utils.share_of_ones",
        Function::Aggregation(share_of_ones),
    );
    functions
}

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/harness.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn write_files(golden: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in golden["files"].as_object().unwrap() {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.as_str().unwrap()).unwrap();
    }
    dir
}

fn load(dir: &Path, tasks: &[&str]) -> TaskSet {
    let index = TaskIndex::with_functions(&[dir.join("tasks")], functions()).unwrap();
    index.load(tasks, dir).unwrap()
}

fn options(run: &Value) -> EvaluateOptions {
    let given = &run["options"];
    let mut options = EvaluateOptions::default();
    if let Some(count) = given["num_fewshot"].as_u64() {
        options.num_fewshot = Some(count as usize);
    }
    options.limit = given["limit"].as_f64();
    options.system_instruction = given["system_instruction"].as_str().map(str::to_string);
    options.apply_chat_template = given["apply_chat_template"].as_bool().unwrap_or(false);
    options.fewshot_as_multiturn = given["fewshot_as_multiturn"].as_bool().unwrap_or(true);
    if let Some(seed) = given["fewshot_random_seed"].as_u64() {
        options.fewshot_seed = seed;
    }
    if let Some(count) = given["bootstrap_iters"].as_u64() {
        options.bootstrap_iters = count as usize;
    }
    if let Some(kwargs) = given["gen_kwargs"].as_object() {
        options.generation_kwargs = kwargs.clone();
    }
    options
}

fn names(run: &Value) -> Vec<&str> {
    run["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect()
}

fn run(dir: &Path, run: &Value) -> Evaluation {
    evaluate(
        &Mock::default(),
        &load(dir, &names(run)),
        &options(run),
        &mut |_, _| {},
    )
    .unwrap()
}

/// Equal, with the same keys in the same order, and numbers to 1e-9.
#[track_caller]
pub(crate) fn assert_same(ours: &Value, golden: &Value, place: &str) {
    match (ours, golden) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = |object: &serde_json::Map<String, Value>| {
                object.keys().cloned().collect::<Vec<_>>()
            };
            assert_eq!(keys(a), keys(b), "the keys of {place}");
            for (key, value) in b {
                assert_same(&a[key], value, &format!("{place}.{key}"));
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(
                a.len(),
                b.len(),
                "the length of {place}: {ours} is not {golden}"
            );
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                assert_same(a, b, &format!("{place}[{i}]"));
            }
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!(
                (a - b).abs() <= 1e-9 * b.abs().max(1.0),
                "{place}: {a} is not {b}"
            );
        }
        // True and false are the numbers 1 and 0 of a choice.
        (Value::Number(a), Value::Bool(b)) => {
            assert_eq!(a.as_i64(), Some(i64::from(*b)), "{place}")
        }
        _ => assert_eq!(ours, golden, "{place}"),
    }
}

#[test]
fn every_number_prompt_and_hash_is_that_of_lm_eval() {
    let golden = golden();
    let dir = write_files(&golden);
    let mut compared = 0;
    for golden in golden["runs"].as_array().unwrap() {
        let name = golden["name"].as_str().unwrap();
        let evaluation = run(dir.path(), golden);
        for (task, samples) in &evaluation.samples {
            let expected = golden["samples"][task].as_array().unwrap();
            assert_eq!(samples.len(), expected.len(), "{name}, {task}");
            for (sample, expected) in samples.iter().zip(expected) {
                let place = format!(
                    "{name}, {task}, document {}, {}",
                    sample.doc_id, sample.filter
                );
                compare_sample(&sample.to_line(), expected, &place);
                compared += 1;
            }
        }
    }
    assert!(compared > 900, "{compared}");
}

fn compare_sample(line: &str, expected: &Value, place: &str) {
    let line: Value = serde_json::from_str(line).unwrap();
    for key in ["doc_id", "filter"] {
        assert_eq!(line[key], expected[key], "{place}");
    }
    // In full where the golden file has it, so that a difference can be seen.
    for key in ["arguments", "filtered_resps", "resps", "target"] {
        if !expected[key].is_null() {
            assert_eq!(line[key], expected[key], "{place}, {key}");
        }
    }
    if let Some(keys) = expected["line_keys"].as_array() {
        let ours: Vec<Value> = line
            .as_object()
            .unwrap()
            .keys()
            .map(|key| json!(key))
            .collect();
        assert_eq!(&ours, keys, "{place}");
    }
    for (key, hash) in ["doc_hash", "prompt_hash", "target_hash"]
        .iter()
        .zip(expected["hashes"].as_array().unwrap())
    {
        assert_eq!(
            &line[key].as_str().unwrap()[..24],
            hash.as_str().unwrap(),
            "{place}, {key}"
        );
    }
    let spaced = spaced(&line["arguments"]);
    let sha: String = Sha256::digest(spaced.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        &sha[..24],
        expected["arguments_sha"].as_str().unwrap(),
        "{place}: {spaced}"
    );
    for (metric, value) in expected["metrics"].as_object().unwrap() {
        assert_same(&line[metric], value, &format!("{place}, {metric}"));
    }
}

/// JSON with a space after commas and colons, as Python writes it.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| format!("{}: {}", json!(key), spaced(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(spaced).collect::<Vec<_>>().join(", ")
        ),
        other => other.to_string(),
    }
}

#[test]
fn the_results_file_has_lm_eval_s_keys_and_numbers() {
    let golden = golden();
    let dir = write_files(&golden);
    for golden in golden["runs"].as_array().unwrap() {
        let name = golden["name"].as_str().unwrap();
        let mut ours: Value = serde_json::from_str(&run(dir.path(), golden).to_json()).unwrap();
        for config in ours["configs"].as_object_mut().unwrap().values_mut() {
            config["metadata"]
                .as_object_mut()
                .unwrap()
                .shift_remove("config_source");
        }
        for (key, value) in golden["results"].as_object().unwrap() {
            if key == "configs" {
                for (task, config) in value.as_object().unwrap() {
                    assert_same(&ours[key][task], config, &format!("{name}, configs.{task}"));
                }
            } else {
                assert_same(&ours[key], value, &format!("{name}, {key}"));
            }
        }
        let of_python = [
            "pretty_env_info",
            "transformers_version",
            "lm_eval_version",
            "upper_git_hash",
        ];
        let of_tokenizer = [
            "tokenizer_pad_token",
            "tokenizer_eos_token",
            "tokenizer_bos_token",
            "eot_token_id",
            "max_length",
        ];
        for key in golden["keys"].as_array().unwrap() {
            let key = key.as_str().unwrap();
            if !of_python.contains(&key) && !of_tokenizer.contains(&key) {
                assert!(ours.get(key).is_some(), "{name}: {key} is missing");
            }
        }
        let keys: Vec<Value> = ours["config"]
            .as_object()
            .unwrap()
            .keys()
            .map(|key| json!(key))
            .collect();
        assert_eq!(&keys, golden["config_keys"].as_array().unwrap(), "{name}");
    }
}

/// The cells of a Markdown table; numbers as numbers, since the reference's table library drops zeros.
fn cells(table: &str) -> Vec<Vec<String>> {
    let rows = table
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|-"));
    rows.map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells
            .map(|cell| match cell.trim().parse::<f64>() {
                Ok(number) => format!("{number:.4}"),
                Err(_) => cell.trim_end().to_string(),
            })
            .enumerate()
            // The indentation of names counts, that of other cells does not.
            .map(|(i, cell)| {
                if i == 0 {
                    cell
                } else {
                    cell.trim().to_string()
                }
            })
            .collect()
    })
    .skip(1)
    .collect()
}

#[test]
fn the_table_has_lm_eval_s_rows() {
    let golden = golden();
    let dir = write_files(&golden);
    for golden in golden["runs"].as_array().unwrap() {
        let evaluation = run(dir.path(), golden);
        let name = &golden["name"];
        assert_eq!(
            cells(&evaluation.table()),
            cells(golden["table"].as_str().unwrap()),
            "{name}"
        );
        match (evaluation.groups_table(), golden["groups_table"].as_str()) {
            (Some(ours), Some(golden)) => assert_eq!(cells(&ours), cells(golden), "{name}"),
            (ours, golden) => assert_eq!(ours.is_some(), golden.is_some(), "{name}"),
        }
    }
}

#[test]
fn a_run_that_was_cut_off_anywhere_goes_on_with_what_was_answered() {
    let golden = golden();
    let dir = write_files(&golden);
    let set = load(dir.path(), &["mc_pair", "rolling", "gsm", "gen_number"]);
    let mut options = EvaluateOptions {
        bootstrap_iters: 0,
        limit: Some(5.0),
        ..EvaluateOptions::default()
    };
    let whole = Mock::default();
    let mut progress = Vec::new();
    let expected = evaluate(&whole, &set, &options, &mut |done, total| {
        progress.push((done, total))
    })
    .unwrap();
    let total = whole.asked.get();
    assert_eq!(
        progress,
        (0..=total).map(|done| (done, total)).collect::<Vec<_>>()
    );
    for cut in [0, 1, total / 3, total / 2, total - 1] {
        let cache = dir.path().join(format!("cache/{cut}.jsonl"));
        options.cache = Some(cache.clone());
        let first = Mock {
            fail_after: Some(cut),
            ..Mock::default()
        };
        assert!(evaluate(&first, &set, &options, &mut |_, _| {}).is_err());
        // What was being written when the process died.
        let mut bytes = std::fs::read(&cache).unwrap();
        bytes.extend_from_slice(b"{\"key\": \"12");
        std::fs::write(&cache, bytes).unwrap();
        let second = Mock::default();
        let resumed = evaluate(&second, &set, &options, &mut |_, _| {}).unwrap();
        assert_eq!(second.asked.get(), total - cut, "cut after {cut}");
        assert_eq!(resumed.results, expected.results, "cut after {cut}");
        assert_eq!(resumed.samples, expected.samples, "cut after {cut}");
    }
}

#[test]
fn files_are_named_as_lm_eval_names_them_and_read_back_for_the_gate() {
    let golden = golden();
    let dir = write_files(&golden);
    let set = load(dir.path(), &["mc_all", "gsm", "rolling"]);
    let mut options = EvaluateOptions {
        model_name: "org/model:1".to_string(),
        bootstrap_iters: 0,
        ..EvaluateOptions::default()
    };
    let baseline = evaluate(&Mock::default(), &set, &options, &mut |_, _| {}).unwrap();
    // Kept where this says, for `tests/golden/harness_files.py`.
    let out = std::env::var_os("FT_HARNESS_OUT").map_or(dir.path().join("out"), Into::into);
    let files = baseline.write(&out, true).unwrap();
    let name = files.results.file_name().unwrap().to_str().unwrap();
    assert!(
        files.results.starts_with(out.join("org__model__1")),
        "{files:?}"
    );
    assert!(
        name.starts_with("results_20") && name.ends_with(".json"),
        "{name}"
    );
    assert_eq!(files.samples.len(), 3);
    let lines = std::fs::read_to_string(&files.samples[0]).unwrap();
    assert_eq!(lines.lines().count(), 26);

    options.num_fewshot = Some(3);
    let new = evaluate(&Mock::default(), &set, &options, &mut |_, _| {}).unwrap();
    let read = SavedResults::read(&files.results).unwrap();
    let comparison = compare(&read, &SavedResults::from(&new));
    // Read from the files or taken from the run, it is the same.
    assert_eq!(
        comparison,
        compare(&SavedResults::from(&baseline), &SavedResults::from(&new))
    );
    assert!(
        comparison
            .notes
            .iter()
            .any(|note| note.starts_with("mc_all: the number of examples"))
    );
    let acc = comparison
        .metrics
        .iter()
        .find(|m| m.task == "mc_all" && m.metric == "acc")
        .unwrap();
    assert!(acc.p_value.is_some() && !acc.primary);
    let norm = comparison
        .metrics
        .iter()
        .find(|m| m.metric == "acc_norm")
        .unwrap();
    assert!(norm.primary);
    let same = compare(&read, &read);
    assert!(same.regressions(0.0).is_empty() && same.notes.is_empty());
    assert!(
        same.metrics
            .iter()
            .all(|m| m.gain == 0.0 && m.p_value.is_none_or(|p| p == 1.0))
    );
}

/// Loads a task of this text over one document, and asks it.
fn attempt(yaml: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!("task: bad\ntest_split: test\n{yaml}");
    std::fs::write(dir.path().join("bad.yaml"), yaml).unwrap();
    std::fs::create_dir(dir.path().join("bad")).unwrap();
    let row = r#"{"q": "x", "choices": ["a", "b"], "label": 1, "n": 1}"#;
    std::fs::write(dir.path().join("bad/test.jsonl"), row).unwrap();
    let set = TaskIndex::with_functions(&[dir.path()], FunctionRegistry::new())
        .and_then(|index| index.load(&["bad"], dir.path()));
    match set.and_then(|set| {
        evaluate(
            &Mock::default(),
            &set,
            &EvaluateOptions::default(),
            &mut |_, _| {},
        )
    }) {
        Ok(_) => "nothing is wrong".to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_cannot_be_used_is_told_with_its_place() {
    const GOOD: &str = "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: choices\ndoc_to_target: label\n";
    assert_eq!(attempt(GOOD), "nothing is wrong");
    for (extra, words) in [
        (
            "doc_to_txt: x",
            &["bad.yaml", "'doc_to_txt'", "doc_to_text"][..],
        ),
        (
            "fewshot_config: {samplr: x}",
            &["fewshot_config.samplr", "sampler"],
        ),
        (
            "fewshot_config: {sampler: balanced}",
            &["balanced", "first_n"],
        ),
        (
            "process_docs: !function utils.f",
            &["process_docs", "bad/utils.f", "native function"],
        ),
        ("process_docs: utils.f", &["'process_docs'", "!function"]),
        ("doc_to_image: q", &["doc_to_image", "images"]),
        ("class: x", &["class", "Python"]),
        ("output_type: ranking", &["ranking", "multiple_choice"]),
        ("metric_list: [{metric: rouge}]", &["rouge", "acc_norm"]),
        (
            "metric_list: [{metric: acc, aggregation: max}]",
            &["max", "median"],
        ),
        (
            "metric_list: [{metric: perplexity}]",
            &["perplexity", "multiple_choice"],
        ),
        (
            "metric_list: [{metric: likelihood}]",
            &["task bad", "likelihood", "aggregation"],
        ),
        (
            "filter_list: [{name: x, filter: [{function: custom}]}]",
            &["custom", "multi_choice_regex"],
        ),
        (
            "filter_list: [{name: x, filter: [{function: regex, pattern: a}]}]",
            &["regex.pattern", "regex_pattern"],
        ),
        (
            "filter_list: [{name: x, filter: [{function: lowercase}, {function: take_first}]}]",
            &["lowercase", "is no text"],
        ),
        (
            "filter_list: [{name: x, filter: [{function: regex, regex_pattern: '(('}]}]",
            &["((", "cannot be used"],
        ),
        (
            "doc_to_text: '{{question}}'",
            &["task bad", "question", "the fields: q, choices, label, n"],
        ),
        ("doc_to_choice: '{{q}}'", &["doc_to_choice", "no list"]),
        ("doc_to_target: missing", &["nothing is wrong"]),
        ("doc_to_target: null", &["doc_to_target is missing"]),
        (
            "dataset_kwargs: {streaming: true}",
            &["streaming", "data_files"],
        ),
        ("num_fewshot: 5", &["examples are asked for"]),
        ("num_fewshot: -1", &["num_fewshot", "0 or more"]),
        ("repeats: 0", &["repeats"]),
        ("include: none.yaml", &["bad"]),
        ("doc_to_text: '{{ 1'", &["template"]),
    ] {
        // A later key would be a duplicate: the good one is left out.
        let key = extra.split(':').next().unwrap();
        let rest: String = GOOD
            .lines()
            .filter(|line| line.split(':').next() != Some(key))
            .map(|line| format!("{line}\n"))
            .collect();
        let message = attempt(&format!("{rest}{extra}\n"));
        for word in words {
            assert!(
                message.contains(word),
                "{extra}: {message:?} does not say {word:?}"
            );
        }
    }
    for yaml in [
        "doc_to_text: q\ndoc_to_target: q\ngeneration_kwargs: {num_beams: 3}",
        "doc_to_text: q\ndoc_to_target: q\ngeneration_kwargs: {until: 3}",
        "doc_to_text: n\ndoc_to_target: q",
        "output_type: loglikelihood\ndoc_to_text: q\ndoc_to_target: n",
        "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_target: label",
    ] {
        assert!(
            attempt(yaml).contains("task bad"),
            "{yaml}: {}",
            attempt(yaml)
        );
    }
}

#[test]
fn unknown_names_missing_files_and_double_tasks_are_errors() {
    let golden = golden();
    let dir = write_files(&golden);
    let index = TaskIndex::with_functions(&[dir.path().join("tasks")], functions()).unwrap();
    let message = |names: &[&str]| index.load(names, dir.path()).unwrap_err().to_string();
    assert!(message(&["no_such_task"]).contains("mc_all"));
    assert!(message(&["everything", "mc_all"]).contains("asked for twice"));
    assert!(message(&[]).contains("name one"));
    assert!(index.load(&["mc_a*"], dir.path()).unwrap().tasks().len() == 1);
    let elsewhere = tempfile::tempdir().unwrap();
    let error = index
        .load(&["gsm"], elsewhere.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("data/sums_test.jsonl") && error.contains("\"test\""),
        "{error}"
    );
    // A file by its path.
    let path = dir.path().join("tasks/gsm.yaml");
    assert_eq!(
        index
            .load(&[path.to_str().unwrap()], dir.path())
            .unwrap()
            .tasks()[0]
            .name(),
        "gsm"
    );
}

#[test]
fn limits_that_leave_nothing_are_errors() {
    let golden = golden();
    let dir = write_files(&golden);
    let set = load(dir.path(), &["ll"]);
    for limit in [0.0, -1.0, f64::NAN] {
        let options = EvaluateOptions {
            limit: Some(limit),
            ..EvaluateOptions::default()
        };
        assert!(
            evaluate(&Mock::default(), &set, &options, &mut |_, _| {}).is_err(),
            "{limit}"
        );
    }
}
