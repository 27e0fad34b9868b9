//! The loop: batches, loss, gradients, update; evaluation and checkpoints where they are due.
//!
//! It knows no method. What is trained, and for what, is in the model and in a [`Method`], mostly a closure that
//! turns a batch into a summed loss and its count; see [`ft_core::LossSum`]. A step of the loop is
//!
//! 1. for each batch of the window: seed the device, get the batch and its loss, backpropagate the sum;
//! 2. refuse a window without labels, or with a loss or gradient that is not finite;
//! 3. update: gradient / count, clipped to the global norm, by the optimizer at the schedule's rate, and what the method
//!    does to the model afterwards.
//!
//! Everything that a step depends on is a function of the settings and of where the run stands, so
//! that a run that was killed and resumed ends, on the CPU, with the same bits as one that was not.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use burn::module::Module;
use burn::optim::Optimizer;
use burn::tensor::Device;

use crate::dead_parameters::DeadParameters;
use crate::evaluate::evaluate_method;
use crate::progress::Progress;
use crate::records::best;
use crate::run_folder::RunFolder;
use crate::tracker::{eval_scalars, step_scalars};
use crate::trainer_state::TrainerState;
use crate::window_plan::WindowPlan;
use crate::{
    Accumulator, BoxError, Callback, Error, Evaluation, Finding, Method, ModelView, Result,
    Schedule, StepContext, StepRecord, Tracker, TrainConfig, TrainReport, Trainer, Verdict, Window,
    clip_factor, diagnose_evaluation, diagnose_step, global_norm, plateau_factor,
};

/// A run under way.
pub(crate) struct Run<'a, M, T, O> {
    trainer: Trainer<'a, M, T, O>,
    folder: Option<RunFolder>,
    state: TrainerState,
    progress: Progress,
    devices: Vec<Device>,
    total_steps: usize,
    resumed_from: Option<usize>,
    /// The step of the newest checkpoint.
    saved: Option<usize>,
    began: Instant,
    /// Seconds before this process.
    earlier_s: f64,
    /// Tokens and seconds of this process' steps.
    step_tokens: usize,
    step_seconds: f64,
    dead_parameters: DeadParameters,
}

impl<'a, M: Module, T: Method<M>, O: Optimizer> Run<'a, M, T, O> {
    /// A run of `total_steps` that stands where `state` says; `resumed_from` is the step of the checkpoint that it continues from.
    pub(crate) fn new(
        trainer: Trainer<'a, M, T, O>,
        model: &M,
        folder: Option<RunFolder>,
        state: TrainerState,
        total_steps: usize,
        resumed_from: Option<usize>,
    ) -> Self {
        Self {
            dead_parameters: DeadParameters::watch(model, state.step, total_steps),
            progress: Progress::new(&trainer.config, total_steps, state.step),
            devices: model.devices(),
            earlier_s: state.elapsed_s,
            saved: resumed_from,
            total_steps,
            began: Instant::now(),
            step_tokens: 0,
            step_seconds: 0.0,
            resumed_from,
            trainer,
            folder,
            state,
        }
    }

    /// A line of its own among the progress.
    pub(crate) fn say(&self, text: &str) {
        self.progress.say(text);
    }

    /// Takes all steps that are left.
    pub(crate) fn all(mut self, mut model: M) -> Result<(M, TrainReport)> {
        if let Some(step) = self.resumed_from {
            self.progress.say(&format!("resumed after step {step}"));
        }
        let TrainConfig {
            eval_at_start,
            eval_at_end,
            eval_every,
            save_every,
            load_best_model_at_end,
            ..
        } = self.trainer.config;
        let due = |every: Option<usize>, step: usize| every.is_some_and(|n| step.is_multiple_of(n));

        let mut stopped = false;
        if eval_at_start && self.state.step == 0 {
            stopped = self.evaluate(&model)?;
        }
        while !stopped && self.state.step < self.total_steps {
            let (updated, record) = self.step(model)?;
            model = updated;
            stopped = self.after_step(&model, &record)?;
            if due(eval_every, self.state.step) {
                stopped |= self.evaluate(&model)?;
            }
            // The last checkpoint waits for the last evaluation.
            let last = stopped || self.state.step == self.total_steps;
            if due(save_every, self.state.step) && !last {
                self.save(&model)?;
            }
        }
        if eval_at_end {
            self.evaluate(&model)?;
        }
        if save_every.is_some() {
            self.save(&model)?;
        }
        let mut best_step = None;
        if let (true, Some(folder)) = (load_best_model_at_end, &self.folder)
            && let Some(best) = best(&self.state.evaluations)
        {
            model = folder.load_best(model, best)?;
            best_step = Some(best.step);
            self.progress.say(&format!(
                "the model has the parameters of step {}, the best evaluation",
                best.step
            ));
        }
        self.track(|tracker| tracker.finish())?;
        self.progress.finish();
        let report = TrainReport {
            best_step,
            steps: self.state.step,
            tokens: self.state.tokens,
            tokens_per_s: per_second(self.step_tokens, self.step_seconds),
            elapsed_s: self.elapsed_s(),
            stopped_early: stopped && self.state.step < self.total_steps,
            resumed_from: self.resumed_from,
            train_losses: self.state.train_losses,
            train_metrics: self.state.train_metrics,
            evaluations: self.state.evaluations,
            findings: self.state.findings,
        };
        Ok((model, report))
    }

    /// One step: everything up to the update may fail, and has changed nothing then; so may what the method does after it.
    fn step(&mut self, model: M) -> Result<(M, StepRecord)> {
        let began = Instant::now();
        let number = self.state.step + 1;
        let trainer = &self.trainer;
        let plan = WindowPlan::at(
            self.state.position,
            |epoch| trainer.method.len(epoch),
            trainer.config.gradient_accumulation_steps,
        )?;
        let window = self.backpropagate(&model, &plan)?;
        let tokens = window.tokens;
        let count = window.count();
        if count == 0 {
            return Err(Error::NoLabels {
                step: number,
                epoch: plan.epoch,
                first: plan.batches.start,
                last: plan.batches.end - 1,
            });
        }
        if let Some((place, loss)) = window.non_finite() {
            let batch = plan.batches.start + place;
            let kept = self.trainer.method.batch_to_json(plan.epoch, batch);
            let kept = match (&self.folder, kept) {
                // The loss is the error to report, also where the batch cannot be written.
                (Some(folder), Some(kept)) => folder.save_batch(number, &kept).ok(),
                _ => None,
            };
            return Err(Error::NonFiniteLoss {
                step: number,
                epoch: plan.epoch,
                batch,
                loss,
                kept,
            });
        }
        let loss = window.mean_loss();
        let norm = global_norm(&model, &window.gradients) / count as f64;
        if !norm.is_finite() {
            return Err(Error::NonFiniteGradient { step: number, norm });
        }
        let trainer = &mut self.trainer;
        let clip = match trainer.config.max_grad_norm {
            Some(max) => clip_factor(norm, max),
            None => 1.0,
        };
        let mut learning_rate =
            (trainer.config).learning_rate_at(self.state.step, self.total_steps);
        if let Schedule::ReduceLrOnPlateau { factor, patience } = trainer.config.schedule {
            // Not the evaluation after the last step, which a run that goes on beyond it does not have.
            let counts = |step: usize| {
                (trainer.config.eval_every).is_some_and(|every| step.is_multiple_of(every))
            };
            let counted = self.state.evaluations.iter().filter(|one| counts(one.step));
            let losses = counted.map(|one| one.metrics.loss);
            learning_rate *= plateau_factor(losses, factor, patience as usize);
        }
        let scale = clip / count as f64;
        let failed = |source| Error::Update {
            step: number,
            source,
        };
        (trainer.method)
            .before_update(&model, &window.gradients, scale)
            .map_err(failed)?;
        let model = (trainer.optimizer).step(model, window.gradients, learning_rate, scale);
        let model = (trainer.method)
            .after_update(model, number)
            .map_err(failed)?;

        let seconds = began.elapsed().as_secs_f64();
        self.step_tokens += tokens;
        self.step_seconds += seconds;
        self.state.step = number;
        self.state.position = plan.end();
        self.state.epoch = plan.epochs();
        self.state.tokens += tokens;
        self.state.train_losses.push(loss);
        self.state.grad_norms.push(norm);
        self.state.train_metrics.push(window.metrics.clone());
        let record = StepRecord {
            step: number,
            epoch: plan.epochs(),
            loss,
            learning_rate,
            grad_norm: norm,
            tokens,
            tokens_per_s: per_second(tokens, seconds),
            elapsed_s: self.elapsed_s(),
            metrics: window.metrics,
        };
        Ok((model, record))
    }

    /// What the batches of a step came to.
    fn backpropagate(&mut self, model: &M, plan: &WindowPlan) -> Result<Window> {
        let (seed, number) = (self.trainer.config.seed, self.state.step + 1);
        let method = &mut self.trainer.method;
        let view = ModelView::new(model);
        let mut accumulator = Accumulator::new();
        for (micro, index) in plan.batches.clone().enumerate() {
            let context = StepContext::training(&self.devices[0], seed, number, micro);
            (self.devices.iter()).for_each(|device| device.seed(context.seed));
            let failed = |source| Error::Step {
                step: number,
                epoch: plan.epoch,
                batch: index,
                source,
            };
            let batch = (method.batch(&view, plan.epoch, index, &context)).map_err(failed)?;
            let output = method.step(model, &batch, &context).map_err(failed)?;
            accumulator.add(model, output)?;
        }
        Ok(accumulator.finish())
    }

    /// Log, progress and callbacks after a step; whether the run is to stop.
    fn after_step(&mut self, model: &M, record: &StepRecord) -> Result<bool> {
        if let Some(folder) = &mut self.folder {
            folder.log.append(record)?;
        }
        self.progress.step(record);
        let scalars = step_scalars(record);
        self.track(|tracker| tracker.log(record.step, &scalars))?;
        let mut findings = diagnose_step(&self.state.train_losses, &self.state.grad_norms);
        findings.extend(self.dead_parameters.after_step(model, record));
        self.report(findings)?;
        self.ask(model, |callback, model| callback.on_step(model, record))
    }

    /// Evaluates, unless that was done after this very step; whether the run is to stop.
    fn evaluate(&mut self, model: &M) -> Result<bool> {
        let step = self.state.step;
        let last = self.state.evaluations.last().map(|last| last.step);
        let trainer = &mut self.trainer;
        let Some(len) = trainer.method.evaluation_len() else {
            return Ok(false);
        };
        if last == Some(step) {
            return Ok(false);
        }
        self.progress.doing("evaluating");
        let (seed, method) = (trainer.config.seed, &mut trainer.method);
        let named = method.evaluation_sets();
        let mut evaluate = |batches| evaluate_method(model, &mut *method, batches, seed, step);
        let mut sets = BTreeMap::new();
        let mut begin = len;
        for (name, len) in named {
            sets.insert(name, evaluate(begin..begin + len)?);
            begin += len;
        }
        let evaluation = Evaluation {
            step,
            epoch: self.state.epoch,
            metrics: evaluate(0..len)?,
            sets,
        };
        self.state.evaluations.push(evaluation.clone());
        if trainer.config.load_best_model_at_end
            && best(&self.state.evaluations).is_some_and(|best| best.step == step)
            && let Some(folder) = &self.folder
        {
            folder.save_best(model, &evaluation)?;
        }
        if let Some(folder) = &mut self.folder {
            folder.log.append(&evaluation)?;
        }
        self.progress.evaluation(&evaluation);
        let scalars = eval_scalars(&evaluation);
        self.track(|tracker| tracker.log(step, &scalars))?;
        let finding = diagnose_evaluation(&self.state.evaluations, &self.state.train_losses);
        self.report(finding)?;
        self.ask(model, |callback, model| {
            callback.on_eval(model, &evaluation)
        })
    }

    /// Writes a checkpoint, unless that was done after this very step.
    fn save(&mut self, model: &M) -> Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        if self.saved == Some(self.state.step) {
            return Ok(());
        }
        self.progress.doing("saving");
        self.state.elapsed_s = self.elapsed_s();
        let trainer = &mut self.trainer;
        folder.save(
            model,
            &trainer.optimizer,
            &mut self.state,
            &trainer.method,
            &mut trainer.callbacks,
        )?;
        self.saved = Some(self.state.step);
        Ok(())
    }

    /// Shows findings, and keeps them in log, state and report.
    fn report(&mut self, findings: impl IntoIterator<Item = Finding>) -> Result<()> {
        let measured = self.trainer.method.loss_is_a_measure();
        let findings = findings.into_iter();
        for finding in findings.filter(|one| measured || !one.symptom.is_of_the_loss()) {
            self.progress.say(&finding.to_string());
            if let Some(folder) = &mut self.folder {
                folder.log.append(&finding)?;
            }
            self.state.findings.push(finding);
        }
        Ok(())
    }

    /// Calls every tracker.
    fn track(
        &mut self,
        mut call: impl FnMut(&mut dyn Tracker) -> Result<(), BoxError>,
    ) -> Result<()> {
        let mut trackers = self.trainer.trackers.iter_mut();
        trackers.try_for_each(|tracker| call(tracker.as_mut()).map_err(Error::Tracker))
    }

    /// Asks every callback; whether one of them wants to stop.
    fn ask(
        &mut self,
        model: &M,
        mut call: impl FnMut(&mut dyn Callback<M>, &ModelView<'_, M>) -> Verdict,
    ) -> Result<bool> {
        let mut stop = false;
        let view = ModelView::new(model);
        for callback in &mut self.trainer.callbacks {
            let verdict = call(callback.as_mut(), &view).map_err(Error::Callback)?;
            stop |= verdict == ControlFlow::Break(());
        }
        Ok(stop)
    }

    fn elapsed_s(&self) -> f64 {
        self.earlier_s + self.began.elapsed().as_secs_f64()
    }
}

fn per_second(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 {
        tokens as f64 / seconds
    } else {
        0.0
    }
}
