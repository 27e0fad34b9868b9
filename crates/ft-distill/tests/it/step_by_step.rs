//! Two tasks in one training: rows, the weight of each task, and learning.

use std::path::PathBuf;

use burn::tensor::Device;
use ft_core::{AutoCausalLm, CausalLm, IGNORE_INDEX, Tokenizer, causal_lm_loss};
use ft_data::{Batches, collate_padded};
use ft_distill::{StepByStep, StepByStepExample, step_by_step_batches};
use ft_train::{Schedule, StepContext, TrainConfig, Trainer};
use serde_json::json;

fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_pretrained(&golden("../assets/tiny-llama")).unwrap()
}

fn examples() -> Vec<StepByStepExample> {
    let rows = [
        ("Is 7 odd?", "yes", "7 is 3 times 2 and 1."),
        ("Is 8 odd?", "no", "8 is 4 times 2."),
        ("Is a whale a fish?", "no", "It breathes air."),
    ];
    let rows = rows
        .iter()
        .zip(1..)
        .map(|((question, label, rationale), number)| {
            let row = json!({"question": question, "label": label, "rationale": rationale});
            StepByStepExample::from_row(&row, number, &tokenizer(), 200).unwrap()
        });
    rows.collect()
}

#[test]
fn each_task_has_its_word_before_the_question_and_its_own_answer() {
    let tokenizer = tokenizer();
    let [example, ..] = &examples()[..] else {
        panic!("examples");
    };
    let texts = [&example.answer, &example.rationale].map(|task| {
        let learned = task.labels.iter().filter(|&&label| label != IGNORE_INDEX);
        let learned: Vec<u32> = learned.map(|&label| label as u32).collect();
        [&task.input_ids, &learned].map(|ids| tokenizer.decode(ids, true).unwrap())
    });
    assert!(texts[0][0].contains("predict: Is 7 odd?"), "{texts:?}");
    assert!(texts[1][0].contains("explain: Is 7 odd?"), "{texts:?}");
    assert_eq!(texts[0][1].trim(), "yes");
    assert_eq!(texts[1][1].trim(), "7 is 3 times 2 and 1.");

    let parse = |row| {
        StepByStepExample::from_row(&row, 5, &tokenizer, 40)
            .unwrap_err()
            .to_string()
    };
    let error = parse(json!({"prompt": "a", "label": "b"}));
    assert!(
        error.contains("row 5") && error.contains("`rationale`"),
        "{error}"
    );
    let long = "word ".repeat(60);
    let error = parse(json!({"prompt": "a", "label": "b", "rationale": long}));
    assert!(error.contains("tokens"), "{error}");
}

/// Each task is the mean over its own tokens; α weighs the two.
#[test]
fn the_loss_is_the_weighted_mean_of_two_tasks() {
    let device = Device::default();
    let model = AutoCausalLm::from_pretrained(&golden("../assets/tiny-llama"), &device).unwrap();
    let examples = examples();
    let alone = |task: &ft_data::Tokenized| {
        let batch = collate_padded(&[task], 1, 0);
        let hidden = model.hidden_states(&batch.tokens(&device), None);
        let loss = causal_lm_loss(hidden, model.head(), &batch.labels);
        loss.sum.into_scalar::<f64>() / loss.count as f64
    };
    let answers: f64 = examples.iter().map(|example| alone(&example.answer)).sum();
    let rationales: f64 = examples
        .iter()
        .map(|example| alone(&example.rationale))
        .sum();
    let batches = step_by_step_batches(examples, 3, None, 0).unwrap();
    let context = StepContext::training(&device, 0, 1, 0);
    for alpha in [0.0, 0.3, 1.0] {
        let step = StepByStep { alpha }
            .step(&model, &batches.batch(0, 0), &context)
            .unwrap();
        let found = step.loss.sum.into_scalar::<f64>();
        let expected = alpha * answers + (1.0 - alpha) * rationales;
        assert!(
            (found - expected).abs() < 1e-4 * expected,
            "{found} {expected}"
        );
        assert_eq!(step.loss.count, 3);
    }
    let error = StepByStep { alpha: 1.5 }.step(&model, &batches.batch(0, 0), &context);
    assert!(error.unwrap_err().to_string().contains("alpha"));
}

#[test]
fn both_tasks_are_learned() {
    let device = Device::default().autodiff();
    let model = AutoCausalLm::from_pretrained(&golden("../assets/tiny-llama"), &device).unwrap();
    let batches = step_by_step_batches(examples(), 3, None, 0).unwrap();
    let tasks = StepByStep::default();
    let step =
        move |model: &AutoCausalLm, batch: &_, context: &_| tasks.step(model, batch, context);
    let config = TrainConfig {
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        max_steps: Some(12),
        progress: false,
        ..TrainConfig::default()
    };
    let (_, report) = Trainer::new(config, batches, step).fit(model).unwrap();
    let [first, last] = [0, 11].map(|step: usize| &report.train_metrics[step]);
    for name in ["answer_loss", "rationale_loss"] {
        assert!(last[name] < 0.3 * first[name], "{name}: {first:?} {last:?}");
    }
}
