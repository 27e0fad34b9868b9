//! The examples of alignment on the shipped model, run as a user does.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::examples::{DATA, json, number, path, run};
use crate::mock_server::{Act, MockServer};
use crate::shipped_model::folder;

/// Questions of the shipped data with their answers.
fn questions(count: usize) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(DATA).expect("the data");
    let rows = text.lines().take(count).map(|line| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let message = |i: usize| {
            row["messages"][i]["content"]
                .as_str()
                .expect("a text")
                .to_string()
        };
        (message(0), message(1))
    });
    rows.collect()
}

fn write(folder: &Path, name: &str, rows: impl Iterator<Item = Value>) -> PathBuf {
    let path = folder.join(name);
    let lines: Vec<String> = rows.map(|row| row.to_string()).collect();
    std::fs::write(&path, lines.join("\n")).expect("writes");
    path
}

/// Each question with its answer and a refusal, which is easily told from it.
fn pairs(to: &Path) -> PathBuf {
    let message = |role: &str, text: &str| json!([{"role": role, "content": text}]);
    let questions = questions(60);
    let rows = questions.iter().map(|(question, answer)| {
        json!({
            "prompt": message("user", question),
            "chosen": message("assistant", answer),
            "rejected": message("assistant", REFUSAL),
        })
    });
    write(to, "pairs.jsonl", rows)
}

/// A copy of the shipped model, to change.
fn copy(to: &Path) -> PathBuf {
    let copy = to.join("model");
    std::fs::create_dir(&copy).expect("folder");
    for entry in std::fs::read_dir(folder()).expect("folder") {
        let path = entry.expect("entry").path();
        std::fs::copy(&path, copy.join(path.file_name().expect("name"))).expect("copies");
    }
    copy
}

/// A JSON file, changed.
fn change(path: &Path, key: &str, value: Value) {
    let text = std::fs::read_to_string(path).expect("a file");
    let mut json: Value = serde_json::from_str(&text).expect("JSON");
    json[key] = value;
    std::fs::write(path, json.to_string()).expect("writes");
}

/// The stage that an adapter's manifest names, whose data and base are there.
fn stage_of(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("adapter_stage.json")).expect("a manifest");
    let stage: Value = serde_json::from_str(&text).expect("JSON");
    for key in ["data", "base_weights", "weights"] {
        assert!(
            !stage[key].as_str().expect("a hash").is_empty(),
            "{key}: {stage}"
        );
    }
    stage["stage"].as_str().expect("a name").to_string()
}

/// What a run that fails says.
fn refused(program: &str, arguments: &[&str]) -> String {
    let found = run(program, arguments);
    let message = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(!found.status.success(), "{message}");
    message
}

const REFUSAL: &str = "No. I do not like this question.";

fn common<'a>(model: &'a str, data: &'a str, output: &'a str) -> Vec<&'a str> {
    let common = ["--model", model, "--data", data, "--output", output];
    [&common[..], &["--lr", "2e-3", "--eval-fraction", "0.2"]].concat()
}

#[test]
fn preferences_are_learned_resumed_and_merged() {
    let at = tempfile::tempdir().expect("temporary folder");
    let data = pairs(at.path());
    let model = folder();
    let output = at.path().join("dpo");
    let base = common(path(&model), path(&data), path(&output));
    let arguments = [
        &base[..],
        &[
            "--max-steps",
            "8",
            "--save-every",
            "4",
            "--reference",
            "cached",
        ],
    ]
    .concat();
    let found = json("dpo", &arguments);
    assert_eq!(number(&found, "steps"), 8.0);
    let [before, after] = [&found["eval_before"], &found["eval_after"]];
    assert!((number(before, "loss") - 2f64.ln()).abs() < 1e-5);
    assert!(number(after, "accuracy") > 0.7, "{found}");
    assert!(number(after, "margin") > number(before, "margin"));
    assert!(output.join("adapter_model.safetensors").is_file());
    assert!(output.join("reference_logps.json").is_file());
    assert_eq!(stage_of(&output), "dpo");
    assert_eq!(stage_of(&output.join("checkpoints/step-4/adapter")), "dpo");

    // What was trained is the start of the next stage: refused as it is, taken with its own start as reference.
    let next = at.path().join("next");
    let base = common(path(&model), path(&data), path(&next));
    let adapter = ["--adapter", path(&output), "--max-steps", "2"];
    let refused = run(
        "dpo",
        &[&base[..], &adapter, &["--reference", "adapter-off"]].concat(),
    );
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && message.contains("earlier stage"),
        "{message}"
    );
    let arguments = [&base[..], &adapter, &["--overwrite"]].concat();
    let found = json("dpo", &arguments);
    assert!(
        (number(&found["eval_before"], "loss") - 2f64.ln()).abs() < 1e-5,
        "{found}"
    );
}

#[test]
fn a_run_is_not_resumed_on_another_base_or_with_settings_without_an_effect() {
    let at = tempfile::tempdir().expect("temporary folder");
    let (data, model, output) = (pairs(at.path()), copy(at.path()), at.path().join("dpo"));
    let base = common(path(&model), path(&data), path(&output));
    let steps = ["--max-steps", "2", "--save-every", "1", "--eval-every", "1"];
    json("dpo", &[&base[..], &steps].concat());
    let log = std::fs::read_to_string(output.join("train_log.jsonl")).expect("a log");
    let evaluations = log
        .lines()
        .filter(|line| line.contains("eval_loss"))
        .count();
    assert_eq!(evaluations, 3, "{log}");
    // One number of the base.
    let weights = model.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("weights");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).expect("writes");
    let message = refused("dpo", &[&base[..], &steps, &["--resume"]].concat());
    assert!(message.contains("base_weights"), "{message}");

    let simpo = ["--loss", "simpo", "--ld-alpha", "0.5", "--overwrite"];
    let message = refused("dpo", &[&base[..], &simpo].concat());
    assert!(message.contains("no effect on the loss simpo"), "{message}");
    for options in [["--epsilon", "0.1"], ["--two-sided-clip", "4"]] {
        let cispo = ["--loss", "cispo", "--reward", "exact", "--overwrite"];
        let message = refused("grpo", &[&base[..], &cispo, &options].concat());
        assert!(message.contains("no effect on cispo"), "{message}");
    }
}

/// Without the instructions for it `bf16` is `f32`, and both settings are the same.
#[test]
fn products_in_bf16_are_a_setting_of_a_run() {
    let at = tempfile::tempdir().expect("temporary folder");
    let (data, model, output) = (pairs(at.path()), folder(), at.path().join("dpo"));
    let base = common(path(&model), path(&data), path(&output));
    let steps = ["--max-steps", "8", "--save-every", "4"];
    let rounded = ["--matmul-precision", "bf16"];
    let found = json("dpo", &[&base[..], &steps, &rounded].concat());
    let [before, after] = [&found["eval_before"], &found["eval_after"]];
    assert!((number(before, "loss") - 2f64.ln()).abs() < 1e-5);
    assert!(number(after, "loss") < number(before, "loss"), "{found}");
    if ft::kernels::Precision::Bf16.is_supported() {
        let message = refused("dpo", &[&base[..], &steps, &["--resume"]].concat());
        assert!(message.contains("precision"), "{message}");
    }
    // Log-probabilities of sampling and of the first step are compared.
    let rows = questions(12);
    let rows = rows
        .iter()
        .map(|(question, answer)| json!({"question": question, "answer": answer}));
    let (data, output) = (
        write(at.path(), "questions.jsonl", rows),
        at.path().join("grpo"),
    );
    let base = common(path(&model), path(&data), path(&output));
    let options = "--reward exact --max-steps 2 --group-size 4 --max-new-tokens 12 --beta 0.04";
    let options: Vec<&str> = options.split(' ').collect();
    let found = json("grpo", &[&base[..], &options, &rounded].concat());
    assert!(found["kl"].is_number(), "{found}");
}

#[test]
fn a_policy_trains_on_a_base_of_few_bits() {
    let at = tempfile::tempdir().expect("temporary folder");
    let (data, model, output) = (pairs(at.path()), folder(), at.path().join("dpo"));
    let base = common(path(&model), path(&data), path(&output));
    let steps = ["--max-steps", "8", "--save-every", "4"];
    let found = json(
        "dpo",
        &[&base[..], &steps, &["--base-format", "int8"]].concat(),
    );
    let [before, after] = [&found["eval_before"], &found["eval_after"]];
    assert!((number(before, "loss") - 2f64.ln()).abs() < 1e-5);
    assert!(number(after, "loss") < number(before, "loss"), "{found}");
    for other in [&["--base-format", "nf4"][..], &[]] {
        let resumed = [&base[..], &steps, &["--resume"], other].concat();
        let message = refused("dpo", &resumed);
        assert!(message.contains("base_format"), "{message}");
    }
    let message = refused(
        "dpo",
        &[&base[..], &["--full", "--base-format", "int8"]].concat(),
    );
    assert!(message.contains("--full"), "{message}");
}

#[test]
fn four_stages_are_reported() {
    let at = tempfile::tempdir().expect("temporary folder");
    let model = copy(at.path());
    change(&model.join("generation_config.json"), "num_beams", 4.into());
    let output = [
        "--model",
        path(&model),
        "--output",
        path(at.path()),
        "--limit",
        "60",
        "--epochs",
        "1",
        "--json",
    ];
    let ran = run("four_stages", &output);
    let warnings = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success() && warnings.contains("ignored: num_beams"),
        "{warnings}"
    );
    let stdout = String::from_utf8_lossy(&ran.stdout);
    let found: Value = serde_json::from_str(stdout.lines().last().expect("a line")).expect("JSON");
    let stages = found["stages"].as_array().expect("stages");
    assert_eq!(stages.len(), 3, "{found}");
    for stage in stages {
        assert!(
            number(stage, "held_out_after") < number(stage, "held_out_before"),
            "{stage}"
        );
        let model = at.path().join(stage["stage"].as_str().expect("a name"));
        assert!(
            model.join("model.safetensors").is_file() && model.join("tokenizer.json").is_file()
        );
    }
    let report = std::fs::read_to_string(at.path().join("report.md")).expect("a report");
    assert!(report.contains("losses.svg") && report.contains("refusals of harmful prompts"));
    assert!(at.path().join("losses.svg").is_file());
}

#[test]
fn one_stage_without_a_reference() {
    let at = tempfile::tempdir().expect("temporary folder");
    let data = pairs(at.path());
    let model = folder();
    for loss in ["orpo", "simpo"] {
        let output = at.path().join(loss);
        let base = common(path(&model), path(&data), path(&output));
        let found = json(
            "orpo",
            &[&base[..], &["--max-steps", "8", "--loss", loss]].concat(),
        );
        let [before, after] = [&found["eval_before"], &found["eval_after"]];
        assert!(
            number(after, "loss") < number(before, "loss"),
            "{loss}: {found}"
        );
        assert_eq!(stage_of(&output), "orpo");
    }
    let output = at.path().join("dpo");
    let base = common(path(&model), path(&data), path(&output));
    let found = run("dpo", &[&base[..], &["--reference", "none"]].concat());
    let message = String::from_utf8_lossy(&found.stderr);
    assert!(message.contains("needs a reference"), "{message}");
}

#[test]
fn single_answers_are_learned() {
    let at = tempfile::tempdir().expect("temporary folder");
    let questions = questions(60);
    let rows = questions.iter().enumerate().map(|(i, (question, answer))| {
        let text = if i % 3 == 0 { answer } else { REFUSAL };
        json!({
            "prompt": [{"role": "user", "content": question}],
            "completion": [{"role": "assistant", "content": text}],
            "label": i % 3 == 0,
        })
    });
    let data = write(at.path(), "answers.jsonl", rows);
    let (model, output) = (folder(), at.path().join("kto"));
    let base = common(path(&model), path(&data), path(&output));
    let found = json("kto", &[&base[..], &["--max-steps", "12"]].concat());
    let after = &found["eval_after"];
    assert!(number(after, "margin") > 0.05, "{found}");
    assert_eq!(stage_of(&output), "kto");

    let good = (questions.iter())
        .map(|(question, answer)| json!({"prompt": question, "completion": answer, "label": true}));
    let data = write(at.path(), "good.jsonl", good);
    let output = at.path().join("one kind");
    let base = common(path(&model), path(&data), path(&output));
    let message = refused("kto", &base);
    assert!(message.contains("answers are desirable"), "{message}");
}

#[test]
fn a_verifier_is_learned_from() {
    let at = tempfile::tempdir().expect("temporary folder");
    let rows = questions(40);
    let rows = rows
        .iter()
        .map(|(question, answer)| json!({"question": question, "answer": answer}));
    let data = write(at.path(), "questions.jsonl", rows);
    let (model, output) = (folder(), at.path().join("grpo"));
    let base = common(path(&model), path(&data), path(&output));
    let options = [
        "--reward",
        "exact,length:8",
        "--max-steps",
        "3",
        "--group-size",
        "4",
        "--max-new-tokens",
        "12",
    ];
    let found = json("grpo", &[&base[..], &options, &["--beta", "0.01"]].concat());
    let rewards = found["rewards"].as_array().expect("rewards");
    assert_eq!(rewards.len(), 3);
    for reward in rewards {
        // At most 1 for the right answer, and 0 and less for the distance from a length.
        let reward = reward.as_f64().expect("a reward");
        assert!(reward <= 1.0 && reward > -10.0 && reward != 0.0, "{found}");
    }
    for key in [
        "eval_reward_before",
        "eval_reward_after",
        "kl",
        "mean_length",
    ] {
        assert!(found[key].is_number(), "{key}: {found}");
    }
    for key in [
        "generation_tokens_per_s",
        "seconds_generation",
        "seconds_update",
        "peak_rss_mb",
    ] {
        assert!(number(&found, key) > 0.0, "{key}: {found}");
    }
    assert_eq!(stage_of(&output), "grpo");
    let unknown = run("grpo", &[&base[..], &["--reward", "gsm9k"]].concat());
    let message = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        message.contains("gsm9k") && message.contains("gsm8k"),
        "{message}"
    );

    let output = at.path().join("tiny");
    let few = ["--shown", "60", "--steps", "2", "--output", path(&output)];
    // Two updates need not help, and the program ends with an error if they do not.
    let found = run("grpo_tiny", &few);
    let message = String::from_utf8_lossy(&found.stderr);
    assert!(
        found.status.success() || message.contains("the answers did not become better"),
        "{message}"
    );
    assert!(output.join("adapter/adapter_model.safetensors").is_file());
}

/// The whole runs, a quarter of an hour: `cargo test --release -p ft --test it -- --ignored goals`.
#[test]
#[ignore = "takes a quarter of an hour"]
fn grpo_tiny_and_four_stages_reach_their_goals() {
    let at = tempfile::tempdir().expect("temporary folder");
    let found = json("grpo_tiny", &["--output", path(&at.path().join("tiny"))]);
    let ends = |name: &str| {
        let shares = found[name].as_array().expect("shares");
        [shares.first(), shares.last()].map(|one| one.and_then(Value::as_f64).expect("a share"))
    };
    let ([right_before, right], [quoted_before, quoted]) =
        (ends("eval_accuracies"), ends("eval_quoted"));
    assert!(right > right_before + 0.05, "{found}");
    assert!(quoted_before < 0.5 && quoted > 0.9, "{found}");

    let found = json(
        "four_stages",
        &["--output", path(&at.path().join("stages"))],
    );
    for stage in found["stages"].as_array().expect("stages") {
        assert!(
            number(stage, "held_out_after") < number(stage, "held_out_before"),
            "{stage}"
        );
        assert_eq!(stage["passed"], true, "{stage}");
    }
    let measures = &found["stages"][2]["measures"]["refusals of harmful prompts"];
    let [before, after] = [&measures[0], &measures[1]].map(|one| one.as_f64().expect("a share"));
    assert!(after > before + 0.3, "{found}");
}

#[test]
fn a_policy_learns_with_a_value_model_and_a_reward_model() {
    let at = tempfile::tempdir().expect("temporary folder");
    let (model, pairs) = (folder(), pairs(at.path()));
    let reward = at.path().join("reward");
    let base = common(path(&model), path(&pairs), path(&reward));
    json(
        "reward_model",
        &[&base[..], &["--max-steps", "4", "--merged"]].concat(),
    );

    let rows = questions(24);
    let rows = rows
        .iter()
        .map(|(question, answer)| json!({"question": question, "answer": answer}));
    let data = write(at.path(), "questions.jsonl", rows);
    let output = at.path().join("ppo");
    let base = common(path(&model), path(&data), path(&output));
    let options = [
        "--max-steps",
        "4",
        "--max-new-tokens",
        "8",
        "--iterations",
        "2",
    ];
    let with = |reward: &str| {
        json(
            "ppo",
            &[&base[..], &options, &["--reward", reward]].concat(),
        )
    };
    let found = with(path(&reward));
    assert_eq!(found["rewards"].as_array().map(Vec::len), Some(4));
    for key in [
        "eval_reward_before",
        "eval_reward_after",
        "kl",
        "mean_length",
    ] {
        assert!(found[key].is_number(), "{key}: {found}");
    }
    let checkpoint = output.join("checkpoints/step-4/adapter");
    for folder in [&output, &checkpoint] {
        assert_eq!(stage_of(folder), "ppo");
        assert_eq!(stage_of(&folder.join("value")), "ppo_value");
    }
    let stage = std::fs::read_to_string(reward.join("stage.json")).expect("a manifest");
    assert!(stage.contains("reward_model"), "{stage}");
    // The rewards of a run that is resumed are the same ones.
    let weights = reward.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("weights");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).expect("writes");
    let again = [
        &base[..],
        &options,
        &["--reward", path(&reward), "--resume"],
    ]
    .concat();
    let message = refused("ppo", &again);
    assert!(message.contains("reward"), "{message}");
    let missing = run("ppo", &base);
    let message = String::from_utf8_lossy(&missing.stderr);
    assert!(message.contains("give --reward"), "{message}");
}

#[test]
fn a_scorer_of_steps_is_a_reward() {
    let at = tempfile::tempdir().expect("temporary folder");
    let rows = questions(12).into_iter().enumerate().map(|(i, (question, answer))| {
        json!({"prompt": question, "completions": [answer, "So it is."], "labels": [i % 2 == 0, true]})
    });
    let data = write(at.path(), "steps.jsonl", rows);
    let (model, scorer) = (folder(), at.path().join("scorer"));
    let base = common(path(&model), path(&data), path(&scorer));
    let process = [
        "--process",
        "--step-separator",
        "\\n\\n",
        "--max-steps",
        "2",
    ];
    json(
        "reward_model",
        &[&base[..], &process, &["--merged"]].concat(),
    );
    let config = std::fs::read_to_string(scorer.join("config.json")).expect("settings");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["step_separator"], "\n\n");
    // As an adapter, which another stage continues.
    let (adapter, more) = (at.path().join("adapter"), at.path().join("more"));
    let base = common(path(&model), path(&data), path(&adapter));
    json("reward_model", &[&base[..], &process].concat());
    assert_eq!(stage_of(&adapter), "reward_model");
    let base = common(path(&model), path(&data), path(&more));
    let continued = ["--adapter", path(&adapter), "--grad-accum", "2"];
    json("reward_model", &[&base[..], &process, &continued].concat());

    let rows = questions(12);
    let rows = rows
        .iter()
        .map(|(question, _)| json!({"question": question}));
    let data = write(at.path(), "questions.jsonl", rows);
    let output = at.path().join("grpo");
    let base = common(path(&model), path(&data), path(&output));
    let options = [
        "--reward",
        path(&scorer),
        "--max-steps",
        "1",
        "--group-size",
        "2",
        "--max-new-tokens",
        "12",
        "--entropy-coef",
        "0.01",
        "--top-entropy-quantile",
        "0.5",
        "--two-sided-clip",
        "4",
    ];
    let found = json("grpo", &[&base[..], &options].concat());
    let reward = found["rewards"][0].as_f64().expect("a reward");
    assert!((0.0..=1.0).contains(&reward), "{found}");
}

#[test]
fn a_judge_rates_sampled_answers_and_is_asked_once() {
    let at = tempfile::tempdir().expect("temporary folder");
    let rows = questions(8);
    let rows = rows
        .iter()
        .map(|(question, _)| json!({"question": question}));
    let data = write(at.path(), "questions.jsonl", rows);
    let (model, output) = (folder(), at.path().join("grpo"));
    let base = common(path(&model), path(&data), path(&output));
    // Answers with more words get more points.
    let server = MockServer::start(|request, _| {
        let messages = request["messages"].as_array().expect("messages");
        let text = messages.last().and_then(|last| last["content"].as_str());
        let text = text.expect("a text");
        let response = text.split("<response>").nth(1).unwrap_or_default();
        let words = response.split_whitespace().count();
        Act::Say(json!({"reason": "words", "score": words.clamp(1, 5)}).to_string())
    });
    let judge = ["--judge-endpoint", &server.url, "--judge-points", "5"];
    let sampling = [
        "--max-new-tokens",
        "12",
        "--group-size",
        "4",
        "--max-steps",
        "2",
    ];
    let arguments = [&base[..], &judge, &sampling, &["--prompts-per-step", "2"]].concat();
    let first = json("grpo", &arguments);
    let rewards = first["rewards"].as_array().expect("rewards");
    assert_eq!(rewards.len(), 2, "{first}");
    for reward in rewards {
        let reward = reward.as_f64().expect("a reward");
        assert!(reward > 0.0 && reward <= 1.0, "{first}");
    }
    let asked = server.requests();
    assert!(asked > 4, "{asked}");
    // The same run again takes the replies that were kept.
    let again = json("grpo", &[&arguments[..], &["--overwrite"]].concat());
    assert_eq!(again["rewards"], first["rewards"]);
    assert_eq!(server.requests(), asked);
    // Beside a reward of another kind, both count.
    let both = [&arguments[..], &["--overwrite", "--reward", "regex:."]].concat();
    let both = json("grpo", &both);
    let sum = |found: &Value| found["rewards"][0].as_f64().expect("a reward");
    assert!(sum(&both) > sum(&first) + 0.5, "{both} {first}");
}

#[test]
fn pairs_are_made_from_rewards_or_by_a_judge() {
    let at = tempfile::tempdir().expect("temporary folder");
    let rows = questions(40);
    let rows = rows
        .iter()
        .map(|(question, answer)| json!({"question": question, "answer": answer}));
    let data = write(at.path(), "questions.jsonl", rows);
    let (model, output) = (folder(), at.path().join("rlaif"));
    let best = at.path().join("best.jsonl");
    let base = common(path(&model), path(&data), path(&output));
    let sampling = [
        "--max-new-tokens",
        "100",
        "--samples",
        "3",
        "--temperature",
        "0.7",
    ];
    let options = [
        "--reward",
        "regex:[kv]",
        "--max-steps",
        "3",
        "--best",
        path(&best),
    ];
    let found = json("rlaif", &[&base[..], &sampling, &options].concat());
    assert_eq!(found["steps"], 3, "{found}");
    let lines = |file: &Path| {
        std::fs::read_to_string(file)
            .expect("lines")
            .lines()
            .count()
    };
    assert!(lines(&output.join("pairs.jsonl")) > 5);
    assert!(lines(&best) >= lines(&output.join("pairs.jsonl")));
    assert_eq!(stage_of(&output), "rlaif");

    // From the pairs on.
    let output = at.path().join("resumed");
    let base = common(path(&model), path(&data), path(&output));
    let reward = ["--reward", "regex:[kv]"];
    let only = run(
        "rlaif",
        &[&base[..], &sampling, &reward, &["--pairs-only"]].concat(),
    );
    assert!(only.status.success());
    let made = std::fs::read(output.join("pairs.jsonl")).expect("pairs");
    let more = ["--resume", "--max-steps", "1"];
    let found = json("rlaif", &[&base[..], &sampling, &reward, &more].concat());
    assert_eq!(found["steps"], 1, "{found}");
    assert_eq!(
        std::fs::read(output.join("pairs.jsonl")).expect("pairs"),
        made
    );
    let message = refused("rlaif", &[&base[..], &sampling, &reward].concat());
    assert!(message.contains("--overwrite"), "{message}");
    // Pairs that were made in another way are neither trained on nor overwritten.
    let other = ["--reward", "regex:[xy]"];
    let message = refused("rlaif", &[&base[..], &sampling, &other, &more].concat());
    assert!(message.contains("another setting of reward"), "{message}");
    let fewer = [&sampling[..2], &["--samples", "2"], &sampling[4..]].concat();
    let message = refused("rlaif", &[&base[..], &fewer, &reward, &more].concat());
    assert!(message.contains("another setting of samples"), "{message}");
    assert_eq!(
        std::fs::read(output.join("pairs.jsonl")).expect("pairs"),
        made
    );
    // Answers are kept as they come: the pairs are made from them again, without sampling.
    for name in ["pairs.jsonl", "train_log.jsonl"] {
        std::fs::remove_file(output.join(name)).expect("removes");
    }
    let answers = std::fs::OpenOptions::new()
        .append(true)
        .open(output.join("answers.jsonl"));
    std::io::Write::write_all(&mut answers.expect("answers"), b"[[{\"torn").expect("writes");
    let found = run(
        "rlaif",
        &[&base[..], &sampling, &reward, &["--resume", "--pairs-only"]].concat(),
    );
    let message = String::from_utf8_lossy(&found.stderr);
    assert!(
        found.status.success() && !message.contains("answered"),
        "{message}"
    );
    assert_eq!(
        std::fs::read(output.join("pairs.jsonl")).expect("pairs"),
        made
    );

    // A judge of random weights decides nothing, or something, but never silently.
    let few = std::fs::read_to_string(&data).expect("lines");
    let few: Vec<&str> = few.lines().take(1).collect();
    std::fs::write(&data, few.join("\n")).expect("writes");
    let output = at.path().join("judged");
    let base = common(path(&model), path(&data), path(&output));
    let judge = ["--judge-local", path(&model), "--pairs-only"];
    let found = run("rlaif", &[&base[..], &sampling, &judge].concat());
    let message = String::from_utf8_lossy(&found.stderr);
    // No pair may be left, which is an error. Sides, ties and order are tests of ft-align and ft-eval.
    assert!(
        found.status.success() || message.contains("no pair is left"),
        "{message}"
    );
    assert!(message.contains("without a verdict"), "{message}");
    assert!(!message.contains("applies to none"), "{message}");
    let output = at.path().join("nothing");
    let base = common(path(&model), path(&data), path(&output));
    let nothing = run("rlaif", &base);
    let message = String::from_utf8_lossy(&nothing.stderr);
    assert!(message.contains("--judge-endpoint"), "{message}");
}

/// The reference and the policy are computed with the same precision, so that a new adapter changes nothing.
#[test]
fn preferences_are_learned_on_a_base_of_few_bits() {
    let at = tempfile::tempdir().expect("temporary folder");
    let (data, file) = (pairs(at.path()), at.path().join("base.gguf"));
    let model = folder();
    let quantize = [
        "--model",
        path(&model),
        "--format",
        "Q4_0",
        "--output",
        path(&file),
    ];
    json("quantize", &quantize);
    for (program, more) in [
        ("dpo", &["--batch-size", "4"][..]),
        ("kto", &["--batch-size", "4"]),
    ] {
        let output = at.path().join(program);
        let data = match program {
            "kto" => {
                let rows = questions(24).into_iter().enumerate().map(|(i, (question, answer))| {
                    json!({"prompt": question, "completion": answer, "label": i % 2 == 0})
                });
                write(at.path(), "answers.jsonl", rows)
            }
            _ => data.clone(),
        };
        let base = common(path(&file), path(&data), path(&output));
        let found = json(program, &[&base[..], &["--max-steps", "8"], more].concat());
        assert_eq!(found["steps"], 8, "{found}");
        let margin = |when: &str| number(&found[when], "margin");
        if program == "dpo" {
            // The base is the reference, before the training also in an evaluation.
            assert!(margin("eval_before").abs() < 1e-3, "{found}");
            assert!(margin("eval_after") > 0.05, "{found}");
        }
    }
}
