//! Adapters for PEFT to load: `golden/check_written.py` compares what it computes with them.

use std::path::Path;

use burn::tensor::{Device, TensorData};
use ft_core::safetensors_folder::write_tensors;
use ft_core::{AutoCausalLm, CausalLm, TokenBatch};
use ft_peft::{
    Bias, Common, InitLoraWeights, LoraConfig, Method, TargetModules, TokenIndices,
    TrainableTokensConfig, attach, eva_initialise, into_plain_lora, save_adapter,
};

use crate::adapted_models::{stirred, with_other_magnitudes, with_random_b};
use crate::eva::eva_batches;
use crate::extras::{Golden, golden_folder};
use crate::golden::folder;

#[test]
#[ignore = "writes folders for golden/check_written.py to FT_WRITE_ADAPTERS"]
fn lora_adapters_for_peft() {
    let out = std::env::var("FT_WRITE_ADAPTERS").expect("FT_WRITE_ADAPTERS names a folder");
    let device = Device::default();
    for base in ["peft_llama", "peft_gpt2"] {
        let config = |init_lora_weights| LoraConfig {
            r: 4,
            lora_alpha: 8.0,
            init_lora_weights,
            common: Common {
                target_modules: Some(TargetModules::all_linear()),
                base_model_name_or_path: Some(base.into()),
                ..Common::default()
            },
            ..LoraConfig::default()
        };
        let dora = |config| LoraConfig {
            use_dora: true,
            ..config
        };
        let patterned = |config| LoraConfig {
            rank_pattern: vec![("q_proj|attn.c_attn".into(), 2)],
            alpha_pattern: vec![(r"1\.mlp\..*".into(), 3.0)],
            use_rslora: true,
            ..config
        };
        let mut cases = vec![
            ("dora", dora(config(InitLoraWeights::Kaiming)), false),
            (
                "dora_patterns",
                patterned(dora(config(InitLoraWeights::Gaussian))),
                false,
            ),
            ("random", config(InitLoraWeights::Random), false),
            ("orthogonal", config(InitLoraWeights::Orthogonal), false),
            ("pissa", config(InitLoraWeights::Pissa), false),
            ("pissa_dora", dora(config(InitLoraWeights::Pissa)), false),
            ("pissa_niter", config(InitLoraWeights::PissaNiter(4)), false),
            ("mica", config(InitLoraWeights::Mica), false),
            ("pissa_plain", config(InitLoraWeights::Pissa), true),
            (
                "pissa_dora_plain",
                patterned(dora(config(InitLoraWeights::Pissa))),
                true,
            ),
            ("olora_plain", config(InitLoraWeights::Olora), true),
        ];
        if base == "peft_llama" {
            // PEFT's OLoRA fails on transposed weights.
            cases.push(("olora", config(InitLoraWeights::Olora), false));
        }
        for (name, config, plain) in cases {
            let model = AutoCausalLm::from_pretrained(&folder(base), &device).expect("loads");
            let model = attach(model, &config, "default", 1).expect("attaches");
            let mut model = with_other_magnitudes(with_random_b(model, "default"));
            if plain {
                model = into_plain_lora(model, "default").expect("converts");
            }
            write(&model, &Path::new(&out).join(format!("{base}_{name}")));
        }
        let model = AutoCausalLm::from_pretrained(&folder(base), &device).expect("loads");
        let batches = eva_batches(&device, 3);
        let config = config(InitLoraWeights::Eva);
        let model = eva_initialise(model, &config, "default", 1, &batches, |model, tokens| {
            let _ = model.hidden_states(tokens, None);
        });
        let model = with_random_b(model.expect("initialises"), "default");
        write(&model, &Path::new(&out).join(format!("{base}_eva")));
    }
}

#[test]
#[ignore = "writes folders for golden/check_written.py to FT_WRITE_ADAPTERS"]
fn extra_adapters_for_peft() {
    let out = std::env::var("FT_WRITE_ADAPTERS").expect("FT_WRITE_ADAPTERS names a folder");
    let lora = |change: &dyn Fn(&mut LoraConfig)| -> Box<dyn Method> {
        let mut config = LoraConfig::default();
        change(&mut config);
        Box::new(config)
    };
    let modules = |names: &'static [&'static str]| {
        lora(&move |config| {
            config.common.modules_to_save = names.iter().map(|name| name.to_string()).collect();
        })
    };
    let targets = |names: &'static [&'static str]| {
        lora(&move |config| {
            config.common.target_modules = Some(TargetModules::names(names.iter().copied()))
        })
    };
    let bias = |bias: Bias| lora(&move |config| config.common.bias = bias);
    let tokens = TokenIndices::Embedding(vec![9, 3]);
    let beside = lora(&|config| config.trainable_token_indices = Some(tokens.clone()));
    let alone = Box::new(TrainableTokensConfig {
        token_indices: vec![9, 3],
        ..TrainableTokensConfig::default()
    });
    let cases: Vec<(&str, &str, Box<dyn Method>)> = vec![
        (
            "llama",
            "modules",
            modules(&["lm_head", "embed_tokens", "norm"]),
        ),
        ("llama", "module_of_layers", modules(&["self_attn"])),
        (
            "llama",
            "embedding",
            targets(&["q_proj", "embed_tokens", "lm_head"]),
        ),
        ("llama", "tokens", beside.boxed()),
        ("llama", "trainable_tokens", alone.boxed()),
        (
            "llama",
            "lora_bias",
            lora(&|config| config.lora_bias = true),
        ),
        ("tied", "embed_tokens", modules(&["embed_tokens"])),
        ("tied", "lm_head", modules(&["lm_head"])),
        ("tied", "embedding", targets(&["q_proj", "embed_tokens"])),
        ("tied", "tokens", beside),
        ("tied", "trainable_tokens", alone),
        ("gpt2", "bias_all", bias(Bias::All)),
        ("gpt2", "bias_only", bias(Bias::Only)),
        ("gpt2", "modules", modules(&["wpe", "ln_f"])),
    ];
    for (base, name, mut config) in cases {
        config.common_mut().base_model_name_or_path = Some(golden_folder(base).into());
        let model = AutoCausalLm::load(base, &Device::default());
        let model = attach(model, &*config, "default", 1).expect("attaches");
        let model = stirred(model, "default");
        write(&model, &Path::new(&out).join(format!("{base}_{name}")));
    }
}

fn write(model: &AutoCausalLm, folder: &Path) {
    save_adapter(model, "default", folder).expect("saves");
    let ids = [3, 14, 15, 9, 26, 5];
    let logits = model.logits(&TokenBatch::from_ids(&ids, &Device::default()), None);
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    let tensors = [
        ("input_ids".to_string(), TensorData::new(ids, [1, 6])),
        ("logits".to_string(), logits.into_data()),
    ];
    write_tensors(
        &folder.join("ft.safetensors"),
        &tensors,
        &Default::default(),
    )
    .expect("writes");
}
