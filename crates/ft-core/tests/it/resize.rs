//! Embeddings with more rows, or fewer.

use burn::tensor::{DType, Device, Tensor, TensorData};
use ft_core::{AutoCausalLm, CausalLm, Part, Parts, SaveOptions, TokenBatch, Weights};
use tempfile::TempDir;

use crate::low_rank::low_rank;
use crate::models::{assert_close, golden};

const IDS: [u32; 6] = [5, 0, 96, 44, 7, 61];

fn logits(model: &AutoCausalLm) -> Tensor<3> {
    model.logits(&TokenBatch::from_ids(&IDS, &Device::default()), None)
}

fn load(name: &str, weights: Weights) -> AutoCausalLm {
    AutoCausalLm::from_pretrained_with(&golden(name), &Device::default(), weights).expect("loads")
}

/// Old tokens keep their logits bit for bit. That of a new one is the mean of theirs, since its row is.
#[test]
fn new_tokens_are_the_mean_of_the_old() {
    for name in ["llama", "llama_untied_bias", "qwen3", "gpt2"] {
        let old = load(name, Weights::F32);
        let mut model = old.clone();
        model.resize_token_embeddings(100).expect("grows");
        let (before, after) = (logits(&old), logits(&model));
        assert_eq!(after.dims(), [1, 6, 100]);
        assert_eq!(after.clone().narrow(2, 0, 97).into_data(), before.to_data());
        let mean = before.mean_dim(2).repeat_dim(2, 3).into_data();
        assert_close(name, after.narrow(2, 97, 3).into_data(), &mean, 1e-5);
        // As inputs, the new tokens are all alike.
        let of = |id: u32| {
            let tokens = TokenBatch::from_ids(&[id, 3], &Device::default());
            model.logits(&tokens, None).into_data()
        };
        assert_eq!(of(97), of(99));
        model.truncate_token_embeddings(97).expect("shrinks");
        assert_eq!(logits(&model).into_data(), logits(&old).into_data());
    }
}

#[test]
fn the_new_size_is_saved_and_loaded() {
    for name in ["llama", "llama_untied_bias", "gpt2"] {
        let mut model = load(name, Weights::F32);
        model.resize_token_embeddings(101).expect("grows");
        assert_eq!(model.body().dims().vocab_size, 101);
        assert_eq!(model.dims().vocab_size, 101);
        assert_eq!(model.config().dims().vocab_size, 101);
        let folder = TempDir::new().expect("temporary folder");
        model
            .save_pretrained(folder.path(), &SaveOptions::default())
            .expect("saves");
        let again = AutoCausalLm::from_pretrained(folder.path(), &Device::default());
        let again = again.expect("loads");
        assert_eq!(logits(&again).into_data(), logits(&model).into_data());
        assert_eq!(again.dims(), model.dims());
    }
}

/// What is held in 16 bits and does not train stays so.
#[test]
fn weights_in_16_bits_stay_in_16_bits() {
    let mut model = load("llama_bf16", Weights::Stored);
    model.resize_token_embeddings(98).expect("grows");
    model.for_each_part(&mut |path, part| {
        if let Part::Embedding(table) = part {
            assert_eq!(path, "model.embed_tokens");
            assert_eq!(table.weight.val().dtype(), DType::BF16);
            assert!(!table.weight.is_require_grad());
        }
    });
    let wide = load("llama_bf16", Weights::F32);
    let expected: TensorData = logits(&wide).into_data();
    let found = logits(&model).narrow(2, 0, 97).into_data();
    assert_close("logits", found, &expected, 2e-6);
}

#[test]
fn tokens_are_lost_only_if_that_is_asked_for() {
    let mut model = load("llama", Weights::F32);
    let error = model
        .resize_token_embeddings(96)
        .expect_err("fewer")
        .to_string();
    for part in ["97", "96", "truncate_token_embeddings"] {
        assert!(error.contains(part), "{error}");
    }
    for size in [0, 98] {
        let error = model
            .truncate_token_embeddings(size)
            .expect_err("no such size");
        assert!(error.to_string().contains("97"), "{error}");
    }
    assert_eq!(model.dims().vocab_size, 97);
}

#[test]
fn an_output_layer_with_adapters_is_not_resized() {
    let mut model = load("qwen3", Weights::F32);
    let device = Device::default();
    model.for_each_linear_mut(&mut |path, linear| {
        if path == "lm_head" {
            let (a, b) = (
                Tensor::zeros([2, 32], &device),
                Tensor::zeros([97, 2], &device),
            );
            linear.adapters.push(low_rank("default", a, b, 1.0));
        }
    });
    let error = model
        .resize_token_embeddings(98)
        .expect_err("adapters")
        .to_string();
    assert!(
        error.contains("lm_head") && error.contains("merge"),
        "{error}"
    );
    assert_eq!(model.dims().vocab_size, 97);
}
