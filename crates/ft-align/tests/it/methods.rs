//! Laws of the methods of pairs and of unpaired feedback.

use ft_align::loss::{PairLoss, ReferenceFreeLoss, log1mexp};
use ft_align::{
    Dpo, DpoConfig, Error, Kto, KtoConfig, Reference, ReferenceFree, UnpairedLoss,
    add_reference_logps,
};
use ft_core::{AutoCausalLm, CausalLm, Predicted, TokenBatch, predicted_logps, token_logps};
use ft_data::{PreferenceDataset, Tokenized, collate_branches, collate_rows};
use ft_peft::{attach, merge_and_unload, set_trainable};
use ft_train::{Method, Selection, TrainConfig, TrainReport, Trainer};

use crate::policy::{
    KillAfter, answers, base, config, device, factors, ids, lora, pairs, policy, tokenized,
    trained_policy,
};

fn dpo(
    policy: &AutoCausalLm,
    reference: Reference<AutoCausalLm>,
    batch: usize,
) -> Dpo<AutoCausalLm> {
    let config = DpoConfig::default();
    Dpo::new(config, reference, policy, pairs(8), batch, Some(7)).unwrap()
}

fn fit<T: Method<AutoCausalLm>>(
    config: TrainConfig,
    policy: AutoCausalLm,
    method: T,
) -> (AutoCausalLm, TrainReport) {
    Trainer::with_method(config, method).fit(policy).unwrap()
}

fn message<T>(result: Result<T, Error>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

/// Log-probabilities and their gradients are those of a row for each sequence.
#[test]
fn branches_are_as_good_as_rows_of_their_own() {
    let model = trained_policy();
    let prompt = ids(3, 5);
    let sequences = [
        tokenized(&prompt, &ids(60, 4)),
        tokenized(&prompt, &ids(61, 7)),
        tokenized(&prompt, &ids(62, 1)),
        tokenized(&ids(9, 3), &ids(63, 5)),
        tokenized(&ids(9, 3), &ids(64, 2)),
    ];
    let groups: Vec<Vec<&Tokenized>> = vec![
        sequences[..3].iter().collect(),
        sequences[3..].iter().collect(),
    ];
    let run = |branches: ft_data::Branches| {
        let hidden = model.hidden_states(&branches.batch.tokens(&device()), None);
        let found = predicted_logps(hidden, model.head(), &branches.completions, 0.7);
        let weights = found.logps.clone().detach().powi_scalar(2) + 1.0;
        let gradients = (found.logps.clone() * weights).sum().backward();
        let mut all = vec![found.logps.into_data()];
        ft_core::Parts::for_each_part(&model, &mut |_, part| {
            for adapter in part.adapters().iter() {
                for name in ["lora_A.weight", "lora_B.weight"] {
                    let gradient = adapter.val2(name).grad(&gradients).unwrap();
                    all.push(gradient.into_data());
                }
            }
        });
        all
    };
    let expected = run(collate_rows(&groups, 0));
    for groups_per_row in [1, 2] {
        let found = run(collate_branches(&groups, groups_per_row));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            let largest = expected
                .iter::<f32>()
                .fold(0.0f32, |most, x| most.max(x.abs()));
            let apart = found.iter::<f32>().zip(expected.iter::<f32>());
            let apart = apart.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(
                largest > 0.1 && apart <= 1e-5 * largest,
                "{apart} of {largest}"
            );
        }
    }
}

#[test]
fn the_first_step_of_a_new_adapter_has_the_loss_ln_2_and_no_margin() {
    let policy = policy();
    let method = dpo(&policy, Reference::AdaptersOff, 4);
    let (_, report) = fit(config(), policy, method);
    assert!((report.train_losses[0] - 2f64.ln()).abs() < 1e-5);
    assert_eq!(report.train_metrics[0]["rewards/accuracies"], 0.0);
    assert!(report.train_losses[1] < report.train_losses[0] + 0.1);
}

/// Accumulation over pairs changes nothing, since the loss is a mean over pairs.
#[test]
fn one_batch_of_eight_is_eight_batches_of_one() {
    let run = |batch: usize, accumulation: usize| {
        let policy = policy();
        let method = dpo(&policy, Reference::AdaptersOff, batch);
        let config = TrainConfig {
            gradient_accumulation_steps: accumulation,
            epochs: 3.0,
            ..config()
        };
        fit(config, policy, method).1
    };
    let (one, eight) = (run(8, 1), run(1, 8));
    assert_eq!(one.train_losses.len(), 3);
    for (one, eight) in one.train_losses.iter().zip(&eight.train_losses) {
        assert!((one - eight).abs() < 1e-5, "{one} {eight}");
    }
    for name in ["rewards/margins", "logps/chosen", "nll/chosen"] {
        let [one, eight] = [&one, &eight].map(|report| report.train_metrics[2][name]);
        assert!(
            (one - eight).abs() < 1e-4 * one.abs().max(1.0),
            "{name}: {one} {eight}"
        );
    }
}

#[test]
fn every_loss_of_pairs_trains() {
    for loss in PairLoss::ALL {
        let policy = policy();
        let mut config = DpoConfig {
            losses: loss.into(),
            use_weighting: loss == PairLoss::Sigmoid,
            ld_alpha: 0.5,
            ..DpoConfig::default()
        };
        if loss == PairLoss::ExoPair {
            config.settings.label_smoothing = 1e-3;
        }
        let method = Dpo::new(config, Reference::AdaptersOff, &policy, pairs(4), 4, None).unwrap();
        let training = TrainConfig {
            epochs: 6.0,
            ..crate::policy::config()
        };
        let (_, report) = fit(training, policy, method);
        let losses = &report.train_losses;
        assert!(losses[5] < losses[0], "{loss}: {losses:?}");
    }
}

/// The whole loss from log-probabilities of whole rows.
#[test]
fn losses_without_a_reference_are_those_of_their_formulas() {
    let logps = |model: &AutoCausalLm, sequence: &Tokenized, labels: &[i64]| {
        let hidden =
            model.hidden_states(&TokenBatch::from_ids(&sequence.input_ids, &device()), None);
        let found = token_logps(hidden, model.head(), labels, 1.0).logps;
        let sum: f64 = found.into_data().iter::<f64>().sum();
        (
            sum,
            labels[1..].iter().filter(|&&label| label != -100).count() as f64,
        )
    };
    for loss in ReferenceFreeLoss::ALL {
        let policy = trained_policy();
        let mut settings = loss.settings();
        settings.nll_weight = 0.3;
        let data = pairs(2);
        let (mut terms, mut nll, mut tokens, mut margin) = (0.0, 0.0, 0.0, 0.0);
        for pair in &data.examples {
            let (w, n_w) = logps(&policy, &pair.chosen, &pair.chosen.labels);
            let (l, n_l) = logps(&policy, &pair.rejected, &pair.rejected.labels);
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let odds = |a: f64| a - (-(a.exp_m1())).ln();
            let (beta, gamma, alpha) = (settings.beta, settings.gamma, settings.alpha);
            let (a, b) = (w / n_w, l / n_l);
            let shaped = |a: f64| (1.0 - (-alpha * a).exp()) / alpha;
            margin += beta * (shaped(a) - shaped(b));
            terms += match loss {
                ReferenceFreeLoss::Orpo => -beta * sigmoid(odds(a) - odds(b)).ln(),
                ReferenceFreeLoss::Cpo => -sigmoid(beta * (w - l)).ln(),
                ReferenceFreeLoss::CpoHinge => (1.0 - beta * (w - l)).max(0.0),
                ReferenceFreeLoss::CpoIpo => (a - b - 0.5 / beta).powi(2),
                ReferenceFreeLoss::Simpo => -sigmoid(beta * (a - b) - gamma).ln(),
                ReferenceFreeLoss::Alphapo => -sigmoid(beta * (shaped(a) - shaped(b)) - gamma).ln(),
            };
            let (sum, count) = match loss {
                ReferenceFreeLoss::Orpo => {
                    let ids = &pair.chosen.input_ids;
                    let labels: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
                    logps(&policy, &pair.chosen, &labels)
                }
                _ => (w, n_w),
            };
            nll -= sum;
            tokens += count;
        }
        let expected = terms / 2.0 + 0.3 * nll / tokens;
        let method = ReferenceFree::new(loss, settings, &policy, data, 2, None).unwrap();
        let (_, report) = fit(config(), policy, method);
        let found = report.train_losses[0];
        assert!(
            (found - expected).abs() < 1e-4 * expected.abs().max(1.0),
            "{loss}: {found} {expected}"
        );
        assert!((report.train_metrics[0]["nll_loss"] - nll / tokens).abs() < 1e-4);
        if loss == ReferenceFreeLoss::Alphapo {
            let found = report.train_metrics[0]["rewards/margins"];
            assert!((found - margin / 2.0).abs() < 1e-3, "{found} {margin}");
        }
    }
    // The helper of the odds agrees with the formula above.
    let a = burn::tensor::Tensor::<1>::from_data([-0.5], &device());
    let found: f32 = log1mexp(a).into_scalar();
    assert!((f64::from(found) - (-(-0.5f64).exp_m1()).ln()).abs() < 1e-6);
}

#[test]
fn references_that_make_no_sense_are_refused() {
    let new = |reference, policy: &AutoCausalLm| {
        message(Dpo::new(
            DpoConfig::default(),
            reference,
            policy,
            pairs(2),
            2,
            None,
        ))
    };
    // No adapter: the reference is the policy.
    let found = new(Reference::AdaptersOff, &base());
    assert!(
        found.contains("the policy itself") && found.contains("--reference start"),
        "{found}"
    );
    // An adapter of an earlier stage below the new one.
    let mut stacked = trained_policy();
    ft_peft::set_active(&mut stacked, &[]).unwrap();
    let mut stacked = attach(stacked, &lora(), "second", 4).unwrap();
    ft_peft::set_active(&mut stacked, &["default", "second"]).unwrap();
    let stacked = set_trainable(stacked, &["second"]).unwrap();
    let found = new(Reference::AdaptersOff, &stacked);
    assert!(
        found.contains("\"default\"") && found.contains("merge"),
        "{found}"
    );
    // Weights of the model itself train too.
    let both = ft_train::train_only(policy(), &[Selection::Norms]).unwrap();
    let found = new(Reference::AdaptersOff, &adapter_trains(both));
    assert!(found.contains("weights of the model itself"), "{found}");
    // Log-probabilities that were not computed.
    let found = new(Reference::Precomputed, &policy());
    assert!(
        found.contains("2 pairs") && found.contains("add_reference_logps"),
        "{found}"
    );
    let found = message(Kto::new(
        KtoConfig::default(),
        Reference::Precomputed,
        &policy(),
        answers(4),
        2,
        None,
    ));
    assert!(found.contains("unpaired"), "{found}");
}

/// Lets the adapter train beside what trains already.
fn adapter_trains(mut model: AutoCausalLm) -> AutoCausalLm {
    ft_core::Parts::for_each_part_mut(&mut model, &mut |_, mut part| {
        for adapter in part.adapters().iter_mut() {
            adapter.set_trainable(true);
        }
    });
    model
}

/// Without it an adapter that learned something would vanish from the reference without a word.
#[test]
fn a_trained_adapter_is_refused_at_the_first_step_and_start_takes_it() {
    let policy = trained_policy();
    let method = dpo(&policy, Reference::AdaptersOff, 4);
    let error = Trainer::with_method(config(), method)
        .fit(policy)
        .unwrap_err();
    let text = format!("{error}");
    assert!(
        text.contains("earlier stage") && text.contains("merge"),
        "{text}"
    );

    let policy = trained_policy();
    let reference = Reference::start(&policy);
    let method = dpo(&policy, reference, 4);
    let (after, report) = fit(config(), policy, method);
    assert!((report.train_losses[0] - 2f64.ln()).abs() < 1e-5);
    // The reference stayed: the same margins against the merged model of the start.
    let merged = merge_and_unload(trained_policy()).unwrap();
    let evaluate = |reference: Reference<AutoCausalLm>| {
        let method = dpo(&after, reference, 4).with_evaluation(pairs(8)).unwrap();
        let config = TrainConfig {
            max_steps: Some(1),
            learning_rate: 1e-12,
            ..config()
        };
        let (_, report) = fit(config, after.clone(), method);
        report.eval_after().unwrap().metrics["rewards/margins"]
    };
    let found = evaluate(Reference::start(&trained_policy()));
    let expected = evaluate(Reference::start(&merged));
    assert!(
        (found - expected).abs() < 1e-4 && found.abs() > 1e-3,
        "{found} {expected}"
    );
}

#[test]
fn log_probabilities_of_the_reference_are_computed_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reference.json");
    let policy = policy();
    let compute = |data: &mut PreferenceDataset, policy: &AutoCausalLm, alpha: f64| {
        let mut calls = 0;
        let mut listen = |_: usize, _: usize| calls += 1;
        let reference = Reference::AdaptersOff;
        add_reference_logps(data, &reference, policy, alpha, 3, Some(&file), &mut listen).unwrap();
        calls
    };
    let mut data = pairs(8);
    assert_eq!(compute(&mut data, &policy, 1.0), 3);
    // Another adapter that is switched off as well makes no difference, other settings and data do.
    let other = attach(base(), &lora(), "default", 99).unwrap();
    assert_eq!(compute(&mut pairs(8), &other, 1.0), 0);
    assert_eq!(compute(&mut pairs(8), &policy, 0.5), 3);
    assert_eq!(compute(&mut pairs(7), &policy, 1.0), 3);

    let train = |reference, data| {
        let method = Dpo::new(DpoConfig::default(), reference, &policy, data, 4, Some(7)).unwrap();
        fit(config(), policy.clone(), method).1.train_losses
    };
    let (found, expected) = (
        train(Reference::Precomputed, data),
        train(Reference::AdaptersOff, pairs(8)),
    );
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5);
    }

    std::fs::write(&file, "{").unwrap();
    let mut listen = |_: usize, _: usize| {};
    let damaged = add_reference_logps(
        &mut pairs(8),
        &Reference::AdaptersOff,
        &policy,
        1.0,
        3,
        Some(&file),
        &mut listen,
    );
    let text = message(damaged);
    assert!(
        text.contains("reference.json") && text.contains("remove it"),
        "{text}"
    );
}

fn killed_and_resumed<T: Method<AutoCausalLm>>(method: impl Fn(&AutoCausalLm) -> T) {
    let training = |folder: &std::path::Path, resume: bool| TrainConfig {
        output_dir: Some(folder.to_path_buf()),
        save_every: Some(1),
        eval_every: Some(2),
        epochs: 3.0,
        resume,
        ..config()
    };
    let whole = tempfile::tempdir().unwrap();
    let start = policy();
    let made = method(&start);
    let (expected, report) = fit(training(whole.path(), false), start, made);
    for kill in [2, 3, report.steps] {
        let folder = tempfile::tempdir().unwrap();
        let start = policy();
        let made = method(&start);
        let killed = Trainer::with_method(training(folder.path(), false), made)
            .with_callback(KillAfter(kill))
            .fit(start);
        assert!(killed.is_err());
        let start = policy();
        let made = method(&start);
        let (found, again) = fit(training(folder.path(), true), start, made);
        assert_eq!(again.resumed_from, Some(kill - 1));
        assert_eq!(factors(&found), factors(&expected), "after {kill}");
        assert_eq!(again.train_losses, report.train_losses);
        assert_eq!(again.train_metrics, report.train_metrics);
        assert_eq!(again.evaluations, report.evaluations);
    }
}

#[test]
fn a_killed_run_that_is_resumed_ends_with_the_same_bits() {
    killed_and_resumed(|policy| {
        dpo(policy, Reference::AdaptersOff, 3)
            .with_evaluation(pairs(3))
            .unwrap()
    });
    for loss in UnpairedLoss::ALL {
        killed_and_resumed(|policy| {
            let config = KtoConfig {
                loss,
                ..KtoConfig::default()
            };
            let method = Kto::new(
                config,
                Reference::AdaptersOff,
                policy,
                answers(8),
                3,
                Some(5),
            );
            method.unwrap().with_evaluation(answers(4)).unwrap()
        });
    }
}

#[test]
fn unpaired_feedback_is_weighted_by_the_numbers_of_both_kinds() {
    let policy = policy();
    let mut data = answers(8);
    data.examples.truncate(3);
    let method = Kto::new(
        KtoConfig::default(),
        Reference::AdaptersOff,
        &policy,
        data,
        2,
        None,
    )
    .unwrap();
    assert_eq!(
        (method.weights().desirable, method.weights().undesirable),
        (1.0, 2.0)
    );
    // The last batch has one answer, whose partner is another.
    let method = Kto::new(
        KtoConfig::default(),
        Reference::AdaptersOff,
        &policy,
        answers(3),
        2,
        None,
    );
    let (_, report) = fit(config(), policy.clone(), method.unwrap());
    assert_eq!(report.steps, 2);
    let trained = trained_policy();
    let method = Kto::new(
        KtoConfig::default(),
        Reference::AdaptersOff,
        &trained,
        answers(4),
        2,
        None,
    );
    let error = Trainer::with_method(config(), method.unwrap())
        .fit(trained)
        .unwrap_err();
    assert!(error.to_string().contains("earlier stage"), "{error}");
    let trained = trained_policy();
    let (mut data, mut listen) = (pairs(2), |_: usize, _: usize| {});
    let reference = Reference::AdaptersOff;
    let added = add_reference_logps(&mut data, &reference, &trained, 1.0, 2, None, &mut listen);
    assert!(message(added).contains("earlier stage"));
    let single = Kto::new(
        KtoConfig::default(),
        Reference::AdaptersOff,
        &policy,
        answers(2),
        1,
        None,
    );
    assert!(message(single).contains("apo_zero_unpaired"));
}

/// The completions of a batch are the chosen ones first.
#[test]
fn positions_of_completions_are_those_that_predict_them() {
    let pair = &pairs(1).examples[0];
    let branches = collate_branches(&[vec![&pair.chosen, &pair.rejected]], 1);
    let first = pair
        .chosen
        .labels
        .iter()
        .position(|&label| label != -100)
        .unwrap();
    let expected = Predicted {
        position: first - 1,
        token: i64::from(pair.chosen.input_ids[first]),
    };
    assert_eq!(branches.completions[0][0], expected);
}
