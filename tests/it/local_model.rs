//! A local model in benchmarks: with shared prompts and beginnings, batches of any width, and windows, the results equal those
//! of one forward pass over the whole text.

use ft::burn::tensor::{Device, Tensor, activation};
use ft::core::{AutoCausalLm, CausalLm, GenerationConfig, TokenBatch, Tokenizer, generate};
use ft::eval::harness::{Continuation, GenerateUntil, LanguageModel, LogLikelihood};
use ft::eval::judges::{ChatMessage, ChatModel, ChatRequest};
use ft::eval::models::LocalModel;

use crate::shipped_model::folder;

fn model(batch_tokens: usize) -> LocalModel {
    let model = LocalModel::from_pretrained(&folder(), &Device::default()).expect("loads");
    model.with_batch_tokens(batch_tokens)
}

/// Log-probability of the last `count` ids, and whether they are the first choice, by the logits of all.
fn expected(model: &AutoCausalLm, ids: &[u32], count: usize) -> LogLikelihood {
    let logits: Tensor<3> = model.logits(
        &TokenBatch::from_ids(&ids[..ids.len() - 1], &Device::default()),
        None,
    );
    let [_, seq, vocab] = logits.dims();
    let log_p = activation::log_softmax(logits.reshape([seq, vocab]), 1);
    let log_p = log_p
        .into_data()
        .convert::<f64>()
        .try_to_vec::<f64>()
        .expect("f64");
    let mut answer = LogLikelihood {
        logp: 0.0,
        is_greedy: true,
    };
    for at in ids.len() - count..ids.len() {
        let row = &log_p[(at - 1) * vocab..at * vocab];
        let target = row[ids[at] as usize];
        answer.logp += target;
        answer.is_greedy &= row.iter().all(|other| *other <= target);
    }
    answer
}

fn ask(model: &LocalModel, requests: &[Continuation]) -> Vec<LogLikelihood> {
    let mut answers = vec![None; requests.len()];
    model
        .loglikelihood(requests, &mut |i, answer| {
            assert!(answers[i].replace(answer).is_none(), "answered twice");
            Ok(())
        })
        .expect("answers");
    answers
        .into_iter()
        .map(|answer| answer.expect("every request is answered"))
        .collect()
}

fn requests() -> Vec<Continuation> {
    let shots =
        "Tom had a red ball. Anna had a blue hat. The dog ran to the park and found a stick. "
            .repeat(3);
    let mut contexts: Vec<String> = ["Tom", "Once upon a time", "The dog ran. ", "", " "]
        .map(str::to_string)
        .to_vec();
    // Long ones that begin alike.
    contexts.extend((0..6).map(|i| format!("{shots}Question {i}: who had the ball?")));
    let endings = [
        " Tom",
        " went home.",
        " and then he saw a very big dog in the park.",
        " it",
    ];
    let mut requests = Vec::new();
    for (i, context) in contexts.iter().enumerate() {
        for ending in &endings[..2 + i % 3] {
            requests.push(Continuation {
                context: context.clone(),
                continuation: (*ending).to_string(),
            });
        }
    }
    requests
}

#[test]
fn log_likelihoods_are_those_of_one_pass_over_the_whole() {
    let tokenizer = Tokenizer::from_pretrained(&folder()).expect("loads");
    let prefix = tokenizer
        .bos_token_id()
        .or(tokenizer.eos_token_id())
        .expect("one of them");
    let requests = requests();
    let reference = model(1);
    let wanted: Vec<LogLikelihood> = requests
        .iter()
        .map(|request| {
            let context = request.context.trim_end();
            let whole = format!("{}{}", request.context, request.continuation);
            if context.is_empty() {
                let mut ids = vec![prefix];
                ids.extend(tokenizer.encode(&whole, false).expect("encodes"));
                let count = ids.len() - 1;
                return expected(reference.model(), &ids, count);
            }
            let count = tokenizer.encode(context, true).expect("encodes").len();
            let ids = tokenizer.encode(&whole, true).expect("encodes");
            expected(reference.model(), &ids, ids.len() - count)
        })
        .collect();
    assert!(wanted.iter().any(|answer| answer.logp < -5.0));
    for batch_tokens in [1, 40, 300, 100_000] {
        for (i, found) in ask(&model(batch_tokens), &requests).iter().enumerate() {
            assert!(
                (found.logp - wanted[i].logp).abs() < 1e-3
                    && found.is_greedy == wanted[i].is_greedy,
                "{batch_tokens}, {:?}: {found:?}, not {:?}",
                requests[i],
                wanted[i]
            );
        }
    }
}

#[test]
fn greedy_texts_are_the_first_choice() {
    let model = model(200);
    let context = "Once upon a time".to_string();
    let request = GenerateUntil {
        context: context.clone(),
        until: Vec::new(),
        max_gen_toks: 6,
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        seed: 0,
    };
    let mut text = String::new();
    model
        .generate_until(&[request], &mut |_, reply| {
            text = reply;
            Ok(())
        })
        .expect("generates");
    let found = ask(
        &model,
        &[
            Continuation {
                context: context.clone(),
                continuation: text.clone(),
            },
            Continuation {
                context,
                continuation: " zebra".into(),
            },
        ],
    );
    assert!(found[0].is_greedy && !found[1].is_greedy, "{text:?}");
}

#[test]
fn contexts_are_cut_on_the_left_and_long_texts_go_in_windows() {
    let model = model(500);
    let (most, tokenizer) = (
        model.model().config().dims().max_position_embeddings,
        model.tokenizer(),
    );
    let text = "The dog saw a cat. ".repeat(most / 3);
    let ids = tokenizer.encode(&text, false).expect("encodes");
    assert!(ids.len() > most + 10);
    let found = ask(
        &model,
        &[Continuation {
            context: text.trim_end().to_string(),
            continuation: " Tom ran.".into(),
        }],
    );
    let whole = tokenizer
        .encode(&format!("{} Tom ran.", text.trim_end()), true)
        .expect("encodes");
    let count = whole.len()
        - tokenizer
            .encode(text.trim_end(), true)
            .expect("encodes")
            .len();
    let wanted = expected(model.model(), &whole[whole.len() - most - 1..], count);
    assert!(
        (found[0].logp - wanted.logp).abs() < 1e-3,
        "{found:?}, not {wanted:?}"
    );

    // Two windows: the prefix and as many tokens as fit, then the rest after as many as there is room for.
    let ids = tokenizer.encode(&text, true).expect("encodes");
    let prefix = tokenizer
        .bos_token_id()
        .or(tokenizer.eos_token_id())
        .expect("one of them");
    let mut sum = 0.0;
    let mut scored = 0;
    while scored < ids.len() {
        let end = (scored + most).min(ids.len());
        let window = match scored {
            0 => [&[prefix], &ids[..end]].concat(),
            _ => ids[end - most - 1..end].to_vec(),
        };
        sum += expected(model.model(), &window, end - scored).logp;
        scored = end;
    }
    let mut answers = [0.0; 3];
    let texts = [text, String::new(), "The dog".to_string()];
    model
        .loglikelihood_rolling(&texts, &mut |i, logp| {
            answers[i] = logp;
            Ok(())
        })
        .expect("answers");
    assert!(
        (answers[0] - sum).abs() < 1e-3 * sum.abs().max(1.0),
        "{} and {sum}",
        answers[0]
    );
    // The begin of text, which the tokenizer adds to an empty one too, is scored as the reference does.
    assert!(answers[1] <= 0.0 && answers[2] < 0.0);
}

#[test]
fn texts_end_at_stop_strings_and_do_not_depend_on_their_batch() {
    let model = model(60);
    let contexts = [
        "Once",
        "The dog ran to the park and",
        "Tom had a ball. Tom",
        "A",
    ];
    let requests: Vec<GenerateUntil> = (contexts.iter().enumerate())
        .map(|(i, context)| GenerateUntil {
            context: context.to_string(),
            until: if i % 2 == 0 {
                vec![".".into(), String::new()]
            } else {
                Vec::new()
            },
            max_gen_toks: 12,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            seed: 0,
        })
        .collect();
    let mut found = vec![None; 4];
    model
        .generate_until(&requests, &mut |i, text| {
            assert!(found[i].replace(text).is_none());
            Ok(())
        })
        .expect("generates");
    let tokenizer = model.tokenizer();
    let settings = GenerationConfig::from_pretrained(&folder(), Some(tokenizer)).expect("reads");
    for (i, request) in requests.iter().enumerate() {
        let prompt = tokenizer.encode(&request.context, true).expect("encodes");
        let settings = GenerationConfig {
            max_new_tokens: 12,
            ..settings.clone()
        };
        let alone = generate(
            model.model(),
            Some(tokenizer),
            &[prompt],
            &settings,
            &Device::default(),
            &mut |_| std::ops::ControlFlow::Continue(()),
        )
        .expect("generates");
        let mut text = tokenizer
            .decode(&alone[0].token_ids, true)
            .expect("decodes");
        if i % 2 == 0
            && let Some(at) = text.find('.')
        {
            text.truncate(at);
        }
        assert_eq!(found[i].as_ref(), Some(&text), "{request:?}");
    }
    let too_long = GenerateUntil {
        max_gen_toks: 1 << 20,
        ..requests[0].clone()
    };
    let error = model
        .generate_until(&[too_long], &mut |_, _| Ok(()))
        .expect_err("no room");
    assert!(error.to_string().contains("max_gen_toks"), "{error}");
}

#[test]
fn equal_sampled_requests_are_drawn_apart_in_one_batch_and_in_several() {
    let request = GenerateUntil {
        context: "Once upon a time there was".into(),
        until: Vec::new(),
        max_gen_toks: 16,
        temperature: 1.5,
        top_p: 1.0,
        top_k: 0,
        seed: 7,
    };
    // One row a batch, and all rows in one.
    for batch_tokens in [1, 1000] {
        let model = model(batch_tokens);
        let mut texts = std::collections::BTreeSet::new();
        model
            .generate_until(&vec![request.clone(); 4], &mut |_, text| {
                texts.insert(text);
                Ok(())
            })
            .expect("generates");
        assert_eq!(texts.len(), 4, "{batch_tokens}: {texts:?}");
    }
}

#[test]
fn a_request_that_cannot_be_scored_is_an_error_with_the_reason() {
    let model = model(100);
    let error = |context: &str, continuation: &str| {
        let request = Continuation {
            context: context.into(),
            continuation: continuation.into(),
        };
        model
            .loglikelihood(&[request], &mut |_, _| Ok(()))
            .expect_err("nothing to score")
            .to_string()
    };
    assert!(error("Once upon a time", "").contains("adds no token"));
    assert!(error("", "").contains("adds no token"));
    let long = "dog ".repeat(20 * model.model().config().dims().max_position_embeddings);
    assert!(error("The", &long).contains("longer than the model"));
}

#[test]
fn conversations_are_rendered_and_left_open() {
    let model = model(100);
    let turns = [("user", "Hi"), ("assistant", "Yes, ")]
        .map(|(role, text)| (role.to_string(), text.to_string()));
    let open = model.apply_chat_template(&turns, false).expect("renders");
    let closed = model
        .apply_chat_template(&turns[..1], true)
        .expect("renders");
    assert!(open.trim_end().ends_with("Yes,"), "{open}");
    assert!(open.starts_with(&closed), "{open} and {closed}");
    let request = ChatRequest {
        messages: vec![ChatMessage::new("user", "Say a word.")],
        temperature: 0.0,
        max_tokens: 4,
        seed: None,
        schema: None,
    };
    let reply = model.chat(&request).expect("answers");
    let usage = reply.usage.expect("counted");
    assert!(usage.prompt_tokens > 3 && (1..=4).contains(&usage.completion_tokens));
    assert_eq!(ChatModel::identity(&model).len(), 64);
}
