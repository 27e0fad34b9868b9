//! Each task trains on a tiny encoder: all of it, its head, an adapter.

use burn::tensor::Device;
use ft_core::{
    EncoderMaskedLm, EncoderQuestionAnswering, EncoderSequenceClassifier, EncoderTokenClassifier,
    ProblemType, Tokenizer,
};
use ft_data::{
    Answer, Batches, Label, LabelledText, LabelledTexts, MaskedTexts, Masking, Question, Questions,
    SubwordLabels, TaggedText, TaggedTexts, TextInput, TextLayout,
};
use ft_eval::tagging::TagOptions;
use ft_tasks::{
    AnswerSettings, answer_batches, answer_questions, answer_step, classification_batches,
    classification_step, evaluate_answers, evaluate_classification, evaluate_tags, masked_step,
    tag_batches, tag_step,
};
use ft_train::{Schedule, TrainConfig, Trainer, evaluate, train_only};

use crate::pipelines::golden;

fn config(steps: usize) -> TrainConfig {
    TrainConfig {
        learning_rate: 1e-2,
        schedule: Schedule::Constant,
        max_steps: Some(steps),
        progress: false,
        eval_at_start: false,
        eval_at_end: false,
        ..TrainConfig::default()
    }
}

fn input() -> TextInput {
    let tokenizer = Tokenizer::from_pretrained(&golden("text")).expect("loads");
    TextInput::new(&tokenizer, 40, None)
}

const THINGS: [&str; 4] = ["kettle", "river", "handle", "letter"];

fn rows(problem: ProblemType) -> LabelledTexts {
    let rows = (0..32).map(|i| {
        let (thing, good) = (THINGS[i / 2 % 4], i % 2 == 0);
        let text = format!(
            "the {thing} was {} in week {i}",
            if good { "wonderful" } else { "broke" }
        );
        let label = match problem {
            ProblemType::SingleLabelClassification => {
                Label::Class(if good { "good" } else { "bad" }.into())
            }
            ProblemType::MultiLabelClassification => {
                let mut names = vec![thing.to_string()];
                names.extend(good.then(|| "good".to_string()));
                Label::Classes(names)
            }
            ProblemType::Regression => Label::Number(if good { 1.0 } else { -1.0 }),
        };
        LabelledText {
            text,
            pair: None,
            label,
        }
    });
    LabelledTexts::new(rows.collect()).expect("rows")
}

#[test]
fn all_kinds_of_labels_are_learnt_in_both_layouts() {
    use ProblemType::*;
    for problem in [
        SingleLabelClassification,
        MultiLabelClassification,
        Regression,
    ] {
        let rows = rows(problem);
        let classes = rows.classes();
        let device = Device::default().autodiff();
        let examples = rows.tokenize(&input(), &classes).expect("tokenizes");
        let mut losses = Vec::new();
        for layout in [TextLayout::Packed, TextLayout::Padded(0)] {
            let model = EncoderSequenceClassifier::from_encoder(
                &golden("text"),
                classes.clone(),
                1,
                &device,
            );
            let model = model.expect("starts").with_problem_type(problem);
            let batches = classification_batches(examples.clone(), 8, Some(1), layout);
            let step = classification_step(problem);
            let trainer = Trainer::new(config(160), batches.expect("batches"), step);
            let (model, report) = trainer.fit(model).expect("trains");
            losses.push(report.train_losses);
            let found = evaluate_classification(&model, &examples, problem, 0).expect("evaluates");
            match problem {
                Regression => assert!(found.pearson.expect("varies") > 0.9, "{found:?}"),
                // The tiny model distinguishes only some of the things.
                MultiLabelClassification => {
                    assert!(found.micro_f1.expect("classes") > 0.85, "{found:?}");
                }
                SingleLabelClassification => {
                    assert!(found.accuracy.expect("classes") > 0.9, "{found:?}");
                }
            }
            assert_eq!(model.config().problem_type, Some(problem));
        }
        let apart = |a: f64, b: f64| (a - b).abs() > 1e-4 * a.abs().max(1.0);
        assert!(
            losses[0]
                .iter()
                .zip(&losses[1])
                .take(5)
                .all(|(&a, &b)| !apart(a, b)),
            "{problem:?}: {losses:?}"
        );
    }
}

#[test]
fn parts_and_adapters_train_and_the_rest_stays() {
    let rows = rows(ProblemType::SingleLabelClassification);
    let classes = rows.classes();
    let device = Device::default().autodiff();
    let examples = rows.tokenize(&input(), &classes).expect("tokenizes");
    let start = || {
        let folder = golden("text");
        EncoderSequenceClassifier::from_encoder(&folder, classes.clone(), 1, &device)
            .expect("starts")
    };
    let train = |model| {
        let batches = classification_batches(examples.clone(), 8, Some(1), TextLayout::Packed);
        let step = classification_step(ProblemType::SingleLabelClassification);
        let trainer = Trainer::new(config(40), batches.expect("batches"), step);
        trainer.fit(model).expect("trains").0
    };
    let tensors =
        |model: &EncoderSequenceClassifier| ft_core::safetensors_folder::module_tensors(model);
    let head = r"regex:(bert\.pooler|classifier)\..*"
        .parse()
        .expect("a selection");
    let before = start();
    let after = train(train_only(start(), &[head]).expect("selects"));
    for ((name, old), (_, new)) in tensors(&before).iter().zip(&tensors(&after)) {
        let trained = name.contains("pooler") || name.contains("classifier");
        assert_eq!(old != new, trained, "{name}");
    }
    let lora = serde_json::json!({"r": 4, "target_modules": ["query", "value", "dense"],
        "modules_to_save": ["classifier"], "task_type": "SEQ_CLS"});
    let lora = ft_peft::method("lora", lora.as_object().expect("settings")).expect("LoRA");
    let model = ft_peft::attach(start(), &*lora, "default", 1).expect("attaches");
    let model = ft_peft::merge_and_unload(train(model)).expect("merges");
    let problem = ProblemType::SingleLabelClassification;
    let found = evaluate_classification(&model, &examples, problem, 0).expect("evaluates");
    assert!(found.accuracy.expect("classes") > 0.9, "{found:?}");
}

/// A saved model of several labels without its `problem_type` would be read as a choice of one.
#[test]
fn the_step_takes_only_the_problem_of_the_model() {
    let device = Device::default().autodiff();
    let rows = rows(ProblemType::MultiLabelClassification);
    let classes = rows.classes();
    let examples = rows.tokenize(&input(), &classes).expect("tokenizes");
    let model = EncoderSequenceClassifier::from_encoder(&golden("text"), classes, 1, &device);
    let batches = classification_batches(examples, 8, Some(1), TextLayout::Packed);
    let step = classification_step(ProblemType::MultiLabelClassification);
    let error = Trainer::new(config(1), batches.expect("batches"), step)
        .fit(model.expect("starts"))
        .expect_err("no problem type");
    assert!(error.to_string().contains("with_problem_type"), "{error}");
}

#[test]
fn nothing_to_evaluate_is_an_error() {
    let folder = golden("several");
    let model = EncoderSequenceClassifier::from_pretrained(&folder, &Device::default());
    let problem = ProblemType::MultiLabelClassification;
    let error = evaluate_classification(&model.expect("loads"), &[], problem, 0);
    assert!(
        error
            .expect_err("nothing")
            .to_string()
            .contains("no examples")
    );
}

#[test]
fn words_learn_their_tags() {
    let device = Device::default().autodiff();
    let rows = (0..24).map(|i| {
        let thing = THINGS[i % 4];
        let words = ["the", "blue", thing, "in", "hamburg", "broke"];
        let tags = ["O", "B-THING", "I-THING", "O", "B-PLACE", "O"];
        TaggedText::from_words(&words, tags.map(str::to_string).to_vec()).expect("a row")
    });
    let all = TaggedTexts {
        rows: rows.collect(),
        widened: 0,
    };
    let tags = all.tags();
    let examples = all
        .tokenize(&input(), &tags, SubwordLabels::First)
        .expect("tokenizes");
    assert!(
        examples
            .iter()
            .all(|row| row.labels.iter().filter(|&&l| l >= 0).count() == 6)
    );
    let model = EncoderTokenClassifier::from_encoder(&golden("text"), tags, 1, &device);
    let model = model.expect("starts");
    let score = |model: &EncoderTokenClassifier| {
        let found = evaluate_tags(model, &all.rows, &examples, &TagOptions::default(), 0);
        found.expect("evaluates").micro_average.f
    };
    assert!(score(&model) < 0.5);
    let batches = tag_batches(examples.clone(), 8, Some(1), TextLayout::Packed).expect("batches");
    let (model, _) = Trainer::new(config(60), batches, tag_step)
        .fit(model)
        .expect("trains");
    assert!(score(&model) > 0.95);
}

#[test]
fn answers_are_learnt_and_questions_without_one_are_recognised() {
    let device = Device::default().autodiff();
    let rows = (0..24).map(|i| {
        let thing = THINGS[i % 4];
        let answered = i % 3 > 0;
        let context = format!("anna bought the {thing} in hamburg");
        Question {
            id: i.to_string(),
            question: if answered {
                "what was bought?"
            } else {
                "who wrote it?"
            }
            .into(),
            answers: (answered.then(|| Answer {
                text: thing.into(),
                start: "anna bought the ".len(),
            }))
            .into_iter()
            .collect(),
            context,
        }
    });
    let questions = Questions {
        rows: rows.collect(),
    };
    let examples = questions.tokenize(&input(), 4).expect("tokenizes");
    let labels = vec!["start".to_string(), "end".to_string()];
    let model = EncoderQuestionAnswering::from_encoder(&golden("text"), labels, 1, &device);
    let batches = answer_batches(examples.clone(), 8, Some(1), TextLayout::Packed);
    let trainer = Trainer::new(config(80), batches.expect("batches"), answer_step);
    let (model, _) = trainer.fit(model.expect("starts")).expect("trains");
    let settings = AnswerSettings {
        may_be_unanswerable: true,
        ..AnswerSettings::default()
    };
    let answers = answer_questions(&model, &questions, &examples, &settings, 0).expect("answers");
    let scores = evaluate_answers(&answers, &questions).expect("evaluates");
    assert!(scores.exact > 95.0, "{scores:?}");
}

#[test]
fn masked_tokens_are_learnt_and_masks_follow_from_seed_and_epoch() {
    let device = Device::default().autodiff();
    let texts: Vec<String> = (0..32)
        .map(|i| {
            format!(
                "anna bought the {} in hamburg for forty euros",
                THINGS[i % 4]
            )
        })
        .collect();
    let model = EncoderMaskedLm::from_encoder(&golden("text"), 1, &device).expect("starts");
    let vocab = model.dims().vocab_size;
    let batches = |seed| {
        let layout = TextLayout::Packed;
        let masking = Masking::default();
        MaskedTexts::new(&texts, &input(), vocab, masking, layout, 8, Some(seed)).expect("batches")
    };
    let (one, two) = (batches(1), batches(1));
    assert_eq!(one.batch(3, 1), two.batch(3, 1));
    assert_ne!(one.batch(3, 1).labels, one.batch(4, 1).labels);
    let before = evaluate(&model, &batches(2), masked_step).expect("evaluates");
    let trainer = Trainer::new(config(80), batches(1), masked_step);
    let (model, _) = trainer.fit(model).expect("trains");
    let after = evaluate(&model, &batches(2), masked_step).expect("evaluates");
    assert!(after.loss < 0.5 * before.loss, "{before:?} {after:?}");
}
