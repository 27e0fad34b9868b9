//! Trainings of SmolLM2-135M-Instruct step by step, against those of TRL.

use std::path::PathBuf;

use ft_align::loss::PairLoss;
use ft_align::{Dpo, DpoConfig, Kto, KtoConfig, Reference};
use ft_core::AutoCausalLm;
use ft_data::{PreferenceDataset, PreferenceExample, Tokenized, UnpairedDataset, UnpairedExample};
use ft_peft::attach;
use ft_train::{Method, TrainConfig, TrainReport, Trainer};
use serde_json::Value;

use crate::policy::{config, device, lora, stir, tokenized};

/// The folder of the model; none if the test is skipped.
pub(crate) fn folder() -> Option<PathBuf> {
    let models = std::env::var_os("FT_TEST_MODELS").filter(|folder| !folder.is_empty());
    if models.is_none() {
        eprintln!("skipped: FT_TEST_MODELS names no folder of models");
    }
    Some(PathBuf::from(models?).join("smollm2-135m-instruct"))
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/trajectories.json")).unwrap()
}

/// The model with the adapter that TRL started from.
pub(crate) fn policy(folder: &std::path::Path) -> AutoCausalLm {
    let model = AutoCausalLm::from_pretrained(folder, &device()).unwrap();
    let mut policy = attach(model, &lora(), "default", 0).unwrap();
    stir(&mut policy, "lora_A.weight", 1.0 / 16.0);
    policy
}

fn sequence(row: &Value) -> Tokenized {
    let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
    let (prompt, answer) = ids.split_at(row["prompt"].as_u64().unwrap() as usize);
    tokenized(prompt, answer)
}

fn train<T: Method<AutoCausalLm>>(policy: AutoCausalLm, method: T) -> TrainReport {
    let config = TrainConfig {
        learning_rate: 1e-3,
        weight_decay: 0.0,
        epochs: 2.0,
        ..config()
    };
    let (_, report) = Trainer::with_method(config, method).fit(policy).unwrap();
    assert_eq!(report.train_losses.len(), 8);
    report
}

/// Every number of every step, within 1e-3 and 1e-4 of its size.
pub(crate) fn compare(report: &TrainReport, steps: &Value, names: &[&str]) {
    for (step, expected) in steps.as_array().unwrap().iter().enumerate() {
        let mut metrics = report.train_metrics[step].clone();
        metrics.insert("loss".into(), report.train_losses[step]);
        for name in names {
            let expected = expected[*name].as_f64().unwrap();
            let found = metrics[*name];
            let bound = 1e-3 + 1e-4 * expected.abs();
            assert!(
                (found - expected).abs() <= bound,
                "step {}: {name} is {found}, TRL has {expected}",
                step + 1
            );
        }
    }
}

const PAIR_METRICS: [&str; 7] = [
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
];

fn dpo(loss: PairLoss, name: &str) {
    let Some(folder) = folder() else {
        return;
    };
    let golden = golden();
    let pairs = golden["dpo"]["pairs"].as_array().unwrap();
    let pairs = pairs.iter().map(|pair| PreferenceExample {
        chosen: sequence(&pair[0]),
        rejected: sequence(&pair[1]),
        reference_logps: None,
        margin: 0.0,
    });
    let pairs = PreferenceDataset::from_examples(pairs.collect());
    let policy = policy(&folder);
    let config = DpoConfig {
        losses: loss.into(),
        ..DpoConfig::default()
    };
    let method = Dpo::new(config, Reference::AdaptersOff, &policy, pairs, 2, None).unwrap();
    let report = train(policy, method);
    compare(&report, &golden[name]["steps"], &PAIR_METRICS);
}

#[test]
fn dpo_is_that_of_trl() {
    dpo(PairLoss::Sigmoid, "dpo");
}

#[test]
fn ipo_is_that_of_trl() {
    dpo(PairLoss::Ipo, "dpo_ipo");
}

#[test]
fn kto_is_that_of_trl() {
    let Some(folder) = folder() else {
        return;
    };
    let golden = golden();
    let rows = golden["kto"]["rows"].as_array().unwrap().iter().enumerate();
    let rows = rows.map(|(i, row)| UnpairedExample {
        tokens: sequence(row),
        desirable: i % 2 == 0,
    });
    let rows = UnpairedDataset::from_examples(rows.collect());
    let policy = policy(&folder);
    let reference = Reference::AdaptersOff;
    let method = Kto::new(KtoConfig::default(), reference, &policy, rows, 4, None).unwrap();
    let report = train(policy, method);
    let names = [
        "loss",
        "kl",
        "rewards/chosen",
        "rewards/rejected",
        "logps/chosen",
        "logps/rejected",
    ];
    compare(&report, &golden["kto"]["steps"], &names);
}
