//! Adapters of other methods as LoRA.

use burn::module::Param;
use burn::tensor::Device;
use ft_core::Parts;
use ft_peft::{
    Ia3Config, InitLoraWeights, LnTuningConfig, LoraConfig, Method, compare, convert_to_lora,
    set_active,
};

use crate::adapted_models::{distance, logits, lora, model, with_adapter};

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
        let what = format!("{} of rank {rank} on {kind}", method.peft_type());
        let made = with_adapter(model(kind, &device), &*method, "default");
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
            true => assert!(loss.error < 1e-5, "{what}: {}", loss.error),
            false => assert!(
                loss.error > 0.05 && loss.error < 1.0,
                "{what}: {}",
                loss.error
            ),
        }
        set_active(&mut converted, &["new"]).expect("known");
        let apart = distance(&logits(&converted, &device), &logits(&made, &device));
        assert_eq!(apart < 1e-3, exact, "{what}: {apart}");
    }
}

#[test]
fn adapters_that_change_more_than_weights_are_not_converted() {
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
        let made = with_adapter(base, &*method, "default");
        let error = convert_to_lora(made, "default", 4, "new")
            .expect_err("refused")
            .to_string();
        assert!(error.contains(part), "{error}");
    }
    let made = with_adapter(model("llama", &device), &lora(4), "default");
    assert!(convert_to_lora(made.clone(), "default", 0, "new").is_err());
    assert!(convert_to_lora(made.clone(), "default", 4, "default").is_err());
    assert!(convert_to_lora(made, "nobody", 4, "new").is_err());
}
