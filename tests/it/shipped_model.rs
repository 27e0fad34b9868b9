//! The model under `assets/`: what its card promises.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ft::burn::tensor::Device;
use ft::core::{
    AutoCausalLm, CausalLm, GenerationConfig, Message, TokenBatch, Tokenizer, causal_lm_loss,
    generate,
};

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/tiny-llama")
}

pub(crate) fn load(device: &Device) -> (AutoCausalLm, Tokenizer) {
    let tokenizer = Tokenizer::from_pretrained(&folder()).expect("tokenizer");
    let model = AutoCausalLm::from_pretrained(&folder(), device).expect("model");
    (model, tokenizer)
}

#[test]
fn it_is_small() {
    let bytes: u64 = std::fs::read_dir(folder())
        .expect("folder")
        .map(|entry| entry.and_then(|e| e.metadata()).expect("entry").len())
        .sum();
    assert!(bytes <= 8_000_000, "{bytes} bytes");
}

/// Text of the kind it was trained on, which no seed of the corpus wrote, is little surprise to it.
#[test]
fn simple_english_is_no_surprise_and_noise_is() {
    let device = Device::default();
    let (model, tokenizer) = load(&device);
    let loss = |text: &str| {
        let ids = tokenizer.encode(text, true).expect("encodes");
        let tokens = TokenBatch::from_ids(&ids, &device);
        let labels: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let hidden = model.hidden_states(&tokens, None);
        let loss = causal_lm_loss(hidden, model.head(), &labels);
        loss.sum.into_scalar::<f64>() / loss.count as f64
    };
    let english = loss(
        "Once upon a time there was a little girl named Mia. She lived in a small house near the \
         river. One day she found a red ball in the garden.",
    );
    let shuffled = loss(
        "ball there named red house. time One near a garden small Once the day Mia. a was lived \
         upon girl in She little a river. she the a in found",
    );
    assert!(english < 3.5, "{english}"); // a token by chance: ln 3072 = 8.0
    assert!(shuffled > english + 2.0, "{shuffled} against {english}");
}

#[test]
fn it_tells_a_story_that_ends() {
    let device = Device::default();
    let (model, tokenizer) = load(&device);
    let config = GenerationConfig {
        max_new_tokens: 400,
        ..GenerationConfig::from_pretrained(&folder(), Some(&tokenizer)).expect("settings")
    };
    let prompts = [tokenizer
        .encode("Once upon a time there was", true)
        .expect("encodes")];
    let mut text = String::new();
    let mut listen = |token: ft::core::Streamed<'_>| {
        text.push_str(token.text);
        ControlFlow::Continue(())
    };
    let out = generate(
        &model,
        Some(&tokenizer),
        &prompts,
        &config,
        &device,
        &mut listen,
    );
    let out = out.expect("generates").remove(0);
    assert_eq!(out.finish_reason, ft::core::FinishReason::EndToken);
    assert_eq!(text, out.text, "the streamed text is the text");
    assert!(out.text.split_whitespace().count() > 20, "{}", out.text);
}

#[test]
fn a_stop_string_ends_the_text_and_is_not_part_of_it() {
    let device = Device::default();
    let (model, tokenizer) = load(&device);
    let config = GenerationConfig {
        max_new_tokens: 200,
        stop_strings: vec![".".into()],
        ..GenerationConfig::default()
    };
    let prompts = [tokenizer
        .encode("Once upon a time there was", true)
        .expect("encodes")];
    let mut streamed = String::new();
    let mut listen = |token: ft::core::Streamed<'_>| {
        streamed.push_str(token.text);
        ControlFlow::Continue(())
    };
    let out = generate(
        &model,
        Some(&tokenizer),
        &prompts,
        &config,
        &device,
        &mut listen,
    );
    let out = out.expect("generates").remove(0);
    assert_eq!(out.finish_reason, ft::core::FinishReason::StopString);
    assert!(
        !out.text.contains('.') && out.text.len() > 10,
        "{:?}",
        out.text
    );
    assert_eq!(streamed, out.text);
}

/// A special token is not part of the text, but it can be a stop string.
#[test]
fn a_special_token_as_stop_string_ends_the_text() {
    let device = Device::default();
    let (model, tokenizer) = load(&device);
    let prompts = [tokenizer
        .encode("Once upon a time there was", true)
        .expect("encodes")];
    let config = GenerationConfig {
        max_new_tokens: 400,
        ..GenerationConfig::from_pretrained(&folder(), Some(&tokenizer)).expect("settings")
    };
    let run = |config: &GenerationConfig| {
        let mut streamed = String::new();
        let mut listen = |token: ft::core::Streamed<'_>| {
            streamed.push_str(token.text);
            ControlFlow::Continue(())
        };
        let tokenizer = Some(&tokenizer);
        let out = generate(&model, tokenizer, &prompts, config, &device, &mut listen);
        let out = out.expect("generates").remove(0);
        assert_eq!(streamed, out.text);
        out
    };
    let by_token = run(&config);
    let end = by_token.token_ids.last().expect("some tokens");
    let by_string = run(&GenerationConfig {
        eos_token_ids: Vec::new(),
        stop_strings: vec![tokenizer.id_to_token(*end).expect("an end token")],
        ..config
    });
    assert_eq!(by_string.finish_reason, ft::core::FinishReason::StopString);
    assert_eq!(by_string.text, by_token.text);
    assert_eq!(by_string.token_ids, by_token.token_ids);
}

/// Text that is held back because a stop string may begin with it comes when the length ends the row.
#[test]
fn the_stream_is_whole_when_the_length_ends_it() {
    let device = Device::default();
    let (model, tokenizer) = load(&device);
    let prompts = [tokenizer
        .encode("Once upon a time there was", true)
        .expect("encodes")];
    let run = |stop_strings: Vec<String>| {
        let config = GenerationConfig {
            max_new_tokens: 9,
            stop_strings,
            ..GenerationConfig::default()
        };
        let mut streamed = String::new();
        let mut listen = |token: ft::core::Streamed<'_>| {
            streamed.push_str(token.text);
            ControlFlow::Continue(())
        };
        let tokenizer = Some(&tokenizer);
        let out = generate(&model, tokenizer, &prompts, &config, &device, &mut listen);
        (out.expect("generates").remove(0).text, streamed)
    };
    let (text, streamed) = run(Vec::new());
    assert_eq!(text, streamed);
    let end = text.chars().last().expect("some text");
    let (text, streamed) = run(vec![format!("{end}never")]);
    assert_eq!(text, streamed);
}

/// The longest prompt of a batch takes no room from the others.
#[test]
fn a_short_prompt_may_go_on_beside_a_long_one() {
    let device = Device::default();
    let (model, _) = load(&device);
    let config = GenerationConfig {
        max_new_tokens: 20,
        ..GenerationConfig::default()
    };
    let most = model.dims().max_position_embeddings;
    let prompts = [vec![50; most - 3], vec![50; 4]];
    let mut silent = |_: ft::core::Streamed<'_>| ControlFlow::Continue(());
    let out = generate(&model, None, &prompts, &config, &device, &mut silent).expect("generates");
    assert_eq!(out[0].token_ids.len(), 3);
    assert_eq!(out[1].token_ids.len(), 20);
}

#[test]
fn its_chat_template_marks_turns() {
    let (_, tokenizer) = load(&Device::default());
    let text = tokenizer
        .apply_chat_template(&[Message::new("user", "Hello!")], None, true)
        .expect("renders");
    assert_eq!(
        text,
        "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"
    );
}
