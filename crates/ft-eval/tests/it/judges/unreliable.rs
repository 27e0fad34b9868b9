//! Every verdict is complete or reported as missing, and is counted once.

use std::time::{Duration, Instant};

use ft_eval::judges::{
    CachedModel, ChatMessage, ChatModel, ChatRequest, Item, OpenAiClient, PairItem, PairJudge,
    Panel, PointJudge, Preference, Prices, Scale, ServerOptions, judge_each, judge_pairs, win_rate,
};
use serde_json::{Value, json};

use super::mock_server::{Act, MockServer, fair, shown};

pub(crate) fn quick() -> ServerOptions {
    ServerOptions {
        attempts: 5,
        timeout: Duration::from_millis(600),
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(20),
        ..ServerOptions::default()
    }
}

pub(crate) fn client(url: &str) -> OpenAiClient {
    OpenAiClient::new(url, "mock", quick()).unwrap()
}

pub(crate) fn pairs(count: usize) -> Vec<PairItem> {
    (0..count)
        .map(|i| PairItem {
            prompt: format!("Question {i}."),
            response_a: if i % 3 == 0 {
                format!("bad {i}")
            } else {
                format!("good {i}")
            },
            response_b: if i % 3 == 1 {
                format!("bad {i}")
            } else {
                format!("good too, {i}")
            },
            reference: None,
        })
        .collect()
}

pub(crate) fn expected(i: usize) -> Preference {
    [Preference::B, Preference::A, Preference::Tie][i % 3]
}

pub(crate) fn judge() -> PairJudge {
    PairJudge {
        criteria: "The better one is called good.".to_string(),
        shots: Vec::new(),
    }
}

fn number(request: &Value) -> usize {
    let shown = shown(request);
    let digits = shown.split("Question ").nth(1).unwrap();
    digits[..digits.find('.').unwrap()].parse().unwrap()
}

/// Question 13 is never answered, and question 17 never with a valid reply.
fn misbehave(request: &Value, before: usize) -> Act {
    let i = number(request);
    let bad = match i {
        13 => return Act::Status(500, "", "{\"error\": {\"message\": \"broken\"}}"),
        17 => return Act::Say("I think the first one is nicer.".to_string()),
        _ if before > i % 3 => None,
        _ => Some(i % 11),
    };
    match bad {
        Some(0) => Act::Status(429, "Retry-After: 0.005\r\n", "slow down"),
        Some(1) => Act::Status(429, "", "{\"error\": \"too many\"}"),
        Some(2) => Act::Status(500, "", ""),
        Some(3) if before == 0 => Act::Stall(Duration::from_millis(900)),
        Some(4) => Act::Cut,
        Some(5) => Act::HangUp,
        Some(6) => Act::Garbage,
        Some(7) => Act::NoChoice,
        Some(8) => Act::Status(
            503,
            "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            "<html>",
        ),
        Some(9) => Act::SayInChunks(fair(request)),
        _ => Act::Say(format!("Well.\n```json\n{}\n```", fair(request))),
    }
}

#[test]
fn verdicts_are_complete_or_missing_and_counted_once() {
    let server = MockServer::start(misbehave);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replies.jsonl");
    let items = pairs(160);
    let panel = Panel {
        attempts: 2,
        concurrency: 12,
        ..Panel::default()
    };
    let check = |model: &CachedModel<OpenAiClient>| {
        let mut done = 0;
        let found = judge_pairs(model, &judge(), &items, &panel, &mut |now, total| {
            done = now;
            assert_eq!(total, 320);
        });
        assert_eq!((found.len(), done), (160, 320));
        for (i, comparison) in found.iter().enumerate() {
            match i {
                13 | 17 => assert_eq!(comparison.verdict(), None, "{comparison:?}"),
                _ => assert_eq!(
                    comparison.verdict(),
                    Some(expected(i)),
                    "{i}: {comparison:?}"
                ),
            }
        }
        let reason = |i: usize| found[i].a_first.as_ref().unwrap_err().reason.clone();
        assert!(
            reason(13).contains("500") && reason(13).contains("broken"),
            "{}",
            reason(13)
        );
        assert!(reason(17).contains("no JSON object"), "{}", reason(17));
        let rate = win_rate(&found);
        assert_eq!(rate.missing, 2);
        assert_eq!(rate.wins + rate.losses + rate.ties, 158);
    };

    let model = CachedModel::open(client(&server.url), &path).unwrap();
    check(&model);
    let spent = model.spent();
    // Two orders of 158 good pairs, and two attempts at the two orders of question 17.
    assert_eq!(
        (spent.replies, spent.failed, spent.cached),
        (2 * 158 + 4, 2, 0)
    );
    assert_eq!(spent.replies as usize, server.answered());
    assert!(
        server
            .seen
            .lock()
            .unwrap()
            .answered
            .values()
            .all(|count| *count == 1)
    );
    assert_eq!(spent.prompt_tokens, 10 * spent.replies);
    let prices = Prices {
        prompt: 1e5,
        completion: 1e6,
    };
    assert_eq!(spent.cost(prices), spent.replies as f64 * (1.0 + 3.0));
    drop(model);

    // A second run requests only the missing reply to question 13, without success.
    let before = server.requests();
    let model = CachedModel::open(client(&server.url), &path).unwrap();
    check(&model);
    assert_eq!(
        (model.spent().replies, model.spent().cached),
        (0, 2 * 158 + 4)
    );
    assert_eq!(server.requests() - before, 2 * 5);

    // A cache with an incomplete last line loses only that line.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    let model = CachedModel::open(client(&server.url), &path).unwrap();
    check(&model);
    assert_eq!(model.spent().replies, 1);
}

#[test]
fn replies_that_break_the_schema_are_requested_again_with_the_mistake() {
    let server = MockServer::start(|request, _| {
        let messages = request["messages"].as_array().unwrap();
        let mistakes = messages
            .iter()
            .filter(|m| m["content"].as_str().unwrap().contains("cannot be used"))
            .count();
        Act::Say(match mistakes {
            0 => "{\"reason\": \"r\", \"score\": 9}".to_string(),
            1 => {
                let last = messages.last().unwrap()["content"].as_str().unwrap();
                assert!(
                    last.contains("\"score\" is 9, which is out of range"),
                    "{last}"
                );
                "{\"score\": 4}".to_string()
            }
            _ => "{\"reason\": \"r\", \"score\": 4}".to_string(),
        })
    });
    let judge = PointJudge {
        criteria: "Be good.".to_string(),
        scale: Scale::Points(5),
        shots: Vec::new(),
    };
    let items = [Item {
        prompt: "p".into(),
        response: "r".into(),
        reference: None,
    }];
    let client = client(&server.url);
    for (attempts, score) in [(2, None), (3, Some(4.0))] {
        let panel = Panel {
            attempts,
            ..Panel::default()
        };
        let found = judge_each(&client, &judge, &items, &panel, &mut |_, _| ());
        assert_eq!(found[0].as_ref().ok().map(|verdict| verdict.score), score);
    }
}

#[test]
fn servers_without_schemas_get_simpler_requests() {
    let server =
        MockServer::start(
            |request, _| match request["response_format"]["type"].as_str() {
                Some("json_schema") => Act::Status(
                    400,
                    "",
                    "{\"error\": {\"message\": \"response_format: json_schema is not supported\"}}",
                ),
                Some(_) => Act::Status(
                    400,
                    "",
                    "{\"error\": {\"message\": \"unknown response_format\"}}",
                ),
                None => Act::Say(fair(request)),
            },
        );
    let found = judge_pairs(
        &client(&server.url),
        &judge(),
        &pairs(3),
        &Panel {
            concurrency: 1,
            ..Panel::default()
        },
        &mut |_, _| (),
    );
    assert!(
        found
            .iter()
            .enumerate()
            .all(|(i, c)| c.verdict() == Some(expected(i))),
        "{found:?}"
    );
    // The refusal is remembered.
    assert_eq!(server.requests(), 2 + 6);
    let paths = server.seen.lock().unwrap().paths.clone();
    assert_eq!(Vec::from_iter(paths), ["/v1/chat/completions"]);
}

#[test]
fn thinking_is_kept_apart_and_may_have_no_text_after_it() {
    let server = MockServer::start(|request, _| {
        let message = match request["seed"].as_u64() {
            Some(1) => json!({"content": "yes", "reasoning_content": "hmm"}),
            _ => json!({"content": null, "reasoning": "too long"}),
        };
        Act::Reply(json!({"choices": [{"message": message}]}).to_string())
    });
    let mut request = ChatRequest {
        messages: vec![ChatMessage::new("user", "Is it?")],
        temperature: 0.0,
        max_tokens: 5,
        seed: Some(1),
        schema: None,
    };
    let client = client(&server.url);
    let reply = client.chat(&request).unwrap();
    assert_eq!(
        (reply.text.as_str(), reply.reasoning.as_deref()),
        ("yes", Some("hmm"))
    );
    request.seed = None;
    let reply = client.chat(&request).unwrap();
    assert_eq!(
        (reply.text.as_str(), reply.reasoning.as_deref()),
        ("", Some("too long"))
    );
}

#[test]
fn other_errors_are_final_and_do_not_contain_the_key() {
    let server =
        MockServer::start(|_, _| Act::Status(401, "", "{\"error\": {\"message\": \"wrong key\"}}"));
    // A variable that is set in every process.
    let key = std::env::var("PATH").unwrap();
    let options = ServerOptions {
        api_key_env: Some("PATH".to_string()),
        ..quick()
    };
    let client = OpenAiClient::new(&server.url, "mock", options.clone()).unwrap();
    let request = ChatRequest {
        messages: vec![ChatMessage::new("user", "</>")],
        temperature: 0.0,
        max_tokens: 5,
        seed: None,
        schema: None,
    };
    let error = client.chat(&request).unwrap_err().to_string();
    assert!(
        error.contains("401") && error.contains("wrong key"),
        "{error}"
    );
    assert_eq!(server.requests(), 1);
    let sent = server.seen.lock().unwrap().authorization.clone().unwrap();
    assert!(sent.ends_with(&format!("Bearer {key}")), "{sent}");
    for text in [format!("{client:?}"), client.identity(), error] {
        assert!(!text.contains(&key), "{text}");
    }
    let unset = ServerOptions {
        api_key_env: Some("FT_TEST_NO_SUCH_VARIABLE".into()),
        ..quick()
    };
    assert!(
        OpenAiClient::new(&server.url, "mock", unset)
            .unwrap_err()
            .to_string()
            .contains("FT_TEST_NO_SUCH_VARIABLE")
    );
    assert!(OpenAiClient::new("localhost:80", "mock", quick()).is_err());
    // There is no server at this address.
    let nobody = OpenAiClient::new("http://127.0.0.1:9/v1", "mock", quick()).unwrap();
    assert!(
        nobody
            .chat(&request)
            .unwrap_err()
            .to_string()
            .contains("5 attempts")
    );
}

#[test]
fn all_threads_share_the_rate_limit() {
    let server = MockServer::start(|request, _| Act::Say(fair(request)));
    let options = ServerOptions {
        requests_per_minute: Some(3000.0),
        ..quick()
    };
    let client = OpenAiClient::new(&server.url, "mock", options).unwrap();
    let start = Instant::now();
    judge_pairs(
        &client,
        &judge(),
        &pairs(10),
        &Panel {
            concurrency: 8,
            ..Panel::default()
        },
        &mut |_, _| (),
    );
    assert!(
        start.elapsed() >= Duration::from_millis(19 * 20),
        "{:?}",
        start.elapsed()
    );
}
