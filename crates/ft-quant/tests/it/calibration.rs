//! The calibration text, what is measured on it, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ft_core::layers::{Adapter, AdapterKind, At};
use ft_core::{CausalLm, Parts, TokenBatch, Tokenizer};
use ft_kernels::PackedFormat;
use ft_quant::{
    Algorithm, Granularity, HqqConfig, Importance, QuantizeConfig, Scheme, attach_fake_quantizers,
    calibration_windows, pack_model, quantize_model,
};

use crate::model::{TEXT, TINY, assert_near, config, tiny, windows};

/// Squares of inputs, summed by an adapter while the whole model runs.
#[derive(Debug, Default)]
struct Squares(Mutex<Option<(Tensor<1>, usize)>>);

impl AdapterKind for Squares {
    fn input(&self, _: &At<'_>, x: &Tensor<2>) -> Option<Tensor<2>> {
        let [tokens, cols] = x.dims();
        let squares = x.clone().powi_scalar(2).sum_dim(0).reshape([cols]);
        let mut sum = self.0.lock().unwrap();
        *sum = Some(match sum.take() {
            Some((sum, count)) => (sum + squares, count + tokens),
            None => (squares, tokens),
        });
        None
    }
}

#[test]
fn importance_is_the_mean_square_of_inputs() {
    let windows = windows(48, 5);
    let found = Importance::measure(&mut tiny(), &windows, &mut |_, _| {}).unwrap();
    let mut model = tiny();
    let mut kinds = BTreeMap::new();
    model.for_each_linear_mut(&mut |path, linear| {
        let kind = Arc::new(Squares::default());
        kinds.insert(path.to_string(), kind.clone());
        linear
            .adapters
            .push(Adapter::new("squares", kind, Vec::new(), 0.0, Arc::new(())));
    });
    let device = Device::default();
    for window in &windows {
        let ids: Vec<i64> = window.iter().map(|id| i64::from(*id)).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, 48]), &device);
        model.hidden_states(&TokenBatch::new(ids), None);
    }
    assert_eq!(found.0.len(), 35);
    for (path, found) in found.0 {
        let (sum, count) = kinds[&path].0.lock().unwrap().clone().expect("was used");
        let found = Tensor::<1>::from_data(&found[..], &device).unsqueeze::<2>();
        assert_near(&path, found, (sum / count as f32).unsqueeze(), 1e-4);
    }
}

#[test]
fn settings_and_texts_that_do_not_fit_are_refused() {
    let refused = |config: QuantizeConfig, windows: Option<&[Vec<u32>]>| {
        let found = quantize_model(&mut tiny(), &config, windows, &mut |_, _| {});
        found.expect_err("refused").to_string()
    };
    let rtn = config("rtn-w4g64");
    let error = refused(config("rtn-w4g100"), None);
    assert!(
        error.contains("groups of 100 do not divide the 256 columns"),
        "{error}"
    );
    assert!(error.contains("the 512 columns"), "{error}");
    assert!(refused(config("gptq-w4g64"), None).contains("need a calibration text"));
    assert!(refused(rtn, Some(&[])).contains("at least one window"));
    let error = refused(rtn, Some(&[vec![1, 2], vec![3]]));
    assert!(error.contains("2 and 1 tokens"), "{error}");
    let error = refused(rtn, Some(&[vec![1, 99_999]]));
    assert!(error.contains("99999"), "{error}");
    let scheme = Scheme {
        symmetric: true,
        ..Scheme::grouped(9, 64)
    };
    let hqq = Algorithm::Hqq(HqqConfig::default());
    let error = refused(
        QuantizeConfig {
            algorithm: hqq,
            scheme,
        },
        None,
    );
    assert!(
        error.contains("9 bits") && error.contains("HQQ fits"),
        "{error}"
    );
    let whole = Scheme {
        granularity: Granularity::Tensor,
        ..rtn.scheme
    };
    let error = refused(
        QuantizeConfig {
            scheme: whole,
            ..rtn
        },
        None,
    );
    assert!(error.contains("rows or groups"), "{error}");
    let mut model = tiny();
    model.for_each_linear_mut(&mut |_, linear| {
        let kind = Arc::new(Squares::default());
        linear
            .adapters
            .push(Adapter::new("mine", kind, Vec::new(), 0.0, Arc::new(())));
    });
    for windows in [None, Some(&[vec![1, 2]][..])] {
        let found = quantize_model(&mut model, &rtn, windows, &mut |_, _| {});
        let error = found.expect_err("refused").to_string();
        assert!(error.contains("merge adapters"), "{error}");
    }
    let found = pack_model(&mut model, PackedFormat::NF4);
    assert!(
        found
            .expect_err("refused")
            .to_string()
            .contains("before adapters")
    );
    let mut model = tiny();
    pack_model(&mut model, PackedFormat::Q8_0).unwrap();
    let error = pack_model(&mut model, PackedFormat::NF4)
        .unwrap_err()
        .to_string();
    assert!(error.contains("is held in Q8_0 already"), "{error}");
}

/// A weight that is not finite is named with its layer, whatever rounds it.
#[test]
fn a_damaged_weight_is_named_with_its_layer() {
    let damaged = |number: f32| {
        let mut model = tiny();
        model.for_each_linear_mut(&mut |path, linear| {
            if path.ends_with("layers.2.mlp.up_proj") {
                let weight = linear.weight.val().cast(DType::F32);
                let weight = weight.slice_fill([3..4, 5..6], number);
                let id = linear.weight.id();
                linear.weight.replace(weight, id);
            }
        });
        model
    };
    let windows = windows(32, 4);
    for (name, windows) in [
        ("rtn-w4g64", None),
        ("hqq-w4g64", None),
        ("gptq-w4g64", Some(&windows[..])),
        ("awq-w4g64", Some(&windows[..])),
    ] {
        let found = quantize_model(
            &mut damaged(f32::NAN),
            &config(name),
            windows,
            &mut |_, _| {},
        );
        let error = found.expect_err("refused").to_string();
        assert!(error.contains("model.layers.2.mlp"), "{name}: {error}");
    }
    let scheme = config("rtn-w4g64").scheme;
    let error = attach_fake_quantizers(damaged(f32::INFINITY), &scheme).expect_err("refused");
    let error = error.to_string();
    assert!(
        error.contains("layers.2.mlp.up_proj") && error.contains("row 3, column 5"),
        "{error}"
    );
    let found = Importance::measure(&mut damaged(f32::NAN), &windows, &mut |_, _| {});
    let error = found.expect_err("refused").to_string();
    assert!(error.contains("model.layers.2.mlp"), "{error}");
}

#[test]
fn a_calibration_text_is_read_as_lines_or_as_a_whole() {
    let tokenizer = Tokenizer::from_pretrained(Path::new(TINY)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("text.jsonl");
    std::fs::write(
        &lines,
        "{\"text\": \"Once upon a time\"}\n\n{\"text\": \"a hare\"}\n",
    )
    .unwrap();
    // The tokenizer begins texts with a token, so windows begin with it.
    let mut expected = tokenizer.encode("Once upon a time", true).unwrap();
    assert_eq!(expected[0], tokenizer.bos_token_id().unwrap());
    expected.extend(tokenizer.eos_token_id());
    let found = calibration_windows(&lines, &tokenizer, expected.len(), 1).unwrap();
    assert_eq!(found, [expected]);
    let error = calibration_windows(&lines, &tokenizer, 1000, 2)
        .unwrap_err()
        .to_string();
    assert!(error.contains("less than one window of 1000"), "{error}");
    for (length, count) in [(0, 1), (1, 1), (8, 0)] {
        let found = calibration_windows(&lines, &tokenizer, length, count);
        let error = found.unwrap_err().to_string();
        let expected = format!("{count} calibration windows of {length} tokens have no text");
        assert!(error.contains(&expected), "{error}");
    }
    let windows = calibration_windows(Path::new(TEXT), &tokenizer, 16, 5).unwrap();
    let text = std::fs::read_to_string(TEXT).unwrap();
    let text = tokenizer.encode(&text, false).unwrap();
    for (window, text) in windows.iter().zip(text.chunks_exact(15)) {
        assert_eq!((window[0], &window[1..]), (1, text));
    }
    std::fs::write(&lines, "{\"words\": 1}\n").unwrap();
    let error = calibration_windows(&lines, &tokenizer, 4, 2)
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 1 has no field text"), "{error}");
}
