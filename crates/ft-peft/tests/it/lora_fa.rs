//! Laws of LoRA-FA.

use burn::tensor::{Device, Tensor};
use ft_core::{AutoCausalLm, Parts};
use ft_peft::{
    InitLoraWeights, attach, hot_swap, lora_fa, save_adapter, scale_adapter, set_trainable,
    trainable_parameters,
};

use crate::adapted_models::{distance, factor_gradients, logits, model, with_init, with_random_b};
use crate::golden::assert_close;

/// `A` is frozen, and the gradient of `B` is `s⁻²·g·(AAᵀ + 1e-8·I)⁻¹`; the model computes the same.
#[test]
fn lora_fa_preconditions_the_gradient_of_b() {
    let device = Device::default().autodiff();
    let config = with_init(InitLoraWeights::Kaiming);
    let plain = with_random_b(
        attach(model("llama", &device), &config, "default", 1).expect("attaches"),
        "default",
    );
    let fa = lora_fa(plain.clone(), "default").expect("an adapter");
    assert_eq!(logits(&fa, &device), logits(&plain, &device));
    let (_, all) = trainable_parameters(&fa);
    assert!(trainable_parameters(&fa).0 < trainable_parameters(&plain).0 && all > 0);
    let expected = factor_gradients(&plain, &device);
    let found = factor_gradients(&fa, &device);
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
    assert_eq!(factor_gradients(&again, &device).len(), 14);
    assert!(lora_fa(again, "other").is_err());
}

/// The factor of the gradient follows the scale and `A`.
#[test]
fn the_preconditioner_is_made_again_with_another_scale_and_another_a() {
    let device = Device::default().autodiff();
    let config = with_init(InitLoraWeights::Kaiming);
    let made = |seed| {
        let made = attach(model("llama", &device), &config, "default", seed).expect("attaches");
        with_random_b(made, "default")
    };
    let factors = |model: &AutoCausalLm| {
        let mut found = Vec::new();
        model.for_each_linear(&mut |_, linear| {
            let of_fa = linear
                .adapters
                .iter()
                .filter_map(|adapter| adapter.get("lora_fa"));
            found.extend(of_fa.map(|factor| factor.data()));
        });
        found
    };
    let check = |found: &AutoCausalLm, fresh: AutoCausalLm| {
        let expected = factors(&lora_fa(fresh, "default").expect("an adapter"));
        let found = factors(found);
        assert_eq!((found.len(), expected.len()), (14, 14));
        for (found, expected) in found.iter().zip(&expected) {
            assert_close("preconditioner", found, expected, 1e-5);
        }
    };
    let mut scaled = lora_fa(made(1), "default").expect("an adapter");
    scale_adapter(&mut scaled, "default", 3.0).expect("scales");
    let mut fresh = made(1);
    scale_adapter(&mut fresh, "default", 3.0).expect("scales");
    check(&scaled, fresh);
    let folder = tempfile::tempdir().expect("a folder");
    save_adapter(&made(2), "default", folder.path()).expect("saves");
    let mut swapped = lora_fa(made(1), "default").expect("an adapter");
    let before = trainable_parameters(&swapped);
    hot_swap(&mut swapped, "default", folder.path()).expect("swaps");
    assert_eq!(trainable_parameters(&swapped), before);
    check(&swapped, made(2));
}
