//! Distillation of tiny language models: laws, and teachers on disk.

use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::Device;
use ft_core::safetensors_folder::module_tensors;
use ft_core::{
    AutoCausalLm, CausalLm, GenerationConfig, IGNORE_INDEX, ModelConfig, TokenBatch, Tokenizer,
};
use ft_data::{Batches, Collation, SftBatches, SftDataset, Tokenized};
use ft_distill::{
    Distill, DistillConfig, Divergence, Error, OwnAnswers, TeacherSource, TopLogits, compare,
    student_of, write_top_logits,
};
use ft_train::{Method, ModelView, Schedule, StepContext, TrainConfig, TrainReport, Trainer};
use serde_json::{Value, json};

pub(crate) fn device() -> Device {
    Device::default().autodiff()
}

/// A Llama of 2 layers and 97 tokens with random weights, the same in every test.
pub(crate) fn teacher() -> AutoCausalLm {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ft-peft/tests/golden/peft_llama");
    AutoCausalLm::from_pretrained(&folder, &device()).unwrap()
}

pub(crate) fn rows(count: usize) -> Vec<Tokenized> {
    let rows = (0..count).map(|row| {
        let ids: Vec<u32> = (0..5 + row % 4)
            .map(|i| ((i * 31 + row * 47 + i * i * row) % 97) as u32)
            .collect();
        let labels = ids.iter().enumerate().map(|(place, &id)| match place < 2 {
            true => IGNORE_INDEX,
            false => i64::from(id),
        });
        Tokenized {
            labels: labels.collect(),
            input_ids: ids,
        }
    });
    rows.collect()
}

fn batches(count: usize) -> SftBatches {
    let dataset = SftDataset::from_examples(rows(count));
    let padded = Collation::Padded { multiple: 1 };
    dataset.into_batches(4, padded, None, 0).unwrap()
}

fn settings() -> DistillConfig {
    DistillConfig {
        alpha: 1.0,
        ..DistillConfig::default()
    }
}

fn training(steps: usize) -> TrainConfig {
    TrainConfig {
        learning_rate: 5e-3,
        schedule: Schedule::Constant,
        max_steps: Some(steps),
        progress: false,
        ..TrainConfig::default()
    }
}

fn train(
    config: DistillConfig,
    source: TeacherSource<AutoCausalLm>,
    steps: usize,
) -> (AutoCausalLm, TrainReport) {
    let student = student_of(&teacher(), &[0]).unwrap();
    let method = Distill::new(config, source, &student, batches(12))
        .unwrap()
        .with_evaluation(batches(8));
    Trainer::with_method(training(steps), method)
        .fit(student)
        .unwrap()
}

#[test]
fn a_student_that_is_the_teacher_has_no_loss() {
    let teacher = teacher();
    let layers: Vec<usize> = (0..teacher.dims().num_layers).collect();
    let student = student_of(&teacher, &layers).unwrap();
    let source = TeacherSource::model(&teacher);
    let method = Distill::new(settings(), source, &student, batches(4)).unwrap();
    let (_, report) = Trainer::with_method(training(1), method)
        .fit(student)
        .unwrap();
    assert!(
        report.train_losses[0].abs() < 1e-5,
        "{:?}",
        report.train_losses
    );
    assert_eq!(report.train_metrics[0]["agreement"], 1.0);
}

#[test]
fn students_come_nearer_by_every_divergence() {
    for divergence in [
        Divergence::Forward,
        Divergence::Reverse,
        Divergence::JensenShannon(0.5),
    ] {
        let config = DistillConfig {
            divergence,
            ..settings()
        };
        let (_, report) = train(config, TeacherSource::model(&teacher()), 30);
        let [before, after] = [report.eval_before(), report.eval_after()].map(Option::unwrap);
        assert!(
            after.metrics["divergence"] < 0.6 * before.metrics["divergence"],
            "{divergence:?}: {before:?} {after:?}"
        );
        // The loss of an evaluation is that of the data.
        assert!((after.loss - after.metrics["cross_entropy"]).abs() < 1e-6);
        assert!(report.train_metrics[0].contains_key("agreement"));
    }
}

/// With all tokens but one in the file, the rest is one outcome of one token, and the losses are those of the model.
#[test]
fn a_teacher_on_disk_gives_the_losses_of_the_model() {
    let teacher = teacher();
    let folder = tempfile::tempdir().unwrap();
    let write = |k: usize, name: &str| {
        let at = folder.path().join(name);
        write_top_logits(&teacher, &rows(12), k, 2.0, 5, &at, &mut |_, _| ()).unwrap()
    };
    let (expected, report) = train(settings(), TeacherSource::model(&teacher), 6);
    let all = write(96, "all");
    let (found, again) = train(settings(), TeacherSource::Top(all.into()), 6);
    for (a, b) in report.train_losses.iter().zip(&again.train_losses) {
        assert!((a - b).abs() < 1e-4, "{report:?} {again:?}");
    }
    for ((path, a), (_, b)) in module_tensors(&expected).iter().zip(module_tensors(&found)) {
        let apart = a
            .iter::<f32>()
            .zip(b.iter::<f32>())
            .map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 4e-3, "{path}");
    }
    // With few tokens the divergence is a lower bound.
    let few = write(4, "few");
    assert!(few.mean_rest() > 0.2 && few.k() == 4);
    let (_, less) = train(settings(), TeacherSource::Top(few.into()), 1);
    assert!(less.train_losses[0] < report.train_losses[0]);
}

#[test]
fn an_interrupted_file_is_completed_and_another_one_is_refused() {
    let teacher = teacher();
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(600);
    let write =
        |k: usize| write_top_logits(&teacher, &rows, k, 1.0, 8, folder.path(), &mut |_, _| ());
    let whole = write(3).unwrap();
    let last = folder.path().join("top-00002.safetensors");
    let bytes = std::fs::read(&last).unwrap();
    let first = folder.path().join("top-00000.safetensors");
    let written = std::fs::metadata(&first).unwrap().modified().unwrap();
    std::fs::remove_file(&last).unwrap();
    let error = TopLogits::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("top-00002"), "{error}");
    let again = write(3).unwrap();
    assert_eq!(again.positions(), whole.positions());
    assert_eq!(std::fs::read(&last).unwrap(), bytes);
    assert_eq!(
        std::fs::metadata(&first).unwrap().modified().unwrap(),
        written
    );
    let error = write(4).unwrap_err().to_string();
    assert!(error.contains("another folder"), "{error}");
    std::fs::write(&last, &bytes[..bytes.len() - 8]).unwrap();
    assert!(TopLogits::open(folder.path()).is_err());
    // Without its manifest, a shard could be of any teacher.
    std::fs::write(&last, &bytes).unwrap();
    let manifest = folder.path().join("manifest.json");
    std::fs::remove_file(&manifest).unwrap();
    let other = write_top_logits(&teacher, &rows, 3, 2.0, 8, folder.path(), &mut |_, _| ());
    let error = other.unwrap_err().to_string();
    assert!(error.contains("another manifest"), "{error}");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"k\": 3", "\"k\": 0")).unwrap();
    let error = TopLogits::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("0 of 97"), "{error}");
}

#[test]
fn a_long_prompt_shortens_its_own_answer_alone() {
    let teacher = teacher();
    let room = teacher.dims().max_position_embeddings;
    let row = |prompt: usize| {
        let ids: Vec<u32> = (0..prompt + 1).map(|i| (i * 7 % 97) as u32).collect();
        let mut labels = vec![IGNORE_INDEX; prompt];
        labels.push(1);
        Tokenized {
            input_ids: ids,
            labels,
        }
    };
    let dataset = SftDataset::from_examples(vec![row(room - 1), row(4)]);
    let batches = dataset.into_batches(2, Collation::Padded { multiple: 1 }, None, 0);
    let source = TeacherSource::model(&teacher);
    let own = OwnAnswers {
        generation: GenerationConfig {
            max_new_tokens: 6,
            // No token ends an answer but one that is never sampled.
            eos_token_ids: vec![1_000_000],
            ..own_answers(1.0).generation
        },
        ..own_answers(1.0)
    };
    let student = student_of(&teacher, &[0]).unwrap();
    let mut method = Distill::new(settings(), source, &student, batches.unwrap())
        .unwrap()
        .with_own_answers(own)
        .unwrap();
    let context = StepContext::training(&device(), 0, 1, 0);
    let batch = method
        .batch(&ModelView::new(&student), 0, 0, &context)
        .unwrap();
    let learned = |row: usize| {
        let labels = &batch.batch.labels[row * batch.batch.seq..(row + 1) * batch.batch.seq];
        labels
            .iter()
            .filter(|&&label| label != IGNORE_INDEX)
            .count()
    };
    assert_eq!([learned(0), learned(1)], [1, 6]);
}

fn own_answers(share: f64) -> OwnAnswers {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ft-core/tests/golden/tiny_tokenizer");
    OwnAnswers {
        tokenizer: Tokenizer::from_pretrained(&folder).unwrap(),
        share,
        generation: GenerationConfig {
            max_new_tokens: 6,
            temperature: 1.0,
            eos_token_ids: vec![96],
            ..GenerationConfig::default()
        },
        max_rows: 3,
    }
}

fn on_policy(share: f64) -> Distill<'static, AutoCausalLm> {
    let student = student_of(&teacher(), &[0]).unwrap();
    let source = TeacherSource::model(&teacher());
    Distill::new(settings(), source, &student, batches(12))
        .unwrap()
        .with_evaluation(batches(8))
        .with_own_answers(own_answers(share))
        .unwrap()
}

/// The answers are the student's greedy ones where the temperature is 0, and labels stand at them alone.
#[test]
fn own_answers_take_the_place_of_those_of_the_data() {
    let student = student_of(&teacher(), &[0]).unwrap();
    let mut own = own_answers(1.0);
    own.generation.temperature = 0.0;
    let source = TeacherSource::model(&teacher());
    let mut method = Distill::new(settings(), source, &student, batches(4))
        .unwrap()
        .with_own_answers(own)
        .unwrap();
    let context = StepContext::training(&device(), 3, 1, 0);
    let view = ModelView::new(&student);
    let whole = method.batch(&view, 0, 0, &context).unwrap();
    let batch = &whole.batch;
    assert!(whole.own_answers);
    assert!(
        batch.lengths.iter().all(|length| (3..=8).contains(length)),
        "{batch:?}"
    );
    for row in 0..4 {
        let length = batch.lengths[row];
        let row = row * batch.seq..row * batch.seq + length;
        let (ids, labels) = (&batch.input_ids[row.clone()], &batch.labels[row]);
        assert_eq!(labels[..2], [IGNORE_INDEX; 2]);
        assert_eq!(labels[2..], ids[2..]);
        for place in 2..length {
            let before: Vec<u32> = ids[..place].iter().map(|&id| id as u32).collect();
            let tokens = TokenBatch::from_ids(&before, &device());
            let logits = student.logits(&tokens, None).into_data();
            let last = logits.iter::<f32>().skip((place - 1) * 97).enumerate();
            let best = last.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            assert_eq!(best.0 as i64, ids[place]);
        }
    }
    let output = method.step(&student, &whole, &context).unwrap();
    let names: Vec<&str> = output.metrics.iter().map(|metric| &*metric.name).collect();
    assert_eq!(
        names,
        ["divergence", "agreement", "own_answers/mean_length"]
    );
}

#[test]
fn a_student_comes_nearer_to_its_teacher_along_its_own_answers() {
    let train = |share: f64, steps: usize| {
        let student = student_of(&teacher(), &[0]).unwrap();
        Trainer::with_method(training(steps), on_policy(share))
            .fit(student)
            .unwrap()
            .1
    };
    let report = train(1.0, 30);
    let [before, after] = [report.eval_before(), report.eval_after()].map(Option::unwrap);
    assert!(
        after.metrics["divergence"] < 0.8 * before.metrics["divergence"],
        "{before:?} {after:?}"
    );
    assert!(
        report
            .train_metrics
            .iter()
            .all(|step| (1.0..=6.0).contains(&step["own_answers/mean_length"]))
    );
    // Some batches have own answers, and again the same ones.
    let mixed = train(0.5, 12);
    let own = mixed
        .train_metrics
        .iter()
        .filter(|step| !step.contains_key("cross_entropy"));
    assert!((2..11).contains(&own.count()), "{:?}", mixed.train_metrics);
    assert_eq!(mixed.train_losses, train(0.5, 12).train_losses);
    let none = train(0.0, 2);
    assert!(
        none.train_metrics
            .iter()
            .all(|step| step.contains_key("cross_entropy"))
    );
}

#[test]
fn a_run_with_own_answers_that_was_stopped_ends_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let train = |steps: usize, name: &str, resume: bool| {
        let config = TrainConfig {
            output_dir: Some(folder.path().join(name)),
            save_every: Some(3),
            resume,
            ..training(steps)
        };
        let student = student_of(&teacher(), &[0]).unwrap();
        let trainer = Trainer::with_method(config, on_policy(0.7));
        trainer.fit(student).unwrap().0
    };
    let whole = train(8, "whole", false);
    train(3, "stopped", false);
    assert_eq!(
        module_tensors(&train(8, "stopped", true)),
        module_tensors(&whole)
    );
}

#[test]
fn own_answers_that_cannot_be_sampled_are_errors() {
    let student = student_of(&teacher(), &[0]).unwrap();
    let method = |batches: SftBatches| {
        Distill::new(
            settings(),
            TeacherSource::model(&teacher()),
            &student,
            batches,
        )
        .unwrap()
    };
    let mut wrong = own_answers(1.5);
    wrong.generation.max_new_tokens = 0;
    let error = method(batches(4))
        .with_own_answers(wrong)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("share") && error.contains("max_new_tokens"),
        "{error}"
    );

    let folder = tempfile::tempdir().unwrap();
    let top = write_top_logits(
        &teacher(),
        &rows(2),
        3,
        2.0,
        2,
        folder.path(),
        &mut |_, _| (),
    );
    let source = TeacherSource::<AutoCausalLm>::Top(top.unwrap().into());
    let on_disk = Distill::new(settings(), source, &student, batches(4)).unwrap();
    let error = on_disk
        .with_own_answers(own_answers(1.0))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("as a model"), "{error}");

    let run = |batches: SftBatches, own: OwnAnswers| {
        let method = method(batches).with_own_answers(own).unwrap();
        let error = Trainer::with_method(training(1), method).fit(student.clone());
        error.unwrap_err().to_string()
    };
    // Answers end where the models do; a prompt that leaves no room is an error.
    let room = teacher().dims().max_position_embeddings;
    let ids: Vec<u32> = (0..=room).map(|i| (i % 97) as u32).collect();
    let mut labels = vec![IGNORE_INDEX; room];
    labels.push(1);
    let long = vec![Tokenized {
        input_ids: ids,
        labels,
    }];
    let long =
        SftDataset::from_examples(long).into_batches(4, Collation::Padded { multiple: 1 }, None, 0);
    assert!(run(long.unwrap(), own_answers(1.0)).contains("leave out longer prompts"));
    let packed = SftDataset::from_examples(rows(8)).into_batches(
        4,
        Collation::Packed { seq_len: 32 },
        None,
        0,
    );
    assert!(run(packed.unwrap(), own_answers(1.0)).contains("packed"));
    let mut all_learned = rows(4);
    for row in &mut all_learned {
        row.labels = row.input_ids.iter().map(|&id| i64::from(id)).collect();
    }
    let batches = SftDataset::from_examples(all_learned).into_batches(
        4,
        Collation::Padded { multiple: 1 },
        None,
        0,
    );
    assert!(run(batches.unwrap(), own_answers(1.0)).contains("no prompt"));
}

/// The loss with hidden states is the loss without them plus their weight times the metric, and it brings them nearer.
#[test]
fn hidden_states_come_nearer_where_they_are_compared() {
    let (teacher, student) = (teacher(), student_of(&teacher(), &[0]).unwrap());
    let all: Vec<usize> = (0..teacher.dims().num_layers).collect();
    let same = student_of(&teacher, &all).unwrap();
    let run = |config: DistillConfig, student: &AutoCausalLm, steps: usize| {
        let source = TeacherSource::model(&teacher);
        let method = Distill::new(config, source, student, batches(8)).unwrap();
        let trainer = Trainer::with_method(training(steps), method);
        trainer.fit(student.clone()).unwrap().1
    };
    let without = run(settings(), &student, 20);
    for (metric, weight, config) in [
        (
            "hidden_cosine",
            3.0,
            DistillConfig {
                cosine: 3.0,
                ..settings()
            },
        ),
        (
            "layer_mse",
            2.0,
            DistillConfig {
                layers: 2.0,
                ..settings()
            },
        ),
    ] {
        let with = run(config, &student, 20);
        assert!(!without.train_metrics[0].contains_key(metric));
        let apart = with.train_metrics[0][metric];
        let expected = without.train_losses[0] + weight * apart;
        assert!(apart > 0.01, "{metric}: {apart}");
        assert!((with.train_losses[0] - expected).abs() < 1e-4, "{expected}");
        let last = with.train_metrics.last().unwrap()[metric];
        assert!(last < 0.7 * apart, "{metric}: {apart} {last}");
        // A student that is its teacher has nothing to learn from them.
        let nothing = run(config, &same, 1).train_metrics[0][metric];
        assert!(nothing.abs() < 1e-5, "{metric}: {nothing}");
    }
}

/// Blocks at the same share of the depth are compared: of a student of two blocks those of the middle and of the end.
#[test]
fn blocks_are_compared_at_the_same_share_of_the_depth() {
    let deep = student_of(&teacher(), &[0, 1, 1, 0]).unwrap();
    let student = student_of(&deep, &[0, 1]).unwrap();
    let config = DistillConfig {
        layers: 1.0,
        ..settings()
    };
    let rows = batches(8);
    let found = compare(config, &deep, &student, &rows).unwrap().metrics["layer_mse"];
    let (mut sum, mut count) = (0.0, 0.0);
    for index in 0..rows.len(0) {
        let batch = rows.batch(0, index);
        let device = Device::default();
        let tokens = batch.tokens(&device);
        let [own, other] = [&student, &deep].map(|model| model.valid().all_hidden_states(&tokens));
        assert_eq!((own.len(), other.len()), (3, 5));
        for (own, other) in [(&own[1], &other[2]), (&own[2], &other[4])] {
            let apart = (own.clone() - other.clone()).powi_scalar(2).mean_dim(2);
            let apart: Vec<f32> = apart.into_data().try_to_vec().unwrap();
            for (place, apart) in apart.iter().enumerate() {
                let next = batch.labels.get(place + 1);
                if (place + 1) % batch.seq != 0 && next.is_some_and(|label| *label != IGNORE_INDEX)
                {
                    sum += f64::from(*apart) / 2.0;
                    count += 0.5;
                }
            }
        }
    }
    let expected = sum / count;
    assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
}

#[test]
fn teachers_and_settings_that_do_not_fit_are_refused() {
    let teacher = teacher();
    let student = student_of(&teacher, &[0]).unwrap();
    let new = |config: DistillConfig, source: TeacherSource<AutoCausalLm>| {
        Distill::new(config, source, &student, batches(4))
            .map(|_| ())
            .unwrap_err()
    };
    let config = DistillConfig {
        temperature: 0.0,
        alpha: 1.5,
        divergence: Divergence::JensenShannon(1.0),
        cosine: -1.0,
        layers: f64::NAN,
    };
    let Error::Settings(mistakes) = new(config, TeacherSource::model(&teacher)) else {
        panic!("another error");
    };
    assert_eq!(mistakes.len(), 5, "{mistakes:?}");

    let folder = tempfile::tempdir().unwrap();
    let top = write_top_logits(&teacher, &rows(2), 3, 1.0, 2, folder.path(), &mut |_, _| ());
    let top = std::sync::Arc::new(top.unwrap());
    let error = new(settings(), TeacherSource::Top(top.clone())).to_string();
    assert!(error.contains("temperature of 1"), "{error}");
    let config = DistillConfig {
        cosine: 1.0,
        ..settings()
    };
    let error = new(config, TeacherSource::Top(top)).to_string();
    assert!(error.contains("no hidden states"), "{error}");
    let deep = student_of(&teacher, &[0, 1, 1]).unwrap();
    let config = DistillConfig {
        layers: 1.0,
        ..settings()
    };
    let source = TeacherSource::model(&teacher);
    let error = Distill::new(config, source, &deep, batches(4)).map(|_| ());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("3 blocks and the teacher only 2"), "{error}");
    // A row that the file lacks.
    let top = TopLogits::open(folder.path()).unwrap();
    let config = DistillConfig {
        temperature: 1.0,
        ..settings()
    };
    let source = TeacherSource::<AutoCausalLm>::Top(top.into());
    let method = Distill::new(config, source, &student, batches(4)).unwrap();
    let error = Trainer::with_method(training(1), method)
        .fit(student.clone())
        .unwrap_err();
    assert!(error.to_string().contains("lack a row"), "{error}");

    let mut config: Value = teacher.config().to_json();
    config["vocab_size"] = json!(50);
    let small = ModelConfig::from_json(config).unwrap();
    let small = AutoCausalLm::from_config(&small, &device()).unwrap();
    let error = new(settings(), TeacherSource::model(&small)).to_string();
    assert!(error.contains("tokenizer"), "{error}");
}
