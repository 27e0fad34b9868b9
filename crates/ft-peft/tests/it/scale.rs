//! Adapters whose change is multiplied by a factor.

use burn::tensor::Device;
use ft_core::AutoCausalLm;
use ft_peft::{
    FourierFtConfig, Ia3Config, InitLoraWeights, LohaConfig, LoraConfig, Method, attach, compare,
    load_adapter, save_adapter, scale_adapter,
};

use crate::adapted_models::{
    distance, dora, logits, lora, model, with_adapter, with_init, with_random_b,
};

/// How large the changes of the adapter `default` are.
fn compare_norm(model: &AutoCausalLm) -> f64 {
    compare(model, "default", "default")
        .expect("linear layers")
        .norms[0]
}

#[test]
fn a_scaled_adapter_has_another_alpha_in_its_file_too() {
    let device = Device::default();
    let place = tempfile::tempdir().expect("a folder");
    let config = LoraConfig {
        alpha_pattern: vec![("v_proj".into(), 3.0)],
        ..lora(4)
    };
    let mut scaled = with_adapter(model("llama", &device), &config, "default");
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
        let mut scaled = with_adapter(model("llama", &device), &*method, "default");
        let once = compare_norm(&scaled);
        scale_adapter(&mut scaled, "default", 0.5).expect("has a scale");
        assert!((compare_norm(&scaled) / once - 0.5).abs() < 1e-4);
    }
    let mut ia3 = with_adapter(model("llama", &device), &Ia3Config::default(), "default");
    let error = scale_adapter(&mut ia3, "default", 2.0)
        .expect_err("no scale")
        .to_string();
    assert!(error.contains("convert_to_lora"), "{error}");
}

/// A scaled adapter computes the same after saving and loading. PiSSA and DoRA cannot be scaled: the part that PiSSA
/// subtracts and the magnitudes of DoRA do not depend on the scale.
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
        let mut model = with_random_b(fresh, "default");
        let scaled = scale_adapter(&mut model, "default", 0.5);
        assert_eq!(scaled.is_ok(), scales, "{config:?}");
        let folder = tempfile::tempdir().expect("temporary folder");
        save_adapter(&model, "default", folder.path()).expect("saves");
        let loaded = load_adapter(base, folder.path(), "default", false).expect("loads");
        assert!(distance(&logits(&loaded, &device), &logits(&model, &device)) < 1e-4);
    }
}
