//! Students of some layers, channels and heads of a teacher.

use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::TensorData;
use ft_core::safetensors_folder::module_tensors;
use ft_core::{AutoCausalLm, CausalLm, EncoderSequenceClassifier, TokenBatch};
use ft_distill::{narrow_student_of, student_of};
use serde_json::json;

use crate::distill::{device, teacher};

#[test]
fn a_student_of_all_layers_is_the_teacher() {
    let teacher = teacher();
    let layers: Vec<usize> = (0..teacher.dims().num_layers).collect();
    let student = student_of(&teacher, &layers).unwrap();
    assert_eq!(module_tensors(&student), module_tensors(&teacher));
    let last = layers.len() - 1;
    let student = student_of(&teacher, &[last]).unwrap();
    assert_eq!(student.dims().num_layers, 1);
    let tensors = |model: &AutoCausalLm, layer: usize| {
        let prefix = format!("model.layers.{layer}.");
        let all = module_tensors(model).into_iter();
        all.filter_map(|(path, data)| Some((path.strip_prefix(&prefix)?.to_string(), data)))
            .collect::<Vec<_>>()
    };
    assert_eq!(tensors(&student, 0), tensors(&teacher, last));
    let folder = tempfile::tempdir().unwrap();
    student
        .save_pretrained(folder.path(), &Default::default())
        .unwrap();
    let again = AutoCausalLm::from_pretrained(folder.path(), &device()).unwrap();
    let ids = TokenBatch::from_ids(&[3, 1, 4, 1, 5], &device());
    assert_eq!(
        again.logits(&ids, None).into_data(),
        student.logits(&ids, None).into_data()
    );
    let error = student_of(&teacher, &[0, 9]).unwrap_err().to_string();
    assert!(error.contains("no layer 9"), "{error}");
    assert!(student_of(&teacher, &[]).is_err());
    // A teacher that cannot train has students too.
    let still = student_of(&teacher.valid(), &[last]).unwrap();
    assert_eq!(module_tensors(&still), module_tensors(&student));
}

/// Channels, heads and positions of the student are the first ones of the teacher.
#[test]
fn a_narrower_student_is_cut_from_the_teacher() {
    let teacher = teacher();
    let config = teacher.config().to_json();
    let half = |name: &str| config[name].as_u64().unwrap() / 2;
    let mut sizes = serde_json::Map::new();
    for name in [
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
    ] {
        sizes.insert(name.to_string(), half(name).into());
    }
    let student = narrow_student_of(&teacher, &[1], &sizes).unwrap();
    assert_eq!(student.dims().num_layers, 1);
    let (all, cut) = (module_tensors(&teacher), module_tensors(&student));
    let find = |all: &[(String, TensorData)], path: &str| {
        let found = all.iter().find(|(name, _)| name == path);
        found.unwrap_or_else(|| panic!("{path}")).1.clone()
    };
    for (ours, theirs) in [
        (
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.1.self_attn.k_proj.weight",
        ),
        (
            "model.layers.0.mlp.down_proj.weight",
            "model.layers.1.mlp.down_proj.weight",
        ),
        ("model.embed_tokens.weight", "model.embed_tokens.weight"),
    ] {
        let (ours, theirs) = (find(&cut, ours), find(&all, theirs));
        let ([rows, columns], whole) = ([ours.shape()[0], ours.shape()[1]], theirs.shape()[1]);
        assert!(rows < theirs.shape()[0] || columns < whole);
        let (ours, theirs) = (
            ours.try_to_vec::<f32>().unwrap(),
            theirs.try_to_vec::<f32>().unwrap(),
        );
        for row in 0..rows {
            let part = &theirs[row * whole..row * whole + columns];
            assert_eq!(&ours[row * columns..(row + 1) * columns], part);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    student
        .save_pretrained(folder.path(), &Default::default())
        .unwrap();
    let again = AutoCausalLm::from_pretrained(folder.path(), &device()).unwrap();
    assert_eq!(module_tensors(&again), cut);
}

/// The first rows of a matrix with several parts are rows of one of them.
#[test]
fn matrices_of_several_parts_are_not_cut() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ft-core/tests/golden");
    let teacher = AutoCausalLm::from_pretrained(&golden.join("gpt2"), &device()).unwrap();
    let config = teacher.config().to_json();
    let mut sizes = serde_json::Map::new();
    for name in ["n_embd", "n_head"] {
        sizes.insert(name.into(), (config[name].as_u64().unwrap() / 2).into());
    }
    let error = narrow_student_of(&teacher, &[0], &sizes)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("c_attn") && error.contains("several parts"),
        "{error}"
    );

    let labels = ["bad", "good"].map(String::from).to_vec();
    let teacher =
        EncoderSequenceClassifier::from_encoder(&golden.join("bert"), labels, 2, &device())
            .unwrap();
    let sizes = json!({"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 20});
    let sizes = sizes.as_object().unwrap();
    let student = narrow_student_of(&teacher, &[0], sizes).unwrap();
    assert_eq!(student.dims().hidden_size, 16);
    let head = |model: &EncoderSequenceClassifier| {
        let tensors = module_tensors(model);
        let (_, head) = tensors
            .iter()
            .find(|(path, _)| *path == "classifier.weight")
            .unwrap();
        head.try_to_vec::<f32>().unwrap()
    };
    assert_eq!(head(&student)[0], head(&teacher)[0]);
}

#[test]
fn classifiers_of_texts_have_students_of_layers() {
    for family in ["bert", "distilbert"] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let folder = folder.join("../ft-core/tests/golden").join(family);
        let labels = ["bad", "good", "neither"].map(String::from).to_vec();
        let teacher = EncoderSequenceClassifier::from_encoder(&folder, labels, 3, &device());
        let teacher = teacher.unwrap();
        let layers = teacher.dims().num_layers;
        assert!(layers > 1, "{family}");
        let all: Vec<usize> = (0..layers).collect();
        let same = student_of(&teacher, &all).unwrap();
        assert_eq!(module_tensors(&same), module_tensors(&teacher), "{family}");
        let student = student_of(&teacher, &[layers - 1]).unwrap();
        assert_eq!(student.dims().num_layers, 1);
        assert_eq!(student.config().labels, teacher.config().labels);
        let saved = tempfile::tempdir().unwrap();
        student
            .save_pretrained(saved.path(), &Default::default())
            .unwrap();
        let again = EncoderSequenceClassifier::from_pretrained(saved.path(), &device()).unwrap();
        assert_eq!(module_tensors(&again), module_tensors(&student), "{family}");
    }
}
