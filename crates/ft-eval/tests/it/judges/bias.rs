//! Artificial biases are measured, and preferences are written.

use ft_eval::judges::{
    Comparison, Item, PairItem, PairJudge, Panel, PointJudge, Preference, Scale, Shot, Verdict,
    calibrate, calibrate_scale, judge_each, judge_pairs, position_bias, preference_rows, refusals,
    self_preference, verbosity_bias, win_rate, write_preferences,
};
use serde_json::{Value, json};

use super::mock_server::between;
use super::rules::Rules;
use super::unreliable::{expected, judge, pairs};

fn winner(winner: &str) -> Value {
    json!({"reason": "r", "winner": winner})
}

fn compare(items: &[PairItem], rule: impl Fn(&str) -> Value + Sync) -> Vec<Comparison> {
    judge_pairs(
        &Rules(rule),
        &judge(),
        items,
        &Panel::default(),
        &mut |_, _| (),
    )
}

#[test]
fn a_judge_that_prefers_the_first_reply_gives_only_ties() {
    let found = compare(&pairs(20), |_| winner("1"));
    let bias = position_bias(&found);
    assert_eq!(bias.changed.share, Some(1.0));
    assert_eq!(bias.first_preferred.share, Some(1.0));
    assert!(bias.p_value < 1e-9);
    assert_eq!(win_rate(&found).ties, 20);
    // Half of a win each.
    assert_eq!(win_rate(&found).rate.share, Some(0.5));
    let fair = compare(&pairs(20), |_| winner("tie"));
    assert_eq!(position_bias(&fair).changed.share, Some(0.0));
    assert_eq!(position_bias(&fair).first_preferred.share, None);
    assert_eq!(position_bias(&fair).p_value, 1.0);
}

#[test]
fn verbosity_bias_is_measured() {
    let items: Vec<PairItem> = (0..30)
        .map(|i| PairItem {
            prompt: String::new(),
            response_a: "a".repeat(10 + 7 * i % 40),
            response_b: "b".repeat(10 + 11 * i % 37),
            reference: None,
        })
        .collect();
    let found = compare(&items, |shown| {
        let length = |n| between(shown, &format!("<response_{n}>"), "</").len();
        winner(match length(1).cmp(&length(2)) {
            std::cmp::Ordering::Greater => "1",
            std::cmp::Ordering::Less => "2",
            std::cmp::Ordering::Equal => "tie",
        })
    });
    let verdicts: Vec<Option<Preference>> = found.iter().map(Comparison::verdict).collect();
    let bias = verbosity_bias(&items, &verdicts).unwrap();
    assert_eq!(bias.longer_wins.share, Some(1.0));
    assert!(
        bias.p_value < 1e-6 && bias.correlation.unwrap() > 0.7,
        "{bias:?}"
    );
    assert!(verbosity_bias(&items, &verdicts[1..]).is_err());
    assert_eq!(position_bias(&found).changed.share, Some(0.0));
}

#[test]
fn self_preference_is_measured() {
    use Preference::{A, B, Tie};
    let own = [A, B, A, B, A, B, A, B];
    let judge: Vec<_> = own.iter().map(|side| Some(*side)).collect();
    let people = [B, B, A, A, Tie, B, B, A].map(Some);
    let found = self_preference(&judge, &people, &own).unwrap();
    assert_eq!((found.by_judge, found.by_others), (1.0, 3.5 / 8.0));
    assert!(found.p_value < 0.05 && found.interval[0] > 0.0, "{found:?}");
}

#[test]
fn judges_are_calibrated_with_human_labels() {
    // Sensitivity 3/4, specificity 2/3.
    let labels = [true, true, true, true, false, false, false, true];
    let verdicts = [
        Some(true),
        Some(true),
        Some(true),
        Some(false),
        Some(false),
        Some(false),
        Some(true),
        None,
    ];
    let found = calibrate(&verdicts, &labels).unwrap();
    assert_eq!(found.missing, 1);
    assert_eq!(found.accuracy.share, Some(5.0 / 7.0));
    assert_eq!(
        (found.sensitivity.share, found.specificity.share),
        (Some(0.75), Some(2.0 / 3.0))
    );
    // 40% seen: (0.4 + 2/3 - 1) / (3/4 + 2/3 - 1) = 0.16
    let (share, [low, high]) = found.corrected(40, 100).unwrap();
    assert!((share - 0.16).abs() < 1e-12 && low < share && share < high);
    let useless = calibrate(&[Some(true), Some(true)], &[true, false]).unwrap();
    assert_eq!(useless.corrected(1, 2), None);
    assert!(calibrate(&[None], &[true]).is_err());

    let found = calibrate_scale(
        &[Some(1.0), Some(2.0), Some(4.0), None],
        &[1.0, 3.0, 5.0, 2.0],
    )
    .unwrap();
    assert!((found.spearman.unwrap() - 1.0).abs() < 1e-12);
    assert!((found.pearson.unwrap() - 0.981_980_506_061_965_8).abs() < 1e-12);
    assert!((found.mean_difference + 2.0 / 3.0).abs() < 1e-12);
    assert!(found.quadratic_kappa.unwrap() > 0.7);
}

#[test]
fn winners_become_preference_data() {
    let items = pairs(9);
    let found = compare(&items, |shown| {
        let good = |n| between(shown, &format!("<response_{n}>"), "</").contains("good");
        winner(match (good(1), good(2)) {
            (true, false) => "1",
            (false, true) => "2",
            _ => "tie",
        })
    });
    assert!(
        found
            .iter()
            .enumerate()
            .all(|(i, c)| c.verdict() == Some(expected(i)))
    );
    let rows = preference_rows(&items, &found, false).unwrap();
    assert_eq!((rows.rows.len(), rows.ties, rows.missing), (6, 3, 0));
    assert_eq!(
        rows.rows[0],
        json!({"prompt": "Question 0.", "chosen": "good too, 0", "rejected": "bad 0"})
    );
    let turns = preference_rows(&items, &found, true).unwrap();
    assert_eq!(
        turns.rows[1]["chosen"],
        json!([{"role": "assistant", "content": "good 1"}])
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/pairs.jsonl");
    write_preferences(&path, &rows).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let read: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(read, rows.rows);
}

#[test]
fn examples_precede_the_question_and_reasons_precede_scores() {
    let item = |response: &str| Item {
        prompt: "p".into(),
        response: response.into(),
        reference: Some("ref".into()),
    };
    let judge = PointJudge {
        criteria: "Short.".into(),
        scale: Scale::Binary,
        shots: vec![Shot {
            item: item("long"),
            verdict: Verdict {
                reason: "Too long.".into(),
                score: 0.0,
            },
        }],
    };
    let messages = judge.messages(&item("s"));
    assert_eq!(
        messages.iter().map(|m| m.role.as_str()).collect::<Vec<_>>(),
        ["system", "user", "assistant", "user"]
    );
    assert_eq!(
        messages[2].content,
        "{\"reason\":\"Too long.\",\"passes\":false}"
    );
    assert!(messages[3].content.contains("<reference>\nref"));
    for schema in [judge.schema(), PairJudge::schema()] {
        assert_eq!(
            schema["properties"]
                .as_object()
                .unwrap()
                .keys()
                .next()
                .unwrap(),
            "reason"
        );
    }
    let found = judge_each(
        &Rules(|_: &str| json!({"reason": "ok", "passes": true})),
        &judge,
        &[item("s")],
        &Panel::default(),
        &mut |_, _| (),
    );
    assert_eq!(
        found[0],
        Ok(Verdict {
            reason: "ok".into(),
            score: 1.0
        })
    );
}

#[test]
fn refusals_are_counted() {
    let items: Vec<Item> = (0..10)
        .map(|i| Item {
            prompt: "p".into(),
            response: if i < 3 { "No." } else { "Here." }.into(),
            reference: None,
        })
        .collect();
    let model = Rules(|shown: &str| json!({"reason": "r", "complies": !shown.contains("No.")}));
    let found = refusals(&model, &items, &Panel::default(), &mut |_, _| ());
    assert_eq!(found.rate.share, Some(0.3));
    assert_eq!(found.verdicts[0], Ok(true));
}
