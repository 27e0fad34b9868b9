//! Operations on adapters that are attached: by row, swapped, scaled, merged and taken apart again, converted, compared.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use ft_core::module_path::{PathVisitor, visit_params};
use ft_core::safetensors_folder::{read_tensors, write_tensors};
use ft_core::{AutoCausalLm, CausalLm, Decoder, GenerationConfig, Parts, TokenBatch};
use ft_peft::{
    BitFitConfig, BoftConfig, FourierFtConfig, Ia3Config, InitLoraWeights, LnTuningConfig,
    LohaConfig, LoraConfig, Method, OftConfig, TargetModules, TrainableTokensConfig, VeraConfig,
    active_adapters, adapter_names, attach, compare, convert_to_lora, describe, hot_swap,
    load_adapter, merge_adapters, merge_and_unload, merge_report, save_adapter, scale_adapter,
    set_active, set_trainable, unload, unmerge_adapters, with_rows, without_adapters,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::golden::assert_close;
use crate::laws::{distance, logits, model};

/// Adds noise to every tensor of an adapter, so that it does something.
fn stirred(mut model: AutoCausalLm, name: &str) -> AutoCausalLm {
    let mut rng = StdRng::seed_from_u64(11);
    model.for_each_part_mut(&mut |_, mut part| {
        for adapter in part
            .adapters()
            .iter_mut()
            .filter(|adapter| adapter.name == name)
        {
            for tensor in adapter.tensors.iter_mut().filter(|tensor| tensor.trains()) {
                let data = tensor.data();
                let shape = data.shape().to_vec();
                let numbers = data.iter::<f32>().map(|x| x + rng.random_range(-0.2..0.2));
                let numbers: Vec<f32> = numbers.collect();
                tensor.set(TensorData::new(numbers, shape));
            }
        }
    });
    model
}

/// One more adapter, with noise; the others are switched off.
fn with(model: AutoCausalLm, config: &dyn Method, name: &str) -> AutoCausalLm {
    let mut model = model;
    set_active(&mut model, &[]).expect("nothing to know");
    stirred(attach(model, config, name, 1).expect("attaches"), name)
}

fn lora(r: usize) -> LoraConfig {
    LoraConfig {
        r,
        lora_alpha: 6.0,
        ..LoraConfig::default()
    }
}

fn batch(rows: &[[i64; 5]], device: &Device) -> TokenBatch {
    let ids: Vec<i64> = rows.iter().flatten().copied().collect();
    let ids = TensorData::new(ids, [rows.len(), 5]);
    TokenBatch::new(Tensor::<2, Int>::from_data(ids, device))
}

/// Every parameter by path, as its bits.
fn bits(model: &AutoCausalLm) -> BTreeMap<String, TensorData> {
    struct Collect(BTreeMap<String, TensorData>);
    impl PathVisitor for Collect {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            self.0.insert(path.to_string(), param.val().into_data());
        }
    }
    let mut collect = Collect(BTreeMap::new());
    visit_params(model, &mut collect);
    collect.0
}

/// Kinds that change inputs, products, outputs, norms, biases and whole weights.
fn methods() -> Vec<Box<dyn Method>> {
    let mut with_copies = lora(4);
    with_copies.common.modules_to_save = vec!["lm_head".into()];
    let tokens = TrainableTokensConfig {
        token_indices: vec![3, 9, 14],
        ..TrainableTokensConfig::default()
    };
    vec![
        Box::new(lora(4)),
        Box::new(with_copies),
        Box::new(LoraConfig {
            use_dora: true,
            ..lora(4)
        }),
        Box::new(LoraConfig {
            lora_bias: true,
            ..lora(4)
        }),
        Box::new(LoraConfig {
            init_lora_weights: InitLoraWeights::Pissa,
            ..lora(4)
        }),
        Box::new(Ia3Config::default()),
        Box::new(LnTuningConfig::default()),
        Box::new(VeraConfig {
            r: 6,
            ..VeraConfig::default()
        }),
        Box::new(OftConfig {
            oft_block_size: 4,
            ..OftConfig::default()
        }),
        Box::new(BoftConfig::default()),
        Box::new(BitFitConfig::default()),
        Box::new(tokens),
    ]
}

#[test]
fn rows_get_what_they_get_alone() {
    let device = Device::default();
    let rows = [
        [3, 14, 15, 9, 26],
        [5, 35, 8, 9, 7],
        [9, 3, 2, 3, 8],
        [4, 6, 2, 6, 4],
    ];
    for kind in ["llama", "gpt2"] {
        for method in methods() {
            let made = with(model(kind, &device), &*method, "one");
            let made = with(made, &lora(3), "two");
            let adapters = [Some("one"), None, Some("two"), Some("one")];
            let together = with_rows(&made, &adapters).expect("known");
            let found = together.logits(&batch(&rows, &device), None);
            for (i, name) in adapters.into_iter().enumerate() {
                let mut alone = made.clone();
                set_active(&mut alone, name.as_slice()).expect("known");
                let expected = alone.logits(&batch(&rows[i..=i], &device), None);
                let found = found.clone().narrow(0, i, 1).into_data();
                let apart = distance(&found, &expected.into_data());
                assert!(
                    apart < 1e-4,
                    "{kind} {} row {i}: {apart}",
                    method.peft_type()
                );
            }
        }
    }
}

#[test]
fn rows_of_one_adapter_are_that_adapter_and_unknown_ones_are_refused() {
    let device = Device::default();
    let made = with(model("llama", &device), &lora(4), "one");
    let tokens = batch(&[[3, 14, 15, 9, 26], [5, 35, 8, 9, 7]], &device);
    let all = with_rows(&made, &[Some("one"); 2]).expect("known");
    assert_eq!(
        all.logits(&tokens, None).into_data(),
        made.logits(&tokens, None).into_data()
    );
    let none = with_rows(&made, &[None; 2]).expect("no names");
    let base = without_adapters(&made).logits(&tokens, None).into_data();
    assert_eq!(none.logits(&tokens, None).into_data(), base);
    let error = with_rows(&made, &[Some("two")])
        .expect_err("unknown")
        .to_string();
    assert!(error.contains("there are: one"), "{error}");
    assert!(with_rows(&made, &[]).is_err());
    let some = with_rows(&made, &[Some("one"), None]).expect("known");
    assert!(scale_adapter(&mut some.clone(), "one", 2.0).is_err());
    let error = merge_and_unload(some)
        .expect_err("no weight does that")
        .to_string();
    assert!(error.contains("some rows"), "{error}");
}

/// An adapter in a folder of its own.
fn saved(config: &dyn Method, folder: &Path) -> AutoCausalLm {
    let made = with(model("llama", &Device::default()), config, "default");
    save_adapter(&made, "default", folder).expect("saves");
    made
}

#[test]
fn a_swapped_adapter_is_the_one_of_the_file() {
    let device = Device::default();
    let first = tempfile::tempdir().expect("a folder");
    let second = tempfile::tempdir().expect("a folder");
    saved(&lora(4), first.path());
    let config = LoraConfig {
        use_rslora: true,
        rank_pattern: vec![("q_proj".into(), 5)],
        alpha_pattern: vec![("v_proj".into(), 3.0)],
        ..lora(2)
    };
    let expected = saved(&config, second.path());
    for trainable in [false, true] {
        let base = model("llama", &device.clone().autodiff());
        let mut swapped = load_adapter(base, first.path(), "default", trainable).expect("loads");
        hot_swap(&mut swapped, "default", second.path()).expect("swaps");
        let inner = Device::default();
        let found = logits(&swapped, &device.clone().autodiff());
        assert!(distance(&found, &logits(&expected, &inner)) < 1e-5);
        let about = &describe(&swapped).0[0];
        assert_eq!(about.ranks, [2, 5]);
        assert!(about.active && (about.trainable_parameters > 0) == trainable);
        // Switched off stays off.
        set_active(&mut swapped, &[]).expect("no names");
        hot_swap(&mut swapped, "default", first.path()).expect("swaps");
        assert!(active_adapters(&swapped).is_empty());
    }
}

#[test]
fn a_swap_that_does_not_fit_changes_nothing() {
    let first = tempfile::tempdir().expect("a folder");
    let other = tempfile::tempdir().expect("a folder");
    let made = saved(&lora(4), first.path());
    let refused = |part: &str| {
        let mut swapped = made.clone();
        let error = hot_swap(&mut swapped, "default", other.path()).expect_err(part);
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(bits(&swapped), bits(&made));
        assert_eq!(active_adapters(&swapped), ["default"]);
    };
    saved(&Ia3Config::default(), other.path());
    refused("it is IA3");
    saved(
        &lora(4).with_targets(TargetModules::names(["q_proj"])),
        other.path(),
    );
    refused("it lacks layers");
    saved(&lora(4), other.path());
    let file = other.path().join("adapter_model.safetensors");
    let tensors = read_tensors(&file).expect("reads");
    let mut fewer: Vec<_> = tensors.into_iter().collect();
    fewer.pop();
    write_tensors(&file, &fewer, &Default::default()).expect("writes");
    refused("missing (1)");
    let mut swapped = made.clone();
    assert!(hot_swap(&mut swapped, "nobody", first.path()).is_err());
}

#[test]
fn a_scaled_adapter_has_another_alpha_in_its_file_too() {
    let device = Device::default();
    let place = tempfile::tempdir().expect("a folder");
    let config = LoraConfig {
        alpha_pattern: vec![("v_proj".into(), 3.0)],
        ..lora(4)
    };
    let mut scaled = with(model("llama", &device), &config, "default");
    let once = compare_norm(&scaled);
    scale_adapter(&mut scaled, "default", 2.5).expect("has a scale");
    assert!((compare_norm(&scaled) / once - 2.5).abs() < 1e-4);
    save_adapter(&scaled, "default", place.path()).expect("saves");
    let loaded = load_adapter(model("llama", &device), place.path(), "default", false);
    let loaded = loaded.expect("loads");
    assert!(distance(&logits(&loaded, &device), &logits(&scaled, &device)) < 1e-5);
    for wrong in [0.0, -1.0, f64::NAN] {
        assert!(scale_adapter(&mut scaled, "default", wrong).is_err());
    }
    for method in [
        Box::new(LohaConfig::default()) as Box<dyn Method>,
        Box::new(FourierFtConfig {
            n_frequency: 50,
            ..FourierFtConfig::default()
        }),
    ] {
        let mut scaled = with(model("llama", &device), &*method, "default");
        let once = compare_norm(&scaled);
        scale_adapter(&mut scaled, "default", 0.5).expect("has a scale");
        assert!((compare_norm(&scaled) / once - 0.5).abs() < 1e-4);
    }
    let mut ia3 = with(model("llama", &device), &Ia3Config::default(), "default");
    let error = scale_adapter(&mut ia3, "default", 2.0)
        .expect_err("no scale")
        .to_string();
    assert!(error.contains("convert_to_lora"), "{error}");
}

/// How large the changes of the adapter `default` are.
fn compare_norm(model: &AutoCausalLm) -> f64 {
    compare(model, "default", "default")
        .expect("linear layers")
        .norms[0]
}

#[test]
fn unmerged_is_as_before_to_the_bit() {
    let device = Device::default();
    for method in methods() {
        for kind in ["llama", "gpt2"] {
            let made = with(model(kind, &device), &*method, "one");
            let mut made = with(made, &lora(3), "two");
            set_active(&mut made, &["one", "two"]).expect("known");
            let (before, expected) = (bits(&made), logits(&made, &device));
            let mut merged = made.clone();
            merge_adapters(&mut merged).expect("merges");
            assert!(distance(&logits(&merged, &device), &expected) < 2e-4);
            assert_eq!(active_adapters(&merged), ["merged"]);
            assert!(merge_adapters(&mut merged).is_err());
            // Another adapter in the place of the merged weights acts on the base.
            let mut other = merged.clone();
            set_active(&mut other, &["two"]).expect("known");
            let mut two = made.clone();
            set_active(&mut two, &["two"]).expect("known");
            assert_eq!(logits(&other, &device), logits(&two, &device));
            unmerge_adapters(&mut merged).expect("merged");
            assert_eq!(bits(&merged), before);
            assert_eq!(logits(&merged, &device), expected);
            assert_eq!(adapter_names(&merged), adapter_names(&made));
            assert!(unmerge_adapters(&mut merged).is_err());
        }
    }
}

#[test]
fn what_is_not_finite_is_not_merged_and_nothing_is_lost() {
    let device = Device::default();
    for (method, tensor) in [
        (Box::new(lora(4)) as Box<dyn Method>, "lora_B.weight"),
        (
            Box::new(LnTuningConfig::default()),
            "ln_tuning_layers.weight",
        ),
    ] {
        let mut made = with(model("llama", &device), &*method, "default");
        let mut done = false;
        made.for_each_part_mut(&mut |_, mut part| {
            for adapter in part.adapters().iter_mut() {
                let mut tensors = adapter.tensors.iter_mut();
                let found = tensors.find(|found| found.name() == tensor && !done);
                if let Some(found) = found {
                    let shape = found.shape().to_vec();
                    let count = shape.iter().product();
                    found.set(TensorData::new(vec![f32::NAN; count], shape));
                    done = true;
                }
            }
        });
        let before = bits(&made);
        let error = merge_adapters(&mut made)
            .expect_err("not finite")
            .to_string();
        assert!(error.contains("adapter \"default\""), "{error}");
        assert_eq!(active_adapters(&made), ["default"]);
        // NaN is not equal to itself: compare the texts.
        assert_eq!(format!("{before:?}"), format!("{:?}", bits(&made)));
        assert!(merge_and_unload(made).is_err());
    }
}

#[test]
fn a_report_gives_the_rounding_of_merged_weights() {
    let device = Device::default();
    for kind in ["llama", "gpt2"] {
        let made = with(model(kind, &device), &lora(4), "default");
        let exact = merge_report(&made, FloatDType::F32).expect("merges");
        assert_eq!(exact.error, 0.0);
        let report = merge_report(&made, FloatDType::BF16).expect("merges");
        let base = weights(&unload(made.clone()));
        let merged = weights(&merge_and_unload(made).expect("merges"));
        assert_eq!(report.layers.len(), exact.layers.len());
        for layer in &report.layers {
            let (base, merged) = (&base[&layer.layer], &merged[&layer.layer]);
            let rounded = merged.clone().cast(FloatDType::BF16).cast(FloatDType::F32);
            let norm = |x: Tensor<2>| f64::from(x.square().sum().sqrt().into_scalar::<f32>());
            let rounding = norm(rounded - merged.clone());
            let change = norm(merged.clone() - base.clone());
            assert!((layer.rounding - rounding).abs() < 1e-5 * rounding);
            assert!((layer.error - rounding / change).abs() < 1e-4 * layer.error);
            // 8 bits of mantissa: at most 2⁻⁹ of each number.
            assert!(layer.rounding > 0.0 && layer.rounding < norm(merged.clone()) / 512.0);
        }
        assert!(report.error > 0.0 && report.error < 0.1, "{}", report.error);
    }
}

fn weights(model: &AutoCausalLm) -> BTreeMap<String, Tensor<2>> {
    let mut found = BTreeMap::new();
    model.for_each_linear(&mut |path, linear| {
        found.insert(path.to_string(), linear.weight.val());
    });
    found
}

#[test]
fn converted_adapters_change_the_same_up_to_the_error() {
    let device = Device::default();
    for (kind, method, rank, exact) in [
        ("llama", Box::new(lora(4)) as Box<dyn Method>, 4, true),
        ("gpt2", Box::new(lora(4)), 4, true),
        ("llama", Box::new(lora(4)), 2, false),
        (
            "llama",
            Box::new(LoraConfig {
                init_lora_weights: InitLoraWeights::Pissa,
                ..lora(4)
            }),
            8,
            true,
        ),
        // Vectors change the weights with all ranks.
        ("llama", Box::new(Ia3Config::default()), 24, true),
        ("llama", Box::new(Ia3Config::default()), 8, false),
    ] {
        let made = with(model(kind, &device), &*method, "default");
        let (mut converted, loss) =
            convert_to_lora(made.clone(), "default", rank, "new").expect("converts");
        let compared = compare(&converted, "default", "new").expect("linear layers");
        for (layer, compared) in loss.layers.iter().zip(&compared.layers) {
            assert_eq!(layer.layer, compared.layer);
            // The nearest matrix is a projection: ‖Δ‖² = ‖BA‖² + ‖Δ − BA‖², and the cosine is ‖BA‖/‖Δ‖.
            let [whole, near] = compared.norms;
            let rest = (layer.error * layer.change).powi(2);
            assert!((whole * whole - near * near - rest).abs() < 1e-3 * whole * whole);
            let cosine = compared.cosine.expect("both change something");
            assert!((cosine - near / whole).abs() < 1e-3);
        }
        match exact {
            true => assert!(loss.error < 1e-5, "{}", loss.error),
            false => assert!(loss.error > 0.05 && loss.error < 1.0, "{}", loss.error),
        }
        set_active(&mut converted, &["new"]).expect("known");
        let apart = distance(&logits(&converted, &device), &logits(&made, &device));
        assert_eq!(apart < 1e-3, exact, "{apart}");
    }
}

#[test]
fn what_is_more_than_a_change_of_weights_is_not_converted() {
    let device = Device::default();
    for (kind, method, part) in [
        (
            "gpt2",
            Box::new(Ia3Config::default()) as Box<dyn Method>,
            "changes the bias",
        ),
        (
            "llama",
            Box::new(LnTuningConfig::default()),
            "more than weights of linear layers",
        ),
    ] {
        let mut base = model(kind, &device);
        base.for_each_linear_mut(&mut |_, linear| {
            let ones = linear.bias.as_ref().map(|bias| bias.val().ones_like());
            linear.bias = ones.map(Param::from_tensor);
        });
        let made = with(base, &*method, "default");
        let error = convert_to_lora(made, "default", 4, "new")
            .expect_err("refused")
            .to_string();
        assert!(error.contains(part), "{error}");
    }
    let made = with(model("llama", &device), &lora(4), "default");
    assert!(convert_to_lora(made.clone(), "default", 0, "new").is_err());
    assert!(convert_to_lora(made.clone(), "default", 4, "default").is_err());
    assert!(convert_to_lora(made, "nobody", 4, "new").is_err());
}

#[test]
fn adapters_are_described_and_compared() {
    let device = Device::default();
    let one = lora(4).with_targets(TargetModules::names(["q_proj", "v_proj"]));
    let made = with(model("llama", &device), &one, "one");
    let two = lora(2).with_targets(TargetModules::names(["q_proj"]));
    let made = with(made, &two, "two");
    let about = describe(&made);
    // Two blocks; q_proj is 24×24, v_proj 12×24 (two heads of six).
    let of_q = 4 * (24 + 24);
    let of_v = 4 * (24 + 12);
    assert_eq!(about.0[0].parameters, 2 * (of_q + of_v));
    assert_eq!(about.0[0].bytes, 4 * about.0[0].parameters);
    assert_eq!((about.0[0].layers, about.0[1].layers), (4, 2));
    let began = LoraConfig {
        init_lora_weights: InitLoraWeights::Pissa,
        ..one.clone()
    };
    let began = with(model("llama", &device), &began, "one");
    assert_eq!(describe(&began).0[0].parameters, about.0[0].parameters);
    assert_eq!((about.0[0].active, about.0[1].active), (false, true));
    assert_eq!(about.0[0].trainable_parameters, 0);
    let text = about.to_string();
    assert!(text.contains("LORA") && text.lines().count() == 3, "{text}");

    let compared = compare(&made, "one", "two").expect("linear layers");
    assert_eq!(compared.settings["r"], [json!(4), json!(2)]);
    assert!(!compared.settings.contains_key("lora_alpha"));
    let v = compared
        .layers
        .iter()
        .find(|layer| layer.layer.ends_with("v_proj"));
    let v = v.expect("one of them is there");
    assert!(v.norms[0] > 0.0 && v.norms[1] == 0.0 && v.cosine.is_none());
    let same = compare(&made, "one", "one").expect("linear layers");
    assert!(same.settings.is_empty() && (same.cosine.expect("changes") - 1.0).abs() < 1e-6);
    assert!(same.to_string().contains("##########"));
}

/// The tokens that follow a prompt, one row alone.
fn continued(model: &AutoCausalLm, prompt: &[u32], config: &GenerationConfig) -> Vec<u32> {
    let device = Device::default();
    let mut decoder = Decoder::new(model, None, &device);
    decoder.join(prompt, config).expect("joins");
    let mut tokens = Vec::new();
    while !decoder.is_empty() {
        tokens.extend(
            decoder
                .step()
                .expect("steps")
                .iter()
                .map(|next| next.token_id),
        );
    }
    tokens
}

#[test]
fn decoded_rows_have_adapters_of_their_own() {
    let device = Device::default();
    let made = with(model("llama", &device), &lora(4), "one");
    let made = with(made, &Ia3Config::default(), "two");
    let config = GenerationConfig {
        max_new_tokens: 6,
        ..GenerationConfig::default()
    };
    let prompts: [(&[u32], Option<&str>); 4] = [
        (&[3, 14, 15], Some("one")),
        (&[9, 2], None),
        (&[5, 35, 8, 9], Some("two")),
        (&[9, 2], Some("one")),
    ];
    let mut decoder = Decoder::new(&made, None, &device);
    let mut rows = Vec::new();
    for (prompt, adapter) in prompts {
        rows.push((
            decoder.join_as(prompt, &config, adapter).expect("joins"),
            Vec::new(),
        ));
        // Rows join while others run.
        for next in decoder.step().expect("steps") {
            let row = rows.iter_mut().find(|(id, _)| *id == next.row);
            row.expect("joined").1.push(next.token_id);
        }
    }
    while !decoder.is_empty() {
        for next in decoder.step().expect("steps") {
            let row = rows.iter_mut().find(|(id, _)| *id == next.row);
            row.expect("joined").1.push(next.token_id);
        }
    }
    for ((prompt, adapter), (_, tokens)) in prompts.into_iter().zip(&rows) {
        let mut alone = made.clone();
        set_active(&mut alone, adapter.as_slice()).expect("known");
        assert_eq!(*tokens, continued(&alone, prompt, &config), "{adapter:?}");
    }
    // A row that says nothing has the active adapter.
    assert_eq!(active_adapters(&made), ["two"]);
    let mut alone = made.clone();
    set_active(&mut alone, &["one"]).expect("known");
    assert_ne!(
        continued(&made, &[9, 2], &config),
        continued(&alone, &[9, 2], &config)
    );
    let mut decoder = Decoder::new(&made, None, &device);
    assert!(decoder.join_as(&[1], &config, Some("three")).is_err());
    let mut both = made.clone();
    set_active(&mut both, &["one", "two"]).expect("known");
    assert!(
        Decoder::new(&both, None, &device)
            .join_as(&[1], &config, None)
            .is_err()
    );
}

/// The gradient of the sum of the logits with respect to every tensor of an adapter, in the order of the layers.
fn gradients(made: &AutoCausalLm, name: &str, tokens: &TokenBatch) -> Vec<TensorData> {
    let gradients = made.logits(tokens, None).sum().backward();
    let mut found = Vec::new();
    made.for_each_part(&mut |_, part| {
        for adapter in part
            .adapters()
            .iter()
            .filter(|adapter| adapter.name == name)
        {
            for tensor in &adapter.tensors {
                let gradient = tensor.val2().grad(&gradients);
                found.push(
                    gradient
                        .map_or_else(|| tensor.val2().zeros_like().into_data(), |g| g.into_data()),
                );
            }
        }
    });
    found
}

#[test]
fn an_adapter_trains_on_its_rows_only() {
    let device = Device::default().autodiff();
    let rows = [[3, 14, 15, 9, 26], [5, 35, 8, 9, 7], [9, 3, 2, 3, 8]];
    let made = with(model("llama", &device), &lora(4), "one");
    let made = with(made, &lora(3), "two");
    let made = set_trainable(made, &["one", "two"]).expect("known");
    let together = with_rows(&made, &[Some("one"), Some("two"), Some("one")]).expect("known");
    let of_batch = |name| gradients(&together, name, &batch(&rows, &device));
    for (name, own) in [("one", vec![rows[0], rows[2]]), ("two", vec![rows[1]])] {
        let mut alone = made.clone();
        set_active(&mut alone, &[name]).expect("known");
        let expected = gradients(&alone, name, &batch(&own, &device));
        for (found, expected) in of_batch(name).iter().zip(&expected) {
            assert_close(name, found, expected, 1e-4);
        }
    }
}
