//! However a step's rows are cut into batches, the step is the same.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use ft_train::{Error, TrainConfig, clip_factor, evaluate, global_norm};

use crate::model::{Data, Net, alone, device, distance, squared_error, trainer};

fn config(accumulation: usize) -> TrainConfig {
    TrainConfig {
        learning_rate: 0.02,
        epochs: 3.0,
        gradient_accumulation_steps: accumulation,
        max_grad_norm: Some(0.5),
        weight_decay: 0.05,
        ..TrainConfig::default()
    }
}

#[test]
fn one_batch_of_eight_equals_eight_of_one_and_two_of_four() {
    let _turn = alone();
    let cuts: [(Vec<usize>, usize); 3] = [(vec![8; 2], 1), (vec![1; 16], 8), (vec![4; 4], 2)];
    let runs = cuts.map(|(sizes, accumulation)| {
        trainer(config(accumulation), Data::of(&sizes))
            .fit(Net::new(0.0))
            .expect("trains")
    });
    let (model, report) = &runs[0];
    assert_eq!(report.steps, 6);
    for (other, other_report) in &runs[1..] {
        assert!(distance(model, other) < 1e-6, "{}", distance(model, other));
        for (a, b) in report.train_losses.iter().zip(&other_report.train_losses) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}

#[test]
fn batches_of_unequal_counts_are_weighted_by_their_labels() {
    let _turn = alone();
    let masked = vec![1, 2, 3, 6, 9, 10, 12];
    let runs = [
        (vec![8, 8], 1),
        (vec![5, 3, 1, 7], 2),
        (vec![4, 2, 1, 1, 2, 2, 2, 2], 4),
    ]
    .map(|(sizes, accumulation)| {
        let data = Data {
            masked: masked.clone(),
            ..Data::of(&sizes)
        };
        trainer(config(accumulation), data)
            .fit(Net::new(0.0))
            .expect("trains")
    });
    for (other, report) in &runs[1..] {
        assert!(distance(&runs[0].0, other) < 1e-6);
        for (a, b) in runs[0].1.train_losses.iter().zip(&report.train_losses) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}

#[test]
fn a_batch_without_labels_adds_nothing_to_its_window() {
    let _turn = alone();
    let with_empty = Data {
        masked: (4..8).collect(),
        ..Data::of(&[4, 4])
    };
    let once = TrainConfig {
        epochs: 1.0,
        ..config(2)
    };
    let (a, _) = trainer(once.clone(), with_empty)
        .fit(Net::new(0.0))
        .expect("trains");
    let (b, _) = trainer(once, Data::of(&[4]))
        .fit(Net::new(0.0))
        .expect("trains");
    assert_eq!(distance(&a, &b), 0.0);
}

#[test]
fn a_window_without_labels_is_an_error_that_says_where() {
    let _turn = alone();
    let data = Data {
        masked: (4..8).collect(),
        ..Data::of(&[2, 2, 2, 2])
    };
    let Err(error) = trainer(config(2), data).fit(Net::new(0.0)) else {
        panic!("trained on nothing");
    };
    let place = (2, 0, 2, 3);
    assert!(
        matches!(error, Error::NoLabels { step, epoch, first, last } if (step, epoch, first, last) == place),
        "{error}"
    );
}

#[test]
fn an_evaluation_counts_each_label_alike_and_draws_no_dropout() {
    let _turn = alone();
    let masked = vec![0, 1, 2, 5];
    let model = Net::new(0.5);
    let metrics = [vec![8], vec![3, 1, 4]].map(|sizes| {
        let data = Data {
            masked: masked.clone(),
            ..Data::of(&sizes)
        };
        evaluate(&model, &data, squared_error).expect("evaluates")
    });
    assert_eq!((metrics[0].tokens, metrics[1].tokens), (4, 4));
    assert!((metrics[0].loss - metrics[1].loss).abs() < 1e-6);
    assert_eq!(metrics[0].perplexity, metrics[0].loss.exp());
    let nothing = Data {
        masked: (0..8).collect(),
        ..Data::of(&[8])
    };
    let empty = evaluate(&model, &nothing, squared_error);
    assert!(matches!(empty, Err(Error::EmptyEvaluation)));
}

#[test]
fn a_norm_at_its_limit_is_not_clipped() {
    assert_eq!(clip_factor(0.0, 1.0), 1.0);
    assert!(clip_factor(1.0, 1.0) > 1.0 - 2e-6);
}

/// With loss `Σ w·c` the gradient is `c`: of a 2×2 weight all 3, of a bias of 2 all 4, hence
/// `√(4·9 + 2·16) = √68`.
#[test]
fn the_norm_is_one_over_all_parameters() {
    let _turn = alone();
    let layer: Linear = LinearConfig::new(2, 2).init(&device());
    let bias = layer.bias.as_ref().expect("has a bias").val();
    let loss = layer.weight.val().sum() * 3.0 + bias.sum() * 4.0;
    let gradients = GradientsParams::from_grads(loss.backward(), &layer);
    assert!((global_norm(&layer, &gradients) - 68f64.sqrt()).abs() < 1e-6);
    assert_eq!(global_norm(&layer.no_grad(), &GradientsParams::new()), 0.0);
}
