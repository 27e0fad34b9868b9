//! Optimizers that the settings name: steps of transformers and PyTorch (`golden/optimizers.py`), and runs that are killed.

use std::collections::BTreeMap;
use std::path::Path;

use burn::optim::Optimizer;
use burn::tensor::{Device, Tensor, TensorData};
use ft_core::safetensors_folder::read_tensors;
use ft_train::{Error, FromConfig, NamedOptimizer, Optim, OptimizerStates, TrainConfig, Trainer};

use crate::model::{Data, KillAfter, Net, alone, parameters, squared_error};

fn config(optim: Optim) -> TrainConfig {
    TrainConfig {
        optim,
        learning_rate: 0.02,
        weight_decay: 0.1,
        betas: (0.9, 0.99),
        progress: false,
        ..TrainConfig::default()
    }
}

fn follow<const D: usize>(golden: &BTreeMap<String, TensorData>, name: &str, optim: Optim) {
    let device = Device::default();
    let tensor = |name: &str| Tensor::<D>::from_data(golden[name].clone(), &device);
    let gradients = &golden[&format!("{name}.gradients")];
    let shape = golden[&format!("{name}.start")].shape().clone();
    let all: Vec<f32> = gradients.iter::<f32>().collect();
    // A factor on the way that cancels one on the gradients.
    let optimizer = NamedOptimizer::from_config(&config(optim)).with_scale(0.25);
    let (mut value, mut state) = (tensor(&format!("{name}.start")), None);
    for (step, gradient) in all.chunks(shape.num_elements()).enumerate() {
        let gradient: Vec<f32> = gradient.iter().map(|x| 4.0 * x).collect();
        let gradient = Tensor::from_data(TensorData::new(gradient, shape.clone()), &device);
        (value, state) = optimizer.step(0.02, value, gradient, state);
        let expected = golden[&format!("{name}.{optim}.{step}")].iter::<f32>();
        for (found, expected) in value.to_data().iter::<f32>().zip(expected) {
            assert!(
                (found - expected).abs() < 3e-6,
                "{optim} on {name}, step {step}: {found}, expected {expected}"
            );
        }
    }
}

#[test]
fn steps_are_those_of_transformers_and_pytorch() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/optimizers.safetensors");
    let golden = read_tensors(&path).expect("the golden file is there");
    for optim in [Optim::Adafactor, Optim::Lion, Optim::Sgd, Optim::Muon] {
        follow::<2>(&golden, "6x4", optim);
        follow::<2>(&golden, "3x5", optim);
        if optim != Optim::Muon {
            follow::<1>(&golden, "5", optim);
        }
    }
}

#[test]
fn killed_and_resumed_is_uninterrupted_with_every_optimizer() {
    let _turn = alone();
    for optim in Optim::ALL {
        let folder = tempfile::tempdir().expect("temporary folder");
        let run = |output: &str, kill_after: usize, resume: bool| {
            let config = TrainConfig {
                epochs: 4.0,
                save_every: Some(3),
                output_dir: Some(folder.path().join(output)),
                resume,
                ..config(optim)
            };
            // The network has no parts by which Muon's trainer finds embeddings; it has no embeddings either.
            let optimizer = OptimizerStates::<NamedOptimizer>::from_config(&config);
            let trainer =
                Trainer::new(config, Data::of(&[2, 3, 1]), squared_error).with_optimizer(optimizer);
            match kill_after {
                0 => trainer.fit(Net::new(0.3)),
                step => trainer.with_callback(KillAfter(step)).fit(Net::new(0.3)),
            }
        };
        let (whole, whole_report) = run("whole", 0, false).expect("trains");
        run("killed", 5, false).expect_err("is killed");
        let (resumed, report) = run("killed", 0, true).expect("resumes");
        assert_eq!(report.train_losses, whole_report.train_losses, "{optim}");
        assert_eq!(parameters(&resumed), parameters(&whole), "{optim}");
    }
}

#[test]
fn muon_is_refused_where_embeddings_are_not_known() {
    let _turn = alone();
    let trainer = Trainer::new(config(Optim::Muon), Data::of(&[2, 3, 1]), squared_error);
    let error = trainer.fit(Net::new(0.0)).expect_err("does not know them");
    assert!(error.to_string().contains("call with_groups"), "{error}");
}

#[test]
fn states_of_one_optimizer_are_refused_by_another() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("states.safetensors");
    let states = |optim| OptimizerStates::<NamedOptimizer>::from_config(&config(optim));
    states(Optim::Lion).save(&path).expect("saves");
    let refused = states(Optim::Muon).load(&path, &Net::new(0.0));
    assert!(matches!(
        refused,
        Err(Error::OtherOptimizer {
            saved: Some(Optim::Lion),
            here: Some(Optim::Muon),
            ..
        })
    ));
}
