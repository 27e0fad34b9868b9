//! Reward models: a run of TRL's trainer (`golden/reward_model.py`), resuming, adapters with the head, and scoring.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, TensorData};
use ft_align::{Error, RewardModel, score_rows};
use ft_core::safetensors_folder::{WeightFiles, module_tensors};
use ft_core::{AutoSequenceClassifier, SequenceClassifierConfig, TokenBatch};
use ft_data::{PreferenceBatch, PreferenceDataset, PreferenceExample, Tokenized};
use ft_peft::{Common, LoraConfig, attach, load_adapter, save_adapter, trainable_parameters};
use ft_train::{
    Callback, Metrics, ModelView, StepContext, StepRecord, TrainConfig, TrainReport, Trainer,
    Verdict,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What TRL's trainer found.
struct Golden(Value);

impl Golden {
    fn read() -> Self {
        let bytes = std::fs::read(folder().join("trajectory.json")).expect("golden");
        Self(serde_json::from_slice(&bytes).expect("JSON"))
    }

    fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().expect("a number")
    }

    /// Pairs of chosen and rejected tokens, in the order of training.
    fn pairs(&self) -> Vec<[Vec<u32>; 2]> {
        serde_json::from_value(self.0["pairs"].clone()).expect("pairs")
    }

    /// The numbers of each step by name.
    fn steps(&self) -> Vec<BTreeMap<String, f64>> {
        serde_json::from_value(self.0["steps"].clone()).expect("steps")
    }

    fn reward(&self) -> RewardModel {
        RewardModel {
            center_rewards_coefficient: self.number("center_rewards_coefficient"),
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reward_model")
}

/// Burn's CPU backend has one random generator for the whole process, which the trainer seeds before every batch: tests
/// that train take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn base(device: &Device) -> AutoSequenceClassifier {
    AutoSequenceClassifier::from_pretrained(&folder(), device).expect("loads")
}

/// The base with the adapter that TRL's run began with.
fn adapted() -> AutoSequenceClassifier {
    let base = base(&Device::default().autodiff());
    load_adapter(base, &folder().join("adapter"), "default", true).expect("loads")
}

fn tokenized(ids: &[u32]) -> Tokenized {
    Tokenized {
        input_ids: ids.to_vec(),
        labels: ids.iter().map(|&id| i64::from(id)).collect(),
    }
}

struct KillAfter(usize);

impl<M> Callback<M> for KillAfter {
    fn on_step(&mut self, _: &ModelView<'_, M>, record: &StepRecord) -> Verdict {
        match record.step == self.0 {
            true => Err("killed".into()),
            false => Ok(ControlFlow::Continue(())),
        }
    }
}

fn train(
    config: TrainConfig,
    kill_after: Option<usize>,
) -> Result<(AutoSequenceClassifier, TrainReport), ft_train::Error> {
    let golden = Golden::read();
    let examples = golden.pairs().into_iter().map(|[chosen, rejected]| {
        let (chosen, rejected) = (tokenized(&chosen), tokenized(&rejected));
        PreferenceExample {
            chosen,
            rejected,
            reference_logps: None,
            margin: 0.0,
        }
    });
    let batches = PreferenceDataset::from_examples(examples.collect());
    let size = golden.number("batch_size") as usize;
    let batches = batches.into_batches(size, None, 0).expect("batches");
    let config = TrainConfig {
        learning_rate: golden.number("learning_rate"),
        epochs: golden.number("epochs"),
        progress: false,
        ..config
    };
    let reward = golden.reward();
    let step = move |model: &_, batch: &_, context: &_| reward.step(model, batch, context);
    let mut trainer = Trainer::new(config, batches, step);
    if let Some(step) = kill_after {
        trainer = trainer.with_callback(KillAfter(step));
    }
    trainer.fit(adapted())
}

#[test]
fn eight_steps_are_those_of_trl() {
    let _turn = alone();
    let golden = Golden::read();
    let (model, report) = train(TrainConfig::default(), None).expect("trains");
    let steps = golden.steps();
    assert_eq!((report.steps, steps.len()), (8, 8));
    for (step, expected) in steps.iter().enumerate() {
        let mut found: Metrics = report.train_metrics[step].clone();
        found.insert("loss".into(), report.train_losses[step]);
        let names = |metrics: &BTreeMap<String, f64>| metrics.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(expected));
        for (name, expected) in expected {
            let found = found[name];
            assert!(
                (found - expected).abs() < 1e-3 * expected.abs().max(1.0),
                "step {}: {name} {found}, expected {expected}",
                step + 1
            );
        }
    }
    // The first batch again, after six steps.
    assert!(
        report.train_losses[6] < 0.5 * report.train_losses[0],
        "{report:?}"
    );
    // The trained scores, the head's among them.
    let rows = golden.pairs().concat();
    let expected: Vec<f32> = serde_json::from_value(golden.0["scores"].clone()).expect("scores");
    let found = score_rows(&model, &rows, 3).expect("scores");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 2e-3, "{found} {expected}");
    }
}

#[test]
fn killed_and_resumed_ends_as_uninterrupted() {
    let _turn = alone();
    let config = |folder: &TempDir, resume| TrainConfig {
        save_every: Some(3),
        output_dir: Some(folder.path().to_path_buf()),
        resume,
        ..TrainConfig::default()
    };
    let whole = TempDir::new().expect("folder");
    let (expected, report) = train(config(&whole, false), None).expect("trains");
    let folder = TempDir::new().expect("folder");
    assert!(train(config(&folder, false), Some(5)).is_err());
    let (model, resumed) = train(config(&folder, true), None).expect("resumes");
    assert_eq!(resumed.resumed_from, Some(3));
    assert_eq!(resumed.train_losses, report.train_losses);
    assert_eq!(resumed.train_metrics, report.train_metrics);
    assert_eq!(module_tensors(&model), module_tensors(&expected));
}

#[test]
fn an_adapter_with_the_head_is_saved_as_pefts_and_loads_again() {
    let device = Device::default();
    let extra = json!({"task_type": "SEQ_CLS"});
    let config = LoraConfig {
        r: 2,
        common: Common {
            modules_to_save: vec!["score".into()],
            extra: extra.as_object().expect("object").clone(),
            ..LoraConfig::default().common
        },
        ..LoraConfig::default()
    };
    let model = attach(base(&device.clone().autodiff()), &config, "default", 1).expect("attaches");
    // The factors of every layer but the head, and the head itself.
    let (trainable, all) = trainable_parameters(&model);
    let factors = module_tensors(&model);
    let factors = factors.iter().filter(|(path, _)| path.contains("lora_"));
    let factors: usize = factors.map(|(_, data)| data.num_elements()).sum();
    assert_eq!(trainable, factors + 16);
    assert!(all > trainable);

    let folder = TempDir::new().expect("folder");
    save_adapter(&model, "default", folder.path()).expect("saves");
    let files = WeightFiles::open_file(&folder.path().join("adapter_model.safetensors"));
    let files = files.expect("opens");
    assert!(files.contains("base_model.model.score.weight"));
    assert!(!files.names().any(|name| name.contains("score.lora")));
    let json = std::fs::read(folder.path().join("adapter_config.json")).expect("reads");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["task_type"], "SEQ_CLS");
    assert_eq!(json["modules_to_save"], json!(["score"]));

    // The head of the adapter takes the place of a new one.
    let random = SequenceClassifierConfig::from_pretrained(&self::folder()).expect("config");
    let other = AutoSequenceClassifier::from_config(&random, &device).expect("random");
    let other = load_adapter(other, folder.path(), "default", false).expect("loads");
    let head = |model: &AutoSequenceClassifier| -> Vec<(String, TensorData)> {
        let all = module_tensors(model).into_iter();
        all.filter(|(path, _)| path.starts_with("score.adapters"))
            .collect()
    };
    assert_eq!(head(&other), head(&model));
    // A head with another number of labels is not resized.
    let mut two = SequenceClassifierConfig::from_pretrained(&self::folder()).expect("config");
    two.labels.push("LABEL_1".into());
    let two = AutoSequenceClassifier::from_config(&two, &device).expect("random");
    let error = load_adapter(two, folder.path(), "default", false).expect_err("two labels");
    assert!(error.to_string().contains("score.weight"), "{error}");

    let again = load_adapter(base(&device), folder.path(), "default", false).expect("loads");
    let rows = Golden::read().pairs().concat();
    assert_eq!(
        score_rows(&again, &rows, 4).expect("scores"),
        score_rows(&model, &rows, 4).expect("scores")
    );
}

#[test]
fn rows_are_scored_in_their_order_whatever_their_batches() {
    let model = base(&Device::default());
    let rows: [&[u32]; 4] = [&[3, 1, 4], &[1], &[5, 9, 2, 6, 5, 0], &[3, 5]];
    let found = score_rows(&model, &rows, 3).expect("scores");
    for (row, found) in rows.iter().zip(found) {
        let tokens = TokenBatch::from_ids(row, &Device::default());
        let alone = model.scores(&tokens, &[row.len()]).into_scalar::<f32>();
        assert!((alone - found).abs() < 1e-5, "{alone} {found}");
    }
    let none: [&[u32]; 0] = [];
    assert_eq!(score_rows(&model, &none, 3).unwrap(), Vec::<f32>::new());
}

/// A batch of one pair.
fn pair(chosen: &[u32], rejected: &[u32], margin: f32) -> PreferenceBatch {
    PreferenceBatch {
        rows: ft_data::collate_padded(&[&tokenized(chosen), &tokenized(rejected)], 1, 0),
        margins: vec![margin],
    }
}

/// `−ln σ(s_w − s_l − m)`, equation 2 of Llama 2.
#[test]
fn a_margin_is_subtracted_from_the_difference_of_the_scores() {
    let device = Device::default();
    let model = base(&device);
    let (chosen, rejected) = ([3, 1, 4], [5, 9, 2, 6]);
    let rows: [&[u32]; 2] = [&chosen, &rejected];
    let scores = score_rows(&model, &rows, 2).expect("scores");
    for margin in [0.0f32, 0.75, -2.0] {
        let context = StepContext::training(&device, 0, 1, 0);
        let step = RewardModel::default().step(&model, &pair(&chosen, &rejected, margin), &context);
        let found = step.expect("a step").loss.sum.into_scalar::<f32>();
        let expected = (1.0 + (margin + scores[1] - scores[0]).exp()).ln();
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn rows_without_tokens_and_models_of_several_labels_are_errors() {
    let device = Device::default();
    let empty = score_rows(&base(&device), &[vec![1], Vec::new()], 2);
    assert!(
        matches!(&empty, Err(Error::RewardModel(text)) if text.contains("row 2")),
        "{empty:?}"
    );
    let mut config = SequenceClassifierConfig::from_pretrained(&folder()).expect("config");
    config.labels = ["bad", "good"].map(String::from).to_vec();
    let model = AutoSequenceClassifier::from_config(&config, &device).expect("random");
    let several = score_rows(&model, &[vec![1]], 2);
    assert!(
        matches!(&several, Err(Error::RewardModel(text)) if text.contains("2 labels")),
        "{several:?}"
    );
    let batch = pair(&[1], &[2], 0.0);
    let context = StepContext::training(&device, 0, 1, 0);
    let step = RewardModel::default().step(&model, &batch, &context);
    assert!(
        step.expect_err("two labels")
            .to_string()
            .contains("one label")
    );
}
