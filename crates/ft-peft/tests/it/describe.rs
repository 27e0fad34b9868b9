//! Descriptions and comparisons of adapters.

use burn::tensor::Device;
use ft_peft::{InitLoraWeights, LoraConfig, TargetModules, compare, describe};
use serde_json::json;

use crate::adapted_models::{lora, model, with_adapter};
use crate::prompts::configs;

#[test]
fn adapters_are_described_and_compared() {
    let device = Device::default();
    let one = lora(4).with_targets(TargetModules::names(["q_proj", "v_proj"]));
    let made = with_adapter(model("llama", &device), &one, "one");
    let two = lora(2).with_targets(TargetModules::names(["q_proj"]));
    let made = with_adapter(made, &two, "two");
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
    let began = with_adapter(model("llama", &device), &began, "one");
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

/// The file of an adapter whose virtual tokens a network computes has them, and not the network.
#[test]
fn numbers_that_a_network_computes_are_those_of_its_file() {
    let device = Device::default();
    for (config, numbers) in configs(3)
        .iter()
        .zip([3 * 24, 3 * 24, 3 * 2 * 2 * 12, 3 * 2 * 2 * 12])
    {
        let made = with_adapter(model("llama", &device), &**config, "default");
        let about = &describe(&made).0[0];
        assert_eq!(
            (about.parameters, about.bytes),
            (numbers, 4 * numbers),
            "{config:?}"
        );
    }
}
