//! Whole models: each algorithm on the shipped model and on a small one of each family.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::layers::{Adapter, AdapterKind, At};
use ft_core::{AutoCausalLm, CausalLm, Parts, TokenBatch, Tokenizer, Weights};
use ft_kernels::PackedFormat;
use ft_quant::{
    Algorithm, Granularity, HqqConfig, Importance, QuantizeConfig, Scheme, Target,
    calibration_windows, pack_model, quantize_model,
};

pub(crate) const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/tiny-llama");
const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/data/general.txt"
);

fn load(folder: &Path) -> AutoCausalLm {
    AutoCausalLm::from_pretrained_with(folder, &Device::default(), Weights::Stored).unwrap()
}

fn tiny() -> AutoCausalLm {
    load(Path::new(TINY))
}

fn windows(length: usize, count: usize) -> Vec<Vec<u32>> {
    let tokenizer = Tokenizer::from_pretrained(Path::new(TINY)).unwrap();
    calibration_windows(Path::new(TEXT), &tokenizer, length, count).unwrap()
}

fn config(name: &str) -> QuantizeConfig {
    match name.parse() {
        Ok(Target::Groups(config)) => config,
        other => panic!("{name}: {other:?}"),
    }
}

fn quantize(model: &mut AutoCausalLm, name: &str, windows: &[Vec<u32>]) -> Vec<(String, f64, f64)> {
    let found = quantize_model(model, &config(name), Some(windows), &mut |_, _| {}).unwrap();
    let layers = found.layers.into_iter().map(|layer| {
        let errors = layer.output_error.zip(layer.nearest_output_error);
        let (output, nearest) = errors.expect("there is a calibration text");
        (layer.path, output, nearest)
    });
    layers.collect()
}

/// Logits of a few tokens that every model has, outside any graph.
pub(crate) fn logits(model: &AutoCausalLm) -> Tensor<2> {
    let mut device = Device::default();
    model.for_each_linear(&mut |_, linear| device = linear.weight.lazy_device());
    let ids: Vec<i64> = (0..24).map(|i| (i * 7 + 3) % 50).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 12]), &device);
    let logits = model.logits(&TokenBatch::new(ids), None);
    logits.inner().flatten(0, 1)
}

/// The largest difference relative to the largest number.
fn difference(found: Tensor<2>, expected: Tensor<2>) -> f32 {
    let size = expected.clone().abs().max().into_scalar::<f32>();
    (found - expected).abs().max().into_scalar::<f32>() / size
}

pub(crate) fn assert_near(name: &str, found: Tensor<2>, expected: Tensor<2>, most: f32) {
    let difference = difference(found, expected);
    assert!(difference <= most, "{name}: {difference}");
}

/// `‖found − expected‖ / ‖expected‖`, for what is only near.
fn distance(found: Tensor<2>, expected: Tensor<2>) -> f32 {
    let norm = |x: Tensor<2>| x.powi_scalar(2).sum().into_scalar::<f32>().sqrt();
    norm(found - expected.clone()) / norm(expected)
}

#[test]
fn gptq_has_less_error_than_rounding_in_every_layer() {
    let windows = windows(128, 48);
    for name in ["gptq-w4g64", "gptq-w3g64", "gptq-w4g32-sym"] {
        let layers = quantize(&mut tiny(), name, &windows);
        assert_eq!(layers.len(), 35);
        for (path, output, nearest) in layers {
            assert!(
                output < nearest,
                "{name} {path}: {output}, rounding {nearest}"
            );
        }
    }
}

#[test]
fn awq_has_less_error_than_rounding_where_it_acts() {
    let layers = quantize(&mut tiny(), "awq-w3g64", &windows(128, 48));
    for (path, output, nearest) in layers {
        // Queries and keys are scaled with the values, and not clipped.
        let may_be_equal = path.ends_with("q_proj") || path.ends_with("k_proj");
        assert!(
            output < nearest || (may_be_equal && output <= nearest),
            "{path}: {output}, rounding {nearest}"
        );
    }
}

#[test]
fn rounding_and_hqq_need_no_data_and_give_the_same_with_it() {
    let windows = windows(64, 6);
    // HQQ's zero points are no integers.
    for (name, head) in [("rtn-w4g64", 20.0), ("hqq-w4g64", 32.0)] {
        let (mut with, mut without) = (tiny(), tiny());
        quantize(&mut with, name, &windows);
        let found = quantize_model(&mut without, &config(name), None, &mut |_, _| {}).unwrap();
        assert_eq!(found.layers.len(), 35);
        assert!((found.bits_per_weight() - (4.0 + head / 64.0)).abs() < 1e-9);
        assert!(found.mean_error() > 0.02 && found.mean_error() < 0.2);
        assert_eq!(
            logits(&with).into_data(),
            logits(&without).into_data(),
            "{name}"
        );
        without.for_each_linear(&mut |path, linear| {
            assert!(linear.weight.packed().is_some(), "{path}");
        });
    }
}

/// With 8 bits every algorithm leaves the logits of every family as they are: blocks run one by one, layers of one input are
/// found, and scales go where they change nothing.
#[test]
fn every_family_keeps_its_logits_in_8_bits() {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../ft-core/tests/golden"
    ));
    let windows: Vec<Vec<u32>> = (0..6)
        .map(|window| (0..16).map(|i| (window * 31 + i * 17) % 50).collect())
        .collect();
    let mut far = Vec::new();
    for family in [
        "llama",
        "qwen3",
        "gpt2",
        "gpt_neox",
        "gpt_neox_sequential",
        "gemma",
        "gemma3",
        "smollm3",
        "olmo2",
        "granite",
        "phi",
        "phi3",
        "falcon_7b",
        "falcon_40b",
        "falcon_rw",
    ] {
        let model = load(&folder.join(family));
        let expected = logits(&model);
        let mut layers = 0;
        model.for_each_linear(&mut |path, _| layers += usize::from(path != model.output_layer()));
        for name in ["rtn-w8", "gptq-w8", "awq-w8", "hqq-w8"] {
            let mut model = model.clone();
            let rounded = quantize(&mut model, name, &windows);
            assert_eq!(rounded.len(), layers, "{family} {name}");
            let distance = distance(logits(&model), expected.clone());
            if distance > 0.1 {
                far.push(format!("{family} {name}: {distance}"));
            }
            model.for_each_linear(&mut |path, linear| {
                assert!(linear.adapters.is_empty(), "{path}");
            });
        }
    }
    assert!(far.is_empty(), "{far:#?}");
}

#[test]
fn groups_without_a_format_are_held_as_numbers() {
    let mut model = tiny();
    let name = "rtn-w4g16";
    quantize_model(&mut model, &config(name), None, &mut |_, _| {}).unwrap();
    model.for_each_linear(&mut |path, linear| assert!(linear.weight.packed().is_none(), "{path}"));
    assert_near(name, logits(&model), logits(&tiny()), 0.1);
}

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
fn packed_layers_are_the_nearest_blocks() {
    let mut weights = BTreeMap::new();
    tiny().for_each_linear(&mut |path, linear| {
        let weight = linear.weight.val().into_data().convert::<f32>();
        weights.insert(path.to_string(), weight.try_into_vec::<f32>().unwrap());
    });
    for format in [
        PackedFormat::NF4,
        PackedFormat::Q4_K,
        PackedFormat::INT8_G64,
    ] {
        let mut model = tiny();
        let layers = pack_model(&mut model, format).unwrap();
        assert_eq!(layers.len(), weights.len());
        for layer in &layers {
            assert_eq!(layer.format, format);
            assert!(layer.error > 0.0 && layer.error < 0.12, "{}", layer.path);
        }
        model.for_each_linear(&mut |path, linear| {
            let weight = &weights[path];
            let mut bytes = vec![0; format.bytes_of(weight.len())];
            format.encode(weight, &mut bytes).unwrap();
            let packed = linear.weight.packed().expect("is packed").packed();
            assert!(packed.with_bytes(|found| found == bytes), "{path}");
        });
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
    let found = quantize_model(&mut model, &rtn, Some(&[vec![1, 2]]), &mut |_, _| {});
    assert!(
        found
            .expect_err("refused")
            .to_string()
            .contains("merge adapters")
    );
    let found = pack_model(&mut model, PackedFormat::NF4);
    assert!(
        found
            .expect_err("refused")
            .to_string()
            .contains("before adapters")
    );
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
    let mut expected = tokenizer.encode("Once upon a time", false).unwrap();
    expected.extend(tokenizer.eos_token_id());
    let found = calibration_windows(&lines, &tokenizer, expected.len(), 1).unwrap();
    assert_eq!(found, [expected]);
    let error = calibration_windows(&lines, &tokenizer, 1000, 2)
        .unwrap_err()
        .to_string();
    assert!(error.contains("less than one window of 1000"), "{error}");
    std::fs::write(&lines, "{\"words\": 1}\n").unwrap();
    let error = calibration_windows(&lines, &tokenizer, 4, 2)
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 1 has no field text"), "{error}");
}
