//! A method that sees the gradients of a step, and changes the model after the update.

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use ft_train::{
    BoxError, Error, Method, ModelView, StepContext, StepResult, TrainConfig, Trainer, global_norm,
};

use crate::model::{Data, Net, Rows, alone, parameters, quiet, squared_error};

/// Holds every number that trains within `±bound`, and notes the norms of the gradients as the update takes them.
#[derive(Default)]
struct Bounded {
    bound: f64,
    norms: Vec<f64>,
    steps: Vec<usize>,
    fails_at: Option<usize>,
}

impl Method<Net> for Bounded {
    type Batch = Rows;

    fn len(&self, _: usize) -> usize {
        4
    }

    fn batch(
        &mut self,
        _: &ModelView<'_, Net>,
        epoch: usize,
        index: usize,
        _: &StepContext,
    ) -> Result<Rows, BoxError> {
        let data = Data::of(&[3, 1, 2, 2]);
        Ok(ft_data::Batches::batch(&data, epoch, index))
    }

    fn step(&mut self, model: &Net, rows: &Rows, context: &StepContext) -> StepResult {
        squared_error(model, rows, context)
    }

    fn before_update(
        &mut self,
        model: &Net,
        gradients: &GradientsParams,
        scale: f64,
    ) -> Result<(), BoxError> {
        self.norms.push(global_norm(model, gradients) * scale);
        Ok(())
    }

    fn after_update(&mut self, model: Net, step: usize) -> Result<Net, BoxError> {
        if self.fails_at == Some(step) {
            return Err("no room".into());
        }
        self.steps.push(step);
        Ok(model.map(&mut Clamp(self.bound)))
    }
}

struct Clamp(f64);

impl ModuleMapper for Clamp {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        let (id, value, mapper) = param.consume();
        let value = Tensor::from_inner(value.inner().clamp(-self.0, self.0)).require_grad();
        Param::from_mapped_value(id, value, mapper)
    }
}

fn config() -> TrainConfig {
    quiet(TrainConfig {
        learning_rate: 0.1,
        epochs: 1.0,
        gradient_accumulation_steps: 2,
        max_grad_norm: Some(0.01),
        ..TrainConfig::default()
    })
}

#[test]
fn a_method_sees_clipped_gradients_and_projects_after_each_update() {
    let _turn = alone();
    let mut method = Bounded {
        bound: 0.3,
        ..Bounded::default()
    };
    let before = parameters(&Net::new(0.0));
    let (model, report) = Trainer::with_method(config(), &mut method)
        .fit(Net::new(0.0))
        .expect("trains");
    assert_eq!((report.steps, &method.steps[..]), (2, &[1, 2][..]));
    for norm in &method.norms {
        assert!((norm - 0.01).abs() < 1e-5, "{norm}");
    }
    let mut at_the_bound = 0;
    for (path, values) in parameters(&model) {
        if path.starts_with("frozen") {
            assert_eq!(values, before[&path]);
            continue;
        }
        assert!(values.iter().all(|x| x.abs() <= 0.3), "{path}: {values:?}");
        at_the_bound += values.iter().filter(|x| x.abs() == 0.3).count();
    }
    assert!(at_the_bound > 0);
}

#[test]
fn a_method_that_fails_at_an_update_ends_the_run_and_the_step_is_named() {
    let _turn = alone();
    let mut method = Bounded {
        bound: 1.0,
        fails_at: Some(2),
        ..Bounded::default()
    };
    let failed = Trainer::with_method(config(), &mut method).fit(Net::new(0.0));
    let error = failed.map(|_| ()).expect_err("fails");
    assert!(matches!(error, Error::Update { step: 2, .. }), "{error}");
    assert!(error.to_string().contains("no room"), "{error}");
}
