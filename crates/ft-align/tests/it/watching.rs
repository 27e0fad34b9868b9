//! What is watched while a policy trains.

use std::sync::{Arc, Mutex};

use ft_align::{Grpo, GrpoConfig, OnlineDpo, OnlineDpoConfig, PolicyWatch, Ppo, Reference};
use ft_core::{AutoCausalLm, LossSum, Parts};
use ft_train::{
    BoxError, Callback, Evaluation, Method, ModelView, StepContext, StepOutput, StepRecord,
    StepResult, Trainer, Verdict,
};

use crate::grpo::{prompts, rewards, small, tokenizer};
use crate::policy::{config, policy};

/// A method whose reward rises by a hundredth a step, and whose held-out reward falls.
struct Hacked {
    steps: usize,
    done: usize,
}

impl Method<AutoCausalLm> for Hacked {
    type Batch = f64;

    fn len(&self, _: usize) -> usize {
        self.steps
    }

    fn evaluation_len(&self) -> Option<usize> {
        Some(1)
    }

    fn loss_is_a_measure(&self) -> bool {
        false
    }

    fn batch(
        &mut self,
        _: &ModelView<'_, AutoCausalLm>,
        _: usize,
        _: usize,
        context: &StepContext,
    ) -> Result<f64, BoxError> {
        Ok(match context.is_training() {
            true => {
                self.done += 1;
                0.01 * self.done as f64
            }
            false => 0.5 - 0.01 * self.done as f64,
        })
    }

    fn step(&mut self, model: &AutoCausalLm, reward: &f64, _: &StepContext) -> StepResult {
        let mut sum = None;
        model.for_each_part(&mut |_, part| {
            for adapter in part.adapters().iter() {
                for name in ["lora_A.weight", "lora_B.weight"] {
                    let own = adapter.val2(name).square().sum();
                    sum = Some(match sum.take() {
                        None => own,
                        Some(sum) => sum + own,
                    });
                }
            }
        });
        let sum = sum.ok_or("no adapter")?;
        let output = StepOutput::from(LossSum { sum, count: 1 });
        Ok(output
            .with_metric("reward", *reward, 1.0)
            .with_metric("reward_std", 0.1, 1.0))
    }
}

/// A watch to look at after the run.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<PolicyWatch>>);

impl<M> Callback<M> for Shared {
    fn on_step(&mut self, model: &ModelView<'_, M>, record: &StepRecord) -> Verdict {
        self.0.lock().unwrap().on_step(model, record)
    }

    fn on_eval(&mut self, model: &ModelView<'_, M>, evaluation: &Evaluation) -> Verdict {
        self.0.lock().unwrap().on_eval(model, evaluation)
    }
}

/// The first evaluation comes before the first reward.
#[test]
fn a_reward_that_rises_alone_is_reported_with_evaluations_at_start_and_end_only() {
    let watch = Shared::default();
    let method = Hacked { steps: 30, done: 0 };
    Trainer::with_method(config(), method)
        .with_callback(watch.clone())
        .fit(policy())
        .unwrap();
    let watch = watch.0.lock().unwrap();
    let [(30, text)] = watch.warnings() else {
        panic!("{:?}", watch.warnings());
    };
    assert!(
        text.contains("from 0.500 to 0.200") && text.contains("from 0.055 to 0.255"),
        "{text}"
    );
}

#[test]
fn losses_of_policies_are_no_measure() {
    let policy = policy();
    let grpo = Grpo::new(
        GrpoConfig { ..small() },
        rewards(),
        tokenizer(),
        None,
        &policy,
        prompts(2),
        None,
    );
    assert!(!Method::<AutoCausalLm>::loss_is_a_measure(&grpo.unwrap()));
    let settings = OnlineDpoConfig {
        generation: small().generation,
        ..OnlineDpoConfig::default()
    };
    let online = OnlineDpo::new(
        settings,
        rewards(),
        tokenizer(),
        Reference::AdaptersOff,
        &policy,
        prompts(2),
        None,
    );
    assert!(!Method::<AutoCausalLm>::loss_is_a_measure(&online.unwrap()));
    fn of_ppo(method: &Ppo<AutoCausalLm>) -> bool {
        method.loss_is_a_measure()
    }
    let model = crate::ppo::model();
    let ppo = crate::ppo::ppo(crate::ppo::settings(), rewards(), &model);
    assert!(!of_ppo(&ppo));
}
