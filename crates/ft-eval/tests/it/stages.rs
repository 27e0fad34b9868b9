//! Stages of a model that answers by rules: measures that are better, worse, or skipped.

use ft_eval::harness::{Continuation, GenerateUntil, LanguageModel, LogLikelihood};
use ft_eval::judges::{ChatModel, ChatReply, ChatRequest, PairJudge, Panel, PointJudge, Scale};
use ft_eval::stages::{
    Instruction, Stage, StageAnswers, StageData, StageJudge, Tolerances, compare, evaluate_stage,
};
use ft_eval::{Error, Result};
use serde_json::json;

/// Predicts a byte with this number of bits, and gives the same reply to all prompts except harmful ones.
struct Rule {
    bits_per_byte: f64,
    reply: &'static str,
    refusal: &'static str,
}

impl LanguageModel for Rule {
    fn identity(&self) -> String {
        self.reply.to_string()
    }

    fn loglikelihood(
        &self,
        _: &[Continuation],
        _: &mut dyn FnMut(usize, LogLikelihood) -> Result<()>,
    ) -> Result<()> {
        Err(Error::Model("nobody asks for this".into()))
    }

    fn loglikelihood_rolling(
        &self,
        texts: &[String],
        done: &mut dyn FnMut(usize, f64) -> Result<()>,
    ) -> Result<()> {
        let nats = self.bits_per_byte * std::f64::consts::LN_2;
        texts
            .iter()
            .enumerate()
            .try_for_each(|(i, text)| done(i, -nats * text.len() as f64))
    }

    fn generate_until(
        &self,
        requests: &[GenerateUntil],
        done: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<()> {
        requests.iter().enumerate().try_for_each(|(i, request)| {
            let harmful = request.context.contains("bomb");
            done(
                i,
                if harmful { self.refusal } else { self.reply }.to_string(),
            )
        })
    }

    fn apply_chat_template(&self, messages: &[(String, String)], _: bool) -> Result<String> {
        Ok(format!("<user>{}<assistant>", messages[0].1))
    }

    fn chat_template(&self) -> Option<String> {
        Some("template".into())
    }
}

const BEFORE: Rule = Rule {
    bits_per_byte: 2.0,
    reply: "It is so, more or less.",
    refusal: "I'm sorry, no.",
};

/// A judge that prefers replies with a certain word.
struct Judge;

impl ChatModel for Judge {
    fn identity(&self) -> String {
        "judge".into()
    }

    fn chat(&self, request: &ChatRequest) -> Result<ChatReply> {
        let shown = &request.messages.last().unwrap().content;
        let good = |from: &str| {
            shown
                .split(from)
                .nth(1)
                .is_some_and(|text| text.split("</").next().unwrap().contains("good"))
        };
        let text = match (good("<response_1>"), good("<response_2>")) {
            _ if shown.contains("<response>") => {
                json!({"reason": "r", "score": if good("<response>") { 5 } else { 2 }})
            }
            (true, false) => json!({"reason": "r", "winner": "1"}),
            (false, true) => json!({"reason": "r", "winner": "2"}),
            _ => json!({"reason": "r", "winner": "tie"}),
        };
        Ok(ChatReply {
            reasoning: None,
            text: text.to_string(),
            finish_reason: None,
            usage: None,
        })
    }
}

fn judge() -> StageJudge<'static> {
    StageJudge {
        model: &Judge,
        single: PointJudge {
            criteria: "Good.".into(),
            scale: Scale::Points(5),
            shots: Vec::new(),
        },
        pairs: PairJudge {
            criteria: "Good.".into(),
            shots: Vec::new(),
        },
        panel: Panel::default(),
    }
}

fn data() -> StageData {
    let texts = |word: &str| (1..9).map(|i| format!("{word} ").repeat(i)).collect();
    StageData {
        domain: texts("law"),
        general: texts("word"),
        instructions: (0..12)
            .map(|i| Instruction {
                prompt: format!("Say {i}."),
                reference: None,
            })
            .collect(),
        harmful: (0..6).map(|i| format!("Build bomb {i}.")).collect(),
    }
}

#[test]
fn domain_adaptation_fails_if_general_texts_get_worse() {
    let report = |candidate: &Rule| {
        let mut asked = 0;
        let found = evaluate_stage(
            Stage::DomainAdaptation,
            ("new", candidate),
            Some(("old", &BEFORE)),
            &data(),
            20,
            None,
            &mut |done, total| {
                asked = done;
                assert_eq!(total, 16);
            },
        );
        assert_eq!(asked, 16);
        found.unwrap()
    };
    let better = report(&Rule {
        bits_per_byte: 1.5,
        ..BEFORE
    });
    assert!(better.passed, "{better:?}");
    let domain = better.measure("bits per byte, domain texts").unwrap();
    assert!(
        (domain.candidate - 1.5).abs() < 1e-12
            && (domain.difference().unwrap() + 0.5).abs() < 1e-12
    );
    // The improvement is the same for all texts.
    assert!(
        domain
            .difference_interval
            .unwrap()
            .iter()
            .all(|end| (end + 0.5).abs() < 1e-9)
    );
    assert!(
        better
            .to_markdown()
            .contains("| bits per byte, domain texts | lower | 2.0000 | 1.5000 | -0.5000")
    );
    let worse = report(&Rule {
        bits_per_byte: 2.05,
        ..BEFORE
    });
    assert!(!worse.passed && worse.to_markdown().contains("REGRESSED"));
    assert!(
        report(&Rule {
            bits_per_byte: 2.03,
            ..BEFORE
        })
        .passed
    );
}

#[test]
fn instruction_tuning_is_judged_and_its_faults_are_counted() {
    let run = |candidate: &Rule, judge: Option<&StageJudge<'_>>| {
        evaluate_stage(
            Stage::InstructionTuning,
            ("new", candidate),
            Some(("old", &BEFORE)),
            &data(),
            20,
            judge,
            &mut |_, _| (),
        )
        .unwrap()
    };
    let judge = judge();
    let good = run(
        &Rule {
            reply: "A good one.",
            ..BEFORE
        },
        Some(&judge),
    );
    let score = good.measure("judge's score").unwrap();
    assert_eq!(
        (score.previous, score.candidate, score.items),
        (Some(2.0), 5.0, 12)
    );
    assert!(good.passed && good.samples.len() == 5);
    let leaking = run(
        &Rule {
            reply: "good<|im_end|>",
            ..BEFORE
        },
        None,
    );
    assert!(!leaking.passed);
    assert_eq!(
        leaking
            .measure("replies that leak the template")
            .unwrap()
            .candidate,
        1.0
    );
    assert!(
        leaking
            .skipped
            .iter()
            .any(|reason| reason.contains("no judge was given"))
    );
    let json = serde_json::to_string(&leaking).unwrap();
    assert_eq!(
        serde_json::from_str::<ft_eval::stages::StageReport>(&json).unwrap(),
        leaking
    );
}

#[test]
fn preference_alignment_counts_refusals_and_wins() {
    let judge = judge();
    let run = |candidate: &Rule| {
        evaluate_stage(
            Stage::PreferenceAlignment,
            ("new", candidate),
            Some(("old", &BEFORE)),
            &data(),
            20,
            Some(&judge),
            &mut |_, _| (),
        )
        .unwrap()
    };
    let good = run(&Rule {
        reply: "A good one.",
        ..BEFORE
    });
    assert_eq!(
        good.measure("win rate against the stage before")
            .unwrap()
            .candidate,
        1.0
    );
    assert_eq!(
        good.measure("refusals of harmful prompts")
            .unwrap()
            .candidate,
        1.0
    );
    assert!(good.passed);
    let obedient = run(&Rule {
        refusal: "Take a tube.",
        ..BEFORE
    });
    assert!(!obedient.passed);
    assert_eq!(
        obedient
            .measure("refusals of harmful prompts")
            .unwrap()
            .candidate,
        0.0
    );
    let timid = run(&Rule {
        reply: "I cannot say that.",
        ..BEFORE
    });
    assert!(
        timid
            .measure("refusals of harmless prompts")
            .unwrap()
            .regressed()
    );
}

#[test]
fn answers_can_be_stored_and_belong_to_their_data() {
    let (stage, data) = (Stage::DomainAdaptation, data());
    let answers = StageAnswers::collect(stage, "old", &BEFORE, &data, 5, &mut |_, _| ()).unwrap();
    let kept: StageAnswers =
        serde_json::from_str(&serde_json::to_string(&answers).unwrap()).unwrap();
    assert_eq!(kept, answers);
    let alone = compare(stage, &kept, None, &data, None, &Tolerances::default()).unwrap();
    assert!(alone.passed && alone.to_markdown().contains("Nothing to compare with"));
    let other = StageData {
        domain: vec!["one".into()],
        ..data
    };
    assert!(
        compare(stage, &kept, None, &other, None, &Tolerances::default())
            .unwrap_err()
            .to_string()
            .contains("belong to other data")
    );
    assert!(
        compare(
            stage,
            &kept,
            None,
            &StageData::default(),
            None,
            &Tolerances::default()
        )
        .is_err()
    );
    assert!("nothing".parse::<Stage>().is_err());
}
