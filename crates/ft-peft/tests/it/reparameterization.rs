//! Low-rank reparameterization of other Burn modules.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use ft_peft::{LoraConfig, LowRank, LowRankReparameterizer, TargetModules, trainable_parameters};

use crate::adapted_models::{distance, drawing, on};

#[derive(Module, Debug)]
struct Foreign {
    embedding: Embedding,
    first: Linear,
    second: Linear,
}

impl Foreign {
    fn new(device: &Device) -> Self {
        let _drawing = drawing();
        device.seed(3);
        let module = Self {
            embedding: EmbeddingConfig::new(10, 6).init(device),
            first: LinearConfig::new(6, 8).init(device),
            second: LinearConfig::new(8, 4).init(device),
        };
        // Parameters are drawn when first read.
        let _ = module.forward();
        module
    }

    fn forward(&self) -> Tensor<3> {
        let ids = Tensor::<2, Int>::from_data([[1, 5, 9]], &self.embedding.weight.device());
        self.second
            .forward(self.first.forward(self.embedding.forward(ids)).tanh())
    }
}

fn adapted(device: &Device, targets: TargetModules) -> Foreign {
    let module = Foreign::new(device).no_grad();
    let config = LoraConfig {
        r: 2,
        lora_alpha: 4.0,
        common: on(targets),
        ..LoraConfig::default()
    };
    let reparameterizer = LowRankReparameterizer::new(&module, &config).expect("matches");
    let _drawing = drawing();
    module.apply_reparameterization(reparameterizer)
}

#[test]
fn only_linear_layers_are_taken_and_nothing_changes_at_first() {
    let device = Device::default().autodiff();
    let plain = Foreign::new(&device).forward().into_data();
    let module = adapted(&device, TargetModules::all_linear());
    assert!(
        module
            .embedding
            .weight
            .reparameterization::<LowRank>()
            .is_none()
    );
    assert!(
        module
            .first
            .weight
            .reparameterization::<LowRank>()
            .is_some()
    );
    assert!(distance(&module.forward().into_data(), &plain) < 1e-6);
    // r·(6 + 8) + r·(8 + 4)
    assert_eq!(trainable_parameters(&module).0, 2 * 14 + 2 * 12);
}

#[test]
fn factors_train_and_materialize_into_the_weight() {
    let device = Device::default().autodiff();
    let mut module = adapted(&device, TargetModules::names(["second"]));
    let plain = module.forward().into_data();
    let mut optimizer = burn::optim::SgdConfig::new().init();
    for _ in 0..2 {
        let grads = module.forward().square().sum().backward();
        let grads = burn::optim::GradientsParams::from_grads(grads, &module);
        module = optimizer.step(0.5, module, grads);
    }
    let trained = module.forward().into_data();
    assert!(distance(&trained, &plain) > 1e-3, "the factors moved");
    let merged = module.valid().materialize();
    assert!(
        merged
            .second
            .weight
            .reparameterization::<LowRank>()
            .is_none()
    );
    assert!(distance(&merged.forward().into_data(), &trained) < 1e-5);
}

#[test]
fn targets_that_match_nothing_are_explained() {
    let module = Foreign::new(&Device::default());
    let config = LoraConfig {
        common: on(TargetModules::names(["embedding"])),
        ..LoraConfig::default()
    };
    let error = LowRankReparameterizer::new(&module, &config).expect_err("refused");
    assert!(error.to_string().contains("first, second"), "{error}");
    let config = LoraConfig {
        lora_dropout: 0.1,
        ..LoraConfig::default()
    };
    let error = LowRankReparameterizer::new(&module, &config).expect_err("refused");
    assert!(error.to_string().contains("lora_dropout"), "{error}");
}

/// A user's struct with the name of Burn's layer is not matched.
#[test]
fn only_weights_right_inside_a_linear_layer_are_taken() {
    mod user {
        use super::{Device, Embedding, EmbeddingConfig, LinearConfig, Module, drawing};

        #[derive(Module, Debug)]
        pub(super) struct Linear {
            table: Embedding,
            inner: burn::nn::Linear,
        }

        impl Linear {
            pub(super) fn new(device: &Device) -> Self {
                let _drawing = drawing();
                Self {
                    table: EmbeddingConfig::new(10, 6).init(device),
                    inner: LinearConfig::new(6, 8).init(device),
                }
            }
        }
    }
    let module = user::Linear::new(&Device::default());
    let config = LoraConfig {
        common: on(TargetModules::names(["table"])),
        ..LoraConfig::default()
    };
    let error = LowRankReparameterizer::new(&module, &config).expect_err("refused");
    assert!(error.to_string().ends_with("there are: inner"), "{error}");
}

#[test]
fn ranks_and_scales_follow_the_settings() {
    let module = Foreign::new(&Device::default());
    let config = LoraConfig {
        r: 4,
        lora_alpha: 4.0,
        use_rslora: true,
        rank_pattern: vec![("second".into(), 1)],
        ..LoraConfig::default()
    };
    let reparameterizer = LowRankReparameterizer::new(&module, &config).expect("matches");
    let _drawing = drawing();
    let module = module.apply_reparameterization(reparameterizer);
    let low_rank = |layer: &Linear| {
        let factors = layer.weight.reparameterization::<LowRank>();
        let factors = factors.expect("is there");
        (factors.a.dims(), factors.b.dims(), factors.scaling)
    };
    assert_eq!(low_rank(&module.first), ([6, 4], [4, 8], 2.0));
    assert_eq!(low_rank(&module.second), ([8, 1], [1, 4], 4.0));
}
