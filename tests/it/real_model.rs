//! SmolLM2-135M-Instruct against transformers: `tests/reference/smollm2.py` made the numbers.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ft::burn::tensor::{Device, Tensor};
use ft::core::{
    AutoCausalLm, CausalLm, GenerationConfig, Message, TokenBatch, Tokenizer, generate,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    vocab_ids: Vec<usize>,
    texts: Vec<Text>,
    chats: Vec<Chat>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    input_ids: Vec<u32>,
    /// The most probable token after every token, and by how much it leads.
    argmax: Vec<u32>,
    lead: Vec<f32>,
    logsumexp: Vec<f32>,
    last_logits: Vec<f32>,
}

#[derive(Deserialize)]
struct Chat {
    prompt: String,
    rendered: String,
    input_ids: Vec<u32>,
    greedy: Vec<u32>,
}

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("FT_TEST_MODELS").filter(|folder| !folder.is_empty())?;
    let folder = PathBuf::from(folder);
    let folder = folder.join("smollm2-135m-instruct");
    if !folder.is_dir() {
        panic!(
            "FT_TEST_MODELS is set, but {} is not there",
            folder.display()
        );
    }
    Some(folder)
}

fn reference() -> Reference {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/smollm2.json");
    let text = std::fs::read_to_string(path).expect("reference");
    serde_json::from_str(&text).expect("JSON")
}

/// One test, so that the model is loaded once.
#[test]
fn smollm2_says_what_it_says_in_transformers() {
    let Some(folder) = folder() else {
        eprintln!("skipped: FT_TEST_MODELS is not set");
        return;
    };
    let device = Device::default();
    let tokenizer = Tokenizer::from_pretrained(&folder).expect("tokenizer");
    let model = AutoCausalLm::from_pretrained(&folder, &device).expect("model");
    let reference = reference();
    // For `tests/reference/compare_logits.py`, which compares every number.
    if let Some(file) = std::env::var_os("FT_WRITE_LOGITS") {
        let mut tensors = Vec::new();
        for (i, text) in reference.texts.iter().enumerate() {
            let tokens = TokenBatch::from_ids(&text.input_ids, &device);
            let ids = tokens.input_ids.clone().into_data().convert::<i64>();
            tensors.push((format!("text{i}.input_ids"), ids));
            let logits = model.logits(&tokens, None).into_data();
            tensors.push((format!("text{i}.logits"), logits));
        }
        ft::core::safetensors_folder::write_tensors(file.as_ref(), &tensors, &Default::default())
            .expect("writes the logits");
    }
    for text in &reference.texts {
        assert_eq!(
            tokenizer.encode(&text.text, false).expect("encodes"),
            text.input_ids
        );
        logits_agree(&model, text, &reference.vocab_ids, &device);
    }
    for chat in &reference.chats {
        greedy_agrees(&model, &tokenizer, &folder, chat, &device);
    }
    for chat in &reference.chats {
        greedy_without_cache_agrees(&model, chat, &device);
    }
}

fn logits_agree(model: &AutoCausalLm, text: &Text, vocab_ids: &[usize], device: &Device) {
    let logits = model.logits(&TokenBatch::from_ids(&text.input_ids, device), None);
    let vocab = logits.dims()[2];
    let logits = logits.into_data().try_into_vec::<f32>().expect("f32");
    for (position, row) in logits.chunks(vocab).enumerate() {
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
        let logsumexp = sum.ln() as f32 + max;
        let expected = text.logsumexp[position];
        assert!(
            (logsumexp - expected).abs() < 2e-3,
            "{position}: {logsumexp} {expected}"
        );
        if text.lead[position] > 4e-3 {
            let best = ft::core::sampling::argmax(row);
            assert_eq!(best, text.argmax[position], "position {position}");
        }
    }
    let last = &logits[logits.len() - vocab..];
    for (id, expected) in vocab_ids.iter().zip(&text.last_logits) {
        let found = last[*id];
        assert!(
            (found - expected).abs() < 2e-3,
            "token {id}: {found} {expected}"
        );
    }
}

fn greedy_agrees(
    model: &AutoCausalLm,
    tokenizer: &Tokenizer,
    folder: &Path,
    chat: &Chat,
    device: &Device,
) {
    let messages = [Message::new("user", chat.prompt.as_str())];
    let rendered = tokenizer
        .apply_chat_template(&messages, None, true)
        .expect("renders");
    assert_eq!(rendered, chat.rendered);
    let prompt = tokenizer.encode(&rendered, false).expect("encodes");
    assert_eq!(prompt, chat.input_ids);
    let config = GenerationConfig {
        max_new_tokens: chat.greedy.len(),
        ..GenerationConfig::from_pretrained(folder, Some(tokenizer)).expect("settings")
    };
    let mut listen = |_: ft::core::Streamed<'_>| ControlFlow::Continue(());
    let out = generate(
        model,
        Some(tokenizer),
        &[prompt],
        &config,
        device,
        &mut listen,
    );
    assert_eq!(out.expect("generates")[0].token_ids, chat.greedy);
}

/// Every position of prompt and answer predicts the next token of the answer.
fn greedy_without_cache_agrees(model: &AutoCausalLm, chat: &Chat, device: &Device) {
    let mut ids = chat.input_ids.clone();
    ids.extend(&chat.greedy);
    let logits: Tensor<3> = model.logits(&TokenBatch::from_ids(&ids, device), None);
    let vocab = logits.dims()[2];
    let logits = logits.into_data().try_into_vec::<f32>().expect("f32");
    for (i, expected) in chat.greedy.iter().enumerate() {
        let position = chat.input_ids.len() + i - 1;
        let row = &logits[position * vocab..(position + 1) * vocab];
        assert_eq!(ft::core::sampling::argmax(row), *expected, "token {i}");
    }
}
