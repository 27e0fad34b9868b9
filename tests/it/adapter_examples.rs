//! `sft` with every method and what belongs to LoRA, and `merge` of several adapters.

use std::path::{Path, PathBuf};

use ft::burn::tensor::Device;
use ft::peft::{Ia3Config, adapter_config, attach, load_adapter, peft_types, save_adapter};
use serde_json::Value;
use tempfile::TempDir;

use crate::examples::{DATA, json, number, path, run};
use crate::shipped_model::{folder, load};

/// `sft` for two steps; the options come last.
fn arguments<'a>(model: &'a str, output: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec![
        "--model", model, "--data", DATA, "--format", "messages", "--output", output,
    ];
    all.extend([
        "--max-steps",
        "2",
        "--batch-size",
        "2",
        "--seq-len",
        "48",
        "--eval-fraction",
        "0.02",
    ]);
    all.extend(options);
    all
}

fn trained(output: &Path, options: &[&str]) -> Value {
    let model = folder();
    json("sft", &arguments(path(&model), path(output), options))
}

fn refused(options: &[&str]) -> String {
    let (model, work) = (folder(), TempDir::new().expect("folder"));
    let output = work.path().join("output");
    let done = run("sft", &arguments(path(&model), path(&output), options));
    assert!(!done.status.success(), "{options:?}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// The method in the file that `sft` wrote.
fn written(output: &Path) -> Value {
    let text = std::fs::read_to_string(output.join("adapter_config.json")).expect("an adapter");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn sft_trains_every_method() {
    let work = TempDir::new().expect("folder");
    for peft_type in peft_types() {
        let name = peft_type.to_ascii_lowercase();
        let mut options = vec!["--method", name.as_str()];
        match peft_type {
            "TRAINABLE_TOKENS" => options.extend(["--set", "token_indices=[3,4,5]"]),
            "ADALORA" => options.extend(["--set", "tinit=0", "--set", "tfinal=0"]),
            "BITFIT" => options.extend(["--set", "add_missing=true"]),
            _ => {}
        }
        let output = work.path().join(&name);
        let report = trained(&output, &options);
        assert_eq!(number(&report, "steps"), 2.0, "{name}");
        assert!(number(&report, "trainable_parameters") > 0.0, "{name}");
        if peft_type != "BOTTLENECK" {
            assert_eq!(written(&output)["peft_type"], peft_type);
        }
    }
}

/// AdaLoRA in any spelling has the number of steps of the run, and ends with the ranks that were kept.
#[test]
fn sft_allocates_ranks_whatever_the_spelling() {
    let work = TempDir::new().expect("folder");
    for name in ["ada_lora", "AdaLoRA"] {
        let output = work.path().join(name);
        trained(
            &output,
            &["--method", name, "--set", "tinit=0", "--set", "tfinal=0"],
        );
        let written = written(&output);
        assert_eq!(written["total_step"], 2);
        let pattern = written["rank_pattern"]
            .as_object()
            .expect("the ranks that were kept");
        assert!(!pattern.is_empty(), "{name}");
    }
}

#[test]
fn sft_trains_parts_of_the_model() {
    let work = TempDir::new().expect("folder");
    let count = |name: &str| {
        let output = work.path().join(name.replace(':', "_"));
        number(
            &trained(&output, &["--method", name]),
            "trainable_parameters",
        )
    };
    let (top, freeze, bottom) = (count("top:2"), count("freeze:2"), count("bottom:1"));
    assert_eq!(top, freeze);
    assert_eq!(top, 2.0 * bottom);
    assert!(count("Full") > top);
    // The output layer of this model is its embedding.
    let error = refused(&["--method", "head"]);
    assert!(error.contains("`embeddings`"), "{error}");
}

#[test]
fn what_sft_cannot_use_is_refused_before_the_data_is_read() {
    let error = refused(&["--method", "ful"]);
    for part in [
        "no method is called \"ful\"",
        "prefix",
        "dora",
        "full, head, top:N",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(refused(&["--method", "bottom:0"]).contains("N is 1 or more"));
    assert!(refused(&["--method", "lora:3"]).contains("takes no number"));
    let error = refused(&["--method", "full", "--rslora", "--target-modules", "q_proj"]);
    assert!(error.contains("--rslora, --target-modules"), "{error}");
    let error = refused(&["--method", "loha", "--dropout", "0.1"]);
    assert!(
        error.contains("rank_dropout=...") && error.contains("module_dropout=..."),
        "{error}"
    );
    assert!(refused(&["--method", "ia3", "--dropout", "0.1"]).contains("not a setting of ia3"));
    assert!(refused(&["--loftq", "1"]).contains("--base-format"));
    assert!(refused(&["--set", "init_lora_weights=loftq"]).contains("--loftq ITERATIONS"));
    let text = ["--method", "prompt", "--set", "prompt_tuning_init=TEXT"];
    assert!(refused(&text).contains("prompt_tuning_init_text=TEXT"));
    let help = run("sft", &["--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for name in ["prefix", "trainable_tokens", "houlsby", "bottom:N"] {
        assert!(help.contains(name), "{name}: {help}");
    }
}

#[test]
fn sft_has_what_belongs_to_lora() {
    let work = TempDir::new().expect("folder");
    let at = |name: &str| -> PathBuf { work.path().join(name) };
    let plain = number(
        &trained(&at("plain"), &["--r", "4"]),
        "trainable_parameters",
    );
    // A is frozen, and the rate of B is another one.
    let fa = number(
        &trained(&at("fa"), &["--r", "4", "--lora-fa"]),
        "trainable_parameters",
    );
    assert!(fa < plain, "{fa} {plain}");
    let losses = |report: Value| report["train_losses"].to_string();
    let slow = losses(trained(&at("slow"), &["--r", "4", "--lr", "1e-3"]));
    let plus = losses(trained(
        &at("plus"),
        &["--r", "4", "--lr", "1e-3", "--lora-plus", "16"],
    ));
    assert_ne!(slow, plus);
    trained(&at("houlsby"), &["--method", "houlsby", "--dropout", "0.1"]);

    trained(
        &at("eva"),
        &[
            "--r",
            "4",
            "--set",
            "init_lora_weights=eva",
            "--set",
            r#"eva_config={"rho": 1.0, "tau": 0.5}"#,
            "--target-modules",
            "q_proj,v_proj",
        ],
    );
    let eva = written(&at("eva"));
    assert_eq!(eva["init_lora_weights"], "eva");

    let text = "prompt_tuning_init_text=Answer the question.";
    trained(
        &at("text"),
        &[
            "--method",
            "prompt",
            "--set",
            "prompt_tuning_init=TEXT",
            "--set",
            text,
            "--set",
            "num_virtual_tokens=6",
        ],
    );
    assert_eq!(written(&at("text"))["prompt_tuning_init"], "TEXT");
    let card = std::fs::read_to_string(at("text").join("README.md")).expect("a card");
    for part in [
        "instructions.jsonl",
        "`learning_rate`",
        "`held_out_loss_after`",
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
}

/// The adapter belongs to the rounded base, which lies beside it, and to no other.
#[test]
fn sft_writes_the_base_that_loftq_rounded() {
    let work = TempDir::new().expect("folder");
    let adapter = work.path().join("adapter");
    trained(
        &adapter,
        &["--r", "8", "--base-format", "nf4", "--loftq", "2"],
    );
    let base = adapter.join("base");
    assert_eq!(written(&adapter)["init_lora_weights"], true);
    assert_eq!(written(&adapter)["base_model_name_or_path"], path(&base));
    let merged = work.path().join("merged");
    let merge = |model: &Path| {
        let options = [
            "--model",
            path(model),
            "--adapter",
            path(&adapter),
            "--output",
            path(&merged),
        ];
        run("merge", &options)
    };
    let error = merge(&folder());
    assert!(!error.status.success());
    let error = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(error.contains("adapter"), "{error}");
    let done = merge(&base);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn merge_adds_the_vectors_of_ia3() {
    let work = TempDir::new().expect("folder");
    let place = work.path().join("ia3");
    let device = Device::default();
    let model = attach(load(&device).0, &Ia3Config::default(), "default", 1).expect("attaches");
    save_adapter(&model, "default", &place).expect("saves");
    let loaded = load_adapter(load(&device).0, &place, "default", false).expect("loads");
    assert_eq!(
        adapter_config(&loaded, "default")
            .expect("there")
            .peft_type(),
        "IA3"
    );

    let (model, half) = (folder(), format!("{}:0.5", path(&place)));
    let merged = work.path().join("merged");
    let options = [
        "--model",
        path(&model),
        "--adapter",
        &half,
        "--output",
        path(&merged),
    ];
    json("merge", &options);
    let two = [&options[..], &["--adapter", &half]].concat();
    json("merge", &two);
    let error = run("merge", &[&two[..], &["--seed", "3"]].concat());
    let error = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(error.contains("--combine"), "{error}");
    let error = run(
        "merge",
        &[&two[..], &["--combine", "cat", "--seed", "3"]].concat(),
    );
    let error = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(error.contains("--seed has no effect on cat"), "{error}");
}
