// Short texts about invented towns, and questions about them; some are not answered by the text.
//
// Held-out texts have names of their own, and their questions are asked in other words than those of the training.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// A thing that can be said and asked: how it is said, how it is asked in training, how it is asked of held-out texts.
struct Fact {
    said: &'static [&'static str],
    asked: &'static [&'static str],
    held_out: &'static [&'static str],
}

const FACTS: [Fact; 8] = [
    Fact {
        said: &[
            "{t} lies on the river {v}.",
            "The river {v} flows through the town.",
            "Boats reach it on the {v}, a slow river.",
        ],
        asked: &[
            "Which river does {t} lie on?",
            "What is the name of the river?",
            "On which river is {t}?",
        ],
        held_out: &[
            "Which river runs through {t}?",
            "What river is {t} built on?",
        ],
    },
    Fact {
        said: &[
            "It was founded in {v}.",
            "The first houses were built in {v}.",
            "{t} has existed since {v}.",
        ],
        asked: &[
            "When was {t} founded?",
            "In which year was the town founded?",
            "Since when has {t} existed?",
        ],
        held_out: &[
            "What year did {t} begin?",
            "How long ago, in which year, was {t} established?",
        ],
    },
    Fact {
        said: &[
            "The mayor is {v}.",
            "Its mayor, {v}, has been in office for six years.",
            "{v} was elected mayor last spring.",
        ],
        asked: &[
            "Who is the mayor of {t}?",
            "What is the mayor called?",
            "Who was elected mayor?",
        ],
        held_out: &["Who governs {t} as mayor?", "Name the mayor of {t}."],
    },
    Fact {
        said: &[
            "About {v} people live there.",
            "The town has {v} inhabitants.",
            "At the last count it had {v} residents.",
        ],
        asked: &[
            "How many people live in {t}?",
            "How many inhabitants does the town have?",
            "What is the population of {t}?",
        ],
        held_out: &[
            "How large is the population?",
            "What number of residents does {t} have?",
        ],
    },
    Fact {
        said: &[
            "It is famous for its {v}.",
            "Visitors come for the {v}.",
            "The {v} of {t} are known far beyond the valley.",
        ],
        asked: &[
            "What is {t} famous for?",
            "What do visitors come for?",
            "What is the town known for?",
        ],
        held_out: &[
            "For what do tourists travel to {t}?",
            "What made {t} well known?",
        ],
    },
    Fact {
        said: &[
            "The market is held on {v}.",
            "On {v} farmers sell their goods on the square.",
            "Every {v} there is a market.",
        ],
        asked: &[
            "When is the market held?",
            "On which day is there a market in {t}?",
            "Which day is market day?",
        ],
        held_out: &[
            "What day of the week do farmers sell in {t}?",
            "When can one go to the market?",
        ],
    },
    Fact {
        said: &[
            "The school was designed by {v}.",
            "{v} was the architect of the school.",
            "Its school is a work of the architect {v}.",
        ],
        asked: &[
            "Who designed the school?",
            "Who was the architect of the school in {t}?",
            "Whose work is the school?",
        ],
        held_out: &[
            "Which architect planned the school of {t}?",
            "Who drew the plans of the school?",
        ],
    },
    Fact {
        said: &[
            "The oldest building is the {v}.",
            "Nothing in {t} is older than the {v}.",
            "The {v} is the oldest house of the town.",
        ],
        asked: &[
            "What is the oldest building?",
            "Which building in {t} is the oldest?",
            "What is the oldest house of the town?",
        ],
        held_out: &[
            "Which house was built before all others?",
            "What is the most ancient building of {t}?",
        ],
    },
];

const SYLLABLES: [[&[&str]; 2]; 2] = [
    [
        &[
            "Bran", "Keld", "Mor", "Ast", "Wil", "Har", "Lun", "Tor", "Fen", "Gris",
        ],
        &[
            "dale", "wick", "ford", "mere", "stadt", "bury", "holm", "vale",
        ],
    ],
    [
        &["Oster", "Quin", "Ves", "Drum", "Pell", "Sax"],
        &["haven", "bridge", "mouth", "grove", "berg"],
    ],
];
const FIRST: [&[&str]; 2] = [
    &[
        "Anna", "Peter", "Maria", "Thomas", "Helen", "Oskar", "Ruth", "Samuel", "Nora", "Felix",
    ],
    &["Ingrid", "Walter", "Clara", "Hugo", "Edith", "Jonas"],
];
const LAST: [&[&str]; 2] = [
    &[
        "Berg",
        "Lindqvist",
        "Marlow",
        "Okafor",
        "Stein",
        "Duarte",
        "Novak",
        "Weber",
        "Hale",
        "Moreau",
    ],
    &["Falk", "Petrov", "Ashby", "Romero", "Tanaka", "Vogel"],
];
const WARES: [&[&str]; 2] = [
    &[
        "apple cakes",
        "glass bells",
        "wooden clocks",
        "hot springs",
        "white horses",
        "paper lanterns",
        "goat cheese",
        "silver spoons",
    ],
    &[
        "rose gardens",
        "smoked trout",
        "painted doors",
        "honey wine",
        "stone lions",
    ],
];
const BUILDINGS: [&[&str]; 2] = [
    &[
        "mill",
        "town hall",
        "salt house",
        "monastery",
        "lighthouse",
        "granary",
    ],
    &["chapel", "tollhouse", "brewery", "watchtower"],
];
const DAYS: [&str; 7] = [
    "Mondays",
    "Tuesdays",
    "Wednesdays",
    "Thursdays",
    "Fridays",
    "Saturdays",
    "Sundays",
];

/// SQuAD's rows: questions about so many texts, of each some with an answer and one or two without.
pub(crate) fn questions(texts: usize, held_out: bool, seed: u64) -> Vec<Value> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut rows = Vec::new();
    for text in 0..texts {
        rows.extend(about_a_town(usize::from(held_out), text, &mut rng));
    }
    rows
}

fn about_a_town(part: usize, text: usize, rng: &mut StdRng) -> Vec<Value> {
    let pick = |list: &[&'static str], rng: &mut StdRng| list.choose(rng).copied().unwrap_or("");
    let person = |rng: &mut StdRng| format!("{} {}", pick(FIRST[part], rng), pick(LAST[part], rng));
    let town = format!(
        "{}{}",
        pick(SYLLABLES[part][0], rng),
        pick(SYLLABLES[part][1], rng)
    );
    let values = [
        format!("{}e", pick(SYLLABLES[part][0], rng)),
        rng.random_range(1100..1900).to_string(),
        person(rng),
        format!("{},{}00", rng.random_range(1..90), rng.random_range(1..10)),
        pick(WARES[part], rng).to_string(),
        pick(&DAYS, rng).to_string(),
        person(rng),
        pick(BUILDINGS[part], rng).to_string(),
    ];
    let mut order: Vec<usize> = (0..FACTS.len()).collect();
    order.shuffle(rng);
    let told = rng.random_range(4..7);
    let mut context = format!("{town} is a small town in the north.");
    let mut places = Vec::new();
    for &fact in &order[..told] {
        context.push(' ');
        let sentence = pick(FACTS[fact].said, rng).replace("{t}", &town);
        let place = sentence.find("{v}").unwrap_or(0);
        places.push((fact, context.len() + place));
        context.push_str(&sentence.replace("{v}", &values[fact]));
    }
    let asked = |fact: usize, rng: &mut StdRng| {
        let known = &FACTS[fact];
        let list = if part == 0 {
            known.asked
        } else {
            known.held_out
        };
        pick(list, rng).replace("{t}", &town)
    };
    let mut rows = Vec::new();
    places.shuffle(rng);
    for (number, &(fact, start)) in places.iter().take(3).enumerate() {
        rows.push(json!({
            "id": format!("{text}-{number}"), "question": asked(fact, rng), "context": context,
            "answers": {"text": [values[fact]], "answer_start": [start]},
        }));
    }
    let silent = order[told];
    rows.push(json!({
        "id": format!("{text}-none"), "question": asked(silent, rng), "context": context,
        "answers": {"text": [], "answer_start": []},
    }));
    rows
}
