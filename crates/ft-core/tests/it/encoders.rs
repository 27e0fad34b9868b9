//! Encoders against transformers: all hidden states, and all gradients, with padding.
//!
//! The golden folders are made by `golden/encoders.py`.

use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use ft_core::module_path::{PathVisitor, visit_params};
use ft_core::safetensors_folder::read_tensors;
use ft_core::{
    AutoBackbone, AutoSequenceClassifier, Backbone, Bert, EncoderSequenceClassifier, EncoderTask,
    EncoderTaskConfig, Parts, Pass, SaveOptions, TokenBatch, Weights,
};

use crate::models::{assert_close, golden, ints};

/// Whether blocks are kept or computed again in the backward pass.
fn agrees_with_transformers(name: &str) {
    let device = Device::default().autodiff();
    for device in [device.clone(), device.gradient_checkpointing()] {
        agrees_on(device, name);
    }
}

fn agrees_on(device: Device, name: &str) {
    let expected = read_tensors(&golden(name).join("golden.safetensors")).expect("golden");
    let model = AutoBackbone::from_pretrained(&golden(name), &device).expect("loads");
    let mask = ints(&expected["attention_mask"], &device);
    let embeddings = model.embed(ints(&expected["input_ids"], &device));
    let mut states = Vec::new();
    let pass = || Pass {
        segment_ids: Some(mask.clone()),
        token_type_ids: Some(ints(&expected["token_type_ids"], &device)),
        ..Pass::default()
    };
    let last = model.forward(
        embeddings.clone(),
        Pass {
            states: Some(&mut states),
            ..pass()
        },
    );
    assert_eq!(states.len(), model.dims().num_layers + 1);
    assert_eq!(last.to_data(), states[states.len() - 1].to_data());
    let real: Tensor<3> = mask.clone().float().unsqueeze_dim(2);
    for (i, state) in states.iter().enumerate() {
        let state = state.clone() * real.clone();
        assert_close(
            &format!("state {i}"),
            state.into_data(),
            &expected[&format!("state.{i}")],
            2e-5,
        );
    }
    // The first layers alone are the same.
    let first = model.forward(
        embeddings,
        Pass {
            layers: Some(1),
            ..pass()
        },
    );
    assert_eq!(first.to_data(), states[1].to_data());

    let weights = Tensor::<3>::from_data(expected["weights"].clone(), &device);
    let loss = (states[states.len() - 1].clone() * weights).sum();
    assert_close("loss", loss.to_data(), &expected["loss"], 2e-5);

    gradients_agree(&model, loss.backward(), &expected);
}

/// Compares the gradients of all parameters.
pub(crate) fn gradients_agree(
    model: &impl Module,
    grads: burn::tensor::Gradients,
    expected: &std::collections::BTreeMap<String, TensorData>,
) {
    struct Check<'a> {
        grads: burn::tensor::Gradients,
        expected: &'a std::collections::BTreeMap<String, TensorData>,
        seen: usize,
    }
    impl PathVisitor for Check<'_> {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            let key = path;
            let grad = param.val().grad(&self.grads);
            let grad = grad.unwrap_or_else(|| panic!("{key} has no gradient"));
            let expected = &self.expected[&format!("grad.{key}")];
            // Softmax does not change with the key's bias: its gradient is nothing but rounding.
            let tolerance = if [".key.bias", ".k_lin.bias", ".attn.k.bias", "key_proj.bias"]
                .iter()
                .any(|end| key.ends_with(end))
            {
                1e-2
            } else {
                1e-4
            };
            assert_close(key, grad.into_data(), expected, tolerance);
            self.seen += 1;
        }
    }
    let mut check = Check {
        grads,
        expected,
        seen: 0,
    };
    visit_params(model, &mut check);
    let known = expected
        .keys()
        .filter(|key| key.starts_with("grad."))
        .count();
    assert_eq!(check.seen, known, "parameters with golden gradients");
}

/// The last states of two rows of different lengths.
fn last_states(model: &AutoBackbone) -> TensorData {
    let device = Device::default();
    let ids = Tensor::from_data([[2, 7, 31, 5], [2, 9, 0, 0]], &device);
    let segments = Tensor::from_data([[1, 1, 1, 1], [1, 1, 0, 0]], &device);
    let pass = Pass {
        segment_ids: Some(segments),
        ..Pass::default()
    };
    model.forward(model.embed(ids), pass).into_data()
}

#[test]
fn an_encoder_is_saved_and_loaded_held_wide_or_as_stored() {
    let device = Device::default();
    for (name, dtype) in [
        ("bert", FloatDType::F32),
        ("bert_mlm", FloatDType::BF16),
        ("roberta", FloatDType::F16),
        ("distilbert_mlm", FloatDType::F16),
        ("deberta_v3", FloatDType::F32),
        ("mpnet", FloatDType::F32),
        ("modernbert", FloatDType::F32),
    ] {
        let model = AutoBackbone::from_pretrained(&golden(name), &device).expect("loads");
        let folder = tempfile::TempDir::new().expect("temporary folder");
        let options = SaveOptions {
            dtype,
            ..SaveOptions::default()
        };
        model
            .save_pretrained(folder.path(), &options)
            .expect("saves");
        let wide = AutoBackbone::from_pretrained(folder.path(), &device).expect("loads");
        if dtype == FloatDType::F32 {
            assert_eq!(last_states(&wide), last_states(&model));
        }
        let stored = AutoBackbone::from_pretrained_with(folder.path(), &device, Weights::Stored);
        let stored = last_states(&stored.expect("loads"));
        assert_close(name, stored, &last_states(&wide), 1e-5);
    }
}

#[test]
fn bert_agrees() {
    agrees_with_transformers("bert");
}

#[test]
fn the_encoder_within_a_model_agrees() {
    agrees_with_transformers("bert_mlm");
}

#[test]
fn roberta_agrees() {
    agrees_with_transformers("roberta");
}

#[test]
fn distilbert_agrees() {
    agrees_with_transformers("distilbert");
    agrees_with_transformers("distilbert_mlm");
}

#[test]
fn mpnet_agrees() {
    agrees_with_transformers("mpnet");
}

#[test]
fn deberta_agrees() {
    agrees_with_transformers("deberta");
    agrees_with_transformers("deberta_v3");
}

#[test]
fn modernbert_agrees() {
    agrees_with_transformers("modernbert");
}

/// Texts one after the other in a row have the states that each has alone.
#[test]
fn a_row_of_several_texts_keeps_them_apart() {
    let device = Device::default();
    for name in [
        "bert",
        "roberta",
        "distilbert",
        "deberta_v3",
        "mpnet",
        "modernbert",
        "llama",
    ] {
        let model = AutoBackbone::from_pretrained(&golden(name), &device).expect("loads");
        let ids =
            |ids: &[i64]| Tensor::from_data(TensorData::new(ids.to_vec(), [1, ids.len()]), &device);
        let alone = |text: &[i64]| {
            let states = model.hidden_states(&TokenBatch::new(ids(text)));
            states.into_data().try_to_vec::<f32>().expect("f32")
        };
        let (first, second) = ([5i64, 7, 31, 9, 12, 40, 3, 8], [44i64, 6, 17]);
        let together = TokenBatch {
            position_ids: Some(ids(&[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2])),
            segment_ids: Some(ids(&[1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2])),
            ..TokenBatch::new(ids(&[&first[..], &second].concat()))
        };
        let together = model.hidden_states(&together).into_data();
        let together = together.try_to_vec::<f32>().expect("f32");
        for (a, b) in together
            .iter()
            .zip([alone(&first), alone(&second)].concat())
        {
            assert!((a - b).abs() < 2e-5, "{name}: {a} {b}");
        }
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let device = Device::default();
    let model = Bert::from_pretrained(&golden("roberta"), &device).expect("loads");
    // Positions begin after the padding's.
    assert_eq!(model.config().max_length(), 18);
    let error = model.dims().check_length(19).expect_err("too long");
    let error = error.to_string();
    assert!(error.contains("19") && error.contains("18"), "{error}");
    let embeddings = model.embed(TokenBatch::from_ids(&[3; 18], &device).input_ids);
    assert_eq!(
        model.forward(embeddings, Pass::default()).dims(),
        [1, 18, 24]
    );
    let error = Bert::from_pretrained(&golden("llama"), &device)
        .expect_err("a decoder")
        .to_string();
    assert!(error.contains("encoder"), "{error}");
    let mut names = Vec::new();
    model.for_each_linear(&mut |name, _| names.push(name.to_string()));
    assert_eq!(names.len(), 12);
    assert_eq!(names[6], "encoder.layer.1.attention.self.query");
}

const ENCODERS: [&str; 7] = [
    "bert",
    "roberta",
    "deberta",
    "deberta_v3",
    "distilbert",
    "mpnet",
    "modernbert",
];

#[test]
fn an_encoder_does_not_continue_behind_a_block() {
    let device = Device::default();
    for name in ENCODERS {
        let model = AutoBackbone::from_pretrained(&golden(name), &device).expect("loads");
        let embeddings = model.embed(TokenBatch::from_ids(&[3; 4], &device).input_ids);
        let pass = Pass {
            passed: 1,
            ..Pass::default()
        };
        let run = std::panic::AssertUnwindSafe(|| model.forward(embeddings, pass));
        let panic = std::panic::catch_unwind(run).expect_err("refused");
        let text = panic.downcast_ref::<String>().expect("a message");
        assert!(
            text.contains("cannot continue behind a block"),
            "{name}: {text}"
        );
    }
}

/// Sizes of any length would be lists of that length.
#[test]
fn sizes_that_the_weights_do_not_have_are_refused_before_a_model_is_made() {
    let device = Device::default();
    let folder = tempfile::tempdir().expect("temporary folder");
    let folder = folder.path();
    for name in ENCODERS
        .into_iter()
        .chain(["task_bert_sequence", "llama_3_labels"])
    {
        std::fs::copy(
            golden(name).join("model.safetensors"),
            folder.join("model.safetensors"),
        )
        .expect("copies");
        let text = std::fs::read(golden(name).join("config.json")).expect("reads");
        let config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        for (keys, size) in [
            (["num_hidden_layers", "n_layers"], 1u64 << 33),
            (["hidden_size", "dim"], 3 << 40),
        ] {
            let mut config = config.clone();
            let key = keys.into_iter().find(|key| config.get(key).is_some());
            config[key.expect("a size")] = size.into();
            // A list with an entry for each layer.
            config.as_object_mut().expect("keys").remove("layer_types");
            std::fs::write(folder.join("config.json"), config.to_string()).expect("writes");
            let expected = size.to_string();
            let refused = |error: ft_core::Error| {
                let error = error.to_string();
                assert!(
                    error.contains("the weights have") && error.contains(&expected),
                    "{name}: {error}"
                );
            };
            refused(AutoBackbone::from_pretrained(folder, &device).expect_err("refused"));
            if name.starts_with("llama") {
                let found = AutoSequenceClassifier::from_pretrained(folder, &device);
                refused(found.expect_err("refused"));
            } else {
                let labels = vec!["a".to_string(), "b".to_string()];
                let found = EncoderSequenceClassifier::from_encoder(folder, labels, 1, &device);
                refused(found.expect_err("refused"));
                let found = EncoderSequenceClassifier::from_pretrained(folder, &device);
                refused(found.expect_err("refused"));
            }
        }
    }
}

#[test]
fn labels_without_names_are_not_counted_without_end() {
    let text = std::fs::read(golden("task_bert_sequence").join("config.json")).expect("reads");
    let mut config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    config.as_object_mut().expect("keys").remove("id2label");
    config["num_labels"] = (1u64 << 40).into();
    let found = EncoderTaskConfig::from_json(config, EncoderTask::SequenceClassification);
    let error = found.expect_err("refused").to_string();
    assert!(error.contains("num_labels is 1099511627776"), "{error}");
}
