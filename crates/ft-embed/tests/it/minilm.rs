//! all-MiniLM-L6-v2, if `FT_TEST_MODELS` names a folder with it.

use burn::tensor::Device;
use ft_embed::{EmbeddingModel, Int8Index, VectorIndex};

use crate::models::{assert_rows, json, rows};

#[test]
fn embeddings_of_minilm_are_those_of_sentence_transformers() {
    let models = std::env::var_os("FT_TEST_MODELS").filter(|folder| !folder.is_empty());
    let folder = models.map(|models| std::path::PathBuf::from(models).join("all-minilm-l6-v2"));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        eprintln!("skipped: FT_TEST_MODELS names no folder with all-minilm-l6-v2");
        return;
    };
    let model = EmbeddingModel::from_pretrained(&folder, &Device::default()).expect("loads");
    assert_eq!((model.dims(), model.max_seq_length()), (384, 256));
    let golden = json("minilm.json");
    let texts: Vec<String> = serde_json::from_value(golden["texts"].clone()).expect("texts");
    let found = model.encode(&texts).expect("encodes");
    assert_rows("MiniLM", &found, &rows(&golden["embeddings"]), 1e-5);
    let index = Int8Index::try_from(&found).expect("several rows");
    let hits = index.search(&found.select(&[0]), 2).expect("searches");
    let found: Vec<usize> = hits[0].iter().map(|hit| hit.document).collect();
    assert_eq!(found, [0, 1]);
}
