//! Folders with packed weights: those of `golden/packed_folders.py`, and ones written here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use ft_core::safetensors_folder::{WeightFiles, read_tensors, write_json, write_tensors};
use ft_core::{
    AutoCausalLm, CausalLm, ModelConfig, Parts, SaveOptions, TokenBatch, Weights, dequantize,
    module_path, open_weights,
};
use ft_kernels::PackedFormat;
use ft_quant::{
    FolderOptions, ModelWeights, PackedLayout, Scheme, pack_model, round_to_nearest, write_packed,
};
use serde_json::Value;

/// Folders, and the format of their matrices in memory; none for those that are decoded into 16 bits.
const FOLDERS: &[(&str, Option<PackedFormat>)] = &[
    ("gptq", Some(PackedFormat::INT4_G32)),
    ("gptq_v2", Some(PackedFormat::INT4_G32)),
    ("gptq_desc_act", None),
    ("gptq_3", Some(PackedFormat::INT4_G64)),
    ("gptq_8", Some(PackedFormat::INT8_G32)),
    ("awq", Some(PackedFormat::INT4_G32)),
    ("nf4", Some(PackedFormat::NF4)),
    ("nf4_nested", Some(PackedFormat::NF4)),
    ("fp4", Some(PackedFormat::FP4)),
    ("bnb_8", Some(PackedFormat::INT8_G64)),
    ("hqq", Some(PackedFormat::INT4_G32)),
    ("hqq_3", Some(PackedFormat::INT4_G64)),
    ("pack_quantized", Some(PackedFormat::INT4_G32)),
    ("pack_quantized_8", Some(PackedFormat::INT8_G64)),
    ("int_quantized", Some(PackedFormat::INT8)),
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/packed")
        .join(name)
}

fn logits(model: &AutoCausalLm) -> Vec<f32> {
    let ids = Tensor::<1, Int>::arange_step(0..36, 3, &Device::default()).unsqueeze::<2>();
    let logits = model.logits(&TokenBatch::new(ids), None).into_data();
    logits.iter::<f32>().collect()
}

fn numbers(data: &TensorData) -> Vec<f32> {
    data.iter::<f32>().collect()
}

/// The largest difference, relative to the largest number.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let most = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let pairs = found.iter().zip(expected);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / most
}

fn load(folder: &Path, weights: Weights) -> AutoCausalLm {
    let loaded = AutoCausalLm::from_pretrained_with(folder, &Device::default(), weights);
    loaded.unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

#[test]
fn weights_and_logits_are_those_of_the_packages() {
    for (name, _) in FOLDERS {
        let expected = read_tensors(&golden(name).join("expected.safetensors")).expect("reads");
        let source = open_weights(&golden(name)).expect("opens");
        let found = source.widened("model.layers.0.self_attn.k_proj.weight");
        let (found, k_proj) = (
            numbers(&found.expect("reads")),
            numbers(&expected["k_proj"]),
        );
        // Products of a scale and an integer are rounded once; magnitudes in 8 bits are added to their mean.
        let limit = if *name == "nf4_nested" { 1e-7 } else { 0.0 };
        assert!(distance(&found, &k_proj) <= limit, "{name}");
        let found = logits(&load(&golden(name), Weights::F32));
        let far = distance(&found, &numbers(&expected["logits"]));
        assert!(far < 1e-5, "{name}: {far}");
    }
}

#[test]
fn matrices_stay_in_few_bits() {
    for (name, format) in FOLDERS {
        let mut model = load(&golden(name), Weights::Stored);
        let packed = module_path::packed_weights(&model);
        let formats: Vec<_> = packed.iter().map(|(_, packed)| packed.format()).collect();
        // A row of 128 columns has larger blocks.
        let wide = format.map(|format| match format {
            PackedFormat::INT8_G64 => PackedFormat::INT8_G128,
            other => other,
        });
        let expected: Vec<_> = ([*format; 6].into_iter().chain([wide])).flatten().collect();
        assert_eq!(formats, expected, "{name}");
        let found = logits(&model);
        dequantize(&mut model);
        let expected = logits(&model);
        // Blocks and their decoded numbers differ by the rounding of activations.
        assert!(distance(&found, &expected) < 0.05, "{name}");
        let whole = logits(&load(&golden(name), Weights::F32));
        let limit = if format.is_some() { 1e-5 } else { 2e-3 };
        assert!(distance(&expected, &whole) < limit, "{name}");
    }
}

/// Type, shape and bytes of all tensors of a folder.
type Raw = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

fn raw(folder: &Path) -> Raw {
    let files = WeightFiles::open(folder).expect("opens");
    let read = |name: &str| {
        let (dtype, shape, bytes) = files.raw(name).expect("is there");
        (format!("{dtype:?}"), shape, bytes.to_vec())
    };
    let names = files.names();
    names.map(|name| (name.to_string(), read(name))).collect()
}

fn write(model: &AutoCausalLm, layout: PackedLayout, folder: &Path) -> ft_quant::Result<()> {
    let config = model.config().to_json();
    write_packed(model, &config, layout, folder, &FolderOptions::default())
}

#[test]
fn what_is_written_has_the_bytes_of_the_packages() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for name in [
        "gptq",
        "gptq_3",
        "gptq_v2",
        "gptq_8",
        "awq",
        "nf4",
        "hqq",
        "hqq_3",
        "pack_quantized",
        "int_quantized",
    ] {
        let model = load(&golden(name), Weights::Stored);
        let path = folder.path().join(name);
        let config = std::fs::read(golden(name).join("config.json")).expect("reads");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        let settings = &config["quantization_config"];
        let method = settings["quant_method"].as_str().expect("a name");
        write(&model, method.parse().expect("a layout"), &path).expect("writes");
        let (mut found, mut expected) = (raw(&path), raw(&golden(name)));
        // A bias of zeros, which the model does not have.
        expected.remove("model.layers.0.self_attn.q_proj.bias");
        // The text has other spaces.
        let state = |raw: &mut Raw| -> Vec<Value> {
            let names: Vec<_> = raw
                .keys()
                .filter(|name| name.contains("quant_state"))
                .cloned()
                .collect();
            let texts = names
                .iter()
                .map(|name| raw.remove(name).expect("is there").2);
            texts
                .map(|text| serde_json::from_slice(&text).expect("JSON"))
                .collect()
        };
        for (found, expected) in state(&mut found).iter().zip(state(&mut expected)) {
            for key in ["quant_type", "blocksize", "dtype", "shape"] {
                assert_eq!(found[key], expected[key], "{name} {key}");
            }
        }
        let names = |raw: &Raw| raw.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{name}");
        for (tensor, found) in &found {
            assert!(*found == expected[tensor], "{name} {tensor}");
        }
        let written = std::fs::read(path.join("config.json")).expect("reads");
        let written: Value = serde_json::from_slice(&written).expect("JSON");
        for (key, value) in settings.as_object().expect("keys") {
            let found = &written["quantization_config"][key];
            match key.as_str() {
                "config_groups" => {
                    for part in ["weights", "input_activations"] {
                        for (key, value) in value["group_0"][part].as_object().into_iter().flatten()
                        {
                            assert_eq!(&found["group_0"][part][key], value, "{name} {key}");
                        }
                    }
                }
                _ => assert_eq!(found, value, "{name} {key}"),
            }
        }
        assert_eq!(written["torch_dtype"], "float16");
    }
}

/// A model whose linear layers are rounded; `symmetric` has all zero points in the middle.
fn rounded(bits: u32, symmetric: bool) -> AutoCausalLm {
    let mut model = load(&golden("awq"), Weights::F32);
    let device = Device::default();
    model.for_each_linear_mut(&mut |path, linear| {
        if path == "lm_head" {
            return;
        }
        let shape = [linear.out_features(), linear.in_features()];
        let scheme = Scheme {
            symmetric,
            ..Scheme::grouped(bits, shape[1])
        };
        let weight = numbers(&linear.matrix().into_data());
        let rounded = round_to_nearest(&weight, shape, &scheme).expect("finite");
        linear.set_packed(&rounded.packed(&device).expect("has blocks"));
    });
    model
}

/// A model whose linear layers have rows of 8 bits.
fn rows() -> AutoCausalLm {
    let mut model = load(&golden("awq"), Weights::F32);
    pack_model(&mut model, PackedFormat::INT8).expect("packs");
    model
}

/// Folders of models made here, in every layout. With `FT_TEST_PACKED_DIR` they stay there for
/// `tests/reference/packed_folders.py`, which reads them with the packages.
#[test]
fn a_written_folder_has_the_numbers_of_the_model() {
    let temporary = tempfile::tempdir().expect("temporary folder");
    let folder = match std::env::var_os("FT_TEST_PACKED_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => temporary.path().to_path_buf(),
    };
    let nf4 = || load(&golden("nf4"), Weights::Stored);
    let cases: [(&str, AutoCausalLm, PackedLayout); 14] = [
        ("hqq_4", rounded(4, false), PackedLayout::Hqq),
        ("hqq_3", rounded(3, true), PackedLayout::Hqq),
        ("gptq_2", rounded(2, true), PackedLayout::Gptq),
        ("gptq_3", rounded(3, false), PackedLayout::Gptq),
        (
            "packed_3",
            rounded(3, true),
            PackedLayout::CompressedTensors,
        ),
        ("gptq_4", rounded(4, false), PackedLayout::Gptq),
        ("gptq_sym", rounded(4, true), PackedLayout::Gptq),
        ("gptq_8", rounded(8, false), PackedLayout::Gptq),
        ("awq_4", rounded(4, false), PackedLayout::Awq),
        (
            "packed_4",
            rounded(4, false),
            PackedLayout::CompressedTensors,
        ),
        (
            "packed_sym",
            rounded(4, true),
            PackedLayout::CompressedTensors,
        ),
        (
            "packed_8",
            rounded(8, true),
            PackedLayout::CompressedTensors,
        ),
        ("rows_8", rows(), PackedLayout::CompressedTensors),
        ("nf4", nf4(), PackedLayout::Bitsandbytes),
    ];
    for (name, model, layout) in cases {
        let path = folder.join(name);
        write(&model, layout, &path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let config = std::fs::read_to_string(path.join("config.json")).expect("reads");
        if let Some(bits) = name
            .chars()
            .find(char::is_ascii_digit)
            .filter(|_| name != "nf4")
        {
            let found = ["bits", "num_bits", "nbits"]
                .iter()
                .any(|key| config.contains(&format!("\"{key}\": {bits}")));
            assert!(found, "{name}: {config}");
        }
        let again = load(&path, Weights::Stored);
        let (found, expected) = (
            module_path::packed_weights(&again),
            module_path::packed_weights(&model),
        );
        assert_eq!(found.len(), expected.len(), "{name}");
        for ((path, found), (_, expected)) in found.iter().zip(&expected) {
            let (found, expected) = (found.val().into_data(), expected.val().into_data());
            // Scales are rounded to 16 bits.
            assert!(
                distance(&numbers(&found), &numbers(&expected)) < 5e-4,
                "{name} {path}"
            );
        }
        let dense: Vec<(String, TensorData)> = found
            .iter()
            .map(|(path, packed)| (path.clone(), packed.val().into_data()))
            .collect();
        write_tensors(&path.join("dense.safetensors"), &dense, &Default::default())
            .expect("writes");
    }
}

#[test]
fn shards_are_written_and_read() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let model = load(&golden("awq"), Weights::Stored);
    let options = FolderOptions {
        max_shard_size: 8_000,
        dtype: FloatDType::BF16,
    };
    let config = model.config().to_json();
    write_packed(&model, &config, PackedLayout::Awq, folder.path(), &options).expect("writes");
    assert!(folder.path().join("model.safetensors.index.json").is_file());
    let again = load(folder.path(), Weights::Stored);
    assert_eq!(module_path::packed_weights(&again).len(), 7);
    assert!(distance(&logits(&again), &logits(&model)) < 0.05);
}

#[test]
fn a_dequantized_folder_is_an_ordinary_one() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut model = load(&golden("awq"), Weights::Stored);
    assert_eq!(dequantize(&mut model), 7);
    model
        .save_pretrained(folder.path(), &SaveOptions::default())
        .expect("writes");
    let config = std::fs::read_to_string(folder.path().join("config.json")).expect("reads");
    assert!(!config.contains("quantization_config"), "{config}");
    let again = load(folder.path(), Weights::F32);
    assert!(distance(&logits(&again), &logits(&model)) < 1e-5);
}

#[test]
fn what_a_layout_does_not_have_is_refused_with_the_layer() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let refused = |model: &AutoCausalLm, layout| {
        let error = write(model, layout, folder.path()).expect_err("refused");
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 0);
        error.to_string()
    };
    let dense = load(&golden("awq"), Weights::F32);
    assert!(refused(&dense, PackedLayout::Gptq).contains("no linear layer"));
    let nf4 = load(&golden("nf4"), Weights::Stored);
    let text = refused(&nf4, PackedLayout::Gptq);
    assert!(
        text.contains("q_proj") || text.contains("down_proj"),
        "{text}"
    );
    let eight = load(&golden("gptq_8"), Weights::Stored);
    assert!(refused(&eight, PackedLayout::Awq).contains("8 bits"));
    assert!(refused(&eight, PackedLayout::Bitsandbytes).contains("integers"));
    let text = refused(&rows(), PackedLayout::Gptq);
    assert!(text.contains("only compressed-tensors has"), "{text}");
    // Fitted zero points.
    let mut fitted = load(&golden("awq"), Weights::Stored);
    let device = Device::default();
    fitted.for_each_linear_mut(&mut |path, linear| {
        if path.ends_with("up_proj") {
            let shape = [linear.out_features(), linear.in_features()];
            let mut rounded = ft_quant::Rounded::zeros(shape, 4, 32);
            rounded.zero_points[3] = 7.25;
            linear.set_packed(&rounded.packed(&device).expect("has blocks"));
        }
    });
    let text = refused(&fitted, PackedLayout::Gptq);
    assert!(text.contains("up_proj") && text.contains("7.25"), "{text}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
    let gguf = folder.path().with_extension("gguf");
    let source = AutoCausalLm::from_pretrained(&path, &device).expect("loads");
    let tokenizer = ft_core::Tokenizer::from_pretrained(&path).expect("loads");
    let config = ModelConfig::from_pretrained(&path)
        .expect("reads")
        .to_json();
    let weights = ModelWeights::new(&source).expect("no adapters");
    let options = ft_quant::GgufOptions::new(ft_quant::Mix::Q8_0);
    ft_quant::write_gguf(&weights, &config, &tokenizer, &gguf, &options).expect("writes");
    let text = refused(&load(&gguf, Weights::Stored), PackedLayout::Gptq);
    assert!(text.contains("embedding in blocks"), "{text}");
    std::fs::remove_file(gguf).expect("is there");
}

/// A copy of a golden folder with another configuration, or tensors that `change` changes.
fn damaged(
    name: &str,
    settings: impl Fn(&mut Value),
    change: impl Fn(&str, &mut TensorData),
) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    let config = std::fs::read(golden(name).join("config.json")).expect("reads");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    settings(&mut config["quantization_config"]);
    write_json(&folder.path().join("config.json"), &config).expect("writes");
    let mut tensors = Vec::new();
    for (name, mut data) in read_tensors(&golden(name).join("model.safetensors")).expect("reads") {
        let is_word = ["qweight", "qzeros", "g_idx"]
            .iter()
            .any(|end| name.ends_with(end));
        if is_word {
            data = data.convert_dtype(burn::tensor::DType::I32);
        }
        change(&name, &mut data);
        tensors.push((name, data));
    }
    let path = folder.path().join("model.safetensors");
    write_tensors(&path, &tensors, &Default::default()).expect("writes");
    folder
}

#[test]
fn errors_name_setting_or_tensor() {
    let refused = |folder: tempfile::TempDir| {
        let loaded =
            AutoCausalLm::from_pretrained_with(folder.path(), &Device::default(), Weights::Stored);
        loaded.expect_err("refused").to_string()
    };
    let same = |_: &str, _: &mut TensorData| {};
    let text = refused(damaged("awq", |c| c["quant_method"] = "aqlm".into(), same));
    assert!(
        text.contains("aqlm") && text.contains("compressed-tensors"),
        "{text}"
    );
    let text = refused(damaged("awq", |c| c["version"] = "gemv".into(), same));
    assert!(text.contains("version") && text.contains("gemm"), "{text}");
    let fixed = |c: &mut Value| {
        c["config_groups"]["group_0"]["input_activations"] = serde_json::json!({
            "num_bits": 8, "type": "int", "symmetric": true, "strategy": "tensor", "dynamic": false,
        });
    };
    let text = refused(damaged("pack_quantized_8", fixed, same));
    assert!(text.contains("group_0.input_activations"), "{text}");
    // Two groups, of which one has inputs as they are.
    let differs = |c: &mut Value| {
        c["format"] = "int-quantized".into();
        let groups = &mut c["config_groups"];
        groups["group_0"]["format"] = "int-quantized".into();
        groups["group_1"] = groups["group_0"].clone();
        groups["group_1"]["input_activations"] = Value::Null;
        groups["group_0"]["input_activations"] = serde_json::json!({
            "num_bits": 8, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true,
        });
    };
    let text = refused(damaged("pack_quantized_8", differs, same));
    assert!(
        text.contains("group_1.input_activations") && text.contains("not of others"),
        "{text}"
    );
    let text = refused(damaged("awq", |c| c["bits"] = 8.into(), same));
    assert!(text.contains("bits: 8"), "{text}");
    for (name, tensor) in [
        ("gptq", "qzeros"),
        ("gptq", "scales"),
        ("awq", "qzeros"),
        ("hqq", "W_q"),
        ("hqq", "zero"),
        ("hqq", "nbits"),
        ("hqq", "group_size"),
        ("hqq", "shape"),
        ("nf4", "weight.absmax"),
        ("nf4", "weight.quant_map"),
    ] {
        let end = format!("k_proj.{tensor}");
        let folder = damaged(
            name,
            |_| {},
            |name, data| {
                if name.ends_with(&end) {
                    *data = TensorData::new(vec![9i32, 9, 9], [3, 1]);
                }
            },
        );
        let text = refused(folder);
        assert!(text.contains(&end), "{name}: {text}");
    }
    // A group that is not there.
    let folder = damaged(
        "gptq_desc_act",
        |_| {},
        |name, data| {
            if name.ends_with("g_idx") {
                let count = data.shape()[0];
                *data = TensorData::new(vec![7i32; count], [count]);
            }
        },
    );
    assert!(refused(folder).contains("names a group"));
}
