//! Small models, and adapters on them whose tensors have an effect: what the tests share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Param;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use ft_core::layers::Adapter;
use ft_core::module_path::{PathVisitor, visit_params};
use ft_core::{AutoCausalLm, CausalLm, ModelConfig, Parts, TokenBatch, causal_lm_loss};
use ft_peft::{
    BitFitConfig, BoftConfig, Common, Ia3Config, InitLoraWeights, LnTuningConfig, LoraConfig,
    Method, OftConfig, TargetModules, TrainableTokensConfig, VeraConfig, attach, set_active,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

/// Burn's random numbers come from one generator for the whole process: a test that seeds it holds this while drawing.
pub(crate) fn drawing() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A small model of either layout: Llama's `[out, in]`, GPT-2's `[in, out]`.
pub(crate) fn model(kind: &str, device: &Device) -> AutoCausalLm {
    let json = match kind {
        "llama" => json!({"model_type": "llama", "vocab_size": 50, "hidden_size": 24,
            "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "initializer_range": 0.3}),
        _ => json!({"model_type": "gpt2", "vocab_size": 50, "n_positions": 32, "n_embd": 24,
            "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    };
    let _drawing = drawing();
    device.seed(7);
    let config = ModelConfig::from_json(json).expect("valid");
    let model = AutoCausalLm::from_config(&config, device).expect("valid");
    // Draw the weights now, so that clones do not race for them.
    let _ = logits(&model, device);
    model
}

/// The logits of five tokens, `[1, 5, vocabulary]`.
pub(crate) fn logits(model: &AutoCausalLm, device: &Device) -> TensorData {
    let tokens = TokenBatch::from_ids(&[3, 14, 15, 9, 26], device);
    model.logits(&tokens, None).into_data()
}

/// The largest difference of two tensors.
pub(crate) fn distance(a: &TensorData, b: &TensorData) -> f32 {
    assert_eq!(a.shape(), b.shape());
    let pairs = a.iter::<f32>().zip(b.iter::<f32>());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Plain LoRA of this rank.
pub(crate) fn lora(r: usize) -> LoraConfig {
    LoraConfig {
        r,
        lora_alpha: 6.0,
        ..LoraConfig::default()
    }
}

/// DoRA of rank 4 with scale 2.
pub(crate) fn dora() -> LoraConfig {
    LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        use_dora: true,
        ..LoraConfig::default()
    }
}

/// LoRA of rank 4 with scale 2 that begins like this.
pub(crate) fn with_init(init_lora_weights: InitLoraWeights) -> LoraConfig {
    LoraConfig {
        init_lora_weights,
        use_dora: false,
        ..dora()
    }
}

/// Settings of adapters that change inputs, products, outputs, norms, biases and whole weights.
pub(crate) fn methods() -> Vec<Box<dyn Method>> {
    let mut with_copies = lora(4);
    with_copies.common.modules_to_save = vec!["lm_head".into()];
    let tokens = TrainableTokensConfig {
        token_indices: vec![3, 9, 14],
        ..TrainableTokensConfig::default()
    };
    vec![
        Box::new(lora(4)),
        Box::new(with_copies),
        Box::new(LoraConfig {
            use_dora: true,
            ..lora(4)
        }),
        Box::new(LoraConfig {
            lora_bias: true,
            ..lora(4)
        }),
        Box::new(LoraConfig {
            init_lora_weights: InitLoraWeights::Pissa,
            ..lora(4)
        }),
        Box::new(Ia3Config::default()),
        Box::new(LnTuningConfig::default()),
        Box::new(VeraConfig {
            r: 6,
            ..VeraConfig::default()
        }),
        Box::new(OftConfig {
            oft_block_size: 4,
            ..OftConfig::default()
        }),
        Box::new(BoftConfig::default()),
        Box::new(BitFitConfig::default()),
        Box::new(tokens),
    ]
}

/// Settings for these targets.
pub(crate) fn on(targets: TargetModules) -> Common {
    Common {
        target_modules: Some(targets),
        ..Common::default()
    }
}

/// Settings for all linear layers without these.
pub(crate) fn without(excluded: TargetModules) -> Common {
    Common {
        exclude_modules: Some(excluded),
        ..on(TargetModules::all_linear())
    }
}

/// The model with one more adapter, which is the only one that is active.
pub(crate) fn with_adapter(model: AutoCausalLm, config: &dyn Method, name: &str) -> AutoCausalLm {
    let mut model = model;
    set_active(&mut model, &[]).expect("no adapter is active");
    let model =
        attach(model, config, name, 3).unwrap_or_else(|error| panic!("{config:?}: {error}"));
    stirred(model, name)
}

/// Adds numbers to every tensor of an adapter that trains, so that it has an effect.
pub(crate) fn stirred<M: Parts>(model: M, name: &str) -> M {
    let mut model = model;
    // Adapters of other names get other numbers.
    let mut rng = StdRng::seed_from_u64(name.bytes().map(u64::from).sum());
    model.for_each_part_mut(&mut |_, mut part| {
        for adapter in part
            .adapters()
            .iter_mut()
            .filter(|adapter| adapter.name == name)
        {
            for tensor in adapter.tensors.iter_mut().filter(|tensor| tensor.trains()) {
                let old = tensor.data();
                let shape = old.shape().clone();
                let numbers = old.iter::<f32>().map(|x| x + rng.random_range(-0.2..0.2));
                let numbers: Vec<f32> = numbers.collect();
                tensor.set(TensorData::new(numbers, shape));
            }
        }
    });
    model
}

/// Gives every factor `B` of the adapter called `name` random numbers.
pub(crate) fn with_random_b(model: AutoCausalLm, name: &str) -> AutoCausalLm {
    let _drawing = drawing();
    // The same numbers in every run, whatever other tests draw; others for another name.
    let seed = name.bytes().map(u64::from).sum();
    Device::default().seed(seed);
    let mut model = model;
    model.for_each_linear_mut(&mut |_, linear| {
        for adapter in linear.adapters.iter_mut().filter(|a| a.name == name) {
            let b = adapter.val2("lora_B.weight");
            let noise = b.random_like(Distribution::Normal(0.0, 0.3));
            set(adapter, "lora_B.weight", noise);
        }
    });
    model
}

/// Gives the magnitudes of DoRA other numbers.
pub(crate) fn with_other_magnitudes(mut model: AutoCausalLm) -> AutoCausalLm {
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

/// Gives a tensor of an adapter other numbers.
pub(crate) fn set(adapter: &mut Adapter, name: &str, value: Tensor<2>) {
    let mut tensors = adapter.tensors.iter_mut();
    let tensor = tensors.find(|tensor| tensor.name() == name);
    tensor.expect("has it").set(value.into_data());
}

/// Every parameter by path.
pub(crate) fn bits(model: &AutoCausalLm) -> BTreeMap<String, TensorData> {
    struct Collect(BTreeMap<String, TensorData>);
    impl PathVisitor for Collect {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            self.0.insert(path.to_string(), param.val().into_data());
        }
    }
    let mut collect = Collect(BTreeMap::new());
    visit_params(model, &mut collect);
    collect.0
}

/// The gradients of all factors and magnitudes that train.
pub(crate) fn factor_gradients(model: &AutoCausalLm, device: &Device) -> Vec<TensorData> {
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
