//! The tokenizer on a folder of a few kilobytes (golden/tiny_tokenizer), and on a real one if there is one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ft_core::{ChatOptions, ChatTemplate, Error, Message, Tokenizer, Truncation};
use serde::Deserialize;
use serde_json::{Map, Value, json};

fn tiny_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny_tokenizer")
}

fn tiny() -> Tokenizer {
    Tokenizer::from_pretrained(&tiny_folder()).unwrap()
}

/// A folder with the tiny tokenizer and a configuration of the test's own.
fn folder_with_config(config: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(
        tiny_folder().join("tokenizer.json"),
        folder.path().join("tokenizer.json"),
    )
    .unwrap();
    fs::write(
        folder.path().join("tokenizer_config.json"),
        config.to_string(),
    )
    .unwrap();
    folder
}

#[test]
fn special_tokens_are_read_from_strings_and_from_objects() {
    let tokenizer = tiny();
    assert_eq!(tokenizer.bos_token(), Some("<|im_start|>"));
    assert_eq!(tokenizer.eos_token(), Some("<|im_end|>"));
    assert_eq!(tokenizer.eos_token_id(), Some(2));
    assert_eq!(tokenizer.pad_token_id(), Some(3));
    assert_eq!(tokenizer.unk_token_id(), Some(0));
    assert_eq!(tokenizer.vocab_size(), 386);
    assert!(tokenizer.is_special(2));
    let call = tokenizer.token_to_id("<tool_call>").unwrap();
    assert!(!tokenizer.is_special(call));
}

#[test]
fn a_conversation_has_the_ids_that_transformers_gives_it() {
    let tokenizer = tiny();
    let text = tokenizer
        .apply_chat_template(&[Message::new("user", "Is water wet? 東")], None, true)
        .unwrap();
    // tokenizer.apply_chat_template(..., add_generation_prompt=False) in transformers 5.23.
    let expected = [
        1, 88, 86, 289, 202, 326, 308, 307, 34, 224, 166, 255, 113, 2, 202,
    ];
    let ids = tokenizer.encode(&text, false).unwrap();
    assert_eq!(ids[..expected.len()], expected);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    let plain = tokenizer.decode(&ids, true).unwrap();
    assert!(!plain.contains("<|im_start|>"), "{plain}");
}

#[test]
fn offsets_are_bytes_of_the_text() {
    let tokenizer = tiny();
    let text = "é東 The cat<|im_end|>\n";
    let (ids, offsets) = tokenizer.encode_with_offsets(text, false).unwrap();
    assert_eq!(ids, tokenizer.encode(text, false).unwrap());
    let end = ids.iter().position(|&id| id == 2).unwrap();
    let (from, to) = offsets[end];
    assert_eq!(&text[from..to], "<|im_end|>");
}

/// transformers takes the class of the `model_type` where there is none, and it decides about token types.
#[test]
fn no_class_is_invented_beside_a_model() {
    let source = folder_with_config(&json!({"eos_token": "<|im_end|>"}));
    let tokenizer = Tokenizer::from_pretrained(source.path()).unwrap();
    let saved = tempfile::tempdir().unwrap();
    let class = || {
        tokenizer.save_pretrained(saved.path()).unwrap();
        let bytes = fs::read(saved.path().join("tokenizer_config.json")).unwrap();
        let config: Value = serde_json::from_slice(&bytes).unwrap();
        config.get("tokenizer_class").cloned()
    };
    assert_eq!(class(), Some(json!("PreTrainedTokenizerFast")));
    fs::write(saved.path().join("config.json"), "{}").unwrap();
    assert_eq!(class(), None);
}

#[test]
fn texts_are_cut_at_the_side_of_the_settings() {
    let text = "The cat sat on the mat";
    let ids = |settings: Value| {
        let source = folder_with_config(&settings);
        let tokenizer = Tokenizer::from_pretrained(source.path()).unwrap();
        let whole = tokenizer.encode(text, false).unwrap();
        let cut = tokenizer.encode_model_input(text, None, Some(3), Truncation::OnlyFirst);
        (whole, cut.unwrap().ids)
    };
    let (whole, cut) = ids(json!({}));
    assert_eq!(cut, whole[..3]);
    let (_, cut) = ids(json!({"truncation_side": "left"}));
    assert_eq!(cut, whole[whole.len() - 3..]);
}

#[test]
fn saving_keeps_everything_and_moves_the_template_to_a_file() {
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "model_max_length": 77,
        "chat_template": [
            {"name": "default", "template": "plain {{ messages[0].content }}"},
            {"name": "tool_use", "template": "tools {{ messages[0].content }}"},
        ],
    });
    let source = folder_with_config(&config);
    let saved = tempfile::tempdir().unwrap();
    let folder = saved.path().join("new/folder");
    let original = Tokenizer::from_pretrained(source.path()).unwrap();
    original.save_pretrained(&folder).unwrap();

    let text = fs::read_to_string(folder.join("chat_template.jinja")).unwrap();
    assert_eq!(text, "plain {{ messages[0].content }}");
    let config: Value =
        serde_json::from_slice(&fs::read(folder.join("tokenizer_config.json")).unwrap()).unwrap();
    assert_eq!(config["model_max_length"], 77);
    assert!(config.get("chat_template").is_none());

    let loaded = Tokenizer::from_pretrained(&folder).unwrap();
    let hello = [Message::new("user", "Hello")];
    for tools in [None, Some(&[json!({})][..])] {
        let text = loaded.apply_chat_template(&hello, tools, false).unwrap();
        assert_eq!(
            text,
            original.apply_chat_template(&hello, tools, false).unwrap()
        );
        assert_eq!(text.starts_with("tools"), tools.is_some());
    }
    let text = "The cat sat.<|im_end|>";
    assert_eq!(
        loaded.encode(text, true).unwrap(),
        original.encode(text, true).unwrap()
    );
    let names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn truncation_and_padding_of_the_file_are_saved_but_not_applied() {
    let folder = folder_with_config(&json!({}));
    let path = folder.path().join("tokenizer.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let truncation = json!({
        "max_length": 2, "stride": 0, "strategy": "LongestFirst", "direction": "Right",
    });
    file["truncation"] = truncation.clone();
    fs::write(&path, file.to_string()).unwrap();

    let tokenizer = Tokenizer::from_pretrained(folder.path()).unwrap();
    assert!(
        tokenizer
            .encode("The cat sat on the mat.", false)
            .unwrap()
            .len()
            > 2
    );
    tokenizer.save_pretrained(folder.path()).unwrap();
    let file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(file["truncation"]["max_length"], truncation["max_length"]);
}

#[test]
fn a_template_in_a_file_wins_over_the_configuration() {
    let folder = folder_with_config(&json!({"chat_template": "old"}));
    fs::write(folder.path().join("chat_template.jinja"), "new").unwrap();
    let tokenizer = Tokenizer::from_pretrained(folder.path()).unwrap();
    assert_eq!(tokenizer.chat_template().unwrap().source(), "new");
}

#[test]
fn a_template_can_be_given_where_there_is_none() {
    let folder = folder_with_config(&json!({}));
    let tokenizer = Tokenizer::from_pretrained(folder.path()).unwrap();
    let hello = [Message::new("user", "Hello")];
    let error = tokenizer.apply_chat_template(&hello, None, false);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("with_chat_template"), "{error}");

    let tokenizer = tokenizer.with_chat_template(ChatTemplate::new("{{ 1 + 1 }}").unwrap());
    let text = tokenizer.apply_chat_template(&hello, None, false).unwrap();
    assert_eq!(text, "2");
}

#[test]
fn arguments_reach_the_template_and_a_final_message_can_be_continued() {
    let template = "{% for m in messages %}<|im_start|>{{ m.content | trim }}{{ eos_token }}{% endfor %}{{ mood }}";
    let tokenizer = tiny().with_chat_template(ChatTemplate::new(template).unwrap());
    let messages = [
        Message::new("user", "Hi"),
        Message::new("assistant", "Well, "),
    ];
    let options = ChatOptions {
        arguments: Map::from_iter([
            ("mood".to_string(), json!("calm")),
            ("eos_token".to_string(), json!("<pad>")),
        ]),
        ..ChatOptions::default()
    };
    let text = tokenizer.apply_chat_template_with(&messages, &options);
    assert_eq!(
        text.unwrap(),
        "<|im_start|>Hi<pad><|im_start|>Well,<pad>calm"
    );
    let options = ChatOptions {
        continue_final_message: Some("content"),
        ..ChatOptions::default()
    };
    let text = tokenizer.apply_chat_template_with(&messages, &options);
    assert_eq!(text.unwrap(), "<|im_start|>Hi<|im_end|><|im_start|>Well,");
}

#[test]
fn a_broken_template_is_an_error_only_to_who_uses_it() {
    let folder = folder_with_config(&json!({"chat_template": "{% if %}"}));
    let tokenizer = Tokenizer::from_pretrained(folder.path()).unwrap();
    assert!(tokenizer.chat_template().is_none());
    assert!(tokenizer.encode("The cat", false).is_ok());
    let error = tokenizer.apply_chat_template(&[Message::new("user", "x")], None, false);
    assert!(error.unwrap_err().to_string().contains("does not parse"));
}

#[test]
fn without_a_configuration_there_are_no_special_tokens() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(
        tiny_folder().join("tokenizer.json"),
        folder.path().join("tokenizer.json"),
    )
    .unwrap();
    let tokenizer = Tokenizer::from_pretrained(folder.path()).unwrap();
    assert_eq!(tokenizer.eos_token(), None);
    assert!(tokenizer.chat_template().is_none());

    fs::write(
        folder.path().join("special_tokens_map.json"),
        json!({"eos_token": {"content": "<|endoftext|>"}}).to_string(),
    )
    .unwrap();
    let tokenizer = Tokenizer::from_pretrained(folder.path()).unwrap();
    assert_eq!(tokenizer.eos_token_id(), Some(0));
}

#[derive(Deserialize)]
struct AddedTokens {
    texts: Vec<String>,
    cases: Vec<AddedTokensCase>,
}

#[derive(Deserialize)]
struct AddedTokensCase {
    name: String,
    config: Value,
    special_tokens_map: Value,
    added_tokens: Value,
    /// What is changed in `tokenizer.json`.
    tokenizer: Map<String, Value>,
    ids: Vec<Vec<u32>>,
    plain: Vec<String>,
    vocab_size: usize,
    special_tokens: BTreeMap<String, String>,
    special_ids: Vec<u32>,
}

#[test]
fn tokens_of_files_beside_tokenizer_json_are_those_of_transformers() {
    let golden: AddedTokens =
        serde_json::from_str(include_str!("../golden/added_tokens.json")).unwrap();
    for case in &golden.cases {
        let folder = folder_with_config(&case.config);
        let path = folder.path().join("tokenizer.json");
        let mut file: Map<String, Value> =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        file.extend(case.tokenizer.clone());
        fs::write(&path, Value::Object(file).to_string()).unwrap();
        for (name, content) in [
            ("special_tokens_map.json", &case.special_tokens_map),
            ("added_tokens.json", &case.added_tokens),
        ] {
            if !content.is_null() {
                fs::write(folder.path().join(name), content.to_string()).unwrap();
            }
        }
        let tokenizer = Tokenizer::from_pretrained(folder.path()).unwrap();
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save_pretrained(saved.path()).unwrap();
        let loaded = Tokenizer::from_pretrained(saved.path()).unwrap();
        for (tokenizer, which) in [(&tokenizer, "read"), (&loaded, "saved and read")] {
            let name = format!("{}, {which}", case.name);
            for (text, (ids, plain)) in golden.texts.iter().zip(case.ids.iter().zip(&case.plain)) {
                assert_eq!(
                    tokenizer.encode(text, false).unwrap(),
                    *ids,
                    "{name}: {text}"
                );
                assert_eq!(
                    tokenizer.decode(ids, true).unwrap(),
                    *plain,
                    "{name}: {text}"
                );
            }
            assert_eq!(tokenizer.vocab_size(), case.vocab_size, "{name}");
            let special = tokenizer.special_tokens();
            let special: BTreeMap<_, _> = special.into_iter().collect();
            let expected = case.special_tokens.iter();
            let expected: BTreeMap<_, _> =
                expected.map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(special, expected, "{name}");
            for &id in &case.special_ids {
                assert!(tokenizer.is_special(id), "{name}: {id}");
            }
        }
    }
    assert!(golden.cases.len() > 20);
}

#[test]
fn tokens_that_only_the_configuration_has_are_added_at_their_ids() {
    let listed = |id: &str| {
        json!({
            "added_tokens_decoder": {id: {"content": "<new>", "special": true}},
            "pad_token": "[PAD]",
        })
    };
    let folder = folder_with_config(&listed("386"));
    let tokenizer = Tokenizer::from_pretrained(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("<new>", false).unwrap(), [386]);
    assert_eq!(tokenizer.pad_token_id(), Some(387));

    let folder = folder_with_config(&listed("400"));
    let error = Tokenizer::from_pretrained(folder.path()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("`<new>` the id 400"), "{error}");
}

#[test]
fn a_tokenizer_that_does_not_fit_the_model_is_told_with_both_sizes() {
    let tokenizer = tiny();
    tokenizer.check_vocab(386).unwrap();
    tokenizer.check_vocab(512).unwrap();
    let error = tokenizer.check_vocab(385).unwrap_err().to_string();
    assert!(error.contains("386") && error.contains("385"), "{error}");
    assert!(error.contains("</tool_call>"), "{error}");
}

#[test]
fn missing_and_broken_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_pretrained(folder.path()).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");

    fs::write(folder.path().join("tokenizer.json"), "{\"version\":").unwrap();
    let error = Tokenizer::from_pretrained(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");

    let folder = folder_with_config(&json!([]));
    let error = Tokenizer::from_pretrained(folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("tokenizer_config.json"),
        "{error}"
    );

    let error = tiny().save_pretrained(&tiny_folder().join("tokenizer.json"));
    assert!(matches!(error, Err(Error::Write { .. })));
}

#[test]
fn smollm2_renders_and_tokenizes_as_in_transformers() {
    let Some(models) = std::env::var_os("FT_TEST_MODELS").filter(|f| !f.is_empty()) else {
        eprintln!("skipped: FT_TEST_MODELS names no folder of models");
        return;
    };
    let folder = Path::new(&models).join("smollm2-135m-instruct");
    let tokenizer = Tokenizer::from_pretrained(&folder).unwrap();
    let messages = [
        Message::new("user", "What is the capital of France?"),
        Message::new("assistant", "Paris, 東京 is Japan's."),
    ];
    let text = tokenizer
        .apply_chat_template(&messages, None, true)
        .unwrap();
    let ids = tokenizer.encode(&text, false).unwrap();
    assert_eq!(ids, SMOLLM2_IDS);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    tokenizer.check_vocab(49152).unwrap();
}

/// `AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, add_generation_prompt=True)`
/// of transformers 5.23.0.
const SMOLLM2_IDS: &[u32] = &[
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407,
    19712, 8182, 2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531,
    198, 38634, 28, 17097, 247, 126, 16736, 122, 314, 3085, 506, 30, 2, 198, 1, 520, 9531, 198,
];
