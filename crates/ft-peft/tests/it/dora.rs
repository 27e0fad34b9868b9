//! Laws of DoRA.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use ft_core::layers::{Adapter, AdapterKind, At, Linear};
use ft_core::{AutoCausalLm, Layout, Parts};
use ft_peft::{InitLoraWeights, LoraConfig, TargetModules, attach};

use crate::adapted_models::{
    distance, dora, drawing, factor_gradients, logits, model, with_other_magnitudes, with_random_b,
};

/// A layer with one adapter of these settings, whose tensors are all random.
fn layer(config: &LoraConfig, device: &Device) -> AutoCausalLm {
    let model = model("gpt2", device);
    let config = config.clone().with_targets(TargetModules::names(["c_fc"]));
    let model = attach(model, &config, "default", 1).expect("attaches");
    with_other_magnitudes(with_random_b(model, "default"))
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

/// In training, all that DoRA changes of the output is computed from the input after dropout, as in PEFT.
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

        // PEFT's formula on a base from which PiSSA's part is subtracted
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

/// Norms are kept between calls, and computed again when a tensor has changed.
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
                    crate::adapted_models::model("gpt2", &Device::default()),
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
            linear.weight = Param::from_tensor(weight * (columns * 0.1 + 1.0).unsqueeze()).into();
        }
    });
    assert!(distance(&logits(&model, &device), &before) > 1e-2);
    assert!(distance(&logits(&model, &device), &fresh(&model)) < 1e-5);
    let model = with_random_b(model, "default");
    assert!(distance(&logits(&model, &device), &fresh(&model)) < 1e-5);
}

/// The kind of the first adapter of another layer.
#[derive(Debug)]
struct Copied(Linear);

impl AdapterKind for Copied {
    fn product(&self, at: &At<'_>, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        self.0.adapters[0].kind().product(at, x, y)
    }
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
            let model = with_other_magnitudes(with_random_b(model, "default"));
            let _drawing = drawing();
            factor_gradients(&model, &device)
        };
        let device = Device::default().autodiff();
        let kept = run(device.clone());
        assert_eq!(kept.len(), 3 * 14);
        assert_eq!(kept, run(device.gradient_checkpointing()));
    }
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
        linear.weight = Param::from_tensor(weight.slice_fill([0..1, 0..width], 0.0)).into();
    });
    let before = logits(&base, &device);
    let model = attach(base, &dora(), "default", 1).expect("attaches");
    assert!(distance(&logits(&model, &device), &before) < 1e-4);
}
