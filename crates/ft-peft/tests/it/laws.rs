//! Laws that hold for every adapter on every model.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, FloatDType, Tensor, TensorData};
use ft_core::module_path::{PathMapper, PathVisitor, map_params, visit_params};
use ft_core::{AutoCausalLm, CausalLm, Parts, SaveOptions, TokenBatch, Weights, causal_lm_loss};
use ft_peft::{
    Error, LoraConfig, TargetModules, adapter_names, attach, delete, merge_and_unload, set_active,
    set_trainable, trainable_parameters, unload, without_adapters,
};

use crate::adapted_models::{distance, drawing, logits, model, on, with_random_b};

/// Every way to target and scale that a law should hold for.
fn configs(kind: &str) -> Vec<LoraConfig> {
    let [input, inner, output] = match kind {
        "llama" => ["q_proj", "down_proj", "o_proj"],
        _ => ["c_attn", "c_fc", "c_proj"],
    };
    let config = LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        ..LoraConfig::default()
    };
    vec![
        config.clone(),
        LoraConfig {
            use_rslora: true,
            ..config.clone()
        },
        LoraConfig {
            common: on(TargetModules::names([input, inner])),
            ..config.clone()
        },
        LoraConfig {
            common: on(TargetModules::Pattern(r".*\.1\..*".into())),
            rank_pattern: vec![(format!("{input}|{inner}"), 2)],
            alpha_pattern: vec![(output.into(), 3.0)],
            ..config
        },
    ]
}

fn for_every_case(law: impl Fn(AutoCausalLm, &LoraConfig, &Device)) {
    for kind in ["llama", "gpt2"] {
        for config in configs(kind) {
            let device = Device::default();
            law(model(kind, &device), &config, &device);
        }
    }
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    for_every_case(|model, config, device| {
        let before = logits(&model, device);
        let model = attach(model, config, "default", 1).expect("attaches");
        assert_eq!(logits(&model, device), before);
    });
}

#[test]
fn merged_equals_unmerged_and_leaves_no_adapter() {
    for_every_case(|model, config, device| {
        let base = logits(&model, device);
        let model = with_random_b(
            attach(model, config, "default", 1).expect("attaches"),
            "default",
        );
        let adapted = logits(&model, device);
        assert!(
            distance(&adapted, &base) > 0.01,
            "the adapter has an effect"
        );
        let merged = merge_and_unload(model).expect("merges");
        assert!(distance(&logits(&merged, device), &adapted) < 1e-4);
        assert!(adapter_names(&merged).is_empty());
    });
}

#[test]
fn switched_off_unloaded_and_deleted_are_the_base() {
    for_every_case(|model, config, device| {
        let base = logits(&model, device);
        let model = with_random_b(
            attach(model, config, "default", 1).expect("attaches"),
            "default",
        );
        let adapted = logits(&model, device);
        assert_eq!(logits(&without_adapters(&model), device), base);
        assert_eq!(logits(&model, device), adapted, "the original is untouched");
        assert_eq!(logits(&unload(model.clone()), device), base);
        let mut model = model;
        set_active(&mut model, &[]).expect("there");
        assert_eq!(logits(&model, device), base);
        set_active(&mut model, &["default"]).expect("there");
        assert_eq!(logits(&model, device), adapted);
        delete(&mut model, "default").expect("there");
        assert_eq!(logits(&model, device), base);
    });
}

#[test]
fn only_factors_get_gradients() {
    for kind in ["llama", "gpt2"] {
        for config in configs(kind) {
            let device = Device::default().autodiff();
            let model = attach(model(kind, &device), &config, "default", 1).expect("attaches");
            let model = with_random_b(model, "default");
            let tokens = TokenBatch::from_ids(&[3, 14, 15, 9, 26], &device);
            let hidden = model.hidden_states(&tokens, None);
            let loss = causal_lm_loss(hidden, model.head(), &[3, 14, 15, 9, 26]);
            struct Check(burn::tensor::Gradients, usize);
            impl PathVisitor for Check {
                fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
                    let factor = path.contains(".lora_");
                    let grad = param.val().grad(&self.0);
                    assert_eq!(grad.is_some(), factor, "{path}");
                    if let Some(grad) = grad {
                        let size = grad.abs().sum().into_scalar::<f32>();
                        assert!(size > 0.0, "{path} has a gradient of zero");
                        self.1 += param.lazy_shape().num_elements();
                    }
                }
            }
            let mut check = Check(loss.sum.backward(), 0);
            visit_params(&model, &mut check);
            let (trainable, all) = trainable_parameters(&model);
            assert_eq!(check.1, trainable);
            assert!(trainable < all);
        }
    }
}

/// Moving to inference and back keeps base frozen and factors trainable.
#[test]
fn what_trains_survives_validation() {
    let device = Device::default().autodiff();
    let config = LoraConfig::default();
    let model = attach(model("llama", &device), &config, "default", 1).expect("attaches");
    let before = trainable_parameters(&model);
    assert_eq!(trainable_parameters(&model.valid()).0, 0);
    assert_eq!(trainable_parameters(&model.valid().train()), before);
    // The other way: attached on a plain device, brought to training afterwards.
    let plain = Device::default();
    let late = attach(self::model("llama", &plain), &config, "default", 1).expect("attaches");
    assert_eq!(trainable_parameters(&late.train()), before);
}

#[test]
fn two_adapters_add_up() {
    let device = Device::default();
    let config = &configs("llama")[0];
    let model = model("llama", &device);
    let mut model = with_random_b(attach(model, config, "one", 1).expect("attaches"), "one");
    set_active(&mut model, &[]).expect("there");
    let mut model = with_random_b(attach(model, config, "two", 2).expect("attaches"), "two");
    assert_eq!(adapter_names(&model), ["one", "two"]);
    // On the last layer's output alone the sum is linear: compare one layer.
    let x = {
        let _drawing = drawing();
        Tensor::<3>::random([1, 3, 24], Distribution::Default, &device)
    };
    let layer = |model: &AutoCausalLm| {
        let mut out = None;
        model.for_each_linear(&mut |path, linear| {
            if path == "model.layers.1.self_attn.q_proj" {
                out = Some(linear.forward(x.clone()));
            }
        });
        out.expect("the layer is there")
    };
    let mut with = |names: &[&str]| {
        set_active(&mut model, names).expect("there");
        layer(&model)
    };
    let (none, one, two, both) = (
        with(&[]),
        with(&["one"]),
        with(&["two"]),
        with(&["one", "two"]),
    );
    let sum = (one - none.clone()) + (two - none.clone()) + none;
    assert!(distance(&both.into_data(), &sum.into_data()) < 1e-4);
}

#[test]
fn dropout_acts_in_training_only_and_follows_the_seed() {
    let device = Device::default().autodiff();
    let config = LoraConfig {
        lora_dropout: 0.5,
        ..configs("llama").remove(0)
    };
    let model = attach(model("llama", &device), &config, "default", 1).expect("attaches");
    let model = with_random_b(model, "default");
    let _drawing = drawing();
    let draw = |seed| {
        device.seed(seed);
        logits(&model, &device)
    };
    assert_eq!(draw(1), draw(1));
    assert!(distance(&draw(1), &draw(2)) > 1e-3);
    let (valid, plain) = (model.valid(), Device::default());
    assert_eq!(logits(&valid, &plain), logits(&valid, &plain));
}

#[test]
fn the_seed_determines_the_factors() {
    let device = Device::default();
    let factors = |seed| {
        let model = attach(
            model("llama", &device),
            &LoraConfig::default(),
            "default",
            seed,
        );
        let mut all = Vec::new();
        model.expect("attaches").for_each_linear(&mut |_, linear| {
            all.extend(
                linear
                    .adapters
                    .iter()
                    .map(|a| a.val2("lora_A.weight").into_data()),
            );
        });
        all
    };
    assert_eq!(factors(1), factors(1));
    assert_ne!(factors(1), factors(2));
}

#[test]
fn mistakes_are_explained() {
    let device = Device::default();
    let config = LoraConfig::default();
    let nothing = LoraConfig {
        common: on(TargetModules::names(["query"])),
        ..config.clone()
    };
    let error = attach(model("llama", &device), &nothing, "default", 1).expect_err("refused");
    let message = error.to_string();
    assert!(
        message.contains("query") && message.contains("q_proj"),
        "{message}"
    );

    let model = attach(model("llama", &device), &config, "one", 1).expect("attaches");
    let error = attach(model.clone(), &config, "two", 1).expect_err("refused");
    assert!(
        matches!(error, Error::Stacked(ref name) if name == "one"),
        "{error}"
    );
    let mut model = model;
    set_active(&mut model, &[]).expect("there");
    let error = attach(model.clone(), &config, "one", 1).expect_err("refused");
    assert!(error.to_string().contains("already"), "{error}");
    let error = set_active(&mut model, &["three"]).expect_err("refused");
    assert!(error.to_string().contains("there are one"), "{error}");
    let error = attach(model, &config, "../up", 1).expect_err("refused");
    assert!(error.to_string().contains("slashes"), "{error}");
}

#[test]
fn a_broken_adapter_is_not_merged() {
    struct Poison;
    impl PathMapper for Poison {
        fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if path.ends_with("0.mlp.up_proj.adapters.default.lora_B.weight") {
                param.map(|tensor| tensor + f32::NAN)
            } else {
                param
            }
        }
    }
    let device = Device::default();
    let model = attach(
        model("llama", &device),
        &LoraConfig::default(),
        "default",
        1,
    );
    let model = map_params(model.expect("attaches"), &mut Poison);
    let error = merge_and_unload(model).expect_err("refused").to_string();
    assert!(error.contains("model.layers.0.mlp.up_proj"), "{error}");
}

/// A base held in the 16 bits of its file gives the losses and the gradients of the same base widened
/// first, with one adapter and with two, with dropout, and with blocks that are computed again.
#[test]
fn a_base_held_as_stored_trains_its_adapters_alike() {
    struct Gradients<'a>(&'a burn::tensor::Gradients, Vec<TensorData>);
    impl PathVisitor for Gradients<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            let gradient = param.val().grad(self.0);
            assert_eq!(gradient.is_some(), path.contains("lora_"), "{path}");
            self.1.extend(gradient.map(Tensor::into_data));
        }
    }
    let kept = Device::default().autodiff();
    for kind in ["llama", "gpt2"] {
        let folder = tempfile::TempDir::new().expect("temporary folder");
        let options = SaveOptions {
            dtype: FloatDType::BF16,
            ..SaveOptions::default()
        };
        (model(kind, &kept).save_pretrained(folder.path(), &options)).expect("saves");
        for device in [kept.clone(), kept.clone().gradient_checkpointing()] {
            for (dropout, adapters) in [(0.0, 1), (0.3, 1), (0.0, 2), (0.3, 2)] {
                let config = LoraConfig {
                    r: 4,
                    lora_dropout: dropout,
                    ..LoraConfig::default()
                };
                let [wide, stored] = [Weights::F32, Weights::Stored].map(|weights| {
                    let mut model =
                        AutoCausalLm::from_pretrained_with(folder.path(), &device, weights)
                            .expect("loads");
                    for name in &["one", "two"][..adapters] {
                        set_active(&mut model, &[]).expect("no adapter is active");
                        model = attach(model, &config, name, 3).expect("attaches");
                    }
                    set_active(&mut model, &["one", "two"][..adapters]).expect("active");
                    let model = set_trainable(model, &["one", "two"][..adapters]).expect("train");
                    // The same numbers in both, none of them zero.
                    with_numbers(model)
                });
                let run = |model: &AutoCausalLm| {
                    let _drawing = drawing();
                    device.seed(5);
                    let tokens = TokenBatch::from_ids(&[3, 14, 15, 9, 26, 5, 35], &device);
                    let hidden = model.hidden_states(&tokens, None);
                    let loss = causal_lm_loss(hidden, model.head(), &[3, 14, 15, 9, 26, 5, 35]).sum;
                    let grads = loss.backward();
                    let mut gradients = Gradients(&grads, vec![loss.into_data()]);
                    visit_params(model, &mut gradients);
                    gradients.1
                };
                let (found, expected) = (run(&stored), run(&wide));
                assert!(found.len() > 1 && found.len() == expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    let largest = expected.iter::<f32>().fold(0.0, |m: f32, x| m.max(x.abs()));
                    let off = distance(found, expected);
                    let case = format!("{kind}, dropout {dropout}, {adapters} adapters");
                    assert!(off <= 1e-4 * largest, "{case}: {off} of {largest}");
                }
            }
        }
    }
}

/// Fixed numbers in place of every factor's.
fn with_numbers(model: AutoCausalLm) -> AutoCausalLm {
    struct Fill;
    impl PathMapper for Fill {
        fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !path.contains("lora_") {
                return param;
            }
            let old = param.val();
            let count = old.shape().num_elements();
            let numbers: Vec<f32> = (0..count).map(|i| 0.2 * (i as f32 * 1.7).sin()).collect();
            let data = TensorData::new(numbers, old.shape());
            let id = param.id;
            param.transform_for_load(Tensor::from_data(data, &old.device()), id)
        }
    }
    map_params(model, &mut Fill)
}
