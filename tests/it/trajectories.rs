//! Fine-tuning on the shipped model: equivalences that must hold to the last steps.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ft::burn::module::Module;
use ft::burn::tensor::Device;
use ft::core::safetensors_folder::module_tensors;
use ft::core::{AutoCausalLm, Weights};
use ft::data::{Batches, Collation, Format, SftBatches, SftDataset};
use ft::peft::{
    LoraConfig, Method, attach, load_adapter, merge_and_unload, peft_types, read_settings,
    save_adapter,
};
use ft::train::{
    Callback, ModelView, StepRecord, TrainConfig, TrainReport, Trainer, Verdict, evaluate,
    next_token_loss,
};
use serde_json::json;
use tempfile::TempDir;

use crate::shipped_model::load;

const DATA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/data/instructions.jsonl"
);

fn lora(dropout: f64) -> LoraConfig {
    LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        lora_dropout: dropout,
        ..LoraConfig::default()
    }
}

fn dataset(rows: usize) -> SftDataset {
    let (_, tokenizer) = load(&Device::default());
    let whole = SftDataset::load(DATA, Format::Messages, &tokenizer, 128).expect("loads");
    SftDataset::from_examples(whole.examples[..rows].to_vec())
}

fn batches(rows: usize, batch_size: usize, collation: Collation) -> SftBatches {
    dataset(rows)
        .into_batches(batch_size, collation, None, 0)
        .expect("batches")
}

const PADDED: Collation = Collation::Padded { multiple: 1 };

fn quiet(config: TrainConfig) -> TrainConfig {
    TrainConfig {
        learning_rate: 3e-3,
        progress: false,
        ..config
    }
}

/// Burn's CPU backend has one random generator for the whole process, which the trainer seeds before
/// every batch: tests that train take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn train(
    config: TrainConfig,
    dropout: f64,
    data: SftBatches,
    stop: Option<usize>,
) -> (AutoCausalLm, TrainReport) {
    train_on(Device::default().autodiff(), config, dropout, data, stop)
}

fn train_on(
    device: Device,
    config: TrainConfig,
    dropout: f64,
    data: SftBatches,
    stop: Option<usize>,
) -> (AutoCausalLm, TrainReport) {
    train_method(device, config, &lora(dropout), data, stop)
}

fn train_method(
    device: Device,
    config: TrainConfig,
    method: &dyn Method,
    data: SftBatches,
    stop: Option<usize>,
) -> (AutoCausalLm, TrainReport) {
    let (model, _) = load(&device);
    let model = attach(model, method, "default", 3).expect("attaches");
    struct Stop(Option<usize>);
    impl<M> Callback<M> for Stop {
        fn on_step(&mut self, _: &ModelView<'_, M>, step: &StepRecord) -> Verdict {
            if Some(step.step) == self.0 {
                return Err("killed".into());
            }
            Ok(ControlFlow::Continue(()))
        }
    }
    let trainer = Trainer::new(config, data, next_token_loss).with_callback(Stop(stop));
    match trainer.fit(model) {
        Ok(done) => done,
        Err(_) if stop.is_some() => {
            let (model, _) = load(&device);
            (model, empty_report())
        }
        Err(error) => panic!("{error}"),
    }
}

fn empty_report() -> TrainReport {
    TrainReport {
        best_step: None,
        findings: Vec::new(),
        train_losses: Vec::new(),
        train_metrics: Vec::new(),
        steps: 0,
        tokens: 0,
        tokens_per_s: 0.0,
        elapsed_s: 0.0,
        evaluations: Vec::new(),
        resumed_from: None,
        stopped_early: true,
    }
}

#[test]
fn eight_batches_of_one_are_one_batch_of_eight() {
    let _turn = alone();
    let run = |batch_size, accumulation| {
        let config = quiet(TrainConfig {
            gradient_accumulation_steps: accumulation,
            ..TrainConfig::default()
        });
        train(config, 0.0, batches(24, batch_size, PADDED), None)
            .1
            .train_losses
    };
    let whole = run(8, 1);
    assert_eq!(whole.len(), 3);
    for (batch_size, accumulation) in [(1, 8), (2, 4)] {
        for (step, (a, b)) in run(batch_size, accumulation).iter().zip(&whole).enumerate() {
            assert!(
                (a - b).abs() < 1e-4,
                "{batch_size}x{accumulation}, step {step}: {a} {b}"
            );
        }
    }
}

#[test]
fn packed_rows_lose_what_separate_rows_lose() {
    let device = Device::default();
    let (model, _) = load(&device);
    let mean = |data: SftBatches| evaluate(&model, &data, next_token_loss).expect("evaluates");
    let separate = mean(batches(24, 4, PADDED));
    let packed = mean(batches(24, 2, Collation::Packed { seq_len: 128 }));
    assert_eq!(packed.tokens, separate.tokens);
    assert!((packed.loss - separate.loss).abs() < 1e-4 * separate.loss);
}

/// With dropout, so that randomness must be the same too.
#[test]
fn killed_and_resumed_is_uninterrupted_to_the_bit() {
    let _turn = alone();
    let config = |folder: &Path, resume| {
        quiet(TrainConfig {
            epochs: 2.0,
            save_every: Some(2),
            output_dir: Some(folder.to_path_buf()),
            resume,
            ..TrainConfig::default()
        })
    };
    let data = || {
        let shuffled = dataset(24).into_batches(8, PADDED, Some(5), 0);
        shuffled.expect("batches")
    };
    let (one, two) = (
        TempDir::new().expect("folder"),
        TempDir::new().expect("folder"),
    );
    let (whole, report) = train(config(one.path(), false), 0.3, data(), None);
    assert_eq!(report.steps, 6);
    train(config(two.path(), false), 0.3, data(), Some(5));
    let (resumed, again) = train(config(two.path(), true), 0.3, data(), None);
    assert_eq!(again.resumed_from, Some(4));
    assert_eq!(again.train_losses, report.train_losses);
    assert_eq!(module_tensors(&resumed), module_tensors(&whole));
}

/// The same for every method, with what it drops at random.
#[test]
fn every_method_resumes_to_the_bit() {
    let _turn = alone();
    let settings = |peft_type: &str| match peft_type {
        "ADALORA" => json!({"total_step": 30, "lora_dropout": 0.2}),
        "BOFT" => json!({"boft_dropout": 0.2}),
        "LOHA" | "LOKR" => json!({"rank_dropout": 0.2, "module_dropout": 0.2}),
        "LORA" => json!({"lora_dropout": 0.2, "target_modules": ["q_proj", "v_proj"]}),
        "MISS" => json!({"miss_dropout": 0.2}),
        "TRAINABLE_TOKENS" => json!({"token_indices": [3, 4, 5, 6]}),
        "VERA" => json!({"vera_dropout": 0.2, "save_projection": false}),
        _ => json!({}),
    };
    let more = [
        json!({"peft_type": "LORA", "use_dora": true, "lora_dropout": 0.2, "target_modules": ["q_proj"]}),
        json!({"peft_type": "LORA", "init_lora_weights": "pissa", "target_modules": ["q_proj"]}),
        json!({"peft_type": "LORA", "target_modules": ["q_proj", "embed_tokens"], "layers_to_transform": [0, 1]}),
        json!({"peft_type": "ADALORA", "total_step": 30, "modules_to_save": ["norm"]}),
    ];
    let all = peft_types().into_iter().map(|peft_type| {
        let mut json = settings(peft_type);
        json["peft_type"] = peft_type.into();
        json
    });
    for json in all.chain(more) {
        let peft_type = json.to_string();
        let method = read_settings(&json).unwrap_or_else(|error| panic!("{peft_type}: {error}"));
        let run = |folder: &Path, resume, stop| {
            let config = quiet(TrainConfig {
                save_every: Some(2),
                output_dir: Some(folder.to_path_buf()),
                resume,
                ..TrainConfig::default()
            });
            let data = batches(6, 2, PADDED);
            train_method(Device::default().autodiff(), config, &*method, data, stop)
        };
        let (one, two) = (
            TempDir::new().expect("folder"),
            TempDir::new().expect("folder"),
        );
        let (whole, report) = run(one.path(), false, None);
        run(two.path(), false, Some(3));
        let (resumed, again) = run(two.path(), true, None);
        assert_eq!(again.resumed_from, Some(2), "{peft_type}");
        assert_eq!(again.train_losses, report.train_losses, "{peft_type}");
        assert!(
            module_tensors(&resumed) == module_tensors(&whole),
            "{peft_type}"
        );
    }
}

#[test]
fn an_adapter_trains_saves_loads_and_merges_without_a_change_of_loss() {
    let _turn = alone();
    let device = Device::default();
    let mean = |model: &AutoCausalLm| {
        let data = batches(32, 8, PADDED);
        evaluate(model, &data, next_token_loss)
            .expect("evaluates")
            .loss
    };
    let before = mean(&load(&device).0);
    let config = quiet(TrainConfig {
        epochs: 3.0,
        ..TrainConfig::default()
    });
    let (model, _) = train(config, 0.0, batches(32, 8, PADDED), None);
    let model = model.valid();
    let trained = mean(&model);
    assert!(trained < 0.8 * before, "the loss falls: {before} {trained}");
    let folder = TempDir::new().expect("folder");
    save_adapter(&model, "default", folder.path()).expect("saves");
    let loaded = load_adapter(load(&device).0, folder.path(), "default", false).expect("loads");
    assert_eq!(mean(&loaded), trained);
    let merged = merge_and_unload(model).expect("merges");
    assert!((mean(&merged) - trained).abs() < 1e-4);
}

#[test]
fn an_epoch_has_every_row_once() {
    let data = dataset(21)
        .into_batches(4, PADDED, Some(1), 0)
        .expect("batches");
    let rows: usize = (0..data.len(1))
        .map(|index| data.batch(1, index).batch)
        .sum();
    assert_eq!(rows, 21);
}

/// With adapters, dropout and packed documents: what a block computes again is what it computed.
#[test]
fn blocks_that_are_computed_again_train_alike() {
    let _turn = alone();
    let run = |device: Device| {
        let packed = batches(24, 2, Collation::Packed { seq_len: 128 });
        let config = quiet(TrainConfig {
            epochs: 2.0,
            ..TrainConfig::default()
        });
        let (model, report) = train_on(device, config, 0.2, packed, None);
        (report.train_losses, module_tensors(&model))
    };
    let device = Device::default().autodiff();
    let (kept, model) = run(device.clone());
    let (again, model_again) = run(device.gradient_checkpointing());
    assert!(kept.len() > 4);
    assert_eq!(kept, again);
    assert_eq!(model, model_again);
}

/// Without an adapter nothing of it trains, which must not pass for training.
#[test]
fn a_model_held_as_stored_has_nothing_to_train() {
    let device = Device::default().autodiff();
    let folder = crate::shipped_model::folder();
    let model = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored);
    let trainer = Trainer::new(
        quiet(TrainConfig::default()),
        batches(4, 2, PADDED),
        next_token_loss,
    );
    let error = trainer.fit(model.expect("loads")).map(|_| ());
    let message = error.expect_err("nothing trains").to_string();
    assert!(message.contains("attach"), "{message}");
}
