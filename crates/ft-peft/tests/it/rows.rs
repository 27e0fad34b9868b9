//! Rows of a batch that have adapters of their own.

use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::{AutoCausalLm, CausalLm, Decoder, GenerationConfig, Parts, TokenBatch};
use ft_peft::{
    Ia3Config, PromptTuningConfig, active_adapters, merge_and_unload, scale_adapter, set_active,
    set_trainable, with_rows, without_adapters,
};

use crate::adapted_models::{distance, lora, methods, model, with_adapter};
use crate::golden::assert_close;

fn batch(rows: &[[i64; 5]], device: &Device) -> TokenBatch {
    let ids: Vec<i64> = rows.iter().flatten().copied().collect();
    let ids = TensorData::new(ids, [rows.len(), 5]);
    TokenBatch::new(Tensor::<2, Int>::from_data(ids, device))
}

#[test]
fn rows_of_a_batch_equal_rows_alone() {
    let device = Device::default();
    let rows = [
        [3, 14, 15, 9, 26],
        [5, 35, 8, 9, 7],
        [9, 3, 2, 3, 8],
        [4, 6, 2, 6, 4],
    ];
    for kind in ["llama", "gpt2"] {
        for method in methods() {
            let made = with_adapter(model(kind, &device), &*method, "one");
            let made = with_adapter(made, &lora(3), "two");
            let adapters = [Some("one"), None, Some("two"), Some("one")];
            let together = with_rows(&made, &adapters).expect("known");
            let found = together.logits(&batch(&rows, &device), None);
            for (i, name) in adapters.into_iter().enumerate() {
                let mut alone = made.clone();
                set_active(&mut alone, name.as_slice()).expect("known");
                let expected = alone.logits(&batch(&rows[i..=i], &device), None);
                let found = found.clone().narrow(0, i, 1).into_data();
                let apart = distance(&found, &expected.into_data());
                assert!(
                    apart < 1e-4,
                    "{kind} {} row {i}: {apart}",
                    method.peft_type()
                );
            }
        }
    }
}

#[test]
fn rows_of_one_adapter_are_that_adapter_and_unknown_ones_are_refused() {
    let device = Device::default();
    let made = with_adapter(model("llama", &device), &lora(4), "one");
    let tokens = batch(&[[3, 14, 15, 9, 26], [5, 35, 8, 9, 7]], &device);
    let all = with_rows(&made, &[Some("one"); 2]).expect("known");
    assert_eq!(
        all.logits(&tokens, None).into_data(),
        made.logits(&tokens, None).into_data()
    );
    let none = with_rows(&made, &[None; 2]).expect("no names");
    let base = without_adapters(&made).logits(&tokens, None).into_data();
    assert_eq!(none.logits(&tokens, None).into_data(), base);
    let error = with_rows(&made, &[Some("two")])
        .expect_err("unknown")
        .to_string();
    assert!(error.contains("there are: one"), "{error}");
    assert!(with_rows(&made, &[]).is_err());
    let some = with_rows(&made, &[Some("one"), None]).expect("known");
    assert!(scale_adapter(&mut some.clone(), "one", 2.0).is_err());
    let error = merge_and_unload(some).expect_err("rows differ").to_string();
    assert!(error.contains("some rows"), "{error}");
}

/// The gradient of the sum of the logits with respect to every tensor of an adapter, in the order of the layers.
fn gradients(made: &AutoCausalLm, name: &str, tokens: &TokenBatch) -> Vec<TensorData> {
    let gradients = made.logits(tokens, None).sum().backward();
    let mut found = Vec::new();
    made.for_each_part(&mut |_, part| {
        for adapter in part
            .adapters()
            .iter()
            .filter(|adapter| adapter.name == name)
        {
            for tensor in &adapter.tensors {
                let gradient = tensor.val2().grad(&gradients);
                found.push(
                    gradient
                        .map_or_else(|| tensor.val2().zeros_like().into_data(), |g| g.into_data()),
                );
            }
        }
    });
    found
}

#[test]
fn an_adapter_trains_on_its_rows_only() {
    let device = Device::default().autodiff();
    let rows = [[3, 14, 15, 9, 26], [5, 35, 8, 9, 7], [9, 3, 2, 3, 8]];
    let made = with_adapter(model("llama", &device), &lora(4), "one");
    let made = with_adapter(made, &lora(3), "two");
    let made = set_trainable(made, &["one", "two"]).expect("known");
    let together = with_rows(&made, &[Some("one"), Some("two"), Some("one")]).expect("known");
    let of_batch = |name| gradients(&together, name, &batch(&rows, &device));
    for (name, own) in [("one", vec![rows[0], rows[2]]), ("two", vec![rows[1]])] {
        let mut alone = made.clone();
        set_active(&mut alone, &[name]).expect("known");
        let expected = gradients(&alone, name, &batch(&own, &device));
        for (found, expected) in of_batch(name).iter().zip(&expected) {
            assert_close(name, found, expected, 1e-4);
        }
    }
}

/// The tokens that follow a prompt, one row alone.
fn continued(model: &AutoCausalLm, prompt: &[u32], config: &GenerationConfig) -> Vec<u32> {
    let device = Device::default();
    let mut decoder = Decoder::new(model, None, &device);
    decoder.join(prompt, config).expect("joins");
    let mut tokens = Vec::new();
    while !decoder.is_empty() {
        tokens.extend(
            decoder
                .step()
                .expect("steps")
                .iter()
                .map(|next| next.token_id),
        );
    }
    tokens
}

#[test]
fn decoded_rows_have_adapters_of_their_own() {
    let device = Device::default();
    let made = with_adapter(model("llama", &device), &lora(4), "one");
    let made = with_adapter(made, &Ia3Config::default(), "two");
    let config = GenerationConfig {
        max_new_tokens: 6,
        ..GenerationConfig::default()
    };
    let prompts: [(&[u32], Option<&str>); 4] = [
        (&[3, 14, 15], Some("one")),
        (&[9, 2], None),
        (&[5, 35, 8, 9], Some("two")),
        (&[9, 2], Some("one")),
    ];
    let mut decoder = Decoder::new(&made, None, &device);
    let mut rows = Vec::new();
    for (prompt, adapter) in prompts {
        rows.push((
            decoder.join_as(prompt, &config, adapter).expect("joins"),
            Vec::new(),
        ));
        // Rows join while others run.
        for next in decoder.step().expect("steps") {
            let row = rows.iter_mut().find(|(id, _)| *id == next.row);
            row.expect("joined").1.push(next.token_id);
        }
    }
    while !decoder.is_empty() {
        for next in decoder.step().expect("steps") {
            let row = rows.iter_mut().find(|(id, _)| *id == next.row);
            row.expect("joined").1.push(next.token_id);
        }
    }
    for ((prompt, adapter), (_, tokens)) in prompts.into_iter().zip(&rows) {
        let mut alone = made.clone();
        set_active(&mut alone, adapter.as_slice()).expect("known");
        assert_eq!(*tokens, continued(&alone, prompt, &config), "{adapter:?}");
    }
    // A row without an adapter of its own has the active one.
    assert_eq!(active_adapters(&made), ["two"]);
    let mut alone = made.clone();
    set_active(&mut alone, &["one"]).expect("known");
    assert_ne!(
        continued(&made, &[9, 2], &config),
        continued(&alone, &[9, 2], &config)
    );
    let mut decoder = Decoder::new(&made, None, &device);
    assert!(decoder.join_as(&[1], &config, Some("three")).is_err());
    let mut both = made.clone();
    set_active(&mut both, &["one", "two"]).expect("known");
    assert!(
        Decoder::new(&both, None, &device)
            .join_as(&[1], &config, None)
            .is_err()
    );
}

/// A prompt that is switched off in the model takes part where a row names it: prompts of several lengths, to the longest
/// sequence of the model.
#[test]
fn rows_with_virtual_tokens_are_those_of_the_active_adapter() {
    let device = Device::default();
    let prompt = PromptTuningConfig {
        num_virtual_tokens: 5,
        ..PromptTuningConfig::default()
    };
    let mut made = with_adapter(model("gpt2", &device), &prompt, "prompt");
    let config = GenerationConfig {
        max_new_tokens: 40,
        ..GenerationConfig::default()
    };
    // The longest prompt ends first, and its room is freed.
    let short = GenerationConfig {
        max_new_tokens: 2,
        ..config.clone()
    };
    let prompts: [(&[u32], &GenerationConfig); 3] = [
        (&[3, 14, 15], &config),
        (&[9, 2], &config),
        (&[5, 35, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6], &short),
    ];
    let expected = prompts.map(|(prompt, config)| continued(&made, prompt, config));
    assert_eq!(expected[0].len(), 32 - 5 - 3);
    set_active(&mut made, &[]).expect("no names");
    let mut decoder = Decoder::new(&made, None, &device);
    let rows =
        prompts.map(|(ids, config)| (decoder.join_as(ids, config, Some("prompt"))).expect("joins"));
    // Virtual tokens are those of all rows: what cannot share a pass is refused, and the others go on.
    for other in [
        decoder.join_as(&[1], &config, None),
        decoder.join(&[1], &config),
    ] {
        let error = other.expect_err("mixed").to_string();
        assert!(error.contains("\"prompt\""), "{error}");
    }
    let mut found = vec![Vec::new(); 3];
    while !decoder.is_empty() {
        for next in decoder.step().expect("steps") {
            let row = rows.iter().position(|row| *row == next.row);
            found[row.expect("joined")].push(next.token_id);
        }
        assert!(decoder.is_empty() || decoder.join(&[1], &config).is_err());
    }
    assert_eq!(found, expected);
    // Once they have ended, others can join, and then no prompt.
    decoder.join(&[1], &config).expect("joins");
    assert!(decoder.join_as(&[1], &config, Some("prompt")).is_err());
    assert_eq!(decoder.step().expect("steps").len(), 1);
}
