// Product reviews, made by chance: texts with their sentiment and with the places of brands, products, parts and prices.
//
// Reviews that are held out have brands, products and words of praise and blame that no other review has, so that nothing is
// measured that could have been learnt by heart.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// The words that training rows, or held-out rows, are made of.
struct Words {
    brands: &'static [&'static str],
    products: &'static [&'static str],
    parts: &'static [&'static str],
    praise: &'static [&'static str],
    blame: &'static [&'static str],
    openings: &'static [&'static str],
}

const TRAINING: Words = Words {
    brands: &[
        "Nordwind",
        "Calvera",
        "Brightside",
        "Tessaro",
        "Ortega & Sons",
        "Lumacore",
        "Fjordline",
        "Pelikan Works",
        "Zenora",
        "Kestrel",
        "Harrow",
        "Maple Hill",
        "Quantix",
        "Velora",
        "Steinbach",
        "Oakridge",
        "Delphi Audio",
        "Arvento",
    ],
    products: &[
        "kettle",
        "electric toothbrush",
        "vacuum cleaner",
        "desk lamp",
        "backpack",
        "coffee grinder",
        "rice cooker",
        "smart watch",
        "garden hose",
        "office chair",
        "mechanical keyboard",
        "blender",
        "camping stove",
        "hair dryer",
        "air fryer",
        "monitor",
    ],
    parts: &[
        "lid",
        "handle",
        "battery",
        "zipper",
        "power cord",
        "display",
        "filter",
        "remote control",
        "blade",
        "hinge",
        "strap",
        "motor",
        "water tank",
        "charging case",
    ],
    praise: &[
        "works perfectly",
        "is a joy to use",
        "feels very solid",
        "looks great",
        "was worth every cent",
        "exceeded my expectations",
        "is surprisingly quiet",
        "still works like new",
        "makes my mornings easier",
        "is the best I ever owned",
    ],
    blame: &[
        "broke after a week",
        "is a disappointment",
        "feels cheap",
        "makes a terrible noise",
        "stopped working",
        "leaks everywhere",
        "was a waste of money",
        "smells of burnt plastic",
        "came with scratches",
        "is impossible to clean",
    ],
    openings: &[
        "I bought the {b} {p} for {m}.",
        "We ordered a {p} from {b} last month.",
        "My sister gave me this {b} {p}.",
        "After two years I replaced my old {p} with one by {b}.",
        "Paid {m} for the {p}.",
        "The {p} by {b} arrived on Tuesday.",
        "For {m} you get the {b} {p} and a spare {f}.",
    ],
};

const HELD_OUT: Words = Words {
    brands: &[
        "Silvermoor",
        "Tarkin",
        "Blue Lagoon",
        "Eberhardt",
        "Novaplex",
        "Greystone Labs",
        "Mirabel",
        "Hoxton",
    ],
    products: &[
        "toaster",
        "wireless headphones",
        "tent",
        "frying pan",
        "humidifier",
        "sewing machine",
        "electric scooter",
        "bread maker",
    ],
    parts: &[
        "cover", "button", "plug", "wheel", "pump", "speaker", "cable", "drawer",
    ],
    praise: &[
        "is excellent",
        "does its job wonderfully",
        "never lets me down",
        "is better than I hoped",
        "delights the whole family",
        "is beautifully made",
    ],
    blame: &[
        "is useless",
        "failed within days",
        "is poorly made",
        "annoys me daily",
        "fell apart",
        "never did what the box promises",
    ],
    openings: &[
        "Got a {b} {p} from my parents.",
        "Last week I picked up this {p}, made by {b}.",
        "{m} is a lot for a {p}, even for {b}.",
        "This is my third {p} and the first one from {b}.",
        "My {b} {p} cost {m}.",
    ],
};

/// A text under way, with its spans in characters.
#[derive(Default)]
struct Draft {
    text: String,
    spans: Vec<Value>,
}

impl Draft {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn entity(&mut self, text: &str, label: &str) {
        let start = self.text.chars().count();
        let end = start + text.chars().count();
        self.spans
            .push(json!({"start": start, "end": end, "label": label}));
        self.text.push_str(text);
    }
}

/// So many rows with `text`, `label` (positive, mixed or negative) and `spans` (BRAND, PRODUCT, PART and PRICE).
pub(crate) fn reviews(count: usize, held_out: bool, seed: u64) -> Vec<Value> {
    let mut rng = StdRng::seed_from_u64(seed);
    let words = if held_out { &HELD_OUT } else { &TRAINING };
    (0..count)
        .map(|number| review(words, number, &mut rng))
        .collect()
}

fn review(words: &Words, number: usize, rng: &mut StdRng) -> Value {
    let pick =
        |list: &'static [&'static str], rng: &mut StdRng| list.choose(rng).copied().unwrap_or("");
    let (brand, product) = (pick(words.brands, rng), pick(words.products, rng));
    let amount = rng.random_range(9..300);
    let price = match rng.random_range(0..3) {
        0 => format!("${amount}.99"),
        1 => format!("{amount} euros"),
        _ => format!("{amount} dollars"),
    };
    let mut draft = Draft::default();
    let mut rest = pick(words.openings, rng);
    while let Some(place) = rest.find('{') {
        draft.push(&rest[..place]);
        match &rest[place..place + 3] {
            "{b}" => draft.entity(brand, "BRAND"),
            "{p}" => draft.entity(product, "PRODUCT"),
            "{m}" => draft.entity(&price, "PRICE"),
            _ => draft.entity(pick(words.parts, rng), "PART"),
        }
        rest = &rest[place + 3..];
    }
    draft.push(rest);
    let label = ["positive", "mixed", "negative"][number % 3];
    let count = rng.random_range(2..4);
    let odd = rng.random_range(0..count);
    for clause in 0..count {
        let good = match label {
            "positive" => true,
            "negative" => false,
            _ => (clause == odd) == number.is_multiple_of(2),
        };
        let opinion = pick(if good { words.praise } else { words.blame }, rng);
        match rng.random_range(0..4) {
            0 => {
                draft.push(" The ");
                draft.entity(pick(words.parts, rng), "PART");
            }
            1 => {
                draft.push(" The ");
                draft.entity(product, "PRODUCT");
            }
            2 => {
                draft.push(" Its ");
                draft.entity(pick(words.parts, rng), "PART");
            }
            _ => draft.push(" It"),
        }
        draft.push(&format!(" {opinion}."));
    }
    json!({"text": draft.text, "label": label, "spans": draft.spans})
}
