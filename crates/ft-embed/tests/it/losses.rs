//! Every loss and its gradients against sentence-transformers; made by `golden/losses.py`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use ft_core::safetensors_folder::read_tensors;
use ft_embed::loss::{
    Directions, Gist, Hardness, Margin, Matryoshka, Mining, MultipleNegatives, Partition, angle,
    binary_cross_entropy, contrastive, cosent, cosine, gist, lambda, layer_divergence, list_mle,
    list_net, margin_mse, matryoshka, mined_triplets, mse, multiple_negatives, online_contrastive,
    position_list_mle, rank_net, triplet,
};

type Golden = BTreeMap<String, TensorData>;

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/losses.safetensors");
    read_tensors(&path).expect("golden")
}

fn numbers(data: &TensorData) -> Vec<f32> {
    data.clone().convert::<f32>().try_to_vec().expect("f32")
}

fn close(what: &str, found: &TensorData, expected: &TensorData, tolerance: f32) {
    let (found, expected) = (numbers(found), numbers(expected));
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    for (place, (a, b)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * scale,
            "{what}[{place}]: {a}, but sentence-transformers has {b}"
        );
    }
}

/// Compares the mean of a loss of the first `count` columns, and the gradients of these.
fn case(golden: &Golden, name: &str, count: usize, loss: impl Fn(&[Tensor<2>]) -> Tensor<1>) {
    let device = Device::default().autodiff();
    let columns: Vec<Tensor<2>> = (0..count)
        .map(|i| Tensor::from_data(golden[&format!("c{i}")].clone(), &device).require_grad())
        .collect();
    let value = loss(&columns).mean();
    close(name, &value.to_data(), &golden[name], 1e-5);
    let gradients = value.backward();
    for (i, column) in columns.iter().enumerate() {
        let key = format!("{name}.c{i}");
        let gradient = column.grad(&gradients);
        let zeros = || Tensor::zeros(column.dims(), &Device::default());
        let gradient = gradient.unwrap_or_else(zeros);
        close(&key, &gradient.into_data(), &golden[&key], 2e-5);
    }
}

#[test]
fn in_batch_negatives_in_all_directions() {
    let golden = golden();
    let with = |name: &str, count, settings: MultipleNegatives| {
        settings.validate().expect("sound settings");
        case(&golden, name, count, |columns| {
            multiple_negatives(columns[0].clone(), &columns[1..], &settings)
        });
    };
    let plain = MultipleNegatives::default();
    with("mnrl", 2, plain);
    with("mnrl_negatives", 4, plain);
    with(
        "mnrl_all",
        4,
        MultipleNegatives {
            scale: 10.0,
            directions: Directions::ALL,
            ..plain
        },
    );
    with(
        "mnrl_symmetric",
        3,
        MultipleNegatives {
            directions: Directions::SYMMETRIC,
            partition: Partition::PerDirection,
            ..plain
        },
    );
    for (name, kind) in [
        ("mnrl_in_batch_negatives", Hardness::InBatchNegatives),
        ("mnrl_hard_negatives", Hardness::HardNegatives),
        ("mnrl_all_negatives", Hardness::AllNegatives),
    ] {
        with(
            name,
            4,
            MultipleNegatives {
                hardness: Some((kind, 5.0)),
                ..plain
            },
        );
    }
}

#[test]
fn guided_negatives() {
    let golden = golden();
    let guide = |count: usize| -> Vec<Tensor<2>> {
        let device = Device::default().autodiff();
        (0..count)
            .map(|i| Tensor::from_data(golden[&format!("g{i}")].clone(), &device))
            .collect()
    };
    let plain = Gist {
        temperature: 0.1,
        ..Gist::default()
    };
    let with = |name: &str, count, settings: Gist| {
        case(&golden, name, count, |columns| {
            gist(columns, &guide(count), &settings)
        });
    };
    with("gist", 3, plain);
    with(
        "gist_relative",
        2,
        Gist {
            margin: Margin::Relative(0.2),
            ..plain
        },
    );
    with(
        "gist_plain",
        3,
        Gist {
            contrast_anchors: false,
            contrast_positives: false,
            ..plain
        },
    );
}

#[test]
fn triplets_given_and_mined() {
    let golden = golden();
    case(&golden, "triplet", 3, |columns| {
        let [a, p, n] = [0, 1, 2].map(|i| columns[i].clone());
        triplet(a, p, n, 5.0)
    });
    let classes: Vec<i64> = numbers(&golden["classes"])
        .iter()
        .map(|x| *x as i64)
        .collect();
    for (name, mining) in [
        ("batch_all", Mining::All { margin: 1.0 }),
        ("batch_hard", Mining::Hard { margin: 1.0 }),
        ("batch_hard_soft", Mining::HardSoftMargin),
        ("batch_semi_hard", Mining::SemiHard { margin: 1.0 }),
    ] {
        case(&golden, name, 1, |columns| {
            mined_triplets(columns[0].clone(), &classes, mining)
        });
    }
}

#[test]
fn labelled_pairs() {
    let golden = golden();
    let (binary, scores) = (numbers(&golden["binary"]), numbers(&golden["scores"]));
    let pair = |columns: &[Tensor<2>]| (columns[0].clone(), columns[1].clone());
    case(&golden, "contrastive", 2, |columns| {
        let (a, b) = pair(columns);
        contrastive(a, b, &binary, 0.5)
    });
    case(&golden, "online_contrastive", 2, |columns| {
        let (a, b) = pair(columns);
        online_contrastive(a, b, &binary, 0.5)
    });
    case(&golden, "online_contrastive_alike", 2, |columns| {
        let (a, b) = pair(columns);
        online_contrastive(a, b, &[1.0; 5], 0.5)
    });
    case(&golden, "cosine", 2, |columns| {
        let (a, b) = pair(columns);
        cosine(a, b, &scores)
    });
    case(&golden, "cosent", 2, |columns| {
        let (a, b) = pair(columns);
        cosent(a, b, &scores, 20.0)
    });
    case(&golden, "angle", 2, |columns| {
        let (a, b) = pair(columns);
        angle(a, b, &scores, 20.0)
    });
}

#[test]
fn teachers() {
    let golden = golden();
    let margins: Vec<Vec<f32>> = numbers(&golden["margins"])
        .iter()
        .map(|m| vec![*m])
        .collect();
    case(&golden, "margin_mse", 3, |columns| {
        margin_mse(
            columns[0].clone(),
            columns[1].clone(),
            &columns[2..],
            &margins,
        )
    });
    let several = numbers(&golden["several"]);
    let several: Vec<&[f32]> = several.chunks(3).collect();
    case(&golden, "margin_mse_scores", 4, |columns| {
        margin_mse(
            columns[0].clone(),
            columns[1].clone(),
            &columns[2..],
            &several,
        )
    });
    let target = Tensor::from_data(golden["c1"].clone(), &Device::default().autodiff());
    case(&golden, "mse", 1, |columns| {
        mse(columns[0].clone(), target.clone())
    });
    case(&golden, "layer_divergence", 2, |columns| {
        layer_divergence(columns[0].clone(), columns[1].clone(), 0.3)
    });
}

#[test]
fn fewer_dimensions() {
    let golden = golden();
    let dims = vec![(2, 0.25), (6, 1.0), (4, 0.5)];
    let dims = Matryoshka::weighted(dims, 6).expect("sound settings");
    case(&golden, "matryoshka", 3, |columns| {
        matryoshka(columns, &dims, |columns| {
            multiple_negatives(
                columns[0].clone(),
                &columns[1..],
                &MultipleNegatives::default(),
            )
        })
    });
}

#[test]
fn lists_of_a_cross_encoder() {
    let golden = golden();
    let device = Device::default().autodiff();
    let labels: Vec<Vec<f32>> = (0..2).map(|i| numbers(&golden[&format!("y{i}")])).collect();
    type Loss = fn(&[(Tensor<1>, &[f32])]) -> Tensor<1>;
    for (name, loss) in [
        ("lambda", lambda as Loss),
        ("rank_net", rank_net),
        ("list_net", list_net),
        ("list_mle", list_mle),
        ("position_list_mle", position_list_mle),
    ] {
        let scores: Vec<Tensor<1>> = (0..2)
            .map(|i| Tensor::from_data(golden[&format!("l{i}")].clone(), &device).require_grad())
            .collect();
        let lists: Vec<(Tensor<1>, &[f32])> = (scores.iter().zip(&labels))
            .map(|(scores, labels)| (scores.clone(), labels.as_slice()))
            .collect();
        let value = loss(&lists).mean();
        close(name, &value.to_data(), &golden[name], 1e-5);
        let gradients = value.backward();
        for (i, scores) in scores.iter().enumerate() {
            let key = format!("{name}.l{i}");
            let gradient = scores.grad(&gradients).expect("trains");
            close(&key, &gradient.into_data(), &golden[&key], 2e-5);
        }
    }
    let logits = Tensor::<1>::from_data(golden["logits"].clone(), &device).require_grad();
    let labels = numbers(&golden["scores"]);
    let value = binary_cross_entropy(logits.clone(), &labels, 2.0).mean();
    close(
        "binary",
        &value.to_data(),
        &golden["binary_cross_entropy"],
        1e-5,
    );
    let gradient = logits.grad(&value.backward()).expect("trains");
    let expected = &golden["binary_cross_entropy.logits"];
    close("binary, gradient", &gradient.into_data(), expected, 1e-5);
}
