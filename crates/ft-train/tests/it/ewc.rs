//! Elastic weight consolidation.

use burn::module::Module;
use ft_train::{Ewc, TrainConfig, Trainer};

use crate::model::{Data, Net, alone, device, parameters, squared_error};
use crate::watching::{config, others};

/// The gradient of a squared error in the output's bias is twice the error.
#[test]
fn the_fisher_information_is_the_mean_of_squared_gradients_of_examples() {
    let _turn = alone();
    let model = Net::new(0.0);
    let examples = Data::of(&[1; 4]);
    let ewc = Ewc::new(&model, &examples, squared_error, 3.0).expect("finds it");
    let errors: Vec<f64> = (0..4)
        .map(|i| {
            use ft_data::Batches;
            let loss = crate::model::squared_error_sum(&model, &examples.batch(0, i), &device());
            loss.sum.into_data().iter::<f64>().next().expect("one")
        })
        .collect();
    let expected = errors.iter().map(|squared| 4.0 * squared).sum::<f64>() / 4.0;
    let fisher: Vec<f64> = ewc
        .fisher("out.bias")
        .expect("trains")
        .iter::<f64>()
        .collect();
    assert!(
        (fisher[0] - expected).abs() < 1e-5 * expected,
        "{fisher:?} {expected}"
    );
    assert!(ewc.fisher("frozen.weight").is_none());

    let penalty = |model: &Net| {
        ewc.penalty(model)
            .expect("is the model")
            .into_data()
            .iter::<f64>()
            .next()
            .expect("one")
    };
    assert_eq!(penalty(&model), 0.0);
    let mut moved = model.clone();
    moved.out.bias = moved.out.bias.map(|bias| bias.map(|bias| bias + 0.5));
    let expected = 1.5 * fisher[0] * 0.25;
    assert!((penalty(&moved) - expected).abs() < 1e-5 * expected);

    // A model without one of the parameters, and losses that depend on none.
    let mut other = model.clone();
    other.out.bias = None;
    let error = ewc.penalty(&other).expect_err("lacks the bias").to_string();
    assert!(error.contains("5 of the 6 parameters"), "{error}");
    for (model, masked) in [
        (model.clone(), vec![0, 1, 2, 3]),
        (model.clone().no_grad(), vec![]),
    ] {
        let data = Data {
            masked,
            ..examples.clone()
        };
        let error = Ewc::new(&model, &data, squared_error, 3.0).expect_err("finds nothing");
        assert!(
            error.to_string().contains("nothing would be held"),
            "{error}"
        );
    }
}

#[test]
fn the_importance_of_parameters_below_dropout_is_the_same_in_every_process() {
    let _turn = alone();
    let model = Net::new(0.5);
    let fisher = |seed: u64| {
        device().seed(seed);
        let ewc = Ewc::new(&model, &Data::of(&[1; 4]), squared_error, 1.0).expect("finds it");
        ewc.fisher("hidden.weight").expect("trains")
    };
    assert_eq!(fisher(1), fisher(2));
}

#[test]
fn consolidated_parameters_stay_closer_to_where_they_were() {
    let _turn = alone();
    let start = Net::new(0.0);
    let distance = |lambda: f64| {
        let ewc = Ewc::new(&start, &Data::of(&[1; 6]), squared_error, lambda).expect("finds it");
        let config = TrainConfig {
            eval_every: None,
            ..config(10.0)
        };
        let trainer = Trainer::new(config, others(), ewc.into_step(squared_error));
        let (model, _) = trainer.fit(start.clone()).expect("trains");
        let (before, after) = (parameters(&start), parameters(&model));
        let squares = before.iter().flat_map(|(name, before)| {
            before
                .iter()
                .zip(&after[name])
                .map(|(a, b)| f64::from(a - b).powi(2))
        });
        squares.sum::<f64>()
    };
    let (free, held) = (distance(0.0), distance(1000.0));
    assert!(held < 0.5 * free, "{held} {free}");
}
