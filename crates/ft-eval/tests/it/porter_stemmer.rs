//! Stems against NLTK's.

use ft_eval::text::porter_stem;

#[test]
fn stems_are_nltk_s() {
    let cases: Vec<(String, String)> =
        serde_json::from_str(include_str!("../golden/porter_stemmer.json")).unwrap();
    assert!(cases.len() > 4000);
    for (word, stem) in cases {
        assert_eq!(porter_stem(&word), stem, "{word:?}");
    }
}
