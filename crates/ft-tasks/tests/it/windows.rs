//! Windows of long texts.

use ft_core::Tokenizer;
use ft_data::{Answer, Question, Questions, TextInput};

use crate::pipelines::golden;

/// A window has 12 tokens: 3 special ones, 3 of the question, 6 of the text, of which 2 are in two windows.
#[test]
fn windows_overlap_and_lose_nothing() {
    let tokenizer = Tokenizer::from_pretrained(&golden("answers")).expect("loads");
    let context =
        "the river flows through the sea and the water of the kettle into the sea quickly";
    let windows = tokenizer
        .encode_windows("the river end", Some(context), 12, 2)
        .expect("encodes");
    assert!(windows.len() > 2);
    let own: Vec<Vec<(usize, usize)>> = windows
        .iter()
        .map(|window| {
            let tokens = (0..window.len()).filter(|&token| window.sequence[token] == Some(1));
            tokens.map(|token| window.offsets[token]).collect()
        })
        .collect();
    let whole =
        tokenizer.encode_model_input("the river end", Some(context), None, Default::default());
    let whole = whole.expect("encodes");
    let all: Vec<(usize, usize)> = (0..whole.len())
        .filter(|&token| whole.sequence[token] == Some(1))
        .map(|token| whole.offsets[token])
        .collect();
    let mut joined = own[0].clone();
    for pair in own.windows(2) {
        assert_eq!(pair[0][pair[0].len() - 2..], pair[1][..2]);
        joined.extend(&pair[1][2..]);
    }
    assert_eq!(joined, all);
    assert!(windows.iter().all(|window| window.len() <= 12));
    let error = tokenizer.encode_windows("the river end", Some(context), 12, 6);
    assert!(
        error
            .expect_err("no progress")
            .to_string()
            .contains("overlap")
    );
}

#[test]
fn an_answer_is_learnt_in_the_windows_that_hold_it() {
    let tokenizer = Tokenizer::from_pretrained(&golden("answers")).expect("loads");
    let input = TextInput::new(&tokenizer, 40, Some(12));
    let context =
        "the river flows through the sea and the water of the kettle into the sea quickly";
    let start = context.find("kettle").expect("there");
    let questions = Questions {
        rows: vec![Question {
            id: "1".into(),
            question: "the river end".into(),
            context: context.into(),
            answers: vec![Answer {
                text: "kettle".into(),
                start,
            }],
        }],
    };
    let examples = questions.tokenize(&input, 2).expect("tokenizes");
    let mut holding = 0;
    for example in &examples {
        let (first, last) = example.answer;
        if first == 0 {
            assert_eq!(last, 0);
            continue;
        }
        holding += 1;
        let (from, to) = (
            example.offsets[first].expect("text"),
            example.offsets[last].expect("text"),
        );
        assert_eq!(&context[from.0..to.1], "kettle");
    }
    assert!((1..examples.len()).contains(&holding), "{holding}");
}
