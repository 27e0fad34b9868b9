//! What a run is made of: settings, a method, callbacks, an optimizer; all of it is checked before the first step.
//!
//! The loop itself is in [`Run`].

use burn::module::Module;
use burn::optim::Optimizer;
use ft_core::Parts;
use ft_data::Batches;
use ft_kernels::Blockwise;
use serde_json::Value;

use crate::run::Run;
use crate::run_folder::RunFolder;
use crate::trainer_state::{Settings, TrainerState, settings};
use crate::window_plan::total_steps;
use crate::{
    Callback, Error, FromConfig, Method, NamedOptimizer, OnBatches, Optim, OptimizerStates,
    ParamGroup, ParamTable, Result, StepContext, StepResult, Tracker, TrainConfig, TrainReport,
    trainable,
};

/// Trains a model `M` by a method `T` with an optimizer `O`.
///
/// ```no_run
/// # fn demo(
/// #     model: ft_core::AutoCausalLm, train: ft_data::SftBatches, held_out: ft_data::SftBatches,
/// # ) -> ft_train::Result<()> {
/// use ft_train::{TrainConfig, Trainer, next_token_loss};
///
/// let config = TrainConfig { learning_rate: 2e-4, ..TrainConfig::default() };
/// let (model, report) = Trainer::new(config, train, next_token_loss)
///     .with_evaluation(held_out)
///     .fit(model)?;
/// println!("{:?}", report.eval_after());
/// # Ok(())
/// # }
/// ```
pub struct Trainer<'a, M, T, O = NamedOptimizer> {
    pub(crate) config: TrainConfig,
    pub(crate) method: T,
    pub(crate) callbacks: Vec<Box<dyn Callback<M> + 'a>>,
    pub(crate) trackers: Vec<Box<dyn Tracker + 'a>>,
    identity: Settings,
    pub(crate) optimizer: OptimizerStates<O>,
    groups: Vec<ParamGroup>,
    /// Absent where the optimizer knows no groups.
    grouped: Option<Grouped<M, O>>,
    /// Whether the optimizer is the one that the settings name.
    named: bool,
}

/// Gives the optimizer its groups, and the table of what trains.
type Grouped<M, O> = fn(
    &M,
    &[ParamGroup],
    OptimizerStates<O>,
    &TrainConfig,
) -> Result<(OptimizerStates<O>, ParamTable)>;

impl<'a, M: Module, B> Trainer<'a, M, OnBatches<'a, M, B>> {
    /// A trainer that takes `step` on `batches`, with the optimizer that `config` names.
    ///
    /// `step` gives the summed loss of a batch and how many labels it was summed over;
    /// [`next_token_loss`](crate::next_token_loss) is the step of supervised training.
    pub fn new(
        config: TrainConfig,
        batches: impl Batches<Batch = B> + 'a,
        step: impl FnMut(&M, &B, &StepContext) -> StepResult + 'a,
    ) -> Self {
        Self::with_method(config, OnBatches::new(batches, step))
    }
}

impl<'a, M: Module, B, O: Optimizer> Trainer<'a, M, OnBatches<'a, M, B>, O> {
    /// Evaluates on these batches, with the same step.
    #[must_use]
    pub fn with_evaluation(mut self, batches: impl Batches<Batch = B> + 'a) -> Self {
        self.method = self.method.with_evaluation(batches);
        self
    }

    /// Evaluates on these batches too, with the same step; their results have this name.
    #[must_use]
    pub fn with_named_evaluation(
        mut self,
        name: impl Into<String>,
        batches: impl Batches<Batch = B> + 'a,
    ) -> Self {
        self.method = self.method.with_named_evaluation(name, batches);
        self
    }
}

impl<'a, M: Module, T: Method<M>> Trainer<'a, M, T> {
    /// A trainer that follows a method, with the optimizer that `config` names. `&mut method` will do, to look at
    /// the method after the run.
    pub fn with_method(config: TrainConfig, method: T) -> Self {
        Self {
            optimizer: OptimizerStates::from_config(&config),
            config,
            method,
            callbacks: Vec::new(),
            trackers: Vec::new(),
            identity: Settings::new(),
            groups: Vec::new(),
            grouped: None,
            named: true,
        }
    }
}

impl<'a, M: Module, T: Method<M>, O: FromConfig> Trainer<'a, M, T, O> {
    /// Groups of parameters with settings of their own. What trains is then reported as a table. With Muon this is called with an
    /// empty list at least, so that embeddings and the output layer are known, which AdamW updates.
    #[must_use]
    pub fn with_groups(mut self, groups: impl Into<Vec<ParamGroup>>) -> Self
    where
        M: Parts,
    {
        self.groups = groups.into();
        self.grouped = Some(|model, groups, optimizer, config| {
            let optimizer = optimizer.with_groups(model, groups, config)?;
            Ok((optimizer, ParamTable::new(model, groups)?))
        });
        self
    }
}

impl<'a, M: Module, T: Method<M>, O: Optimizer> Trainer<'a, M, T, O> {
    /// Adds a callback; they are called in the order in which they were added.
    #[must_use]
    pub fn with_callback(mut self, callback: impl Callback<M> + 'a) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Adds a tracker, which gets the numbers of the run besides the log.
    #[must_use]
    pub fn with_tracker(mut self, tracker: impl Tracker + 'a) -> Self {
        self.trackers.push(Box::new(tracker));
        self
    }

    /// A fact about model or data (a path, a hash, an adapter's settings) that checkpoints keep: a
    /// run with another value does not resume from them.
    #[must_use]
    pub fn with_identity(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.identity.insert(name.to_string(), value.into());
        self
    }

    /// Another optimizer than the settings can name; they must leave `optim` as it is. One that they can name is taken for all
    /// parameters alike.
    #[must_use]
    pub fn with_optimizer<P: Optimizer>(
        self,
        optimizer: OptimizerStates<P>,
    ) -> Trainer<'a, M, T, P> {
        Trainer {
            config: self.config,
            method: self.method,
            callbacks: self.callbacks,
            trackers: self.trackers,
            identity: self.identity,
            optimizer,
            groups: self.groups,
            grouped: None,
            named: false,
        }
    }

    /// Trains the parameters of `model` that require gradients, and returns it, still in training
    /// mode ([`Module::valid`] ends that).
    ///
    /// The model may come from a device with or without autodiff.
    ///
    /// # Errors
    ///
    /// If the settings are wrong, the data are empty, nothing trains, a step cannot be taken (no
    /// labels, a loss or gradient that is not finite, an error of the method), a file cannot be read or written, a checkpoint
    /// is damaged or of another run, or a callback says so. A step that fails changes no parameter.
    pub fn fit(mut self, model: M) -> Result<(M, TrainReport)> {
        self.validate(&model)?;
        let total_steps = total_steps(&self.config, |epoch| self.method.len(epoch))?;
        if self.config.load_best_model_at_end && !self.config.evaluates(total_steps) {
            return Err(Error::Config(vec![format!(
                "load_best_model_at_end is true: no evaluation is due in {total_steps} steps; set eval_at_start, eval_at_end or \
                 eval_every"
            )]));
        }
        // Initialises lazy parameters too, so that no step's randomness depends on it.
        let mut model = model.train();
        if trainable::shapes(&model).is_empty() {
            return Err(Error::NothingToTrain);
        }
        let mut table = None;
        let muon = self.optimizer.optim() == Some(Optim::Muon);
        if let Some(grouped) = self.grouped
            && (muon || !self.groups.is_empty())
        {
            let (optimizer, found) = grouped(&model, &self.groups, self.optimizer, &self.config)?;
            self.optimizer = optimizer;
            table = (!self.groups.is_empty()).then_some(found);
        }
        let settings = settings(
            &self.config,
            self.optimizer.optim(),
            &self.groups,
            total_steps,
            self.method.len(0),
            &self.identity,
        );
        let mut state = TrainerState::new(settings);
        let mut resumed = None;
        let mut fresh = Vec::new();
        if let Some(output) = &self.config.output_dir
            && let Some(checkpoint) = RunFolder::find(output, &self.config, &state.settings)?
        {
            fresh = checkpoint.restore_callbacks(&mut self.callbacks)?;
            model = checkpoint.restore(model, &mut self.optimizer, &mut self.method)?;
            state = checkpoint.state;
            resumed = Some(state.step);
        }
        // Nothing refuses the run after this, so files of an earlier one may change.
        for tracker in &mut self.trackers {
            tracker.begin(state.step).map_err(Error::Tracker)?;
        }
        let folder = match &self.config.output_dir {
            Some(output) => Some(RunFolder::open(output, &self.config, resumed)?),
            None => None,
        };
        let run = Run::new(self, &model, folder, state, total_steps, resumed);
        if let Some(table) = table {
            run.say(&table.to_string());
        }
        for name in fresh {
            run.say(&format!(
                "the checkpoint has no state of {name}: it starts again"
            ));
        }
        run.all(model)
    }

    fn validate(&self, model: &M) -> Result<()> {
        let mut mistakes = match self.config.validate() {
            Ok(()) => Vec::new(),
            Err(Error::Config(mistakes)) => mistakes,
            Err(other) => return Err(other),
        };
        if let (Some(steps), None) = (self.config.eval_every, self.method.evaluation_len()) {
            mistakes.push(format!(
                "eval_every is {steps}: there is no data to evaluate on (with_evaluation)"
            ));
        }
        for (condition, what) in [
            (
                self.config.load_best_model_at_end,
                "load_best_model_at_end is true",
            ),
            (
                !self.method.evaluation_sets().is_empty(),
                "there are named evaluation sets",
            ),
        ] {
            if condition && self.method.evaluation_len().is_none() {
                mistakes.push(format!(
                    "{what}: there is no data to evaluate on (with_evaluation), whose loss decides"
                ));
            }
        }
        let (named, taken) = (self.config.optim, self.optimizer.optim());
        if named != Optim::default() && taken != Some(named) {
            mistakes.push(format!(
                "optim is {named}: the trainer was given another optimizer (with_optimizer); use one of the two"
            ));
        }
        if !self.groups.is_empty() && self.grouped.is_none() {
            mistakes.push(format!(
                "there are {} groups of parameters: they need AdamW, and the trainer was given another optimizer \
                 (with_optimizer)",
                self.groups.len()
            ));
        }
        if taken == Some(Optim::Muon) && self.named && self.grouped.is_none() {
            mistakes.push(
                "optim is muon: it is not made for embeddings and the output layer; call with_groups, with an empty list if no \
                 parameter has settings of its own, so that AdamW updates them, or give the optimizer for all parameters \
                 (with_optimizer)"
                    .to_string(),
            );
        }
        let in_8_bits = |optim: Option<Optim>| optim == Some(Optim::AdamW8bit);
        if (in_8_bits(taken) || self.groups.iter().any(|group| in_8_bits(group.optim)))
            && let Some(device) = model
                .devices()
                .iter()
                .find(|device| !Blockwise::fits(device))
        {
            mistakes.push(format!(
                "optim is {}: {device:?} cannot hold numbers of 8 bits; use adamw",
                Optim::AdamW8bit
            ));
        }
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Error::Config(mistakes))
        }
    }
}
