//! BERTScore against bert_score: `tests/reference/bert_score.py` made the numbers, with all-MiniLM-L6-v2.

use std::path::{Path, PathBuf};

use ft::burn::tensor::Device;
use ft::eval::bert_score::BertScorer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    texts: Vec<(String, Vec<String>)>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    layers: usize,
    idf: bool,
    rescale: bool,
    scores: Vec<[f64; 3]>,
}

#[test]
fn scores_are_bert_score_s() {
    let models = std::env::var_os("FT_TEST_MODELS").filter(|folder| !folder.is_empty());
    let Some(folder) = models.map(|folder| PathBuf::from(folder).join("all-minilm-l6-v2")) else {
        eprintln!("skipped: FT_TEST_MODELS does not name a folder with all-minilm-l6-v2");
        return;
    };
    let reference: Reference =
        serde_json::from_str(include_str!("../reference/bert_score.json")).expect("JSON");
    let (predictions, references): (Vec<String>, Vec<Vec<String>>) =
        reference.texts.into_iter().unzip();
    assert!(predictions.len() > 200);
    let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/bert_score.tsv");
    for run in reference.runs {
        let scorer =
            BertScorer::from_pretrained(&folder, run.layers, &Device::default()).expect("loads");
        let mut scorer = scorer.with_idf(run.idf);
        if run.rescale {
            scorer = scorer
                .with_baseline(&baseline)
                .expect("a row for the layer");
        }
        let scores = scorer.score(&predictions, &references).expect("scores");
        for (i, (found, expected)) in scores.iter().zip(&run.scores).enumerate() {
            let found = [found.precision, found.recall, found.f1];
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{} layers, pair {i}: {found}, not {expected}\n{:?}\n{:?}",
                    run.layers,
                    predictions[i],
                    references[i]
                );
            }
        }
    }
    assert!(BertScorer::from_pretrained(&folder, 7, &Device::default()).is_err());
}
