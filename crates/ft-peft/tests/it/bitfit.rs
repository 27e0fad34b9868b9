//! Laws of BitFit.

use burn::tensor::{Device, Int, Tensor};
use ft_core::{AutoCausalLm, SaveOptions};
use ft_peft::{
    BitFitConfig, Error, TargetModules, attach, load_adapter, merge_and_unload,
    trainable_parameters,
};
use tempfile::TempDir;

use crate::extras::{Golden, place};
use crate::golden::assert_close;

#[test]
fn bitfit_trains_every_bias_and_adds_those_that_lack() {
    let device = Device::default().autodiff();
    let ids = Tensor::<2, Int>::from_data([[3, 14, 15, 9, 26]], &device);
    let biases = 32 + 16 + 16 + 32 + 48 + 48 + 32;
    let plain = AutoCausalLm::load("llama", &device);
    let model = attach(plain.clone(), &BitFitConfig::default(), "default", 1).expect("attaches");
    assert_eq!(trainable_parameters(&model).0, biases);
    let outputs = plain.outputs(ids.clone()).into_data();
    assert_close("zeros", &model.outputs(ids).into_data(), &outputs, 1e-6);
    // Without `add_missing` a Llama has nothing to train.
    let none = BitFitConfig {
        add_missing: false,
        ..BitFitConfig::default()
    };
    let error = attach(plain, &none, "default", 1).expect_err("nothing trains");
    assert!(matches!(error, Error::NoTarget { .. }), "{error}");
    let biases = 2 * (96 + 32 + 48 + 32 + 2 * 32) + 32;
    let model = attach(AutoCausalLm::load("gpt2", &device), &none, "default", 1).expect("attaches");
    assert_eq!(trainable_parameters(&model).0, biases);
}

/// Llama's configuration has settings for biases of all its layers, that of other families has none.
#[test]
fn merged_biases_are_saved_where_the_configuration_has_them() {
    let device = Device::default();
    let place = place("llama_bitfit");
    let model = load_adapter(
        AutoCausalLm::load("llama", &device),
        &place,
        "default",
        false,
    );
    let merged = merge_and_unload(model.expect("loads")).expect("merges");
    let folder = TempDir::new().expect("temporary folder");
    merged
        .save_pretrained(folder.path(), &SaveOptions::default())
        .expect("saves");
    let again = AutoCausalLm::from_pretrained(folder.path(), &device).expect("loads");
    let ids = Tensor::<2, Int>::from_data([[3, 14, 15, 9, 26]], &device);
    assert_eq!(
        again.outputs(ids.clone()).into_data(),
        merged.outputs(ids).into_data()
    );

    let config = BitFitConfig::default().with_targets(TargetModules::names(["q_proj"]));
    let model = attach(AutoCausalLm::load("llama", &device), &config, "default", 1);
    let merged = merge_and_unload(model.expect("attaches")).expect("merges");
    let error = merged.save_pretrained(folder.path(), &SaveOptions::default());
    let error = error.expect_err("no setting for one of them").to_string();
    assert!(
        error.contains("q_proj.bias") && error.contains("llama"),
        "{error}"
    );
}
