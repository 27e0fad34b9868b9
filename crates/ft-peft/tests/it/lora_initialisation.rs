//! Laws of LoRA's initialisations, among them those that take factors from the base.

use burn::tensor::Device;
use ft_core::AutoCausalLm;
use ft_peft::{
    InitLoraWeights, LoraConfig, adapter_config, attach, into_plain_lora, load_adapter,
    save_adapter, set_trainable, trainable_parameters,
};
use serde_json::json;

use crate::adapted_models::{
    distance, factor_gradients, logits, model, with_init, with_other_magnitudes, with_random_b,
};

#[test]
fn a_fresh_adapter_of_any_initialisation_changes_nothing_but_rounding() {
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

/// `[A; A₀]` and `[B, −B₀]` compute what `BA − B₀A₀` does, here and after loading, with every scale.
#[test]
fn plain_lora_computes_the_same_as_pissa_and_olora() {
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
            let before = with_other_magnitudes(with_random_b(before, "default"));
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
fn plain_lora_trains_if_the_adapter_trained_before() {
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

/// A part of the base that was found with random numbers cannot be computed again, so the file is that of plain LoRA. A file
/// of PEFT that is not is refused.
#[test]
fn the_random_form_of_pissa_is_saved_as_plain_lora() {
    let device = Device::default();
    let base = model("llama", &device);
    let config = with_init(InitLoraWeights::PissaNiter(4));
    let trained = with_random_b(
        attach(base.clone(), &config, "default", 1).expect("attaches"),
        "default",
    );
    let folder = tempfile::tempdir().expect("temporary folder");
    save_adapter(&trained, "default", folder.path()).expect("saves");
    let loaded = load_adapter(base.clone(), folder.path(), "default", false).expect("loads");
    assert!(distance(&logits(&loaded, &device), &logits(&trained, &device)) < 1e-4);
    // The model itself is not changed.
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

/// `B` of MiCA does not train, also not after loading.
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
    assert_eq!(factor_gradients(&model, &device).len(), 14);
    let folder = tempfile::tempdir().expect("temporary folder");
    save_adapter(&model, "default", folder.path()).expect("saves");
    let loaded = load_adapter(base, folder.path(), "default", true).expect("loads");
    assert_eq!(
        factor_gradients(&loaded, &device),
        factor_gradients(&model, &device)
    );
}

#[test]
fn what_cannot_be_initialised_is_an_error_with_the_reason() {
    let device = Device::default();
    let base = model("llama", &device);
    let refused = |json: serde_json::Value, part: &str| {
        let error = match LoraConfig::from_settings(&json) {
            Ok(config) => attach(base.clone(), &config, "default", 1).expect_err("refused"),
            Err(error) => error,
        };
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(
        json!({"init_lora_weights": "loftq"}),
        "ft::loftq_initialise",
    );
    refused(
        json!({"lora_bias": true, "init_lora_weights": "gaussian"}),
        "lora_bias needs init_lora_weights",
    );
    refused(
        json!({"eva_config": {"rho": 2.0}}),
        "eva_config has no effect",
    );
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
