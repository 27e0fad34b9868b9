//! Approximate search in a graph beside exact search.

use ft_embed::{ApproximateIndex, Embeddings, Error, ExactIndex, GraphSettings, VectorIndex};

/// Rows around a few centres, as texts of a few topics are.
fn some(rows: usize, salt: u64) -> Embeddings {
    let noise = |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1u64 << 24) as f32;
    let value = |i: usize| {
        let (row, dim) = ((i / 32) as u64, (i % 32) as u64);
        noise((row % 20) * 997 + dim + 1) - 0.5 + 0.6 * (noise(salt + 7919 * row + dim) - 0.5)
    };
    let values = (0..rows * 32).map(value).collect();
    Embeddings::new(values, 32).expect("rows").normalized()
}

#[test]
fn nearly_all_of_the_best_are_found_and_a_file_has_them_too() {
    let (documents, queries) = (some(5_000, 1), some(100, 1 << 40));
    let mut index = ApproximateIndex::new(32, GraphSettings::default()).expect("positive");
    index
        .add(&documents.select(&(0..2_000).collect::<Vec<_>>()))
        .expect("fits");
    index
        .add(&documents.select(&(2_000..5_000).collect::<Vec<_>>()))
        .expect("fits");
    let exact = ExactIndex::new(&documents).expect("finite");
    let expected = exact.search(&queries, 10).expect("searches");
    let recall = |index: &ApproximateIndex| {
        let found = index.search(&queries, 10).expect("searches");
        let mut both = 0;
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
            for hit in found {
                if let Some(same) = expected.iter().find(|other| other.document == hit.document) {
                    assert!((hit.score - same.score).abs() < 1e-5, "{hit:?} {same:?}");
                    both += 1;
                }
            }
        }
        f64::from(both) / 1000.0
    };
    assert!(recall(&index) > 0.95, "{}", recall(&index));

    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("documents.usearch");
    index.save(&path).expect("writes");
    let read = ApproximateIndex::load(&path, GraphSettings::default()).expect("reads");
    assert_eq!(recall(&read), recall(&index));
    std::fs::write(&path, b"no index").expect("writes");
    let error = ApproximateIndex::load(&path, GraphSettings::default());
    assert!(matches!(error, Err(Error::File { .. })), "{error:?}");
}

#[test]
fn few_documents_and_wrong_dimensions() {
    let mut index = ApproximateIndex::new(32, GraphSettings::default()).expect("positive");
    assert_eq!(index.search(&some(1, 0), 3).expect("searches"), [vec![]]);
    index.add(&some(2, 1)).expect("fits");
    assert_eq!(index.search(&some(1, 0), 3).expect("searches")[0].len(), 2);
    let narrow = Embeddings::new(vec![1.0; 8], 8).expect("a row");
    assert!(index.add(&narrow).is_err() && index.search(&narrow, 1).is_err());
    assert!(ApproximateIndex::new(0, GraphSettings::default()).is_err());
}
