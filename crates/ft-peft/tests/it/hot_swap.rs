//! Adapters that take the place of others with the same layers.

use std::path::Path;

use burn::tensor::Device;
use ft_core::AutoCausalLm;
use ft_core::safetensors_folder::{read_tensors, write_tensors};
use ft_peft::{
    Ia3Config, LoraConfig, Method, TargetModules, active_adapters, describe, hot_swap,
    load_adapter, save_adapter, set_active,
};

use crate::adapted_models::{bits, distance, logits, lora, model, with_adapter};

/// An adapter in a folder of its own.
fn saved(config: &dyn Method, folder: &Path) -> AutoCausalLm {
    let made = with_adapter(model("llama", &Device::default()), config, "default");
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
