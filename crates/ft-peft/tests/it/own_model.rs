//! A model that is not one of ft-core's, with both layouts and an output layer of another name.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use ft_core::layers::Adapter;
use ft_core::{Layout, Linear, Parts};
use ft_peft::{
    Error, LoraConfig, TargetModules, active_adapters, attach, load_adapter, merge_and_unload,
    save_adapter, set_active, set_trainable, trainable_parameters,
};

use crate::adapted_models::{distance, drawing, on, set, without};

#[derive(Module, Parts, Debug)]
#[parts(output = "score")]
struct Scorer {
    block: Block,
    score: Linear,
}

#[derive(Module, Parts, Debug)]
struct Block {
    up: Linear,
    down: Linear,
}

impl Scorer {
    fn new(device: &Device) -> Self {
        let linear =
            |inputs, outputs, bias, layout| Linear::new(inputs, outputs, bias, layout, 0.4, device);
        let model = Self {
            block: Block {
                up: linear(6, 10, true, Layout::OutIn),
                down: linear(10, 5, true, Layout::InOut),
            },
            score: linear(5, 3, false, Layout::OutIn),
        };
        let _drawing = drawing();
        device.seed(11);
        // Weights are drawn when first read.
        let _ = model.forward(device);
        model
    }

    fn forward(&self, device: &Device) -> Tensor<3> {
        let numbers: Vec<f32> = (0..24).map(|i| (i as f32 * 0.7).sin()).collect();
        let x = Tensor::from_data(TensorData::new(numbers, [2, 2, 6]), device);
        let hidden = self.block.down.forward(self.block.up.forward(x).tanh());
        self.score.forward(hidden.tanh())
    }

    fn scores(&self, device: &Device) -> TensorData {
        self.forward(device).into_data()
    }

    /// Gives both factors of the adapter called `name` random numbers.
    fn stir(mut self, name: &str) -> Self {
        let _drawing = drawing();
        self.for_each_linear_mut(&mut |_, linear| {
            for adapter in linear.adapters.iter_mut().filter(|a| a.name == name) {
                for factor in ["lora_A.weight", "lora_B.weight"] {
                    let old = adapter.val2(factor);
                    let noise = old.random_like(Distribution::Normal(0.0, 0.5));
                    set(adapter, factor, noise);
                }
            }
        });
        self
    }

    fn layers_with_adapters(&self) -> Vec<String> {
        let mut layers = Vec::new();
        self.for_each_linear(&mut |path, linear| {
            if !linear.adapters.is_empty() {
                layers.push(path.to_string());
            }
        });
        layers
    }

    fn factors_of(&mut self, name: &str, change: impl Fn(&mut Adapter)) {
        self.for_each_linear_mut(&mut |_, linear| {
            let named = linear.adapters.iter_mut().filter(|a| a.name == name);
            named.for_each(&change);
        });
    }
}

fn config() -> LoraConfig {
    LoraConfig {
        r: 2,
        lora_alpha: 3.0,
        ..LoraConfig::default()
    }
}

/// One adapter `one` and one adapter `two`, both with numbers, `two` active and trainable.
fn with_two(device: &Device, config: &LoraConfig) -> Scorer {
    let mut model = attach(Scorer::new(device), config, "one", 1).expect("attaches");
    set_active(&mut model, &[]).expect("there");
    let model = attach(model, config, "two", 2).expect("attaches");
    model.stir("one").stir("two")
}

/// Names of the adapters whose factors get a gradient from the scores; the base must not.
fn adapters_with_gradients(model: &Scorer, device: &Device) -> Vec<String> {
    let grads = model.forward(device).square().sum().backward();
    let mut found = Vec::new();
    model.for_each_linear(&mut |path, linear| {
        assert!(linear.weight.val().grad(&grads).is_none(), "{path}");
        for adapter in linear.adapters.iter() {
            let a = adapter.val2("lora_A.weight").grad(&grads).is_some();
            assert_eq!(
                a,
                adapter.val2("lora_B.weight").grad(&grads).is_some(),
                "{path}"
            );
            if a && !found.contains(&adapter.name) {
                found.push(adapter.name.clone());
            }
        }
    });
    found
}

#[test]
fn all_linear_leaves_out_the_output_layer() {
    let device = Device::default();
    let model = attach(Scorer::new(&device), &config(), "default", 1).expect("attaches");
    assert_eq!(model.layers_with_adapters(), ["block.up", "block.down"]);
    // r·(6 + 10) + r·(10 + 5)
    assert_eq!(trainable_parameters(&model.train()).0, 2 * 16 + 2 * 15);
}

#[test]
fn the_laws_hold_for_both_layouts_with_bias_and_dropout() {
    let device = Device::default();
    for (use_rslora, lora_dropout) in [(false, 0.0), (true, 0.0), (false, 0.3)] {
        let config = LoraConfig {
            use_rslora,
            lora_dropout,
            common: on(TargetModules::names(["up", "block.down", "score"])),
            ..config()
        };
        let model = Scorer::new(&device);
        let base = model.scores(&device);
        let model = attach(model, &config, "default", 1).expect("attaches");
        assert_eq!(model.scores(&device), base, "fresh");
        let model = model.stir("default");
        let adapted = model.scores(&device);
        assert!(distance(&adapted, &base) > 0.05);
        let merged = merge_and_unload(model).expect("merges");
        assert!(distance(&merged.scores(&device), &adapted) < 1e-5, "merged");
    }
}

#[test]
fn several_active_adapters_merge_as_their_sum() {
    let device = Device::default();
    let mut model = with_two(&device, &config());
    set_active(&mut model, &["one", "two"]).expect("there");
    assert_eq!(active_adapters(&model), ["one", "two"]);
    let adapted = model.scores(&device);
    let merged = merge_and_unload(model).expect("merges");
    assert!(distance(&merged.scores(&device), &adapted) < 1e-5);
}

#[test]
fn only_the_new_adapter_trains_until_others_are_named() {
    let device = Device::default().autodiff();
    let mut model = with_two(&device, &config());
    set_active(&mut model, &["one", "two"]).expect("there");
    assert_eq!(adapters_with_gradients(&model, &device), ["two"]);
    let one = set_trainable(model.clone(), &["one"]).expect("there");
    assert_eq!(adapters_with_gradients(&one, &device), ["one"]);
    let both = set_trainable(one, &["two", "one"]).expect("there");
    assert_eq!(adapters_with_gradients(&both, &device), ["one", "two"]);
    let there_and_back = both.valid().train();
    assert_eq!(
        adapters_with_gradients(&there_and_back, &device),
        ["one", "two"]
    );
    let none = set_trainable(both, &[]).expect("fine");
    assert_eq!(trainable_parameters(&none).0, 0);
    let error = set_trainable(model, &["three"]).expect_err("refused");
    assert!(error.to_string().contains("one, two"), "{error}");
}

#[test]
fn a_frozen_adapter_has_no_dropout() {
    let device = Device::default().autodiff();
    let config = LoraConfig {
        lora_dropout: 0.5,
        ..config()
    };
    let mut model = with_two(&device, &config);
    let _drawing = drawing();
    let mut changes = |names: &[&str]| {
        set_active(&mut model, names).expect("there");
        device.seed(1);
        let first = model.scores(&device);
        distance(&model.scores(&device), &first) > 0.0
    };
    assert!(!changes(&["one"]), "frozen when the second was attached");
    assert!(changes(&["two"]));
}

#[test]
fn names_that_match_nothing_are_errors_even_beside_others() {
    let device = Device::default();
    let attach = |config: &LoraConfig| attach(Scorer::new(&device), config, "default", 1);
    for (setting, config) in [
        (
            "target_modules (dwon)",
            LoraConfig {
                common: on(TargetModules::names(["up", "dwon"])),
                ..config()
            },
        ),
        (
            "exclude_modules (.*upp)",
            LoraConfig {
                common: without(TargetModules::Pattern(".*upp".into())),
                ..config()
            },
        ),
        (
            "rank_pattern (score)",
            LoraConfig {
                rank_pattern: vec![("up".into(), 1), ("score".into(), 4)],
                ..config()
            },
        ),
        (
            "alpha_pattern (own)",
            LoraConfig {
                alpha_pattern: vec![("own".into(), 4.0)],
                ..config()
            },
        ),
    ] {
        let message = attach(&config).expect_err(setting).to_string();
        assert!(
            message.contains(setting) && message.contains("up, down"),
            "{setting} is not in: {message}"
        );
    }
    let nothing = LoraConfig {
        common: without(TargetModules::names(["block.up", "down"])),
        ..config()
    };
    let message = attach(&nothing).expect_err("nothing is left").to_string();
    assert!(message.contains("leaves none"), "{message}");
}

#[test]
fn merging_what_is_switched_off_is_refused() {
    let device = Device::default();
    let mut model = with_two(&device, &config());
    set_active(&mut model, &[]).expect("there");
    let error = merge_and_unload(model).expect_err("refused").to_string();
    assert!(
        error.contains("one, two") && error.contains("unload"),
        "{error}"
    );
    // Without adapters there is nothing to lose.
    let model = Scorer::new(&device);
    let scores = model.scores(&device);
    let merged = merge_and_unload(model).expect("merges");
    assert_eq!(merged.scores(&device), scores);
}

#[test]
fn merging_names_what_is_not_finite() {
    let device = Device::default();
    let refused = |mut model: Scorer| {
        set_active(&mut model, &["one", "two"]).expect("there");
        let error = merge_and_unload(model).expect_err("refused");
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
        error.to_string()
    };
    let mut model = with_two(&device, &config());
    model.factors_of("one", |adapter| {
        let broken = adapter.val2("lora_B.weight") * f32::INFINITY;
        set(adapter, "lora_B.weight", broken);
    });
    let message = refused(model);
    assert!(
        message.contains("\"one\"") && message.contains("block.up"),
        "{message}"
    );
    let mut model = with_two(&device, &config());
    let broken = model.block.down.weight.val() + f32::NAN;
    model.block.down.weight = Param::from_tensor(broken).set_require_grad(false).into();
    let message = refused(model);
    assert!(
        message.contains("base") && message.contains("block.down"),
        "{message}"
    );
}

#[test]
fn a_model_of_ones_own_has_the_same_files() {
    let device = Device::default();
    let config = LoraConfig {
        common: without(TargetModules::names(["up"])),
        ..config()
    };
    let model = attach(Scorer::new(&device), &config, "default", 1).expect("attaches");
    let model = model.stir("default");
    let folder = tempfile::tempdir().expect("temporary folder");
    save_adapter(&model, "default", folder.path()).expect("saves");
    let loaded = load_adapter(Scorer::new(&device), folder.path(), "default", true);
    let loaded = loaded.expect("loads");
    assert_eq!(loaded.layers_with_adapters(), ["block.down"]);
    assert_eq!(loaded.scores(&device), model.scores(&device));
}

/// The paths at which the factors appear, which checkpoints and optimizers use.
#[test]
fn factors_are_parameters_of_their_layer() {
    struct Paths(Vec<String>, Vec<String>);
    impl ModuleVisitor for Paths {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_string());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
            self.1.push(self.0.join("."));
        }
    }
    let device = Device::default();
    let model = attach(Scorer::new(&device), &config(), "default", 1).expect("attaches");
    let mut paths = Paths(Vec::new(), Vec::new());
    model.visit(&mut paths);
    assert_eq!(
        paths.1[..4],
        [
            "block.up.weight",
            "block.up.bias",
            "block.up.adapters.default.lora_A.weight",
            "block.up.adapters.default.lora_B.weight"
        ]
    );
}
