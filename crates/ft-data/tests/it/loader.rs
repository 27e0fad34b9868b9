//! Order, grouping and collation are independent: whatever the rows are, any batch can be asked for
//! at any time.

use ft_data::{Batch, Batches, Collation, Loader, SftBatches, SftDataset, Tokenized};

/// Batches from the middle of an epoch on, made by a new loader, are those of a loader that ran from
/// the start; epochs differ in order; and every example comes once an epoch.
fn resumes<E: 'static, B: PartialEq + std::fmt::Debug + 'static>(
    new: impl Fn() -> Loader<E, B>,
    numbers: impl Fn(&B) -> Vec<usize>,
) {
    let loader = new();
    let epoch = |loader: &Loader<E, B>, epoch| -> Vec<B> {
        let len = loader.len(epoch);
        (0..len).map(|index| loader.batch(epoch, index)).collect()
    };
    let straight = [epoch(&loader, 0), epoch(&loader, 1)];
    let numbers = |batches: &[B]| batches.iter().flat_map(&numbers).collect::<Vec<_>>();
    assert_ne!(numbers(&straight[0]), numbers(&straight[1]));
    for batches in &straight {
        let mut all = numbers(batches);
        all.sort_unstable();
        assert_eq!(all, (0..loader.examples().len()).collect::<Vec<_>>());
    }
    let resumed = new();
    let middle = straight[1].len() / 2;
    assert!(middle > 0);
    for (index, batch) in straight[1].iter().enumerate().skip(middle) {
        assert_eq!(&resumed.batch(1, index), batch);
    }
    assert_eq!(epoch(&resumed, 0), straight[0]);
}

#[test]
fn pairs_of_texts_have_order_and_resume() {
    struct Pair {
        chosen: Vec<u32>,
        rejected: Vec<u32>,
    }
    // Chosen texts before rejected ones, each padded to the longest of both.
    let collate = |pairs: &[&Pair]| -> Vec<Vec<u32>> {
        let chosen = pairs.iter().map(|pair| &pair.chosen);
        let texts: Vec<_> = chosen
            .chain(pairs.iter().map(|pair| &pair.rejected))
            .collect();
        let longest = texts.iter().map(|text| text.len()).max().unwrap();
        let padded = |text: &Vec<u32>| {
            let mut row = text.clone();
            row.resize(longest, 999);
            row
        };
        texts.into_iter().map(padded).collect()
    };
    let pairs = || {
        (0..11u32)
            .map(|i| Pair {
                chosen: vec![i; 1 + i as usize % 3],
                rejected: vec![100 + i; 2],
            })
            .collect()
    };
    let new = || Loader::new(pairs(), 2, Some(5), collate).unwrap();
    resumes(new, |batch| {
        let (chosen, rejected) = batch.split_at(batch.len() / 2);
        for (chosen, rejected) in chosen.iter().zip(rejected) {
            assert_eq!(chosen[0] + 100, rejected[0]);
            assert_eq!(chosen.len(), rejected.len());
        }
        chosen.iter().map(|text| text[0] as usize).collect()
    });
}

#[test]
fn images_have_order_and_resume() {
    #[derive(Debug, PartialEq)]
    struct Images {
        pixels: Vec<f32>,
        shape: [usize; 3],
    }
    let new = || {
        let images: Vec<Vec<f32>> = (0..9).map(|i| vec![i as f32; 6]).collect();
        Loader::new(images, 4, Some(5), |images: &[&Vec<f32>]| Images {
            pixels: images.iter().flat_map(|image| (*image).clone()).collect(),
            shape: [images.len(), 2, 3],
        })
        .unwrap()
    };
    resumes(new, |batch| {
        assert_eq!(batch.pixels.len(), batch.shape.iter().product::<usize>());
        batch
            .pixels
            .iter()
            .step_by(6)
            .map(|&p| p as usize)
            .collect()
    });
}

/// Example `i` consists of 2 to 5 tokens `i`.
fn dataset() -> SftDataset {
    let examples = (0..12u32).map(|i| {
        let input_ids = vec![i; 2 + (i as usize * 5) % 4];
        let labels = vec![i64::from(i); input_ids.len()];
        Tokenized { input_ids, labels }
    });
    SftDataset::from_examples(examples.collect())
}

fn sft(collation: Collation, seed: Option<u64>) -> SftBatches {
    dataset().into_batches(2, collation, seed, 99).unwrap()
}

const PADDED: Collation = Collation::Padded { multiple: 1 };
const PACKED: Collation = Collation::Packed { seq_len: 9 };

/// The examples of each row.
fn documents(batch: &Batch) -> Vec<Vec<usize>> {
    let rows = batch.input_ids.chunks(batch.seq);
    rows.map(|row| {
        let mut row: Vec<usize> = row.iter().map(|&id| id as usize).collect();
        row.dedup();
        row.retain(|&id| id != 99);
        row
    })
    .collect()
}

#[test]
fn token_sequences_have_order_and_resume_padded_and_packed() {
    for collation in [PADDED, PACKED] {
        let new = || sft(collation, Some(3));
        resumes(new, |batch| documents(batch).concat());
    }
}

/// Recorded losses and interrupted runs depend on these orders: they must never change.
#[test]
fn the_orders_of_a_seed_are_pinned() {
    let rows = |collation, epoch| -> Vec<Vec<usize>> {
        let batches = sft(collation, Some(42));
        let all = (0..batches.len(epoch)).map(|index| batches.batch(epoch, index));
        all.flat_map(|batch| documents(&batch)).collect()
    };
    for (epoch, order) in [
        (0, [6, 1, 9, 5, 0, 7, 4, 8, 11, 10, 2, 3]),
        (1, [9, 6, 5, 1, 2, 10, 4, 3, 7, 11, 0, 8]),
        (7, [5, 11, 4, 9, 1, 8, 0, 10, 2, 6, 3, 7]),
    ] {
        assert_eq!(rows(PADDED, epoch).concat(), order);
    }
    assert_eq!(
        rows(PACKED, 0),
        [
            vec![0, 4, 8],
            vec![11, 10],
            vec![3, 2],
            vec![1, 9, 5],
            vec![7, 6]
        ]
    );
    assert_eq!(
        rows(PACKED, 7),
        [
            vec![7, 6],
            vec![5, 9, 1],
            vec![4, 8, 0],
            vec![11, 10],
            vec![3, 2]
        ]
    );
}

#[test]
fn without_a_seed_the_order_of_the_file_is_kept() {
    let padded = Collation::Padded { multiple: 8 };
    let batches = dataset().into_batches(5, padded, None, 99).unwrap();
    let all: Vec<Batch> = (0..3).map(|index| batches.batch(5, index)).collect();
    assert_eq!(
        all.iter().map(|batch| batch.batch).collect::<Vec<_>>(),
        [5, 5, 2]
    );
    let order: Vec<usize> = all.iter().flat_map(|b| documents(b).concat()).collect();
    assert_eq!(order, (0..12).collect::<Vec<_>>());
    assert!(all.iter().all(|batch| batch.seq == 8));
}

#[test]
fn settings_that_make_no_batches_are_errors() {
    let new = |dataset: SftDataset, size, collation| {
        let batches = dataset.into_batches(size, collation, None, 0);
        batches.map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(new(SftDataset::default(), 1, PADDED).is_err());
    assert!(new(dataset(), 0, PADDED).is_err());
    let error = new(dataset(), 1, Collation::Packed { seq_len: 4 }).unwrap_err();
    assert!(
        error.contains("example 4 has the length 5, but a packed row holds 4"),
        "{error}"
    );
}

#[test]
#[should_panic(expected = "batch 6 of an epoch of 6 batches")]
fn a_batch_beyond_the_epoch_panics() {
    sft(PADDED, None).batch(0, 6);
}
