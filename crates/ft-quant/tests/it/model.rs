//! Whole models: each algorithm on the shipped model and on a small one of each family.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ft_core::{AutoCausalLm, CausalLm, Parts, TokenBatch, Tokenizer, Weights};
use ft_kernels::PackedFormat;
use ft_quant::{
    FolderOptions, PackedLayout, QuantizeConfig, QuantizedLayer, Target, calibration_windows,
    pack_model, quantize_model, write_packed,
};

pub(crate) const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/tiny-llama");
pub(crate) const TEXT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/data/general.txt"
);

pub(crate) fn load(folder: &Path) -> AutoCausalLm {
    AutoCausalLm::from_pretrained_with(folder, &Device::default(), Weights::Stored).unwrap()
}

pub(crate) fn tiny() -> AutoCausalLm {
    load(Path::new(TINY))
}

pub(crate) fn windows(length: usize, count: usize) -> Vec<Vec<u32>> {
    let tokenizer = Tokenizer::from_pretrained(Path::new(TINY)).unwrap();
    calibration_windows(Path::new(TEXT), &tokenizer, length, count).unwrap()
}

pub(crate) fn config(name: &str) -> QuantizeConfig {
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
fn awq_has_less_error_than_rounding_the_weight_as_it_was() {
    let windows = windows(128, 48);
    let found = quantize_model(
        &mut tiny(),
        &config("awq-w3g64"),
        Some(&windows),
        &mut |_, _| {},
    );
    let layers = found.unwrap().layers;
    // The same layers rounded to nearest: what AWQ is compared with has no scales in it.
    let nearest = quantize_model(
        &mut tiny(),
        &config("rtn-w3g64"),
        Some(&windows),
        &mut |_, _| {},
    );
    for (layer, nearest) in layers.iter().zip(nearest.unwrap().layers) {
        assert_eq!(layer.path, nearest.path);
        // Inputs of the first stage of the first block are the same.
        if layer.path.contains("layers.0.self_attn") && !layer.path.ends_with("o_proj") {
            let (found, expected) = (
                layer.nearest_output_error.unwrap(),
                nearest.output_error.unwrap(),
            );
            assert!(
                (found / expected - 1.0).abs() < 1e-3,
                "{}: {found} {expected}",
                layer.path
            );
        }
    }
    for stage in layers.chunk_by(|a, b| a.scaled_into == b.scaled_into) {
        let sum = |of: fn(&QuantizedLayer) -> Option<f64>| -> f64 {
            stage.iter().map(|layer| of(layer).unwrap().powi(2)).sum()
        };
        let (output, nearest) = (
            sum(|layer| layer.output_error),
            sum(|layer| layer.nearest_output_error),
        );
        let paths: Vec<_> = stage.iter().map(|layer| &layer.path).collect();
        assert!(output < nearest, "{paths:?}: {output}, rounding {nearest}");
    }
}

/// Also where a layer adds so little in the first block that the wrong place for its scales changes hardly anything.
#[test]
fn scales_go_into_what_computes_the_input() {
    let windows = windows(64, 16);
    for size in [1.0, 1e-4] {
        let mut model = tiny();
        model.for_each_linear_mut(&mut |path, linear| {
            if path.ends_with("layers.0.mlp.down_proj") {
                let weight = linear.weight.val().cast(DType::F32) * size;
                let id = linear.weight.id();
                linear.weight.replace(weight, id);
            }
        });
        let config = config("awq-w4g64");
        let found = quantize_model(&mut model, &config, Some(&windows), &mut |_, _| {});
        for layer in found.unwrap().layers {
            let (block, name) = layer.path.rsplit_once('.').unwrap();
            let (block, _) = block.rsplit_once('.').unwrap();
            let expected = match name {
                "q_proj" | "k_proj" | "v_proj" => Some("input_layernorm"),
                "gate_proj" | "up_proj" => Some("post_attention_layernorm"),
                "down_proj" => Some("mlp.up_proj"),
                // A value serves several heads, so its rows are no columns of the output.
                _ => None,
            };
            let found = layer.scaled_into.as_deref();
            let expected = expected.map(|part| format!("{block}.{part}"));
            assert_eq!(found, expected.as_deref(), "{} {size}", layer.path);
            let clipped = !["q_proj", "k_proj"].contains(&name);
            assert_eq!(layer.clipped, clipped, "{}", layer.path);
        }
    }
}

#[test]
fn errors_are_those_of_what_the_model_holds() {
    let windows = windows(64, 6);
    for name in ["hqq-w4g64", "hqq-w2g32", "gptq-w3g64", "rtn-w4g16"] {
        let mut model = tiny();
        let mut weights = BTreeMap::new();
        model.for_each_linear(&mut |path, linear| {
            weights.insert(path.to_string(), linear.matrix().cast(DType::F32));
        });
        let found = quantize_model(&mut model, &config(name), Some(&windows), &mut |_, _| {});
        let found = found.unwrap();
        let errors: BTreeMap<_, _> = found
            .layers
            .iter()
            .map(|layer| (layer.path.as_str(), layer))
            .collect();
        model.for_each_linear(&mut |path, linear| {
            let (held, expected) = (linear.matrix(), errors[path].weight_error as f32);
            let error = distance(held, weights[path].clone());
            assert!(
                (error / expected - 1.0).abs() < 1e-5,
                "{name} {path}: {error} {expected}"
            );
            let bits = linear.weight.packed().map_or(32.0, |packed| {
                packed.num_bytes() as f64 * 8.0 / errors[path].numbers as f64
            });
            assert!(
                (bits - errors[path].held_bits).abs() < 1e-9,
                "{name} {path}: {bits}"
            );
        });
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
        // A scale of 32 bits and a zero point of 16.
        assert!((found.held_bits() - (4.0 + 48.0 / 64.0)).abs() < 1e-9);
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
        for name in [
            "rtn-w8",
            "gptq-w8",
            "awq-w8",
            "hqq-w8",
            "smoothquant-w8-sym",
        ] {
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

/// Its layers round inputs, too, and the folder has the same numbers.
#[test]
fn smoothquant_makes_rows_of_8_bits_that_are_read_again() {
    let mut model = tiny();
    let smooth = config("smoothquant-w8-sym");
    let found = quantize_model(&mut model, &smooth, Some(&windows(64, 8)), &mut |_, _| {}).unwrap();
    assert_eq!(found.layers.len(), 35);
    for layer in &found.layers {
        let cols = if layer.path.ends_with("down_proj") {
            512.0
        } else {
            256.0
        };
        assert_eq!(layer.held_bits, 8.0 + 32.0 / cols, "{}", layer.path);
        // Several heads share values.
        let scaled = !layer.path.ends_with("o_proj");
        assert_eq!(layer.scaled_into.is_some(), scaled, "{}", layer.path);
        assert!(
            layer.weight_error < 0.02,
            "{}: {}",
            layer.path,
            layer.weight_error
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = model.config().to_json();
    let layout = PackedLayout::CompressedTensors;
    write_packed(
        &model,
        &settings,
        layout,
        folder.path(),
        &FolderOptions::default(),
    )
    .unwrap();
    let again = load(folder.path());
    for model in [&model, &again] {
        model.for_each_linear(&mut |path, linear| {
            let packed = linear.weight.packed().expect("is packed").packed();
            assert_eq!(packed.format(), PackedFormat::INT8, "{path}");
        });
    }
    assert_near("the model", logits(&model), logits(&tiny()), 0.05);
    // Scales are rounded to 16 bits.
    assert_near("the folder", logits(&again), logits(&model), 0.03);

    for (name, windows, words) in [
        ("smoothquant-w8-sym", None, "need a calibration text"),
        ("smoothquant-w4g64", Some(windows(64, 8)), "w8-sym in short"),
    ] {
        let error = quantize_model(
            &mut tiny(),
            &config(name),
            windows.as_deref(),
            &mut |_, _| {},
        );
        let message = error.expect_err("refused").to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn groups_without_a_format_are_held_as_numbers() {
    let mut model = tiny();
    let name = "rtn-w4g16";
    quantize_model(&mut model, &config(name), None, &mut |_, _| {}).unwrap();
    model.for_each_linear(&mut |path, linear| assert!(linear.weight.packed().is_none(), "{path}"));
    assert_near(name, logits(&model), logits(&tiny()), 0.1);
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
        PackedFormat::INT8,
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
            let packed = linear.weight.packed().expect("is packed").packed();
            let [rows, cols] = packed.dims();
            let size = format.bytes_of(cols);
            let mut bytes = vec![0; rows * size];
            for (row, bytes) in weight.chunks_exact(cols).zip(bytes.chunks_exact_mut(size)) {
                format.encode(row, bytes).unwrap();
            }
            assert!(packed.with_bytes(|found| found == bytes), "{path}");
        });
    }
}

#[test]
fn progress_counts_layers() {
    let windows = windows(16, 2);
    for windows in [None, Some(&windows[..])] {
        let mut seen = Vec::new();
        let progress = &mut |done, all| seen.push((done, all));
        quantize_model(&mut tiny(), &config("rtn-w4g64"), windows, progress).unwrap();
        assert_eq!(seen.last(), Some(&(35, 35)));
        assert!(
            seen.is_sorted_by(|a, b| a.0 < b.0 && a.1 == b.1),
            "{seen:?}"
        );
    }
}
