//! Input that other libraries take without a word.

use std::time::Duration;

use burn::module::Module;
use ft_align::loss::{Clip, FDivergence, PairLoss, PolicyLoss, ReferenceFreeLoss, Scaling};
use ft_align::{
    DpoConfig, Error, GrpoConfig, Kto, KtoConfig, Reference, ReferenceFree, RewardModel,
    UnpairedLoss, sample_and_score, sample_answers, score_rows,
};
use ft_core::{
    AutoSequenceClassifier, GenerationConfig, ModelConfig, RolloutConfig, SequenceClassifierConfig,
    sample_rollouts,
};
use ft_data::{PreferenceDataset, PreferenceExample, UnpairedDataset};
use ft_train::StepContext;

use crate::grpo::{prompts, rewards, small, tokenizer};
use crate::policy::{answers, base, device, folder, ids, pairs, policy, tokenized};

fn message<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result
        .map(|_| ())
        .map_err(|error| error.to_string())
        .unwrap_err()
}

/// A pair of 70 tokens; the model reads 64.
fn long_pair() -> PreferenceExample {
    PreferenceExample {
        chosen: tokenized(&ids(1, 40), &ids(2, 30)),
        rejected: tokenized(&ids(1, 40), &ids(3, 4)),
        reference_logps: None,
        margin: 0.0,
    }
}

#[test]
fn rows_beyond_the_longest_sequence_of_the_model() {
    let long = || PreferenceDataset::from_examples(vec![long_pair()]);
    let new = |train| {
        let loss = ReferenceFreeLoss::Simpo;
        ReferenceFree::new(loss, loss.settings(), &policy(), train, 2, None)
    };
    for text in [
        message(new(long())),
        message(new(pairs(2)).unwrap().with_evaluation(long())),
    ] {
        assert!(text.contains("70 tokens are more"), "{text}");
    }

    let config = KtoConfig::default();
    let kto = Kto::new(
        config,
        Reference::AdaptersOff,
        &policy(),
        answers(4),
        2,
        None,
    )
    .unwrap();
    let mut held_out = answers(2);
    held_out.examples[1].tokens = long_pair().chosen;
    let text = message(kto.with_evaluation(held_out));
    assert!(text.contains("70 tokens are more"), "{text}");

    let body = ModelConfig::from_pretrained(&folder()).unwrap();
    let config = SequenceClassifierConfig::new(body, 1);
    let model = AutoSequenceClassifier::from_config(&config, &device()).unwrap();
    let text = message(score_rows(&model, &[ids(1, 3), ids(2, 70)], 1));
    assert!(text.contains("70 tokens are more"), "{text}");
    let batches = long().into_batches(1, None, 0).unwrap();
    let batch = ft_data::Batches::batch(&batches, 0, 0);
    let context = StepContext::training(&device(), 0, 1, 0);
    let text = message(RewardModel::default().step(&model, &batch, &context));
    assert!(text.contains("70 tokens are more"), "{text}");
}

#[test]
fn feedback_of_one_kind_or_about_one_prompt() {
    let new = |config: KtoConfig, data: UnpairedDataset| {
        Kto::new(config, Reference::AdaptersOff, &policy(), data, 2, None)
    };
    let mut good = answers(6);
    good.examples.retain(|row| row.desirable);
    for loss in UnpairedLoss::ALL {
        let config = KtoConfig {
            loss,
            ..KtoConfig::default()
        };
        let text = message(new(config, good.clone()));
        assert!(text.contains("all 3 answers are desirable"), "{text}");
        let weighted = KtoConfig {
            weights: Some(ft_align::loss::KtoWeights::default()),
            ..config
        };
        new(weighted, good.clone()).unwrap();
    }
    let mut same = answers(4);
    for (i, row) in same.examples.iter_mut().enumerate() {
        row.tokens = tokenized(&ids(0, 3), &ids(i + 50, 3));
    }
    let text = message(new(KtoConfig::default(), same));
    assert!(text.contains("one prompt"), "{text}");
}

#[test]
fn settings_without_an_effect() {
    for loss in PairLoss::ALL {
        let mut config = DpoConfig {
            losses: loss.into(),
            ..DpoConfig::default()
        };
        config.settings.label_smoothing = 0.1;
        match loss.smooths_labels() {
            true => config.validate().unwrap(),
            false => {
                let text = message(config.validate());
                assert!(
                    text.contains("no effect") && text.contains(loss.name()),
                    "{text}"
                );
            }
        }
    }
    // One loss of a mixture is enough.
    let mut config = DpoConfig {
        losses: "sigmoid,sft:0.5".parse().unwrap(),
        ..DpoConfig::default()
    };
    config.settings.label_smoothing = 0.1;
    config.validate().unwrap();

    let divergent = |losses: &str| {
        let mut config = DpoConfig {
            losses: losses.parse().unwrap(),
            ..DpoConfig::default()
        };
        config.settings.f_divergence = FDivergence::Js;
        config
    };
    divergent("sigmoid,sft:0.5").validate().unwrap();
    let text = message(divergent("sft").validate());
    assert!(text.contains("f_divergence has no effect on sft"), "{text}");
    let tempered = |loss: PairLoss| {
        let mut config = DpoConfig {
            losses: loss.into(),
            ..DpoConfig::default()
        };
        config.settings.discopop_tau = 0.1;
        config
    };
    tempered(PairLoss::Discopop).validate().unwrap();
    let text = message(tempered(PairLoss::Sigmoid).validate());
    assert!(text.contains("discopop_tau has no effect"), "{text}");

    for (loss, name) in [
        (ReferenceFreeLoss::Orpo, "label_smoothing"),
        (ReferenceFreeLoss::CpoHinge, "label_smoothing"),
        (ReferenceFreeLoss::Cpo, "gamma"),
        (ReferenceFreeLoss::Simpo, "alpha"),
    ] {
        let mut settings = loss.settings();
        match name {
            "gamma" => settings.gamma = 0.1,
            "alpha" => settings.alpha = 0.1,
            _ => settings.label_smoothing = 0.1,
        }
        let text = message(loss.check(&settings));
        assert!(
            text.contains(&format!("{name} has no effect on {loss}")),
            "{text}"
        );
    }

    let clipped = |loss: PolicyLoss| {
        let mut config = GrpoConfig { loss, ..small() };
        config.settings.clip.high = 0.28;
        config
    };
    clipped(PolicyLoss::Dapo).validate().unwrap();
    for loss in [PolicyLoss::Cispo, PolicyLoss::Sapo] {
        let text = message(clipped(loss).validate());
        assert!(text.contains(&format!("no effect on {loss}")), "{text}");
    }
    for (of, name) in [
        (PolicyLoss::Cispo, "cispo_cap"),
        (PolicyLoss::Sapo, "sapo_tau"),
    ] {
        let with = |loss: PolicyLoss| {
            let mut config = GrpoConfig { loss, ..small() };
            match name {
                "cispo_cap" => config.settings.cispo_cap = 2.0,
                _ => config.settings.sapo_tau = [1.0, 2.0],
            }
            config
        };
        with(of).validate().unwrap();
        let text = message(with(PolicyLoss::Grpo).validate());
        assert!(text.contains(&format!("{name} has no effect")), "{text}");
    }
    let unscaled = GrpoConfig {
        loss: PolicyLoss::Rloo,
        scaling: Scaling::None,
        ..small()
    };
    assert!(message(unscaled.validate()).contains("no effect on rloo"));
    // Ratios of whole completions are near 1: bounds of 0.2 would never hold one back.
    assert_eq!(PolicyLoss::Gspo.settings().clip.high, 4e-4);
    assert_eq!(PolicyLoss::Dapo.settings().clip, Clip::default());
}

#[test]
fn completions_that_are_all_alike_or_have_no_end() {
    let model = base().valid();
    let tokenizer = tokenizer();
    let prompts = prompts(2).examples;
    let limit = Duration::from_secs(1);
    let sample = |generation: GenerationConfig, num_generations: usize| {
        let config = RolloutConfig {
            num_generations,
            generation,
            max_rows: 8,
        };
        let scored = sample_and_score(&model, &tokenizer, &prompts, &rewards(), &config, limit, 1);
        let plain = sample_answers(&model, &tokenizer, &prompts, &config, 1);
        assert_eq!(
            scored.as_ref().map(Vec::len).map_err(Error::to_string),
            plain.as_ref().map(Vec::len).map_err(Error::to_string)
        );
        if let (Ok(scored), Ok(plain)) = (&scored, &plain) {
            // The same answers, without rewards.
            for (scored, plain) in scored.iter().flatten().zip(plain.iter().flatten()) {
                assert_eq!(scored.rollout, plain.rollout);
                assert_eq!((scored.reward.is_some(), plain.reward), (true, None));
            }
        }
        scored
    };
    let usual = small().generation;
    sample(usual.clone(), 3).unwrap();
    let greedy = GenerationConfig {
        temperature: 0.0,
        ..usual.clone()
    };
    sample(greedy.clone(), 1).unwrap();
    let text = message(sample(greedy.clone(), 4));
    assert!(text.contains("all alike"), "{text}");
    let endless = GenerationConfig {
        eos_token_ids: Vec::new(),
        ..usual.clone()
    };
    assert!(message(sample(endless, 2)).contains("no token ends"));
    let long = GenerationConfig {
        max_new_tokens: 64,
        ..usual
    };
    assert!(message(sample(long, 2)).contains("the model takes 64"));

    let config = RolloutConfig {
        num_generations: 4,
        generation: greedy,
        max_rows: 8,
    };
    let ids = [&prompts[0].input_ids[..]];
    assert!(message(sample_rollouts(&model, &tokenizer, &ids, &config, 1)).contains("all alike"));
}
