//! Adapters for PEFT to load: `golden/check_written.py` compares what it computes with them.

use std::path::Path;

use burn::tensor::{Device, TensorData};
use ft_core::safetensors_folder::write_tensors;
use ft_core::{AutoCausalLm, CausalLm, TokenBatch};
use ft_peft::{
    Common, InitLoraWeights, LoraConfig, TargetModules, attach, eva_initialise, into_plain_lora,
    save_adapter,
};

use crate::golden::folder;
use crate::laws::stir;
use crate::lora_laws::stir_magnitudes;

#[test]
#[ignore = "writes folders for golden/check_written.py to FT_WRITE_ADAPTERS"]
fn adapters_for_peft() {
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
            let mut model = stir_magnitudes(stir(model, "default"));
            if plain {
                model = into_plain_lora(model, "default").expect("converts");
            }
            write(&model, &Path::new(&out).join(format!("{base}_{name}")));
        }
        let model = AutoCausalLm::from_pretrained(&folder(base), &device).expect("loads");
        let batches = crate::lora_laws::eva_batches(&device, 3);
        let config = config(InitLoraWeights::Eva);
        let model = eva_initialise(model, &config, "default", 1, &batches, |model, tokens| {
            let _ = model.hidden_states(tokens, None);
        });
        let model = stir(model.expect("initialises"), "default");
        write(&model, &Path::new(&out).join(format!("{base}_eva")));
    }
}

pub(crate) fn write(model: &AutoCausalLm, folder: &Path) {
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
