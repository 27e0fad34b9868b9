//! Laws of AdaLoRA's allocation beside what else trains under the adapter's name.

use burn::tensor::{Device, TensorData};
use ft_core::{AutoCausalLm, Parts};
use ft_peft::{
    AdaLoraConfig, RankAllocator, adapter_config, describe, load_adapter, read_settings,
    save_adapter,
};
use serde_json::json;

use crate::adapted_models::{distance, logits, model, with_adapter};

/// The singular values of all layers that have some.
fn values(model: &AutoCausalLm) -> Vec<f32> {
    let mut found = Vec::new();
    model.for_each_part(&mut |_, part| {
        for adapter in part.adapters().iter() {
            if let Some(values) = adapter.get("lora_E") {
                found.extend(values.data().iter::<f32>());
            }
        }
    });
    found
}

/// GPT-2 with AdaLoRA, trained biases and a trained norm, and the allocator after the steps up to `last`, whose gradients are
/// the tensors themselves.
fn allocated(last: usize) -> (AutoCausalLm, RankAllocator) {
    let settings = json!({"peft_type": "ADALORA", "init_r": 4, "target_r": 2, "tinit": 1, "tfinal": 2, "total_step": 6,
        "bias": "all", "modules_to_save": ["ln_f"]});
    let config = read_settings(&settings).expect("settings");
    let mut made = with_adapter(model("gpt2", &Device::default()), &*config, "default");
    let mut allocator = RankAllocator::new(&made, "default").expect("AdaLoRA");
    for step in 1..=last {
        allocator.observe(&made, |param| Some(param.val()));
        allocator.allocate(&mut made, step).expect("gradients");
    }
    (made, allocator)
}

#[test]
fn biases_and_modules_beside_adalora_are_allocated_trimmed_and_saved() {
    let device = Device::default();
    let (made, allocator) = allocated(6);
    let layers = values(&made).len() / 4;
    assert!(layers > 1);
    assert_eq!(
        values(&made).iter().filter(|x| **x != 0.0).count(),
        2 * layers
    );
    let before = logits(&made, &device);
    let trimmed = allocator.trim(made);
    assert_eq!(values(&trimmed).len(), 2 * layers);
    assert!(distance(&logits(&trimmed, &device), &before) < 1e-5);
    let ranks = describe(&trimmed).0[0].ranks.clone();
    assert!(
        !ranks.is_empty() && ranks.iter().all(|rank| *rank <= 4),
        "{ranks:?}"
    );

    let folder = tempfile::tempdir().expect("temporary folder");
    save_adapter(&trimmed, "default", folder.path()).expect("saves");
    let loaded = load_adapter(model("gpt2", &device), folder.path(), "default", false);
    let loaded = loaded.expect("loads");
    assert_eq!(logits(&loaded, &device), logits(&trimmed, &device));
}

/// Ranks that were removed later than the numbers of the model are kept, since they have an effect.
#[test]
fn a_model_of_an_earlier_step_is_trimmed_to_what_it_computes() {
    let device = Device::default();
    let (mut made, allocator) = allocated(6);
    let removed = values(&made).iter().filter(|x| **x == 0.0).count();
    assert!(removed > 0);
    // The first removed rank has a value again.
    let mut done = false;
    made.for_each_part_mut(&mut |_, mut part| {
        for adapter in part.adapters().iter_mut() {
            for tensor in adapter
                .tensors
                .iter_mut()
                .filter(|tensor| tensor.name() == "lora_E")
            {
                let data = tensor.data();
                let mut numbers: Vec<f32> = data.iter().collect();
                if let Some(zero) = numbers.iter_mut().find(|x| **x == 0.0).filter(|_| !done) {
                    *zero = 0.7;
                    done = true;
                }
                tensor.set(TensorData::new(numbers, data.shape().clone()));
            }
        }
    });
    let before = logits(&made, &device);
    let all = values(&made).len();
    let trimmed = allocator.trim(made);
    assert!(distance(&logits(&trimmed, &device), &before) < 1e-5);
    assert_eq!(values(&trimmed).len(), all - removed + 1);
    let config = adapter_config(&trimmed, "default").expect("settings");
    let config: &dyn std::any::Any = &*config;
    let config = config.downcast_ref::<AdaLoraConfig>().expect("AdaLoRA");
    let kept = config.rank_pattern.iter().flat_map(|(_, flags)| flags);
    assert_eq!(kept.filter(|kept| **kept).count(), all - removed + 1);
}

#[test]
fn the_ranks_of_adalora_are_described() {
    let settings = json!({"peft_type": "ADALORA", "init_r": 5, "target_r": 2, "total_step": 600});
    let config = read_settings(&settings).expect("settings");
    let made = with_adapter(model("llama", &Device::default()), &*config, "default");
    assert_eq!(describe(&made).0[0].ranks, [5]);
}
