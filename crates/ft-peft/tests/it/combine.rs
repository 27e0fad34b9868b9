//! Combined adapters, against those that PEFT makes (`golden/combine.py`), and the laws of combining.

use std::any::Any;

use burn::tensor::{Device, Tensor, TensorData};
use ft_core::safetensors_folder::read_tensors;
use ft_core::{AutoCausalLm, Parts};
use ft_peft::{
    Combination, CombinationType, Ia3Config, LoraConfig, MajoritySign, TargetModules,
    active_adapters, adapter_config, adapter_names, attach, combine, load_adapter, merge_report,
    save_adapter, set_active, unload,
};

use crate::adapted_models::{distance, logits, model, with_random_b};
use crate::golden::{assert_close, folder, saved_settings};

/// The base with adapters of these names, all switched off.
fn with_adapters(names: &[&str]) -> AutoCausalLm {
    let base = folder("peft_llama");
    let mut model = AutoCausalLm::from_pretrained(&base, &Device::default()).expect("loads");
    for name in names {
        let place = folder("combine").join(name);
        model = load_adapter(model, &place, name, false).expect("loads");
        set_active(&mut model, &[]).expect("known");
    }
    model
}

/// The change `s·BA` of every layer, or the vector of IA3.
fn changes(model: &AutoCausalLm, name: &str) -> Vec<(String, TensorData)> {
    let config = adapter_config(model, name).expect("attached");
    let config: &dyn Any = &*config;
    let lora = config.downcast_ref::<LoraConfig>();
    let mut found = Vec::new();
    model.for_each_linear(&mut |path, linear| {
        for adapter in linear
            .adapters
            .iter()
            .filter(|adapter| adapter.name == name)
        {
            let change = match lora {
                Some(lora) => {
                    assert_eq!(lora.lora_alpha, lora.r as f64, "the scale is 1");
                    adapter
                        .val2("lora_B.weight")
                        .matmul(adapter.val2("lora_A.weight"))
                }
                None => adapter.val2("ia3_l"),
            };
            found.push((path.to_string(), change.into_data()));
        }
    });
    found
}

/// The name of a golden case, adapters with their weights, and how they are combined.
type Case = (&'static str, Vec<(&'static str, f64)>, Combination);

/// The cases of `golden/combine.py`.
fn cases() -> Vec<Case> {
    let of = |combination_type| Combination {
        combination_type,
        ..Combination::default()
    };
    let pruned = |combination_type, density| Combination {
        density: Some(density),
        ..of(combination_type)
    };
    vec![
        (
            "linear",
            vec![("a", 1.0), ("b", -0.5)],
            of(CombinationType::Linear),
        ),
        (
            "cat",
            vec![("a", 0.7), ("c", -0.4)],
            of(CombinationType::Cat),
        ),
        (
            "svd",
            vec![("a", 0.7), ("c", 0.4)],
            of(CombinationType::Svd),
        ),
        (
            "svd_rank",
            vec![("a", 0.7), ("b", 0.4)],
            Combination {
                svd_rank: Some(3),
                ..of(CombinationType::Svd)
            },
        ),
        (
            "svd_clamp",
            vec![("a", 0.7), ("b", 0.4)],
            Combination {
                svd_clamp: Some(0.9),
                ..of(CombinationType::Svd)
            },
        ),
        (
            "ties_total",
            vec![("a", 1.0), ("b", 0.5), ("d", 2.0)],
            pruned(CombinationType::Ties, 0.5),
        ),
        (
            "ties_frequency",
            vec![("a", 1.0), ("b", 0.5), ("d", -2.0)],
            Combination {
                majority_sign_method: MajoritySign::Frequency,
                ..pruned(CombinationType::Ties, 0.7)
            },
        ),
        (
            "ties_svd",
            vec![("a", 1.0), ("b", 0.5), ("c", 0.8)],
            pruned(CombinationType::TiesSvd, 0.4),
        ),
        (
            "magnitude_prune",
            vec![("a", 1.0), ("b", 0.5)],
            pruned(CombinationType::MagnitudePrune, 0.3),
        ),
        (
            "magnitude_prune_svd",
            vec![("a", 1.0), ("c", 0.5)],
            pruned(CombinationType::MagnitudePruneSvd, 0.3),
        ),
        ("ia3", vec![("x", 0.3), ("y", 0.9)], Combination::default()),
    ]
}

#[test]
fn combinations_are_those_of_peft() {
    let expected = read_tensors(&folder("combine").join("combined.safetensors")).expect("golden");
    for (case, adapters, how) in cases() {
        let names: Vec<&str> = adapters.iter().map(|(name, _)| *name).collect();
        let model = combine(with_adapters(&names), &adapters, "new", &how).expect(case);
        assert!(active_adapters(&model).is_empty());
        let found = changes(&model, "new");
        let of_case = expected
            .keys()
            .filter(|key| key.starts_with(&format!("{case}.")))
            .count();
        assert_eq!(found.len(), of_case, "{case}");
        for (layer, change) in found {
            let key = format!("{case}.{layer}");
            assert_close(&key, &change, &expected[&key], 2e-5);
        }
    }
}

/// Adapters of both layouts whose sum is known: that of both switched on.
fn two_lora(kind: &str, rslora: bool) -> AutoCausalLm {
    let device = Device::default();
    let mut made = model(kind, &device);
    for (name, r) in [("one", 3), ("two", 5)] {
        let config = LoraConfig {
            r,
            lora_alpha: 4.0,
            use_rslora: rslora,
            ..LoraConfig::default()
        };
        set_active(&mut made, &[]).expect("no names");
        made = with_random_b(attach(made, &config, name, 3).expect("attaches"), name);
    }
    made
}

#[test]
fn cat_and_svd_of_full_rank_are_both_adapters_at_once() {
    for (kind, rslora) in [("llama", false), ("gpt2", false), ("llama", true)] {
        let device = Device::default();
        let mut made = two_lora(kind, rslora);
        set_active(&mut made, &["one", "two"]).expect("known");
        let both = logits(&made, &device);
        let svd = Combination {
            svd_rank: Some(8),
            ..Combination::default()
        };
        let cat = Combination {
            combination_type: CombinationType::Cat,
            ..Combination::default()
        };
        for how in [cat, svd] {
            let adapters = [("one", 1.0), ("two", 1.0)];
            let mut new = combine(made.clone(), &adapters, "new", &how).expect("combines");
            set_active(&mut new, &["new"]).expect("known");
            assert!(distance(&logits(&new, &device), &both) < 2e-4);
            // The result is a plain adapter.
            let place = tempfile::tempdir().expect("a folder");
            let at = save_adapter(&new, "new", place.path()).expect("saves");
            let loaded = load_adapter(unload(new), &at, "default", false).expect("loads");
            assert!(distance(&logits(&loaded, &device), &both) < 2e-4);
        }
    }
}

#[test]
fn dare_that_keeps_all_is_what_it_is_without() {
    for (with, without) in [
        (CombinationType::DareLinear, CombinationType::Linear),
        (CombinationType::DareTies, CombinationType::Ties),
        (CombinationType::DareTiesSvd, CombinationType::TiesSvd),
        (CombinationType::DareLinearSvd, CombinationType::Svd),
    ] {
        let made = |combination_type| {
            let prunes = !matches!(
                combination_type,
                CombinationType::Linear | CombinationType::Svd
            );
            let how = Combination {
                combination_type,
                density: prunes.then_some(1.0),
                ..Combination::default()
            };
            let adapters = [("a", 0.5), ("b", 0.25)];
            let model = combine(with_adapters(&["a", "b"]), &adapters, "new", &how);
            changes(&model.expect("combines"), "new")
        };
        for ((layer, left), (_, right)) in made(with).iter().zip(made(without)) {
            assert_close(&format!("{with} {layer}"), left, &right, 1e-5);
        }
    }
}

#[test]
fn dare_follows_its_seed() {
    let made = |seed| {
        let how = Combination {
            combination_type: CombinationType::DareLinear,
            density: Some(0.5),
            seed,
            ..Combination::default()
        };
        let model = combine(
            with_adapters(&["a", "b"]),
            &[("a", 1.0), ("b", 1.0)],
            "new",
            &how,
        );
        changes(&model.expect("combines"), "new")
    };
    assert_eq!(made(1), made(1));
    assert_ne!(made(1), made(2));
}

#[test]
fn a_missing_vector_counts_as_one() {
    let mut made = model("llama", &Device::default());
    for (name, targets) in [("one", vec!["k_proj"]), ("two", vec!["k_proj", "v_proj"])] {
        let config = Ia3Config {
            feedforward_modules: Some(TargetModules::names(Vec::<String>::new())),
            init_ia3_weights: false,
            ..Ia3Config::default()
        };
        set_active(&mut made, &[]).expect("no names");
        made = attach(
            made,
            &config.with_targets(TargetModules::names(targets)),
            name,
            5,
        )
        .expect("attaches");
    }
    let adapters = [("one", 0.25), ("two", 0.5)];
    let made = combine(made, &adapters, "new", &Combination::default()).expect("combines");
    let (two, new) = (changes(&made, "two"), changes(&made, "new"));
    assert_eq!(two.len(), new.len());
    let at = new
        .iter()
        .position(|(layer, _)| layer.ends_with("v_proj"))
        .expect("there");
    let device = Device::default();
    let expected = Tensor::<2>::from_data(two[at].1.clone(), &device) * 0.5 + 0.25;
    assert_close("v_proj", &new[at].1, &expected.into_data(), 1e-6);
}

#[test]
fn what_cannot_be_combined_is_refused() {
    let refused = |adapters: &[(&str, f64)], name: &str, how: Combination, part: &str| {
        let model = with_adapters(&["a", "c", "x"]);
        let error = combine(model, adapters, name, &how)
            .expect_err(part)
            .to_string();
        assert!(error.contains(part), "{error}");
    };
    let of = |combination_type| Combination {
        combination_type,
        ..Combination::default()
    };
    let svd = Combination::default;
    refused(&[("a", 1.0)], "c", svd(), "attached already");
    refused(
        &[("a", 1.0), ("nobody", 1.0)],
        "new",
        svd(),
        "no adapter is called",
    );
    refused(&[("a", 1.0), ("a", 1.0)], "new", svd(), "given twice");
    refused(&[("a", f64::NAN)], "new", svd(), "the weight of adapter");
    refused(&[], "new", svd(), "nothing to combine");
    refused(&[("a", 1.0), ("x", 1.0)], "new", svd(), "different methods");
    refused(
        &[("a", 1.0), ("c", 1.0)],
        "new",
        of(CombinationType::Linear),
        "equal ranks",
    );
    refused(
        &[("a", 1.0)],
        "new",
        of(CombinationType::Ties),
        "needs density",
    );
    refused(
        &[("x", 1.0)],
        "new",
        Combination {
            density: Some(0.5),
            ..of(CombinationType::Ties)
        },
        "vectors of IA3",
    );
    refused(
        &[("a", 1.0)],
        "new",
        Combination {
            majority_sign_method: MajoritySign::Frequency,
            ..of(CombinationType::Cat)
        },
        "majority_sign_method has no effect on cat",
    );
    let both = Combination {
        density: Some(0.5),
        svd_rank: Some(0),
        svd_clamp: Some(2.0),
        ..Combination::default()
    };
    for part in ["density has no effect", "svd_rank must", "svd_clamp must"] {
        refused(&[("a", 1.0)], "new", both.clone(), part);
    }
    let unknown = "tie"
        .parse::<CombinationType>()
        .expect_err("unknown")
        .to_string();
    assert!(unknown.contains("ties_svd"), "{unknown}");
}

#[test]
fn a_combination_leaves_the_others_as_they_are() {
    let before = with_adapters(&["a", "b"]);
    let how = Combination::default();
    let after = combine(before.clone(), &[("a", 1.0), ("b", 1.0)], "new", &how).expect("combines");
    assert_eq!(adapter_names(&after), ["a", "b", "new"]);
    for name in ["a", "b"] {
        let config = |model| adapter_config(model, name).expect("there").own();
        assert_eq!(config(&before), config(&after));
    }
    let report = merge_report(&after, burn::tensor::FloatDType::F32).expect("nothing is active");
    assert!(report.layers.is_empty());
}

/// PEFT requires that `feedforward_modules` are among `target_modules`.
#[test]
fn combined_vectors_name_layers_alike() {
    for kind in ["llama", "gpt2"] {
        let base = model(kind, &Device::default());
        let mut both = attach(base, &Ia3Config::default(), "one", 1).expect("attaches");
        set_active(&mut both, &[]).expect("no names");
        let both = attach(both, &Ia3Config::default(), "two", 2).expect("attaches");
        let both = combine(
            both,
            &[("one", 0.5), ("two", 0.5)],
            "both",
            &Combination::default(),
        );
        let both = both.expect("combines");
        let folder = tempfile::tempdir().expect("a folder");
        let place = save_adapter(&both, "both", folder.path()).expect("saves");
        let settings = saved_settings(&place);
        let names = |key: &str| {
            let names = settings[key].as_array().expect("names").iter();
            names
                .map(|name| name.as_str().expect("a name").to_string())
                .collect::<Vec<_>>()
        };
        let (feedforward, targets) = (names("feedforward_modules"), names("target_modules"));
        assert!(!feedforward.is_empty());
        assert!(
            feedforward.iter().all(|name| targets.contains(name)),
            "{feedforward:?} {targets:?}"
        );
        let loaded = load_adapter(unload(both.clone()), &place, "both", false).expect("loads");
        assert_eq!(changes(&loaded, "both"), changes(&both, "both"));
    }
    let apart = Ia3Config {
        feedforward_modules: Some(TargetModules::names(["mlp.down_proj"])),
        ..Ia3Config::default()
    };
    let error = apart
        .with_targets(TargetModules::names(["k_proj", "down_proj"]))
        .validate();
    assert!(
        error
            .expect_err("not among them")
            .to_string()
            .contains("mlp.down_proj")
    );
}
