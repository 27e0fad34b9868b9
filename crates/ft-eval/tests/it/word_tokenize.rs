//! Words against NLTK's.

use ft_eval::text::word_tokenize;

#[test]
fn words_are_nltk_s() {
    let cases: Vec<(String, Vec<String>)> =
        serde_json::from_str(include_str!("../golden/word_tokenize.json")).unwrap();
    assert!(cases.len() > 1000);
    for (line, words) in cases {
        assert_eq!(word_tokenize(&line), words, "{line:?}");
    }
}
