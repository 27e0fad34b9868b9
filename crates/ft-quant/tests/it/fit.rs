//! Files of a given size: types by sensitivity.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ft_core::gguf::{GgufFile, TensorType};
use ft_core::{
    AutoCausalLm, CausalLm, ModelConfig, Parts, TokenBatch, causal_lm_loss, open_weights,
};
use ft_quant::{
    Budget, Fit, GgufOptions, Mix, ModelWeights, Sensitivity, Written, fit_mix, quantize_model,
    write_gguf,
};

use crate::gguf::{model_of, tokenizer};
use crate::model::{TINY, config, load, tiny, windows};

/// What the files of these tests are called.
const NAME: &str = "a model of this name, which takes bytes of the file";

fn fit(sensitivity: &Sensitivity, budget: Budget) -> ft_quant::Result<Fit> {
    let config = ModelConfig::from_pretrained(Path::new(TINY))
        .unwrap()
        .to_json();
    let weights = open_weights(Path::new(TINY)).unwrap();
    fit_mix(
        &*weights,
        &config,
        &tokenizer(),
        Some(NAME),
        sensitivity,
        budget,
        &mut |_, _| {},
    )
}

fn write(options: &GgufOptions<'_>, path: &Path) -> Written {
    let config = ModelConfig::from_pretrained(Path::new(TINY))
        .unwrap()
        .to_json();
    let weights = open_weights(Path::new(TINY)).unwrap();
    write_gguf(&*weights, &config, &tokenizer(), path, options).unwrap()
}

fn with_types<'a>(fit: &'a Fit, sensitivity: &'a Sensitivity) -> GgufOptions<'a> {
    GgufOptions {
        types: Some(&fit.types),
        name: Some(NAME.into()),
        importance: Some(&sensitivity.importance),
        ..GgufOptions::new(fit.mix)
    }
}

fn nll(model: &AutoCausalLm, windows: &[Vec<u32>]) -> f64 {
    let ids: Vec<i64> = windows.iter().flatten().map(|id| i64::from(*id)).collect();
    let shape = [windows.len(), windows[0].len()];
    let input =
        Tensor::<2, Int>::from_data(TensorData::new(ids.clone(), shape), &Device::default());
    let hidden = model.hidden_states(&TokenBatch::new(input), None);
    let loss = causal_lm_loss(hidden, model.head(), &ids);
    loss.sum.into_scalar::<f64>() / loss.count as f64
}

#[test]
fn types_by_sensitivity_lose_less_than_a_mix_of_the_same_size() {
    let all = windows(128, 60);
    let (calibration, test) = all.split_at(30);
    let sensitivity = Sensitivity::measure(&mut tiny(), calibration, &mut |_, _| {}).unwrap();
    let whole = nll(&tiny(), test);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for mix in [Mix::Q2_K, Mix::Q3_K_S] {
        let options = GgufOptions {
            name: Some(NAME.into()),
            importance: Some(&sensitivity.importance),
            ..GgufOptions::new(mix)
        };
        let bytes = write(&options, &path).bytes as u64;
        let lost = nll(&load(&path), test) - whole;
        let fit = fit(&sensitivity, Budget::Bytes(bytes)).unwrap();
        write(&with_types(&fit, &sensitivity), &path);
        let found = nll(&load(&path), test) - whole;
        assert!(found < 0.7 * lost, "{mix}: {found}, {lost}");
    }
}

#[test]
fn files_keep_the_budget_and_larger_ones_have_less_error() {
    let windows = windows(64, 8);
    let sensitivity = Sensitivity::measure(&mut tiny(), &windows, &mut |_, _| {}).unwrap();
    assert_eq!(sensitivity.layers.len(), 35);
    let expected = nll(&tiny(), &windows);
    let folder = tempfile::tempdir().unwrap();
    let mut last = (0, f64::INFINITY);
    for bits in [3.3, 4.5, 6.0, 9.0, 20.0] {
        let fit = fit(&sensitivity, Budget::BitsPerWeight(bits)).unwrap();
        let path = folder.path().join("model.gguf");
        let written = write(&with_types(&fit, &sensitivity), &path);
        assert_eq!(written.bytes as u64, fit.bytes);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), fit.bytes);
        assert!(
            written.bits_per_weight() <= bits,
            "{bits}: {}",
            written.bits_per_weight()
        );
        assert!(
            fit.bytes > last.0 && fit.error < last.1,
            "{bits}: {} {}",
            fit.bytes,
            fit.error
        );
        // The file is not larger than itself.
        let same = self::fit(&sensitivity, Budget::Bytes(fit.bytes)).unwrap();
        assert_eq!((same.bytes, same.types), (fit.bytes, fit.types.clone()));
        last = (fit.bytes, fit.error);
        // Almost all of the budget is used, up to 16 bits.
        assert!(
            bits > 16.0 || written.bits_per_weight() > bits - 0.1,
            "{bits}: {}",
            written.bits_per_weight()
        );
        let file = GgufFile::open(&path).unwrap();
        for tensor in file.tensors() {
            let kind = fit
                .types
                .get(&tensor.name)
                .copied()
                .unwrap_or(TensorType::F32);
            assert_eq!(tensor.kind, kind, "{}", tensor.name);
        }
        let found = file.metadata().integer("general.file_type").unwrap();
        assert_eq!(found, Some(fit.mix.file_type().into()));
        let found = nll(&load(&path), &windows);
        let most = if bits < 4.0 { 0.1 } else { 0.03 };
        assert!(
            (found - expected).abs() < most,
            "{bits}: {found} {expected}"
        );
        copy_for_llama_cpp(&path, &format!("fit_{bits}"));
    }
    // Without a limit all matrices have 16 bits.
    let options = GgufOptions {
        name: Some(NAME.into()),
        ..GgufOptions::new(Mix::F16)
    };
    let written = write(&options, &folder.path().join("f16.gguf"));
    assert_eq!(last.0, written.bytes as u64);
}

/// All layers of a model matter the same.
fn even(model: &AutoCausalLm) -> Sensitivity {
    let mut sensitivity = Sensitivity::default();
    model.for_each_linear(&mut |path, _| {
        sensitivity.layers.insert(path.to_string(), 1.0);
    });
    sensitivity
}

/// Layers with other names, queries, keys and values in one matrix, and a matrix that lies transposed.
#[test]
fn layers_of_all_families_have_their_sensitivity() {
    let windows: Vec<Vec<u32>> = (0..4)
        .map(|i| (0..16).map(|j| (i * 97 + j * 31) % 500).collect())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    for name in ["gpt2", "gpt_neox", "phi", "phi3", "falcon_7b", "gemma2"] {
        let mut model = model_of(name, &Device::default());
        let sensitivity = Sensitivity::measure(&mut model, &windows, &mut |_, _| {}).unwrap();
        assert!(sensitivity.layers.values().all(|x| *x > 0.0), "{name}");
        let config = model.config().to_json();
        let weights = ModelWeights::new(&model).unwrap();
        let found = fit_mix(
            &weights,
            &config,
            &tokenizer(),
            Some(NAME),
            &sensitivity,
            Budget::Bytes(10_000_000),
            &mut |_, _| {},
        );
        let fit = found.unwrap_or_else(|error| panic!("{name}: {error}"));
        let path = folder.path().join("model.gguf");
        let options = with_types(&fit, &sensitivity);
        let written = write_gguf(&weights, &config, &tokenizer(), &path, &options).unwrap();
        assert_eq!(written.bytes as u64, fit.bytes, "{name}");
    }
}

/// A model that was rounded to 4 bits has about the sensitivity that it had before.
#[test]
fn weights_on_a_grid_already_are_measured_with_fewer_bits() {
    let windows = windows(64, 8);
    let before = Sensitivity::measure(&mut tiny(), &windows, &mut |_, _| {}).unwrap();
    let mut rounded = tiny();
    quantize_model(&mut rounded, &config("rtn-w4g32"), None, &mut |_, _| {}).unwrap();
    let after = Sensitivity::measure(&mut rounded, &windows, &mut |_, _| {}).unwrap();
    for (path, before) in &before.layers {
        let ratio = after.layers[path] / before;
        assert!((0.3..3.0).contains(&ratio), "{path}: {ratio}");
    }
    // A weight that all grids have.
    let mut model = tiny();
    model.for_each_linear_mut(&mut |path, linear| {
        if path == "model.layers.1.mlp.up_proj" {
            let weight = linear.weight.val().cast(DType::F32);
            let weight = weight.greater_scalar(0.0).float().mul_scalar(0.01);
            let id = linear.weight.id();
            linear.weight.replace(weight, id);
        }
    });
    let error = Sensitivity::measure(&mut model, &windows, &mut |_, _| {}).map(drop);
    let message = error.expect_err("refused").to_string();
    assert!(
        message.contains("model.layers.1.mlp.up_proj: rounding the weight"),
        "{message}"
    );
}

/// With `FT_TEST_GGUF_DIR` the file and the logits that are read from it here stay there, for `tests/reference/gguf_logits.py`.
fn copy_for_llama_cpp(path: &Path, name: &str) {
    let Some(folder) = std::env::var_os("FT_TEST_GGUF_DIR").map(PathBuf::from) else {
        return;
    };
    std::fs::copy(path, folder.join(format!("{name}.gguf"))).unwrap();
    let ids: Vec<i64> = (0..24).map(|i| (i * 37 + 5) % 500).collect();
    let input = Tensor::<1, Int>::from_data(ids.as_slice(), &Device::default()).unsqueeze::<2>();
    let logits = load(path).logits(&TokenBatch::new(input), None);
    let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let json = serde_json::json!({"ids": ids, "logits": logits}).to_string();
    std::fs::write(folder.join(format!("{name}.json")), json).unwrap();
}

#[test]
fn a_budget_below_the_smallest_file_and_types_of_no_tensor_are_refused() {
    let sensitivity = even(&tiny());
    let message = |budget| {
        let error = fit(&sensitivity, budget).expect_err("refused");
        error.to_string()
    };
    for budget in [
        Budget::Bytes(1000),
        Budget::BitsPerWeight(2.0),
        Budget::BitsPerWeight(f64::NAN),
    ] {
        let message = message(budget);
        assert!(message.contains("bits a weight) or more"), "{message}");
        // What it says to give is enough.
        let least = message
            .split_once(": give ")
            .unwrap()
            .1
            .split_once(' ')
            .unwrap()
            .0;
        let least: u64 = least.parse().unwrap();
        assert_eq!(
            fit(&sensitivity, Budget::Bytes(least)).unwrap().bytes,
            least
        );
        assert!(fit(&sensitivity, Budget::Bytes(least - 1)).is_err());
    }
    // Layers of another model, and a number that is not finite.
    let (mut other, mut infinite) = (sensitivity.clone(), sensitivity.clone());
    let path = "model.layers.1.mlp.up_proj";
    other.layers.remove(path).unwrap();
    infinite.layers.insert(path.into(), f64::INFINITY);
    for (sensitivity, words) in [
        (other, "no sensitivity for model.layers.1.mlp.up_proj"),
        (infinite, "model.layers.1.mlp.up_proj is inf"),
    ] {
        let error = fit(&sensitivity, Budget::BitsPerWeight(4.5)).expect_err("refused");
        let message = error.to_string();
        assert!(message.contains(words), "{message}");
    }
    let config = ModelConfig::from_pretrained(Path::new(TINY))
        .unwrap()
        .to_json();
    let weights = open_weights(Path::new(TINY)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, kind, words) in [
        (
            "blk.9.attn_v.weight",
            TensorType::F16,
            "no tensor blk.9.attn_v.weight",
        ),
        (
            "blk.0.attn_norm.weight",
            TensorType::from_name("IQ3_S").unwrap(),
            "cannot be written",
        ),
    ] {
        let types = BTreeMap::from([(name.to_string(), kind)]);
        let options = GgufOptions {
            types: Some(&types),
            ..GgufOptions::new(Mix::Q8_0)
        };
        let path = folder.path().join("model.gguf");
        let error = write_gguf(&*weights, &config, &tokenizer(), &path, &options);
        let message = error.expect_err("refused").to_string();
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
