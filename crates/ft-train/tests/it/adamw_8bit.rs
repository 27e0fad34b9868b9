//! AdamW with moments in a byte each: bitsandbytes' numbers, a trajectory, checkpoints, memory.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::LossSum;
use ft_core::safetensors_folder::read_tensors;
use ft_data::Batches;
use ft_kernels::{AdamWStep, Blockwise, DynamicMap, adamw_8bit};
use ft_train::{
    Error, Optim, OptimizerStates, StepContext, StepResult, TrainConfig, TrainReport, Trainer,
};

use crate::model::{KillAfter, alone, device, parameters};

/// What bitsandbytes has: `golden/adamw_8bit.py`.
struct Golden(BTreeMap<String, TensorData>);

impl Golden {
    fn read() -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/adamw_8bit.safetensors");
        Self(read_tensors(&path).expect("the golden file is there"))
    }

    fn tensor(&self, name: &str) -> Tensor<1> {
        Tensor::from_data(self.0[name].clone(), &Device::default())
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        self.0[name].iter::<f32>().collect()
    }

    fn codes(&self, name: &str) -> Vec<u8> {
        self.0[name].clone().try_to_vec().expect("u8")
    }
}

fn codes(x: Tensor<1, Int>) -> Vec<u8> {
    x.into_data().try_to_vec().expect("u8")
}

fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().expect("f32")
}

/// `|found − expected| ≤ relative·|expected|`
fn assert_near(what: &str, found: &[f32], expected: &[f32], relative: f32) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!(
            (f - e).abs() <= relative * e.abs(),
            "{what}: {f}, expected {e}"
        );
    }
}

#[test]
fn maps_and_codes_are_those_of_bitsandbytes() {
    let golden = Golden::read();
    for (name, map) in [
        ("signed", DynamicMap::Signed),
        ("unsigned", DynamicMap::Unsigned),
    ] {
        let of = |part: &str| format!("{name}.{part}");
        assert_near(name, map.values(), &golden.numbers(&of("map")), 2e-7);
        let x = golden.tensor("x");
        let x = if name == "signed" { x } else { x.abs() };
        let held = Blockwise::quantize(x, map);
        assert_eq!(codes(held.codes.clone()), golden.codes(&of("codes")));
        assert_eq!(numbers(held.absmax.clone()), golden.numbers(&of("absmax")));
        let back = numbers(held.dequantize(map));
        assert_near(name, &back, &golden.numbers(&of("x")), 3e-7);
    }
}

#[test]
fn four_steps_in_8_bits_are_those_of_bitsandbytes() {
    let _turn = alone();
    let golden = Golden::read();
    let [steps, size] = golden.0["gradients"].shape().dims();
    let gradients = Tensor::<2>::from_data(golden.0["gradients"].clone(), &Device::default());
    let mut param = golden.tensor("param.0");
    let mut moments = [(); 2].map(|()| Blockwise::zeros(size, &param.device()));
    for step in 0..steps {
        let gradient = gradients.clone().narrow(0, step, 1).reshape([size]);
        let step = AdamWStep {
            number: step + 1,
            learning_rate: 0.01,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.1,
            scale: 0.5,
        };
        (param, moments) = adamw_8bit(param, gradient, moments, &step);
    }
    for (name, moment) in ["first", "second"].into_iter().zip(moments) {
        let absmax = numbers(moment.absmax);
        assert_near(
            name,
            &absmax,
            &golden.numbers(&format!("{name}.absmax")),
            1e-6,
        );
        let (found, expected) = (codes(moment.codes), golden.codes(&format!("{name}.codes")));
        let others = found.iter().zip(&expected).filter(|(f, e)| f != e).count();
        // A number that lies on a bound but for rounding.
        assert!(others <= 2, "{others} other codes in {name}");
    }
    for (f, e) in numbers(param).into_iter().zip(golden.numbers("param")) {
        assert!((f - e).abs() < 1e-6, "{f}, expected {e}");
    }
}

const IN: usize = 64;
const OUT: usize = 80;
const ROWS: usize = 32;

/// Numbers without a pattern that matters, in [-1, 1].
fn wave<const D: usize>(phase: f32, shape: [usize; D]) -> Tensor<D> {
    let len: usize = shape.iter().product();
    let values: Vec<f32> = (0..len)
        .map(|i| (12.9898 * i as f32 + 78.233 * phase).sin())
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// 5120 weights, whose moments are quantized, and 80 biases, whose are not.
fn layer() -> Linear {
    let mut layer = LinearConfig::new(IN, OUT).init(&device());
    layer.weight = Param::from_tensor(wave(0.1, [IN, OUT]) * 0.1);
    layer.bias = Some(Param::from_tensor(wave(0.2, [OUT]) * 0.1));
    layer
}

/// Rows of a linear function, in batches.
struct Rows;

impl Batches for Rows {
    type Batch = usize;
    fn len(&self, _: usize) -> usize {
        4
    }
    fn batch(&self, _: usize, index: usize) -> usize {
        index
    }
}

fn squared_error(model: &Linear, index: &usize, _: &StepContext) -> StepResult {
    Ok(squared_error_sum(model, *index).into())
}

fn squared_error_sum(model: &Linear, index: usize) -> LossSum {
    let x = wave(0.3 + index as f32, [ROWS, IN]);
    let y = x.clone().matmul(wave(0.4, [IN, OUT]) * 0.2);
    LossSum {
        sum: (model.forward(x) - y).square().sum(),
        count: ROWS * OUT,
    }
}

fn config(optim: Optim) -> TrainConfig {
    TrainConfig {
        optim,
        learning_rate: 0.01,
        weight_decay: 0.01,
        max_steps: Some(50),
        progress: false,
        ..TrainConfig::default()
    }
}

fn train(config: TrainConfig) -> Result<(Linear, TrainReport), Error> {
    Trainer::new(config, Rows, squared_error).fit(layer())
}

/// The loss falls to a fiftieth; on its way it is within 2% of where it began of that in `f32`.
#[test]
fn fifty_steps_in_8_bits_learn_as_those_in_32() {
    let _turn = alone();
    let losses = |optim| {
        let (_, report) = train(config(optim)).expect("trains");
        report.train_losses
    };
    let (small, whole) = (losses(Optim::AdamW8bit), losses(Optim::AdamW));
    assert!(whole[49] < 0.02 * whole[0], "{whole:?}");
    for (s, w) in small.iter().zip(&whole) {
        assert!((s - w).abs() < 0.02 * whole[0], "{small:?} {whole:?}");
    }
    assert_ne!(small, whole);
}

/// Steps of a loop of one's own.
fn steps(
    mut model: Linear,
    optimizer: &mut OptimizerStates<ft_train::AdamW>,
    steps: usize,
) -> Linear {
    for step in 0..steps {
        let loss = squared_error_sum(&model, step % 4);
        let gradients = GradientsParams::from_grads(loss.sum.backward(), &model);
        model = optimizer.step(model, gradients, 0.01, 0.5 / loss.count as f64);
    }
    model
}

#[test]
fn states_in_8_bits_survive_a_file_to_the_bit() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    let fresh = || OptimizerStates::adamw(&config(Optim::AdamW8bit));
    let mut optimizer = fresh();
    let model = steps(layer(), &mut optimizer, 3);
    optimizer.save(&one).expect("saves");
    let mut loaded = fresh();
    loaded.load(&one, &model).expect("loads");
    loaded.save(&two).expect("saves");
    let (first, second) = (
        read_tensors(&one).expect("reads"),
        read_tensors(&two).expect("reads"),
    );
    assert_eq!(first, second);
    assert!(codes_differ(&first["weight.moment_1.codes"]));
    assert!(codes_differ(&first["weight.moment_2.codes"]));

    let expected = steps(model.clone(), &mut optimizer, 3);
    let found = steps(model, &mut loaded, 3);
    assert_eq!(parameters(&found), parameters(&expected));
}

fn codes_differ(data: &TensorData) -> bool {
    let codes: Vec<u8> = data.clone().try_to_vec().expect("u8");
    codes.iter().any(|code| *code != codes[0])
}

#[test]
fn a_state_takes_two_bytes_a_number_and_four_for_each_256() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let sizes = |optim| {
        let mut optimizer = OptimizerStates::adamw(&config(optim));
        steps(layer(), &mut optimizer, 1);
        let path = folder.path().join("states");
        optimizer.save(&path).expect("saves");
        let tensors = read_tensors(&path).expect("reads");
        let bytes = |of: &str| -> usize {
            (tensors.iter())
                .filter(|(name, _)| name.starts_with(of))
                .map(|(_, data)| data.as_bytes().len())
                .sum()
        };
        (bytes("weight."), bytes("bias."))
    };
    let weights = IN * OUT;
    assert_eq!(
        sizes(Optim::AdamW8bit),
        (2 * (weights + 4 * weights / 256), 8 * OUT)
    );
    assert_eq!(sizes(Optim::AdamW), (8 * weights, 8 * OUT));
}

fn saving(optim: Optim, folder: &Path) -> TrainConfig {
    TrainConfig {
        max_steps: Some(9),
        save_every: Some(2),
        output_dir: Some(folder.to_path_buf()),
        ..config(optim)
    }
}

#[test]
fn a_run_in_8_bits_killed_and_resumed_ends_with_the_same_bits() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    let (expected, report) =
        train(saving(Optim::AdamW8bit, &folder.path().join("whole"))).expect("trains");
    let cut = folder.path().join("cut");
    let killed = Trainer::new(saving(Optim::AdamW8bit, &cut), Rows, squared_error)
        .with_callback(KillAfter(7))
        .fit(layer());
    assert!(matches!(killed, Err(Error::Callback(_))));
    let (model, resumed) = train(TrainConfig {
        resume: true,
        ..saving(Optim::AdamW8bit, &cut)
    })
    .expect("resumes");
    assert_eq!(resumed.resumed_from, Some(6));
    assert_eq!(resumed.train_losses, report.train_losses);
    assert_eq!(parameters(&model), parameters(&expected));
}

#[test]
fn a_run_is_not_resumed_with_another_optimizer() {
    let _turn = alone();
    let folder = tempfile::tempdir().expect("temporary folder");
    train(saving(Optim::AdamW8bit, folder.path())).expect("trains");
    let other = TrainConfig {
        resume: true,
        ..saving(Optim::AdamW, folder.path())
    };
    let Err(Error::OtherSettings { differences, .. }) = train(other) else {
        panic!("resumed");
    };
    assert_eq!(
        differences,
        ["optim: \"adamw_8bit\" in the checkpoint, \"adamw\" now"]
    );
}

#[test]
fn states_are_not_loaded_into_another_optimizer() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("states");
    let mut optimizer = OptimizerStates::adamw(&config(Optim::AdamW8bit));
    let model = steps(layer(), &mut optimizer, 1);
    optimizer.save(&path).expect("saves");
    let refused = OptimizerStates::adamw(&config(Optim::AdamW)).load(&path, &model);
    let Err(Error::OtherOptimizer { saved, here, .. }) = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (*saved, *here),
        (Some(Optim::AdamW8bit), Some(Optim::AdamW))
    );
    let sgd = || SgdConfig::new().build();
    let refused = OptimizerStates::new(sgd(), sgd()).load(&path, &model);
    assert!(matches!(
        refused,
        Err(Error::OtherOptimizer { here: None, .. })
    ));
}

#[test]
fn two_optimizers_for_one_run_are_refused() {
    let _turn = alone();
    let sgd = || SgdConfig::new().build();
    let refused = Trainer::new(config(Optim::AdamW8bit), Rows, squared_error)
        .with_optimizer(OptimizerStates::new(sgd(), sgd()))
        .fit(layer());
    let Err(Error::Config(mistakes)) = refused else {
        panic!("trained");
    };
    assert!(
        mistakes[0].starts_with("optim is adamw_8bit: "),
        "{mistakes:?}"
    );
}

/// Neither a graph nor the model holds on to a parameter when it is updated.
#[test]
fn a_parameter_is_updated_where_it_lies() {
    let place = |model: &Linear| {
        let weight = model.weight.val().inner();
        let primitive = weight
            .try_into_primitive::<burn::backend::Flex>()
            .expect("on Flex");
        primitive.storage::<f32>().as_ptr()
    };
    for optim in [Optim::AdamW, Optim::AdamW8bit] {
        let mut optimizer = OptimizerStates::adamw(&config(optim));
        let model = steps(layer(), &mut optimizer, 1);
        let before = place(&model);
        let model = steps(model, &mut optimizer, 2);
        assert_eq!(place(&model), before);
        assert_eq!(model.num_params(), IN * OUT + OUT);
    }
}
