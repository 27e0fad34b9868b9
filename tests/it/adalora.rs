//! AdaLoRA in the trainer, against PEFT's training (`crates/ft-peft/tests/golden/adalora.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ft::AdaLora;
use ft::burn::module::Module;
use ft::burn::tensor::{Device, Int, Tensor, TensorData};
use ft::core::safetensors_folder::read_tensors;
use ft::core::{AutoCausalLm, CausalLm, Parts, TokenBatch, causal_lm_loss};
use ft::data::Batches;
use ft::peft::{AdaLoraConfig, load_adapter, save_adapter};
use ft::train::{Method, OnBatches, StepContext, StepResult, TrainConfig, TrainReport, Trainer};

const STEPS: usize = 9;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("crates/ft-peft/tests/golden")
        .join(name)
}

fn tensors() -> BTreeMap<String, TensorData> {
    read_tensors(&golden("adalora/golden.safetensors")).expect("golden")
}

/// The batches of the golden files: one a step, two rows of twelve tokens.
struct Rows(Vec<i64>);

impl Batches for Rows {
    type Batch = Vec<i64>;

    fn len(&self, _: usize) -> usize {
        STEPS
    }

    fn batch(&self, _: usize, index: usize) -> Vec<i64> {
        self.0[index * 24..(index + 1) * 24].to_vec()
    }
}

fn rows() -> Rows {
    Rows(tensors()["input_ids"].iter::<i64>().collect())
}

fn tokens(ids: &[i64], device: &Device) -> TokenBatch {
    let data = TensorData::new(ids.to_vec(), [2, 12]);
    TokenBatch::new(Tensor::<2, Int>::from_data(data, device))
}

#[expect(clippy::ptr_arg, reason = "a step gets the batch as the list holds it")]
fn step(model: &AutoCausalLm, ids: &Vec<i64>, context: &StepContext) -> StepResult {
    let hidden = model.hidden_states(&tokens(ids, &context.device), None);
    Ok(causal_lm_loss(hidden, model.head(), ids).into())
}

fn base(device: &Device) -> AutoCausalLm {
    AutoCausalLm::from_pretrained(&golden("peft_llama"), device).expect("loads")
}

fn start() -> AutoCausalLm {
    let device = Device::default().autodiff();
    load_adapter(base(&device), &golden("adalora/start"), "default", true).expect("loads")
}

type Training<'a> = AdaLora<OnBatches<'a, AutoCausalLm, Vec<i64>>>;

fn training(model: &AutoCausalLm) -> Training<'static> {
    AdaLora::new(model, "default", OnBatches::new(rows(), step)).expect("an adapter of AdaLoRA")
}

fn config() -> TrainConfig {
    TrainConfig {
        learning_rate: 0.02,
        max_steps: Some(STEPS),
        weight_decay: 0.0,
        warmup_steps: 0,
        schedule: ft::train::Schedule::Constant,
        max_grad_norm: None,
        progress: false,
        ..TrainConfig::default()
    }
}

/// Watches the masks and importances of a training.
struct Watched<'a> {
    method: &'a mut Training<'static>,
    masks: Vec<Vec<f32>>,
    averages: BTreeMap<String, TensorData>,
}

impl Method<AutoCausalLm> for Watched<'_> {
    type Batch = Vec<i64>;

    fn len(&self, epoch: usize) -> usize {
        Method::<AutoCausalLm>::len(&self.method, epoch)
    }

    fn batch(
        &mut self,
        model: &ft::train::ModelView<'_, AutoCausalLm>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<Vec<i64>, ft::train::BoxError> {
        self.method.batch(model, epoch, index, context)
    }

    fn step(
        &mut self,
        model: &AutoCausalLm,
        batch: &Vec<i64>,
        context: &StepContext,
    ) -> StepResult {
        self.method.step(model, batch, context)
    }

    fn before_update(
        &mut self,
        model: &AutoCausalLm,
        gradients: &ft::burn::optim::GradientsParams,
        scale: f64,
    ) -> Result<(), ft::train::BoxError> {
        self.method.before_update(model, gradients, scale)
    }

    fn after_update(
        &mut self,
        model: AutoCausalLm,
        step: usize,
    ) -> Result<AutoCausalLm, ft::train::BoxError> {
        let model = self.method.after_update(model, step)?;
        let mut masks = BTreeMap::new();
        model.for_each_part(&mut |path, part| {
            for adapter in part.adapters().iter() {
                let values = adapter.val2("lora_E").into_data();
                let mask: Vec<f32> = values.iter::<f32>().map(|x| f32::from(x != 0.0)).collect();
                masks.insert(path.to_string(), mask);
            }
        });
        self.masks.push(masks.into_values().flatten().collect());
        if step == STEPS - 3 {
            let folder = tempfile::tempdir()?;
            let file = folder.path().join("state.safetensors");
            self.method.allocator().save(&file)?;
            self.averages = read_tensors(&file)?;
        }
        Ok(model)
    }
}

fn assert_close(what: &str, found: &TensorData, expected: &TensorData, tolerance: f32) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let scale = expected.iter::<f32>().fold(1e-12f32, |m, x| m.max(x.abs()));
    let pairs = found.iter::<f32>().zip(expected.iter::<f32>());
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(
        worst <= tolerance * scale,
        "{what}: differs by {worst} of {scale}"
    );
}

/// Losses with the orthogonality, masks after every step, importances, and the adapter at the end.
#[test]
fn a_training_with_adalora_is_that_of_peft() {
    let golden_tensors = tensors();
    let model = start();
    let mut method = training(&model);
    let mut watched = Watched {
        method: &mut method,
        masks: Vec::new(),
        averages: BTreeMap::new(),
    };
    let (model, report) = Trainer::with_method(config(), &mut watched)
        .fit(model)
        .expect("trains");
    let (masks, averages) = (watched.masks, watched.averages);

    let losses: Vec<f32> = report
        .train_losses
        .iter()
        .map(|loss| *loss as f32)
        .collect();
    let losses = TensorData::new(losses, [STEPS]);
    assert_close("losses", &losses, &golden_tensors["losses"], 1e-4);
    let expected: Vec<f32> = golden_tensors["masks"].iter().collect();
    for (step, (found, expected)) in masks.iter().zip(expected.chunks(24)).enumerate() {
        assert_eq!(found, expected, "the mask after step {}", step + 1);
    }
    let kinds = ["sensitivity.", "uncertainty."];
    let kept = golden_tensors
        .iter()
        .filter(|(key, _)| kinds.iter().any(|kind| key.starts_with(kind)));
    let mut seen = 0;
    for (key, expected) in kept {
        assert_close(key, &averages[key], expected, 5e-3);
        seen += 1;
    }
    assert_eq!(seen, 2 * 3 * 6);

    let model = method.trim(model).valid();
    let device = Device::default();
    let ids = rows().batch(0, 0);
    let logits = model.logits(&tokens(&ids, &device), None).into_data();
    assert_close("logits", &logits, &golden_tensors["logits"], 2e-3);

    let folder = tempfile::tempdir().expect("temporary folder");
    save_adapter(&model, "default", folder.path()).expect("saves");
    let read = |folder: &Path| AdaLoraConfig::from_pretrained(folder).expect("reads");
    let sorted = |mut config: AdaLoraConfig| {
        config.rank_pattern.sort();
        config.rank_pattern
    };
    assert_eq!(
        sorted(read(folder.path())),
        sorted(read(&golden("adalora/end")))
    );
    let file =
        |folder: &Path| read_tensors(&folder.join("adapter_model.safetensors")).expect("reads");
    let (ours, theirs) = (file(folder.path()), file(&golden("adalora/end")));
    assert_eq!(
        ours.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
    for (key, expected) in theirs.iter().filter(|(_, data)| data.num_elements() > 0) {
        assert_close(key, &ours[key], expected, 5e-3);
    }
    let loaded = load_adapter(base(&device), folder.path(), "default", false).expect("loads");
    let again = loaded.logits(&tokens(&ids, &device), None).into_data();
    assert_eq!(again, logits);
}

/// What PEFT trained and trimmed computes the same here, layers without ranks included.
#[test]
fn a_trimmed_adapter_of_peft_agrees() {
    let device = Device::default();
    let model =
        load_adapter(base(&device), &golden("adalora/end"), "default", false).expect("loads");
    let ids = rows().batch(0, 0);
    let logits = model.logits(&tokens(&ids, &device), None).into_data();
    assert_close("logits", &logits, &tensors()["logits"], 2e-5);
    let merged = ft::peft::merge_and_unload(model).expect("merges");
    let logits = merged.logits(&tokens(&ids, &device), None).into_data();
    assert_close("merged", &logits, &tensors()["logits"], 1e-4);
}

fn run(config: TrainConfig) -> (AutoCausalLm, TrainReport, Training<'static>) {
    let model = start();
    let mut method = training(&model);
    let (model, report) = Trainer::with_method(config, &mut method)
        .fit(model)
        .expect("trains");
    (model, report, method)
}

fn adapter(model: &AutoCausalLm) -> Vec<TensorData> {
    let mut found = Vec::new();
    model.for_each_part(&mut |_, part| {
        for adapter in part.adapters().iter() {
            found.extend(adapter.tensors.iter().map(|tensor| tensor.data()));
        }
    });
    found
}

#[test]
fn a_resumed_training_with_adalora_has_the_same_bits() {
    let (whole, report, method) = run(config());
    let folder = tempfile::tempdir().expect("temporary folder");
    let saved = |stop| TrainConfig {
        output_dir: Some(folder.path().to_path_buf()),
        save_every: Some(1),
        save_total_limit: None,
        resume: stop,
        ..config()
    };
    let _ = run(saved(false));
    // As if it had been killed after the fifth step, between two allocations.
    for step in 6..=STEPS {
        let checkpoint = folder.path().join(format!("checkpoints/step-{step}"));
        std::fs::remove_dir_all(checkpoint).expect("removes");
    }
    let (resumed, again, restored) = run(saved(true));
    assert_eq!(again.resumed_from, Some(5));
    assert_eq!(again.train_losses, report.train_losses);
    assert_eq!(adapter(&resumed), adapter(&whole));
    assert_eq!(restored.allocator().kept(), method.allocator().kept());
    assert!(!method.allocator().kept().is_empty());
}

#[test]
fn a_run_longer_than_the_schedule_is_refused() {
    let model = start();
    let mut method = training(&model);
    let longer = TrainConfig {
        max_steps: Some(STEPS + 1),
        ..config()
    };
    let error = Trainer::with_method(longer, &mut method)
        .fit(model)
        .expect_err("refused");
    assert!(error.to_string().contains("total_step is 9"), "{error}");
}
