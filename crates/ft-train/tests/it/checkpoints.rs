//! Checkpoints: whole or not there, pruned in time, and never taken for another run's.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, SgdConfig};
use burn::tensor::{Device, TensorData};
use ft_core::safetensors_folder::{read_metadata, read_tensors, write_tensors};
use ft_train::{
    BoxError, Callback, Error, ModelView, OptimizerStates, TrainConfig, TrainReport,
    latest_checkpoint,
};

use crate::model::{Data, KillAfter, Net, alone, parameters, trainer};

fn config(folder: &Path) -> TrainConfig {
    TrainConfig {
        learning_rate: 0.02,
        max_steps: Some(6),
        save_every: Some(2),
        output_dir: Some(folder.to_path_buf()),
        ..TrainConfig::default()
    }
}

fn run(config: TrainConfig) -> Result<(Net, TrainReport), Error> {
    trainer(config, Data::of(&[4, 4])).fit(Net::new(0.2))
}

fn resume(folder: &Path) -> TrainConfig {
    TrainConfig {
        resume: true,
        ..config(folder)
    }
}

fn error(result: Result<(Net, TrainReport), Error>) -> Error {
    match result {
        Ok(_) => panic!("it went well"),
        Err(error) => error,
    }
}

/// Names of the checkpoint folders, unfinished ones too.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("checkpoints")).expect("has checkpoints");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

fn truncate(path: PathBuf) {
    let bytes = fs::read(&path).expect("reads");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
}

#[test]
fn a_checkpoint_holds_what_trains_by_path() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let (model, _) = run(config(folder.path())).expect("trains");
    let newest = latest_checkpoint(folder.path())
        .expect("reads")
        .expect("is there");
    assert_eq!(newest, folder.path().join("checkpoints/step-6"));
    let saved = read_tensors(&newest.join("trainable.safetensors")).expect("reads");
    let mut parameters = parameters(&model);
    parameters.retain(|path, _| !path.starts_with("frozen."));
    assert!(saved.keys().eq(parameters.keys()));
    for (path, values) in parameters {
        assert_eq!(saved[&path].iter::<f32>().collect::<Vec<_>>(), values);
    }
    let states = read_tensors(&newest.join("optimizer.safetensors")).expect("reads");
    assert!(states.contains_key("hidden.weight.moment_1"));
    assert!(states.contains_key("norm.gamma.moment_2"));
}

#[test]
fn the_limit_keeps_the_newest() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let limited = TrainConfig {
        save_every: Some(1),
        save_total_limit: Some(2),
        max_steps: Some(11),
        ..config(folder.path())
    };
    run(limited).expect("trains");
    assert_eq!(names(folder.path()), ["step-10", "step-11"]);
}

/// Writes half a file, then fails.
struct DiskFull;

impl Callback<Net> for DiskFull {
    fn on_checkpoint(&mut self, _: &ModelView<'_, Net>, folder: &Path) -> Result<(), BoxError> {
        fs::write(folder.join("adapter.safetensors"), [0; 7])?;
        if folder.to_string_lossy().contains("step-4") {
            return Err("no space left".into());
        }
        Ok(())
    }
}

#[test]
fn a_write_that_is_interrupted_leaves_the_last_good_checkpoint() {
    let _turn = alone();
    let (expected, _) = {
        let folder = tempfile::tempdir().expect("temporary folder");
        run(config(folder.path())).expect("trains")
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    let failed = trainer(config(folder.path()), Data::of(&[4, 4]))
        .with_callback(DiskFull)
        .fit(Net::new(0.2));
    assert!(error(failed).to_string().contains("no space left"));
    assert_eq!(names(folder.path()), [".step-4.part", "step-2"]);
    assert!(
        folder
            .path()
            .join("checkpoints/step-2/adapter.safetensors")
            .exists()
    );

    let (model, report) = run(resume(folder.path())).expect("resumes");
    assert_eq!(report.resumed_from, Some(2));
    assert_eq!(parameters(&model), parameters(&expected));
    assert_eq!(names(folder.path()), ["step-2", "step-4", "step-6"]);
}

#[test]
fn a_damaged_newest_checkpoint_is_reported_by_name_and_not_ignored() {
    let _turn = alone();
    for file in [
        "trainable.safetensors",
        "optimizer.safetensors",
        "trainer_state.json",
    ] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let killed = trainer(config(folder.path()), Data::of(&[4, 4]))
            .with_callback(KillAfter(5))
            .fit(Net::new(0.2));
        assert!(killed.is_err());
        truncate(folder.path().join("checkpoints/step-4").join(file));
        let damaged = error(run(resume(folder.path())));
        assert!(
            matches!(damaged, Error::DamagedCheckpoint { .. }),
            "{damaged}"
        );
        let text = damaged.to_string();
        for part in [
            "step-4 is damaged",
            file,
            "Remove it to resume from",
            "step-2 instead",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        fs::remove_dir_all(folder.path().join("checkpoints/step-4")).expect("removes");
        let (_, report) = run(resume(folder.path())).expect("resumes");
        assert_eq!(report.resumed_from, Some(2));
    }
}

#[test]
fn a_checkpoint_that_lacks_a_file_is_damaged() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    run(config(folder.path())).expect("trains");
    fs::remove_file(
        folder
            .path()
            .join("checkpoints/step-6/optimizer.safetensors"),
    )
    .expect("removes");
    let damaged = error(run(resume(folder.path())));
    assert!(
        matches!(damaged, Error::DamagedCheckpoint { .. }),
        "{damaged}"
    );
}

/// Before a step is taken with it, which would fail deep inside.
#[test]
fn an_optimizer_state_of_another_size_is_reported() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let killed = trainer(config(folder.path()), Data::of(&[4, 4]))
        .with_callback(KillAfter(5))
        .fit(Net::new(0.2));
    assert!(killed.is_err());
    let file = (folder.path()).join("checkpoints/step-4/optimizer.safetensors");
    let metadata = read_metadata(&file).expect("reads");
    let mut tensors = read_tensors(&file).expect("reads");
    for moment in ["hidden.weight.moment_1", "hidden.weight.moment_2"] {
        tensors.insert(moment.into(), TensorData::zeros::<f32, _>([2, 3]));
    }
    let tensors: Vec<_> = tensors.into_iter().collect();
    write_tensors(&file, &tensors, &metadata).expect("writes");
    let refused = error(run(resume(folder.path()))).to_string();
    for part in ["hidden.weight.moment_1", "[6, 8]", "[2, 3]"] {
        assert!(refused.contains(part), "{part:?} is not in: {refused}");
    }
}

#[test]
fn a_checkpoint_of_other_settings_is_refused_with_all_differences() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    run(config(folder.path())).expect("trains");
    let other = TrainConfig {
        learning_rate: 0.03,
        seed: 7,
        // These do not change the parameters.
        save_every: Some(3),
        logging_steps: 1,
        ..resume(folder.path())
    };
    let refused = trainer(other, Data::of(&[4, 2, 2]))
        .with_identity("model", "SmolLM2-135M")
        .fit(Net::new(0.2));
    let Error::OtherSettings { differences, .. } = error(refused) else {
        panic!("another error");
    };
    assert_eq!(
        differences,
        [
            "batches_in_epoch: 2 in the checkpoint, 3 now",
            "learning_rate: 0.02 in the checkpoint, 0.03 now",
            "model: absent in the checkpoint, \"SmolLM2-135M\" now",
            "seed: 42 in the checkpoint, 7 now",
        ]
    );
}

#[test]
fn a_checkpoint_of_other_parameters_is_refused_with_all_differences() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    run(config(folder.path())).expect("trains");
    let mut model = Net::new(0.2);
    model.frozen = model.frozen.unfreeze();
    model.out = model.out.no_grad();
    model.norm = burn::nn::LayerNormConfig::new(5).init(&Device::default());
    let refused = trainer(resume(folder.path()), Data::of(&[4, 4])).fit(model);
    let Error::OtherParameters {
        path,
        missing,
        unexpected,
        misshapen,
    } = error(refused)
    else {
        panic!("another error");
    };
    assert!(path.ends_with("checkpoints/step-6/trainable.safetensors"));
    assert_eq!(missing, ["frozen.bias", "frozen.weight"]);
    assert_eq!(unexpected, ["out.bias", "out.weight"]);
    assert_eq!(
        misshapen,
        [
            "norm.beta (model [5], file [6])",
            "norm.gamma (model [5], file [6])"
        ]
    );
}

#[test]
fn states_of_another_optimizer_are_refused() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    run(config(folder.path())).expect("trains");
    let sgd = || SgdConfig::new().build();
    let refused = trainer(resume(folder.path()), Data::of(&[4, 4]))
        .with_optimizer(OptimizerStates::new(sgd(), sgd()))
        .fit(Net::new(0.2));
    let Err(Error::OtherSettings { differences, .. }) = refused else {
        panic!("took them");
    };
    assert_eq!(
        differences,
        ["optim: \"adamw\" in the checkpoint, absent now"]
    );
}

#[test]
fn states_of_another_optimizer_without_a_name_are_refused() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let with = |config, sgd: SgdConfig| {
        trainer(config, Data::of(&[4, 4]))
            .with_optimizer(OptimizerStates::new(sgd.build(), sgd.build()))
            .fit(Net::new(0.2))
    };
    let momentum = SgdConfig::new().with_momentum(Some(MomentumConfig::new()));
    with(config(folder.path()), momentum).expect("trains");
    let adam = || AdamConfig::new().build();
    let refused = trainer(resume(folder.path()), Data::of(&[4, 4]))
        .with_optimizer(OptimizerStates::new(adam(), adam()))
        .fit(Net::new(0.2));
    let Err(Error::OtherParameters { unexpected, .. }) = refused else {
        panic!("took them");
    };
    assert!(
        unexpected.contains(&"hidden.weight.momentum.velocity".to_string()),
        "{unexpected:?}"
    );
}

#[test]
fn an_earlier_run_is_overwritten_only_if_asked_for() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    run(config(folder.path())).expect("trains");
    let refused = error(run(config(folder.path())));
    assert!(
        matches!(&refused, Error::RunExists { newest } if newest.ends_with("step-6")),
        "{refused}"
    );
    let again = TrainConfig {
        overwrite: true,
        max_steps: Some(1),
        ..config(folder.path())
    };
    run(again).expect("overwrites");
    assert_eq!(names(folder.path()), ["step-1"]);
}

#[test]
fn there_must_be_a_run_to_resume() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let missing = error(run(resume(&folder.path().join("typo"))));
    assert!(
        matches!(missing, Error::NothingToResume { .. }),
        "{missing}"
    );
    assert!(!folder.path().join("typo").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("writes");
    let refused = error(run(config(&file.join("output"))));
    assert!(refused.to_string().contains("file/output"), "{refused}");
}
