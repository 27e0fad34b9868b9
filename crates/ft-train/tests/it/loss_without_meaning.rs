//! A loss that is no measure of the model, as that of policy methods, has no symptoms.

use ft_core::LossSum;
use ft_data::Batches;
use ft_train::{
    BoxError, Method, ModelView, StepContext, StepResult, Symptom, TrainConfig, Trainer,
};

use crate::model::{Data, Net, alone, quiet, squared_error_sum};

/// A method whose loss is 1 for 20 steps and 2 from then on.
struct Rising {
    is_a_measure: bool,
}

impl Method<Net> for Rising {
    type Batch = f32;

    fn len(&self, _: usize) -> usize {
        60
    }

    fn loss_is_a_measure(&self) -> bool {
        self.is_a_measure
    }

    fn batch(
        &mut self,
        _: &ModelView<'_, Net>,
        _: usize,
        index: usize,
        _: &StepContext,
    ) -> Result<f32, BoxError> {
        Ok(if index < 20 { 1.0 } else { 2.0 })
    }

    fn step(&mut self, model: &Net, loss: &f32, context: &StepContext) -> StepResult {
        let rows = Data::of(&[4]).batch(0, 0);
        let error = squared_error_sum(model, &rows, &context.device).sum;
        let sum = error.clone() - error.detach() + *loss;
        Ok(LossSum { sum, count: 1 }.into())
    }
}

#[test]
fn rules_about_falling_losses_are_for_losses_that_are_a_measure() {
    let _turn = alone();
    let run = |is_a_measure| {
        let mut method = Rising { is_a_measure };
        let config = quiet(TrainConfig::default());
        let trained = Trainer::with_method(config, &mut method).fit(Net::new(0.0));
        let (_, report) = trained.expect("trains");
        report.findings
    };
    let found = run(true);
    assert!(
        found.iter().any(|one| one.symptom == Symptom::Divergence),
        "{found:?}"
    );
    assert_eq!(run(false), []);
}
