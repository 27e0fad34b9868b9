//! Cross-encoders against sentence-transformers; made by `golden/models.py`.

use burn::tensor::Device;
use ft_core::SaveOptions;
use ft_embed::CrossEncoder;

use crate::models::{folder, json};

fn load() -> CrossEncoder {
    CrossEncoder::from_pretrained(&folder("tiny_pairs"), &Device::default()).expect("loads")
}

#[test]
fn scores_of_pairs_are_those_of_sentence_transformers() {
    let golden = json("pairs.json");
    let pairs: Vec<(String, String)> =
        serde_json::from_value(golden["pairs"].clone()).expect("pairs");
    let pairs: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    let expected: Vec<f32> = serde_json::from_value(golden["scores"].clone()).expect("scores");
    let model = load();
    let copy = tempfile::TempDir::new().expect("temporary folder");
    model
        .save_pretrained(copy.path(), &SaveOptions::default())
        .expect("saves");
    let again = CrossEncoder::from_pretrained(copy.path(), &Device::default()).expect("loads");
    for model in [model, again] {
        let found = model.predict(&pairs).expect("predicts");
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found[0] - expected).abs() < 1e-5, "{found:?} {expected}");
        }
    }
    let logits: Vec<f32> = serde_json::from_value(golden["logits"].clone()).expect("logits");
    for (logit, score) in logits.iter().zip(&expected) {
        assert!((1.0 / (1.0 + (-logit).exp()) - score).abs() < 1e-5);
    }
}

#[test]
fn documents_are_ranked_by_score() {
    let model = load();
    let documents = ["the cat sat on the mat", "A dog ran!", "the mat", "the mat"];
    let ranked = model.rank("the cat", &documents).expect("ranks");
    assert_eq!(ranked.len(), 4);
    assert!(ranked.windows(2).all(|two| two[0].1 >= two[1].1));
    let place = |document| ranked.iter().position(|(own, _)| *own == document);
    assert!(place(2) < place(3));
}
