//! Laws of LoRA's relatives: DoRA, factors taken from the base, EVA, LoRA-FA.

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::layers::{Adapter, At, Linear};
use ft_core::{AutoCausalLm, CausalLm, Layout, Parts, TokenBatch, causal_lm_loss};
use ft_peft::{
    EvaConfig, InitLoraWeights, LoraConfig, TargetModules, adapter_config, attach, eva_initialise,
    into_plain_lora, load_adapter, lora_fa, save_adapter, set_trainable, trainable_parameters,
};
use serde_json::json;

use crate::laws::{distance, drawing, logits, model, stir};

fn dora() -> LoraConfig {
    LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        use_dora: true,
        ..LoraConfig::default()
    }
}

fn with_init(init_lora_weights: InitLoraWeights) -> LoraConfig {
    LoraConfig {
        init_lora_weights,
        use_dora: false,
        ..dora()
    }
}

/// Gives magnitudes numbers that do something.
pub(crate) fn stir_magnitudes(mut model: AutoCausalLm) -> AutoCausalLm {
    model.for_each_linear_mut(&mut |_, linear| {
        let tensors = linear
            .adapters
            .iter_mut()
            .flat_map(|adapter| &mut adapter.tensors);
        for tensor in tensors.filter(|tensor| tensor.name() == "lora_magnitude_vector") {
            let m = tensor.val1();
            let factors = Tensor::arange(0..m.dims()[0] as i64, &m.device()).float() * 0.02 + 0.8;
            tensor.set((m * factors).into_data());
        }
    });
    model
}

#[test]
fn a_fresh_relative_changes_nothing_but_rounding() {
    let device = Device::default();
    for kind in ["llama", "gpt2"] {
        let base = model(kind, &device);
        let before = logits(&base, &device);
        for init in [
            InitLoraWeights::Orthogonal,
            InitLoraWeights::Pissa,
            InitLoraWeights::PissaNiter(3),
            InitLoraWeights::Olora,
            InitLoraWeights::Mica,
        ] {
            let fresh = attach(base.clone(), &with_init(init), "default", 1).expect("attaches");
            let difference = distance(&logits(&fresh, &device), &before);
            assert!(difference < 1e-4, "{kind} {init:?}: {difference}");
        }
        for init in [
            InitLoraWeights::Kaiming,
            InitLoraWeights::Pissa,
            InitLoraWeights::Olora,
        ] {
            let config = LoraConfig {
                use_dora: true,
                ..with_init(init)
            };
            let fresh = attach(base.clone(), &config, "default", 1).expect("attaches");
            let difference = distance(&logits(&fresh, &device), &before);
            assert!(difference < 1e-4, "{kind} {init:?} with DoRA: {difference}");
        }
        let random =
            attach(base, &with_init(InitLoraWeights::Random), "default", 1).expect("attaches");
        assert!(distance(&logits(&random, &device), &before) > 0.1, "{kind}");
    }
}

/// A layer with one adapter of these settings, whose tensors are all random.
fn layer(config: &LoraConfig, device: &Device) -> AutoCausalLm {
    let model = model("gpt2", device);
    let config = config.clone().with_targets(TargetModules::names(["c_fc"]));
    let model = attach(model, &config, "default", 1).expect("attaches");
    stir_magnitudes(stir(model, "default"))
}

fn one_layer(model: &AutoCausalLm) -> Linear {
    let mut found = None;
    model.for_each_linear(&mut |path, linear| {
        if path.ends_with("h.0.mlp.c_fc") {
            found = Some(linear.clone());
        }
    });
    found.expect("the layer")
}

/// In training with dropout all that DoRA changes of the output reads what dropout leaves of the input, as in PEFT.
#[test]
fn dropout_under_dora_acts_as_in_peft() {
    let device = Device::default().autodiff();
    for init in [InitLoraWeights::Kaiming, InitLoraWeights::Pissa] {
        let config = LoraConfig {
            lora_dropout: 0.4,
            init_lora_weights: init,
            ..dora()
        };
        let linear = one_layer(&layer(&config, &device));
        let _drawing = drawing();
        let x = Tensor::<2>::random(
            [7, 24],
            burn::tensor::Distribution::Normal(0.0, 1.0),
            &device,
        );
        let adapter: &Adapter = &linear.adapters[0];
        device.seed(11);
        let y = linear
            .forward(x.clone().unsqueeze::<3>())
            .squeeze_dim::<2>(0);
        device.seed(11);
        let dropped = adapter.dropout.forward(x.clone());

        // PEFT's formula on a base from which PiSSA took its part
        let mut base = linear.matrix();
        if let (Some(a), Some(b)) = (adapter.get("start_A"), adapter.get("start_B")) {
            base = base + b.val2().matmul(a.val2()) * 2.0;
        }
        let delta = adapter
            .val2("lora_B.weight")
            .matmul(adapter.val2("lora_A.weight"))
            * 2.0;
        let norms = (base.clone() + delta.clone()).square().sum_dim(1).sqrt();
        let scale = adapter.val1("lora_magnitude_vector").unsqueeze_dim::<2>(1) / norms;
        let scale = scale.transpose();
        let expected = x.matmul(base.clone().transpose())
            + dropped.clone().matmul(base.transpose()) * (scale.clone() - 1.0)
            + dropped.matmul(delta.transpose()) * scale
            + linear.bias_vector().expect("a bias").unsqueeze();
        let difference = distance(&y.into_data(), &expected.into_data());
        assert!(difference < 1e-4, "{init:?}: {difference}");
    }
}

/// Norms are kept between calls. They belong to the present tensors all the same.
#[test]
fn norms_follow_the_weight_and_the_factors() {
    let device = Device::default();
    let mut model = layer(&dora(), &device);
    let fresh = |model: &AutoCausalLm| {
        let mut copy = model.clone();
        copy.for_each_linear_mut(&mut |_, linear| {
            for adapter in linear.adapters.iter_mut() {
                // another kind, which has computed nothing yet
                let new = attach(
                    crate::laws::model("gpt2", &Device::default()),
                    &dora(),
                    "x",
                    0,
                );
                let kind = std::sync::Arc::new(Copied(one_layer(&new.expect("attaches"))));
                adapter.set_kind(kind);
            }
        });
        logits(&copy, &Device::default())
    };
    assert!(distance(&logits(&model, &device), &fresh(&model)) < 1e-5);
    let before = logits(&model, &device);
    model.for_each_linear_mut(&mut |_, linear| {
        if !linear.adapters.is_empty() {
            let weight = linear.weight.val();
            let columns = Tensor::arange(0..weight.dims()[1] as i64, &weight.device()).float();
            linear.weight = Param::from_tensor(weight * (columns * 0.1 + 1.0).unsqueeze());
        }
    });
    assert!(distance(&logits(&model, &device), &before) > 1e-2);
    assert!(distance(&logits(&model, &device), &fresh(&model)) < 1e-5);
    let model = stir(model, "default");
    assert!(distance(&logits(&model, &device), &fresh(&model)) < 1e-5);
}

/// The kind of the first adapter of another layer.
#[derive(Debug)]
struct Copied(Linear);

impl ft_core::layers::AdapterKind for Copied {
    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        self.0.adapters[0].kind().product(at, x, y)
    }
}

fn gradients(model: &AutoCausalLm, device: &Device) -> Vec<TensorData> {
    let ids = [3, 14, 15, 9, 26];
    let tokens = TokenBatch::new(Tensor::<2, Int>::from_data([ids], device));
    let labels: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    device.seed(5);
    let loss = causal_lm_loss(model.hidden_states(&tokens, None), model.head(), &labels);
    let grads = loss.sum.backward();
    let mut found = Vec::new();
    model.for_each_linear(&mut |_, linear| {
        for adapter in linear.adapters.iter() {
            for name in ["lora_A.weight", "lora_B.weight"] {
                found.extend(adapter.val2(name).grad(&grads).map(Tensor::into_data));
            }
            let m = adapter.get("lora_magnitude_vector").map(|m| m.val1());
            found.extend(m.and_then(|m| m.grad(&grads)).map(Tensor::into_data));
        }
    });
    found
}

#[test]
fn recomputation_changes_no_gradient() {
    for (init, lora_dropout) in [
        (InitLoraWeights::Kaiming, 0.0),
        (InitLoraWeights::Kaiming, 0.3),
        (InitLoraWeights::Pissa, 0.3),
    ] {
        let config = LoraConfig {
            init_lora_weights: init,
            lora_dropout,
            ..dora()
        };
        let run = |device: Device| {
            let model = attach(model("llama", &device), &config, "default", 1).expect("attaches");
            let model = stir_magnitudes(stir(model, "default"));
            let _drawing = drawing();
            gradients(&model, &device)
        };
        let device = Device::default().autodiff();
        let kept = run(device.clone());
        assert_eq!(kept.len(), 3 * 14);
        assert_eq!(kept, run(device.gradient_checkpointing()));
    }
}

/// `[A; A₀]` and `[B, −B₀]` compute what `BA − B₀A₀` does, here and after loading, with every scale.
#[test]
fn plain_lora_computes_what_its_relative_did() {
    let device = Device::default();
    let patterned = LoraConfig {
        rank_pattern: vec![("q_proj|c_attn".into(), 2)],
        alpha_pattern: vec![("down_proj|c_fc".into(), 3.0)],
        use_rslora: true,
        ..with_init(InitLoraWeights::Pissa)
    };
    let cases = [
        with_init(InitLoraWeights::Pissa),
        with_init(InitLoraWeights::Olora),
        LoraConfig {
            use_dora: true,
            ..with_init(InitLoraWeights::Pissa)
        },
        patterned,
    ];
    for kind in ["llama", "gpt2"] {
        for config in &cases {
            let base = model(kind, &device);
            let before = attach(base.clone(), config, "default", 1).expect("attaches");
            let before = stir_magnitudes(stir(before, "default"));
            let expected = logits(&before, &device);
            let plain = into_plain_lora(before, "default").expect("converts");
            let scale = expected.iter::<f32>().fold(0.0, |a: f32, b| a.max(b.abs()));
            let close =
                |model: &AutoCausalLm| distance(&logits(model, &device), &expected) < 1e-5 * scale;
            assert!(close(&plain), "{kind} {config:?}");
            let folder = tempfile::tempdir().expect("temporary folder");
            save_adapter(&plain, "default", folder.path()).expect("saves");
            let saved = LoraConfig::from_pretrained(folder.path()).expect("reads");
            assert_eq!(
                (saved.init_lora_weights, saved.r),
                (InitLoraWeights::Kaiming, 8)
            );
            let loaded = load_adapter(base, folder.path(), "default", false).expect("loads");
            assert!(close(&loaded), "{kind} {config:?} loaded");
        }
    }
}

#[test]
fn plain_lora_trains_as_its_relative_did() {
    let device = Device::default().autodiff();
    let fresh = attach(
        model("llama", &device),
        &with_init(InitLoraWeights::Olora),
        "default",
        1,
    );
    let fresh = fresh.expect("attaches");
    let (before, _) = trainable_parameters(&fresh);
    let frozen = set_trainable(fresh.clone(), &[]).expect("freezes");
    let plain = into_plain_lora(fresh, "default").expect("converts");
    assert_eq!(trainable_parameters(&plain).0, 2 * before);
    let plain = into_plain_lora(frozen, "default").expect("converts");
    assert_eq!(trainable_parameters(&plain).0, 0);
}

/// A random part of the base cannot be found again: the file is that of plain LoRA, and one of PEFT that is not is refused.
#[test]
fn the_random_form_of_pissa_is_saved_as_plain_lora() {
    let device = Device::default();
    let base = model("llama", &device);
    let config = with_init(InitLoraWeights::PissaNiter(4));
    let trained = stir(
        attach(base.clone(), &config, "default", 1).expect("attaches"),
        "default",
    );
    let folder = tempfile::tempdir().expect("temporary folder");
    save_adapter(&trained, "default", folder.path()).expect("saves");
    let loaded = load_adapter(base.clone(), folder.path(), "default", false).expect("loads");
    assert!(distance(&logits(&loaded, &device), &logits(&trained, &device)) < 1e-4);
    // the model goes on as it was
    let kept = adapter_config(&trained, "default").expect("settings").own();
    assert_eq!(kept["init_lora_weights"], json!("pissa_niter_4"));

    let path = folder.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&path).expect("reads");
    let text = text.replace(
        "\"init_lora_weights\": true",
        "\"init_lora_weights\": \"pissa_niter_4\"",
    );
    std::fs::write(&path, text).expect("writes");
    let error = load_adapter(base, folder.path(), "default", false).expect_err("refused");
    assert!(
        error
            .to_string()
            .contains("path_initial_model_for_weight_conversion"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_initialised_is_an_error_that_tells_why() {
    let device = Device::default();
    let base = model("llama", &device);
    let refused = |json: serde_json::Value, part: &str| {
        let error = match LoraConfig::from_settings(&json) {
            Ok(config) => attach(base.clone(), &config, "default", 1).expect_err("refused"),
            Err(error) => error,
        };
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(json!({"init_lora_weights": "loftq"}), "4 or 8 bits");
    refused(json!({"init_lora_weights": "corda"}), "changed base");
    refused(
        json!({"init_lora_weights": "pissa_niter_x"}),
        "number of iterations",
    );
    refused(json!({"init_lora_weights": "eva"}), "eva_initialise");
    refused(
        json!({"init_lora_weights": "orthogonal", "r": 3}),
        "even r, not 3",
    );
    refused(
        json!({"init_lora_weights": "pissa", "r": 13}),
        "r = 13 is more than the weight of model.layers.0",
    );
    refused(
        json!({"init_lora_weights": "mica", "use_dora": true}),
        "exclude each other",
    );
    refused(
        json!({"init_lora_weights": "eva", "eva_config": {"rho": 0.5}}),
        "rho must be",
    );
}

pub(crate) fn eva_batches(device: &Device, rows: usize) -> Vec<(TokenBatch, Vec<i64>)> {
    let batch = |start: i64| {
        let ids: Vec<i64> = (0..rows as i64 * 10)
            .map(|i| (i * i + 7 * i + start) % 50)
            .collect();
        let labels = ids.iter().map(|id| if id % 5 == 0 { -100 } else { *id });
        let labels = labels.collect();
        let ids = TensorData::new(ids, [rows, 10]);
        (TokenBatch::new(Tensor::from_data(ids, device)), labels)
    };
    vec![batch(0), batch(3)]
}

fn run(model: &AutoCausalLm, tokens: &TokenBatch) {
    let _ = model.hidden_states(tokens, None);
}

#[test]
fn eva_shares_out_the_ranks_and_changes_nothing_yet() {
    let device = Device::default();
    let base = model("llama", &device);
    let before = logits(&base, &device);
    let batches = eva_batches(&device, 12);
    let config = with_init(InitLoraWeights::Eva);
    let model =
        eva_initialise(base.clone(), &config, "default", 1, &batches, run).expect("initialises");
    assert_eq!(logits(&model, &device), before);
    let (mut ranks, mut layers) = (Vec::new(), 0);
    base.for_each_linear(&mut |path, _| layers += usize::from(path != "lm_head"));
    model.for_each_linear(&mut |path, linear| {
        for adapter in linear.adapters.iter() {
            let a = adapter.val2("lora_A.weight");
            let [r, _] = a.dims();
            ranks.push(r);
            let gram = a.clone().matmul(a.transpose());
            let one = Tensor::<2>::eye(r, &device);
            assert!(
                distance(&gram.into_data(), &one.into_data()) < 1e-5,
                "{path}"
            );
        }
    });
    assert_eq!(ranks.iter().sum::<usize>(), 4 * layers);
    assert!(
        ranks.iter().all(|r| (1..=8).contains(r)) && ranks.iter().any(|r| *r != 4),
        "{ranks:?}"
    );

    // the ranks are in the settings, so the file is complete
    let model = stir(model, "default");
    let folder = tempfile::tempdir().expect("temporary folder");
    save_adapter(&model, "default", folder.path()).expect("saves");
    let loaded = load_adapter(base, folder.path(), "default", false).expect("loads");
    assert_eq!(logits(&loaded, &device), logits(&model, &device));
    let saved = LoraConfig::from_pretrained(folder.path()).expect("reads");
    assert_eq!(saved.init_lora_weights, InitLoraWeights::Eva);
    assert_eq!(saved.eva_config, Some(EvaConfig::default()));
}

/// Without redistribution every layer keeps its rank, and its `A` is the principal components of what it reads.
#[test]
fn eva_takes_the_principal_components_of_the_inputs() {
    let device = Device::default();
    let base = model("llama", &device);
    let config = LoraConfig {
        eva_config: Some(EvaConfig {
            rho: 1.0,
            ..EvaConfig::default()
        }),
        ..with_init(InitLoraWeights::Eva)
            .with_targets(TargetModules::names(["layers.0.self_attn.q_proj"]))
    };
    let batches = &eva_batches(&device, 12)[..1];
    let model =
        eva_initialise(base.clone(), &config, "default", 1, batches, run).expect("initialises");
    let mut a = None;
    model.for_each_linear(&mut |_, linear| {
        a = a.take().or_else(|| {
            linear
                .adapters
                .first()
                .map(|adapter| adapter.val2("lora_A.weight"))
        });
    });
    let a = a.expect("an adapter");
    // what the first block reads: the normed embeddings of the tokens that count
    let mut embedding = None;
    let mut norm = None;
    base.for_each_part(&mut |path, part| match part {
        ft_core::Part::Embedding(table) => embedding = Some(table.clone()),
        ft_core::Part::RmsNorm(part) if path == "model.layers.0.input_layernorm" => {
            norm = Some(part.clone())
        }
        _ => {}
    });
    let (tokens, labels) = &batches[0];
    let x = embedding
        .expect("an embedding")
        .forward(tokens.input_ids.clone());
    let x = norm.expect("a norm").forward(x).flatten::<2>(0, 1);
    let counted: Vec<i64> = (0..labels.len() as i64)
        .filter(|i| labels[*i as usize] != -100)
        .collect();
    let x = x.select(0, Tensor::from_data(&counted[..], &device));
    let x = x.clone() - x.mean_dim(0);
    // every component is an eigenvector of the covariance, in falling order
    let image = a.clone().matmul(x.clone().transpose()).matmul(x);
    let values = image.clone().square().sum_dim(1).sqrt();
    let difference = distance(&image.into_data(), &(a * values.clone()).into_data());
    let values: Vec<f32> = values.into_data().iter::<f32>().collect();
    assert!(difference < 1e-4 * values[0], "{difference} {values:?}");
    assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
}

#[test]
fn eva_with_too_little_data_is_an_error() {
    let device = Device::default();
    let base = model("llama", &device);
    let config = LoraConfig {
        r: 8,
        ..with_init(InitLoraWeights::Eva)
    };
    for batches in [Vec::new(), eva_batches(&device, 1)] {
        let error = eva_initialise(base.clone(), &config, "default", 1, &batches, run)
            .expect_err("refused");
        assert!(error.to_string().contains("batch"), "{error}");
    }
}

/// `A` is frozen, and the gradient of `B` is `s⁻²·g·(AAᵀ + 1e-8·I)⁻¹`; the model computes the same.
#[test]
fn lora_fa_preconditions_the_gradient_of_b() {
    let device = Device::default().autodiff();
    let config = LoraConfig {
        use_dora: false,
        ..dora()
    };
    let plain = stir(
        attach(model("llama", &device), &config, "default", 1).expect("attaches"),
        "default",
    );
    let fa = lora_fa(plain.clone(), "default").expect("an adapter");
    assert_eq!(logits(&fa, &device), logits(&plain, &device));
    let (_, all) = trainable_parameters(&fa);
    assert!(trainable_parameters(&fa).0 < trainable_parameters(&plain).0 && all > 0);
    let expected = gradients(&plain, &device);
    let found = gradients(&fa, &device);
    assert_eq!((found.len(), expected.len()), (14, 28));
    let mut number = 0;
    plain.for_each_linear(&mut |path, linear| {
        for adapter in linear.adapters.iter() {
            let inner = Device::default();
            let a = adapter.val2("lora_A.weight").inner();
            let g = Tensor::<2>::from_data(expected[2 * number + 1].clone(), &inner);
            let ours = Tensor::<2>::from_data(found[number].clone(), &inner);
            // multiplied back: g = s²·ours·(AAᵀ)
            let back = ours.matmul(a.clone().matmul(a.transpose())) * 4.0;
            let scale = g.clone().abs().max().into_scalar::<f32>();
            let difference = distance(&back.into_data(), &g.into_data());
            assert!(difference < 1e-4 * scale, "{path}: {difference} of {scale}");
            number += 1;
        }
    });
    // training switches on and off as with every adapter, without A
    let frozen = set_trainable(fa, &[]).expect("freezes");
    assert_eq!(trainable_parameters(&frozen).0, 0);
    let again = set_trainable(frozen, &["default"]).expect("trains");
    assert_eq!(gradients(&again, &device).len(), 14);
    assert!(lora_fa(again, "other").is_err());
}

/// Only `B` of MiCA is as it was, also when a file is trained on.
#[test]
fn mica_trains_a_alone() {
    let device = Device::default().autodiff();
    let base = model("llama", &device);
    let model = attach(
        base.clone(),
        &with_init(InitLoraWeights::Mica),
        "default",
        1,
    )
    .expect("attaches");
    assert_eq!(gradients(&model, &device).len(), 14);
    let folder = tempfile::tempdir().expect("temporary folder");
    save_adapter(&model, "default", folder.path()).expect("saves");
    let loaded = load_adapter(base, folder.path(), "default", true).expect("loads");
    assert_eq!(gradients(&loaded, &device), gradients(&model, &device));
}

/// A weight whose rows are partly zero, as pruned ones are.
#[test]
fn a_row_of_zeros_stays_one_under_dora() {
    let device = Device::default();
    let mut base = model("llama", &device);
    base.for_each_linear_mut(&mut |_, linear| {
        assert_eq!(linear.layout(), Layout::OutIn);
        let weight = linear.weight.val();
        let width = weight.dims()[1];
        linear.weight = Param::from_tensor(weight.slice_fill([0..1, 0..width], 0.0));
    });
    let before = logits(&base, &device);
    let model = attach(base, &dora(), "default", 1).expect("attaches");
    assert!(distance(&logits(&model, &device), &before) < 1e-4);
}

/// The file of a scaled adapter has to say the same: what PiSSA takes off does not depend on the scale, and a magnitude is
/// no change that grows with it.
#[test]
fn only_what_is_linear_in_the_scale_can_be_scaled() {
    let device = Device::default();
    for (config, scales) in [
        (with_init(InitLoraWeights::Olora), true),
        (with_init(InitLoraWeights::Pissa), false),
        (dora(), false),
    ] {
        let base = model("llama", &device);
        let fresh = attach(base.clone(), &config, "default", 1).expect("attaches");
        let mut model = stir(fresh, "default");
        let scaled = ft_peft::scale_adapter(&mut model, "default", 0.5);
        assert_eq!(scaled.is_ok(), scales, "{config:?}");
        let folder = tempfile::tempdir().expect("temporary folder");
        save_adapter(&model, "default", folder.path()).expect("saves");
        let loaded = load_adapter(base, folder.path(), "default", false).expect("loads");
        assert!(distance(&logits(&loaded, &device), &logits(&model, &device)) < 1e-4);
    }
}
