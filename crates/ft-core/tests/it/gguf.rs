//! GGUF files: written and read, and refused where a field is wrong.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use ft_core::gguf::{GgufFile, GgufModel, GgufWriter, Metadata, TensorType};
use ft_core::{
    AutoCausalLm, CausalLm, GenerationConfig, HubOptions, ModelConfig, TokenBatch, Tokenizer,
    Weights, dequantize, resolve,
};

use crate::models::assert_close;

/// A file of two tensors, and what its bytes are.
fn written(folder: &Path) -> (PathBuf, Vec<u8>) {
    let mut metadata = Metadata::default();
    metadata.set("general.architecture", "llama");
    metadata.set("some.list", vec![1u32, 2, 3]);
    metadata.set("some.lisu", 7u32);
    let mut writer = GgufWriter::new(metadata);
    let floats: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    writer
        .add("a.weight", &[2, 3], TensorType::F32, || {
            Ok(Cow::Owned(floats))
        })
        .unwrap();
    let blocks = vec![7; 3 * 34];
    let kind = TensorType::from_name("Q8_0").unwrap();
    writer
        .add("b.weight", &[3, 32], kind, || Ok(Cow::Owned(blocks)))
        .unwrap();
    let path = folder.join("small.gguf");
    let size = writer.num_bytes();
    writer.write(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), size);
    (path, bytes)
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = written(folder.path());
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.version(), 3);
    assert_eq!(
        file.metadata().string("general.architecture").unwrap(),
        Some("llama")
    );
    assert_eq!(
        file.metadata().integers("some.list").unwrap(),
        Some(vec![1, 2, 3])
    );
    assert!(file.metadata().integer("general.architecture").is_err());
    let a = file.find("a.weight").unwrap();
    assert_eq!(a.shape, [2, 3]);
    let numbers: Vec<f32> = file.widened(a).unwrap().iter::<f32>().collect();
    assert_eq!(numbers, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(file.stored(a).unwrap(), file.widened(a).unwrap());
    let b = file.find("b.weight").unwrap();
    assert_eq!(file.bytes(b), [7; 102]);
    let blocks = file.blocks(b).unwrap().unwrap();
    assert_eq!(blocks.shape, [3, 32]);
    // Whole words.
    assert_eq!(blocks.bytes.len(), 104);
    assert!(file.blocks(a).unwrap().is_none());
}

/// Where a piece of the file is.
fn find(bytes: &[u8], piece: &[u8]) -> usize {
    bytes
        .windows(piece.len())
        .position(|window| window == piece)
        .expect("is there")
}

#[test]
fn wrong_fields_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let (_, good) = written(folder.path());
    let path = folder.path().join("bad.gguf");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        GgufFile::open(&path).expect_err("refused").to_string()
    };
    let changed = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    let at_b = find(&good, b"b.weight") + 8;
    let at_key = find(&good, b"some.list");
    let huge = u64::MAX.to_le_bytes();
    for (bytes, parts) in [
        (changed(0, b"GGML"), ["not a GGUF file", "begins with"]),
        (changed(4, &[1]), ["version 1", "convert"]),
        (changed(4, &[9]), ["version 9", "2 and 3"]),
        (changed(4, &[0, 0, 0, 3]), ["big end", "convert"]),
        (changed(8, &huge), ["number of tensors", "room for"]),
        (changed(16, &huge), ["keys", "room for"]),
        (changed(8, &[3]), ["tensor 2", "its name"]),
        (changed(24, &huge), ["key 0", "room for"]),
        (changed(at_key + 9, &[13]), ["some.list", "type 13"]),
        (changed(at_key + 17, &huge), ["some.list", "room for"]),
        (changed(at_b, &[5]), ["tensor b.weight", "5 dimensions"]),
        (
            changed(at_b + 4, &[33]),
            ["tensor b.weight", "no whole blocks of Q8_0"],
        ),
        (
            changed(at_b + 4, &[0]),
            ["tensor b.weight", "dimension of zero"],
        ),
        (
            changed(at_b + 12, &(1u64 << 60).to_le_bytes()),
            ["tensor b.weight", "beyond memory"],
        ),
        (changed(at_b + 20, &[4]), ["tensor b.weight", "type 4"]),
        (changed(at_b + 24, &[0]), ["tensor b.weight", "overlap"]),
        (
            changed(at_b + 24, &[64]),
            ["tensor b.weight", "leave a gap"],
        ),
        (changed(at_b - 8, b"a"), ["tensor a.weight", "twice"]),
        (changed(at_key + 8, b"u"), ["some.lisu", "twice"]),
        (changed(at_key, b"some\xff"), ["key 1", "UTF-8"]),
        (
            good[..good.len() - 30].to_vec(),
            ["tensor b.weight", "truncated"],
        ),
        (good[..80].to_vec(), ["key 1", "room for 3"]),
        (Vec::new(), ["4 bytes are needed", "0 of 0"]),
    ] {
        let message = refused(&bytes);
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
}

/// Every byte of the header changed, and every length: an error or a file, and never a panic.
#[test]
fn damaged_files_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (_, good) = written(folder.path());
    let path = folder.path().join("bad.gguf");
    for at in 0..good.len().min(300) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(file) = GgufFile::open(&path) {
                for tensor in file.tensors() {
                    let _ = (
                        file.bytes(tensor).len(),
                        file.widened(tensor),
                        file.blocks(tensor),
                    );
                }
                let _ = GgufModel::open(&path).map(|model| model.tokenizer());
            }
        }
    }
    for length in 0..good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        let _ = GgufFile::open(&path);
    }
}

#[test]
fn tensors_that_llama_cpp_would_refuse_are_not_written() {
    let mut writer = GgufWriter::new(Metadata::default());
    let q8 = TensorType::from_name("Q8_0").unwrap();
    let mut refused = |name: &str, shape: &[usize], kind| {
        let added = writer.add(name, shape, kind, || Ok(Cow::Borrowed(&[][..])));
        added.expect_err("refused").to_string()
    };
    assert!(refused(&"x".repeat(64), &[1], TensorType::F32).contains("64 bytes"));
    assert!(refused("x", &[1, 1, 1, 1, 1], TensorType::F32).contains("5 dimensions"));
    assert!(refused("x", &[2, 33], q8).contains("no whole blocks"));
    // A tensor of another size than was said: no file is left.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    writer
        .add("x", &[2], TensorType::F32, || {
            Ok(Cow::Borrowed(&[0; 4][..]))
        })
        .unwrap();
    assert!(
        writer
            .write(&path)
            .expect_err("refused")
            .to_string()
            .contains("4 bytes in place of 8")
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The real file of SmolLM2 against its folder, whose weights are those of the file in 16 bits.
#[test]
fn a_file_of_llama_cpp_loads_as_its_folder_does() {
    let Some(models) = std::env::var_os("FT_TEST_MODELS") else {
        eprintln!("skipped: FT_TEST_MODELS is not set");
        return;
    };
    let folder = PathBuf::from(models).join("smollm2-135m-instruct");
    let path = folder.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.is_file() {
        eprintln!("skipped: there is no {}", path.display());
        return;
    }
    let device = Device::default();
    assert_eq!(
        resolve(path.to_str().unwrap(), &HubOptions::default()).unwrap(),
        path
    );
    let config = ModelConfig::from_pretrained(&path).unwrap();
    let expected = ModelConfig::from_pretrained(&folder).unwrap();
    assert_eq!(config.dims(), expected.dims());

    let (ours, theirs) = (
        Tokenizer::from_pretrained(&path).unwrap(),
        Tokenizer::from_pretrained(&folder).unwrap(),
    );
    assert_eq!(ours.special_tokens(), theirs.special_tokens());
    assert_eq!(ours.vocab_size(), theirs.vocab_size());
    for text in [
        "What is a kite?",
        "  Numbers 12345, 3.14 and\n\n tabs\t\"quoted\" don't  stop.",
        "Ünïcödé 日本語 🙂🙂 naïve",
        "<|im_start|>user\nHi<|im_end|>\n",
        "",
    ] {
        let ids = ours.encode(text, true).unwrap();
        assert_eq!(ids, theirs.encode(text, true).unwrap(), "{text:?}");
        assert_eq!(ours.decode(&ids, false).unwrap(), text);
    }
    let messages = [ft_core::Message::new("user", "Hi")];
    let rendered = |tokenizer: &Tokenizer| {
        tokenizer
            .apply_chat_template(&messages, None, true)
            .unwrap()
    };
    assert_eq!(rendered(&ours), rendered(&theirs));
    let generation = |path: &Path, tokenizer: &Tokenizer| {
        GenerationConfig::from_pretrained(path, Some(tokenizer)).unwrap()
    };
    // llama.cpp also ends at `<|endoftext|>`, by its name.
    assert_eq!(generation(&path, &ours).eos_token_ids, [0, 2]);
    assert_eq!(generation(&folder, &theirs).eos_token_ids, [2]);

    let ids: Vec<i64> = theirs
        .encode("What is a kite? It is a toy", true)
        .unwrap()
        .into_iter()
        .map(i64::from)
        .collect();
    let count = ids.len();
    let logits = |model: &AutoCausalLm| {
        let ids = burn::tensor::TensorData::new(ids.clone(), [1, count]);
        let ids = burn::tensor::Tensor::from_data(ids, &device);
        let hidden = model.hidden_states(&TokenBatch::new(ids), None);
        model.head().forward(hidden).into_data()
    };
    let packed = AutoCausalLm::from_pretrained_with(&path, &device, Weights::Stored).unwrap();
    let found = logits(&packed);
    let mut dense = packed;
    assert_eq!(dequantize(&mut dense), 211);
    let exact = logits(&dense);
    let of_folder = AutoCausalLm::from_pretrained_with(&folder, &device, Weights::Stored).unwrap();
    // The folder has the weights in 16 bits, which rounds the sums of scale and minimum.
    assert_close("folder", logits(&of_folder), &exact, 0.02);
    assert_close("blocks", found, &exact, 0.05);
}
