//! Laws of virtual tokens: prompt tuning, p-tuning and prefix tuning.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::{
    AutoCausalLm, Bert, CausalLm, Decoder, ModelConfig, Part, Parts, TokenBatch, Tokenizer,
};
use ft_peft::{
    Common, EncoderType, Error, InitPrefix, Method, PTuningConfig, PrefixTuningConfig, PromptSizes,
    PromptTuningConfig, PromptTuningInit, TargetModules, attach, delete, load_adapter,
    merge_and_unload, read_settings, save_adapter, set_active, trainable_parameters, unload,
    with_rows, without_adapters,
};
use serde_json::json;

use crate::adapted_models::{distance, drawing, logits, model};
use crate::golden::{assert_close, folder, saved_tensors};
use crate::prompts::{configs, greedy};

fn batch(rows: &[&[i64]], device: &Device) -> Tensor<2, Int> {
    let numbers: Vec<i64> = rows.concat();
    Tensor::from_data(
        TensorData::new(numbers, [rows.len(), rows[0].len()]),
        device,
    )
}

/// A model with grouped heads, one with learned positions, one with windows.
fn small(kind: &str, device: &Device) -> AutoCausalLm {
    if kind != "mistral" {
        return model(kind, device);
    }
    let json = json!({"model_type": "mistral", "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3,
        "sliding_window": 4});
    let _drawing = drawing();
    device.seed(7);
    let config = ModelConfig::from_json(json).expect("valid");
    let model = AutoCausalLm::from_config(&config, device).expect("valid");
    let _ = logits(&model, device);
    model
}

fn for_every_case(kinds: &[&str], law: impl Fn(&str, AutoCausalLm, &dyn Method, &Device)) {
    for kind in kinds {
        for config in configs(3) {
            let device = Device::default();
            law(kind, small(kind, &device), &*config, &device);
        }
    }
}

#[test]
fn with_a_cache_the_logits_are_the_same() {
    for_every_case(&["llama", "gpt2", "mistral"], |_, model, config, device| {
        let model = attach(model, config, "default", 1).expect("attaches");
        let ids = batch(&[&[3, 14, 15, 9, 26, 5], &[2, 7, 1, 8, 28, 1]], device);
        let whole = model.logits(&TokenBatch::new(ids.clone()), None);
        let mut cache = model.new_cache();
        for (from, len) in [(0, 3), (3, 1), (4, 2)] {
            let part = TokenBatch::new(ids.clone().narrow(1, from, len));
            let found = model.logits(&part, Some(&mut cache)).into_data();
            let expected = whole.clone().narrow(1, from, len).into_data();
            assert_close("part", &found, &expected, 2e-5);
            assert_eq!(cache.len(), from + len, "virtual tokens are not counted");
        }
    });
}

/// Documents of a packed row, and rows that are padded on the left, attend to the virtual tokens as separate rows do.
#[test]
fn packed_and_padded_rows_equal_separate_ones() {
    for_every_case(&["llama", "gpt2"], |kind, model, config, device| {
        let model = attach(model, config, "default", 1).expect("attaches");
        let documents: [&[i64]; 2] = [&[3, 14, 15, 9], &[26, 5, 35]];
        let alone =
            documents.map(|ids| model.logits(&TokenBatch::new(batch(&[ids], device)), None));
        let check = |what: &str,
                     ids: &[i64],
                     positions: &[i64],
                     segments: &[i64],
                     starts: [Option<usize>; 2]| {
            let tokens = TokenBatch {
                position_ids: Some(batch(&[positions], device)),
                segment_ids: Some(batch(&[segments], device)),
                ..TokenBatch::new(batch(&[ids], device))
            };
            for mut cache in [None, Some(model.new_cache())] {
                let found = model.logits(&tokens, cache.as_mut());
                for (alone, start) in alone.iter().zip(starts) {
                    let Some(start) = start else { continue };
                    let len = alone.dims()[1];
                    let found = found.clone().narrow(1, start, len).into_data();
                    assert_close(&format!("{kind} {what}"), &found, &alone.to_data(), 2e-5);
                }
            }
        };
        let starts = [Some(0), Some(4)];
        let (ids, positions) = ([3, 14, 15, 9, 26, 5, 35, 0], [0, 1, 2, 3, 0, 1, 2, 0]);
        check(
            "packed",
            &ids,
            &positions,
            &[1, 1, 1, 1, 2, 2, 2, 0],
            starts,
        );
        let (ids, positions) = ([0, 0, 26, 5, 35], [0, 0, 0, 1, 2]);
        check(
            "padded",
            &ids,
            &positions,
            &[0, 0, 1, 1, 1],
            [None, Some(2)],
        );
    });
}

/// Rows of different lengths that follow the content of one cache, as benchmarks read them.
#[test]
fn rows_continue_a_shared_cache() {
    for_every_case(&["llama", "gpt2"], |kind, model, config, device| {
        let model = attach(model, config, "default", 1).expect("attaches");
        let shared: [i64; 3] = [3, 14, 15];
        let mut cache = model.new_cache();
        model.hidden_states(
            &TokenBatch::new(batch(&[&shared], device)),
            Some(&mut cache),
        );
        cache.select_rows(&[0, 0]);
        let past = cache.len() as i64;
        let tokens = TokenBatch {
            position_ids: Some(batch(&[&[past, past + 1], &[0, past]], device)),
            segment_ids: Some(batch(&[&[1, 1], &[0, 1]], device)),
            ..TokenBatch::new(batch(&[&[9, 26], &[0, 5]], device))
        };
        let found = model.logits(&tokens, Some(&mut cache));
        for (row, last) in [&[9, 26][..], &[5]].into_iter().enumerate() {
            let ids = [&shared[..], last].concat();
            let alone = model.logits(&TokenBatch::new(batch(&[&ids], device)), None);
            let expected = alone.narrow(1, ids.len() - 1, 1).into_data();
            let found = found.clone().narrow(0, row, 1).narrow(1, 1, 1).into_data();
            assert_close(kind, &found, &expected, 2e-5);
        }
    });
}

#[test]
#[should_panic(expected = "looks back 4 tokens only")]
fn a_packed_row_longer_than_the_window_is_refused() {
    let device = Device::default();
    let [config, ..] = configs(3);
    let model = attach(small("mistral", &device), &*config, "default", 1).expect("attaches");
    let tokens = TokenBatch {
        segment_ids: Some(batch(&[&[1, 1, 2, 2]], &device)),
        ..TokenBatch::new(batch(&[&[3, 14, 15, 9]], &device))
    };
    model.logits(&tokens, None);
}

#[test]
fn switched_off_unloaded_and_deleted_prompts_are_the_base() {
    for_every_case(&["llama", "gpt2"], |_, model, config, device| {
        let base = logits(&model, device);
        let longest = model.dims().max_position_embeddings;
        let model = attach(model, config, "default", 1).expect("attaches");
        assert!(
            distance(&logits(&model, device), &base) > 0.01,
            "the adapter has an effect"
        );
        assert_eq!(model.dims().max_position_embeddings, longest - 3);
        assert_eq!(logits(&without_adapters(&model), device), base);
        assert_eq!(
            without_adapters(&model).dims().max_position_embeddings,
            longest
        );
        assert_eq!(logits(&unload(model.clone()), device), base);
        let mut model = model;
        set_active(&mut model, &[]).expect("there");
        assert_eq!(logits(&model, device), base);
        let mut two = attach(model.clone(), config, "other", 2).expect("attaches");
        let error = set_active(&mut two, &["default", "other"]).expect_err("two");
        assert!(error.to_string().contains("only one of them"), "{error}");
        set_active(&mut model, &["default"]).expect("there");
        delete(&mut model, "default").expect("there");
        assert_eq!(logits(&model, device), base);
    });
}

#[test]
fn rows_of_a_batch_have_the_same_virtual_tokens() {
    for_every_case(&["llama"], |_, model, config, device| {
        let model = attach(model, config, "default", 1).expect("attaches");
        let same = with_rows(&model, &[Some("default")]).expect("the same");
        assert_eq!(logits(&same, device), logits(&model, device));
        let error = with_rows(&model, &[Some("default"), None]).expect_err("differ");
        assert!(
            error.to_string().contains("a batch of their own"),
            "{error}"
        );
    });
}

#[test]
fn prompts_are_not_merged() {
    for_every_case(&["llama"], |_, model, config, _| {
        let model = attach(model, config, "default", 1).expect("attaches");
        let error = merge_and_unload(model).expect_err("no weight");
        assert!(matches!(error, Error::NotMergeable { .. }), "{error}");
    });
}

/// A network computes the same virtual tokens until it is saved; the file holds them alone and trains them alone.
#[test]
fn a_saved_prompt_computes_the_same() {
    for_every_case(&["llama", "gpt2"], |kind, model, config, device| {
        let base = model.clone();
        let model = attach(model, config, "default", 1).expect("attaches");
        let folder = tempfile::tempdir().expect("temporary folder");
        save_adapter(&model, "default", folder.path()).expect("saves");
        let again = load_adapter(base, folder.path(), "default", true).expect("loads");
        assert_close(kind, &logits(&again, device), &logits(&model, device), 1e-6);
        let numbers = saved_tensors(folder.path())["prompt_embeddings"].num_elements();
        assert_eq!(trainable_parameters(&again.train()).0, numbers);
    });
}

/// GPT-2 has 32 positions, and three are taken.
#[test]
fn generation_ends_where_positions_do() {
    let device = Device::default();
    for config in configs(3) {
        let model = attach(model("gpt2", &device), &*config, "default", 1).expect("attaches");
        let mut decoder = Decoder::new(&model, None, &device);
        decoder.join(&[3; 27], &greedy(50)).expect("joins");
        let error = decoder.join(&[3; 29], &greedy(50)).expect_err("no room");
        assert!(error.to_string().contains("leaves no room"), "{error}");
        let mut count = 0;
        while !decoder.is_empty() {
            count += decoder.step().expect("steps").len();
        }
        assert_eq!(count, 2, "29 places for tokens");
    }
}

/// The rows of the virtual tokens, and those of the embedding.
fn rows(model: &AutoCausalLm) -> (Tensor<2>, Tensor<2>) {
    let mut found = None;
    model.for_each_part(&mut |_, part| {
        if let Part::Embedding(table) = part
            && let Some(adapter) = table.adapters.first()
        {
            found = Some((adapter.val2("prompt_embeddings"), table.table()));
        }
    });
    found.expect("an adapter on an embedding")
}

#[test]
fn a_prompt_begins_as_its_text_repeated_or_cut() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
    let tokenizer = Tokenizer::from_pretrained(&folder).expect("loads");
    let text = "Answer the question.";
    let ids = tokenizer.encode(text, true).expect("encodes");
    let device = Device::default();
    let base = AutoCausalLm::from_pretrained(&folder, &device).expect("loads");
    for count in [ids.len() - 1, ids.len() + 2] {
        let config =
            PromptTuningConfig::from_text(count, text, &tokenizer, "a/name").expect("has tokens");
        let json = config.to_json(false);
        assert_eq!(json["prompt_tuning_init"], "TEXT");
        assert_eq!(json["tokenizer_name_or_path"], "a/name");
        let model = attach(base.clone(), &config, "default", 1).expect("attaches");
        let (prompt, table) = rows(&model);
        let ids: Vec<i64> = ids
            .iter()
            .cycle()
            .take(count)
            .map(|id| i64::from(*id))
            .collect();
        let expected = table.select(0, Tensor::from_data(ids.as_slice(), &device));
        assert_eq!(prompt.into_data(), expected.into_data());
    }
}

#[test]
fn a_prompt_of_the_vocabulary_has_rows_of_the_table() {
    let device = Device::default();
    let config = PromptTuningConfig {
        prompt_tuning_init: PromptTuningInit::SampleVocab,
        ..PromptTuningConfig::default()
    };
    let model = attach(model("llama", &device), &config, "default", 1).expect("attaches");
    let (prompt, table) = rows(&model);
    let table = table.into_data();
    let table: Vec<&[f32]> = table.as_slice::<f32>().expect("f32").chunks(24).collect();
    let prompt = prompt.into_data();
    let prompt: Vec<&[f32]> = prompt.as_slice::<f32>().expect("f32").chunks(24).collect();
    assert!(prompt.iter().all(|row| table.contains(row)));
    assert!(prompt.iter().any(|row| row != &prompt[0]), "rows differ");
}

#[test]
fn a_prefix_may_begin_at_zero() {
    let device = Device::default();
    for prefix_projection in [false, true] {
        let config = PrefixTuningConfig {
            init_weights: Some(InitPrefix::Zero),
            prefix_projection,
            ..PrefixTuningConfig::default()
        };
        assert_eq!(config.to_json(false)["init_weights"], "zero");
        let model = attach(model("llama", &device), &config, "default", 1).expect("attaches");
        let folder = tempfile::tempdir().expect("temporary folder");
        save_adapter(&model, "default", folder.path()).expect("saves");
        let prefix = &saved_tensors(folder.path())["prompt_embeddings"];
        assert_eq!(prefix.shape()[..], [20, 2 * 2 * 12]);
        assert!(prefix.iter::<f32>().all(|x| x == 0.0));
    }
}

#[test]
fn settings_that_do_not_fit_are_errors() {
    let device = Device::default();
    let wrong = |config: &dyn Method, part: &str| {
        let error = attach(model("llama", &device), config, "default", 1).expect_err(part);
        assert!(error.to_string().contains(part), "{error}");
    };
    for config in configs(0) {
        wrong(&*config, "num_virtual_tokens");
    }
    let sizes = PromptSizes {
        token_dim: Some(7),
        ..PromptSizes::default()
    };
    wrong(
        &PrefixTuningConfig {
            sizes: sizes.clone(),
            ..PrefixTuningConfig::default()
        },
        "token_dim is 7, but that of the model is 12",
    );
    wrong(
        &PromptTuningConfig {
            sizes,
            ..PromptTuningConfig::default()
        },
        "token_dim is 7, but that of the model is 24",
    );
    wrong(
        &PromptTuningConfig {
            prompt_tuning_init: PromptTuningInit::Text,
            ..PromptTuningConfig::default()
        },
        "from_text",
    );
    wrong(
        &PTuningConfig {
            encoder_reparameterization_type: EncoderType::Lstm,
            ..PTuningConfig::default()
        },
        "LSTM is not supported",
    );
    wrong(
        &PTuningConfig {
            encoder_dropout: 0.1,
            ..PTuningConfig::default()
        },
        "no dropout",
    );
    wrong(
        &PromptTuningConfig {
            common: Common {
                target_modules: Some(TargetModules::names(["q_proj"])),
                ..Common::default()
            },
            ..PromptTuningConfig::default()
        },
        "target_modules is not a setting of PROMPT_TUNING",
    );
}

fn encoder(device: &Device) -> Bert {
    Bert::from_pretrained(&folder("../../../ft-core/tests/golden/bert"), device).expect("loads")
}

#[test]
fn virtual_tokens_on_an_encoder_are_refused() {
    let device = Device::default();
    for config in configs(3) {
        let error = attach(encoder(&device), &*config, "default", 1);
        let error = error.expect_err("refused").to_string();
        assert!(
            error.contains("not supported on encoders"),
            "{config:?}: {error}"
        );
        assert!(!error.contains("use prompt tuning"), "{config:?}: {error}");
        // Neither does a file of another model.
        let made = attach(model("llama", &device), &*config, "default", 1).expect("attaches");
        let saved = tempfile::tempdir().expect("temporary folder");
        save_adapter(&made, "default", saved.path()).expect("saves");
        let error = load_adapter(encoder(&device), saved.path(), "default", false);
        let error = error.expect_err("refused").to_string();
        assert!(
            error.contains("not supported on encoders"),
            "{config:?}: {error}"
        );
    }
}

#[test]
fn settings_of_prompts_without_effect_are_refused() {
    let device = Device::default();
    for (settings, part) in [
        (
            json!({"peft_type": "PROMPT_TUNING", "prompt_tuning_init_text": "Answer."}),
            "prompt_tuning_init_text has no effect",
        ),
        (
            json!({"peft_type": "PREFIX_TUNING", "encoder_hidden_size": 8}),
            "encoder_hidden_size has no effect",
        ),
    ] {
        let config = read_settings(&settings).expect("settings");
        let error = attach(model("llama", &device), &*config, "default", 1);
        let error = error.expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }
    // What a file has of a prefix is no mistake in a new one.
    let made = attach(
        model("llama", &device),
        &PrefixTuningConfig::default(),
        "one",
        1,
    );
    let made = made.expect("attaches");
    let settings = ft_peft::adapter_config(&made, "one").expect("there");
    attach(model("llama", &device), &*settings, "two", 1).expect("attaches");
}
