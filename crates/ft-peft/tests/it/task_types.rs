//! `task_type` of new adapters, which PEFT makes its model by; and model cards that are written again.

use burn::module::Module;
use burn::tensor::Device;
use ft_core::{
    Bert, EncoderQuestionAnswering, EncoderSequenceClassifier, EncoderTokenClassifier, Parts,
};
use ft_peft::{Ia3Config, Method, attach, read_settings, save_adapter};
use serde_json::{Value, json};

use crate::adapted_models::{lora, model};
use crate::golden::{folder, saved_settings};

fn saved<M: Module + Parts>(model: M, config: &dyn Method) -> (Value, String) {
    let place = tempfile::tempdir().expect("temporary folder");
    let model = attach(model, config, "default", 1).expect("attaches");
    save_adapter(&model, "default", place.path()).expect("saves");
    let card = std::fs::read_to_string(place.path().join("README.md")).expect("a card");
    (saved_settings(place.path())["task_type"].clone(), card)
}

#[test]
fn the_task_is_that_of_the_head() {
    let device = Device::default();
    let encoder = folder("../../../ft-core/tests/golden/bert");
    let labels = || vec!["no".to_string(), "yes".to_string()];
    let config = lora(2);
    for kind in ["llama", "gpt2"] {
        let (task, card) = saved(model(kind, &device), &config);
        assert_eq!(task, "CAUSAL_LM", "{kind}");
        assert!(card.contains("text-generation"), "{card}");
    }
    let bert = Bert::from_pretrained(&encoder, &device).expect("loads");
    let (task, card) = saved(bert.clone(), &config);
    assert_eq!(task, Value::Null);
    assert!(!card.contains("text-generation"), "{card}");
    let texts = EncoderSequenceClassifier::from_encoder(&encoder, labels(), 1, &device);
    assert_eq!(saved(texts.expect("loads"), &config).0, "SEQ_CLS");
    let tokens = EncoderTokenClassifier::from_encoder(&encoder, labels(), 1, &device);
    assert_eq!(saved(tokens.expect("loads"), &config).0, "TOKEN_CLS");
    let answers = EncoderQuestionAnswering::from_encoder(&encoder, labels(), 1, &device);
    assert_eq!(saved(answers.expect("loads"), &config).0, "QUESTION_ANS");
    // What the settings say counts.
    let settings = json!({"peft_type": "LORA", "task_type": "FEATURE_EXTRACTION"});
    let own = read_settings(&settings).expect("settings");
    assert_eq!(saved(bert, &*own).0, "FEATURE_EXTRACTION");
}

#[test]
fn a_card_of_another_adapter_is_written_again_and_one_of_a_person_stays() {
    let device = Device::default();
    let place = tempfile::tempdir().expect("temporary folder");
    let readme = place.path().join("README.md");
    let save = |config: &dyn Method| {
        let model = attach(model("llama", &device), config, "default", 1).expect("attaches");
        save_adapter(&model, "default", place.path()).expect("saves");
        std::fs::read_to_string(&readme).expect("a card")
    };
    assert!(save(&lora(2)).contains("# LORA adapter"));
    let card = save(&Ia3Config::default());
    assert!(
        card.contains("# IA3 adapter") && !card.contains("LORA"),
        "{card}"
    );
    let lines: Vec<&str> = card.lines().collect();
    let own = lines[..lines.len() - 1].join("\n");
    std::fs::write(&readme, &own).expect("writes");
    assert_eq!(save(&lora(2)), own);
}

#[test]
fn settings_without_effect_are_refused_in_new_adapters() {
    let device = Device::default();
    for (settings, part) in [
        (
            json!({"peft_type": "LORA", "target_modules": ["q_proj"], "layers_pattern": ["layers"]}),
            "layers_pattern has no effect",
        ),
        (
            json!({"peft_type": "OFT", "module_dropout": 0.1}),
            "module_dropout has no effect",
        ),
    ] {
        let config = read_settings(&settings).expect("settings");
        let error = attach(model("llama", &device), &*config, "default", 1);
        let error = error.expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }
}
