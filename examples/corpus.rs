//! Generates simple English text, on which the small model of `assets/` is pretrained.
//!
//! A grammar in `examples/data/corpus/` is expanded at random: stories, talk, facts, letters, riddles. Characters and
//! things are bound to names once per document, so that a kite that is red in the first sentence is red in the last.
//! The same seed gives the same text.
//!
//! ```sh
//! cargo run --release --example corpus -- --output corpus.txt --megabytes 40
//! cargo run --release --example corpus -- --output instructions.jsonl --instructions 600
//! ```
//!
//! # The grammar
//!
//! A file has sections, each with a heading:
//!
//! - `== table NAME: column | column; key=value`: rows of cells; `a / b` in a cell is a choice, and
//!   `key=value` is a column that is the same in every row
//! - `== list NAME`: a table of one column, its rows separated by commas
//! - `== union NAME: table, table`: the rows of several tables
//! - `== rule NAME`: one text per line; indented lines continue the text
//! - `== doc NAME WEIGHT`: a rule whose texts are whole documents; an indented line is a paragraph
//! - `== ask NAME COUNT`: a rule whose texts are `question => answer`
//!
//! In a text `[a|b]` is one of several. `{x=y}` binds the name `x` to a row of table `y` (or else to the value of the
//! name `y`, or else to a text of rule `y`). `{x.column}` is a cell of the row and `{x}` its first cell; `{y}` is an
//! unbound row of a table or text of a rule. With a capital, as in `{Hero.he}`, the result begins with a capital. A
//! document does not use a row of a table twice as long as there are others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

/// Generates simple English text, on which the small model is pretrained.
#[derive(Parser)]
struct Args {
    /// Where to write the text; documents are separated by an empty line.
    #[arg(long)]
    output: PathBuf,
    /// How much text.
    #[arg(long, default_value_t = 40.0)]
    megabytes: f64,
    /// Write this many questions with answers instead, as JSONL with `messages`.
    #[arg(long)]
    instructions: Option<usize>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object as the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// The grammar, file by file. A union is after its tables.
const GRAMMAR: [(&str, &str); 12] = [
    ("people.txt", include_str!("data/corpus/people.txt")),
    ("things.txt", include_str!("data/corpus/things.txt")),
    ("animals.txt", include_str!("data/corpus/animals.txt")),
    ("places.txt", include_str!("data/corpus/places.txt")),
    ("phrases.txt", include_str!("data/corpus/phrases.txt")),
    ("stories.txt", include_str!("data/corpus/stories.txt")),
    ("fables.txt", include_str!("data/corpus/fables.txt")),
    ("tales.txt", include_str!("data/corpus/tales.txt")),
    ("facts.txt", include_str!("data/corpus/facts.txt")),
    ("actions.txt", include_str!("data/corpus/actions.txt")),
    ("talks.txt", include_str!("data/corpus/talks.txt")),
    ("memory.txt", include_str!("data/corpus/memory.txt")),
];
const QUESTIONS: (&str, &str) = ("questions.txt", include_str!("data/corpus/questions.txt"));

fn main() -> Result<()> {
    let args = Args::parse();
    let mut grammar = Grammar::default();
    for (file, text) in GRAMMAR.into_iter().chain([QUESTIONS]) {
        grammar.read(text).with_context(|| format!("in {file}"))?;
    }
    grammar.add_sums();

    let file = std::fs::File::create(&args.output)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    let mut file = BufWriter::new(file);
    let mut random = Random(args.seed);
    let line = match args.instructions {
        Some(count) => {
            let rows = grammar.instructions(count, &mut random)?;
            for (question, answer) in &rows {
                let row = json!({"messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer},
                ]});
                writeln!(file, "{row}")?;
            }
            json!({"rows": rows.len()})
        }
        None => {
            let wanted = (args.megabytes * 1e6) as usize;
            let bar = ProgressBar::new(wanted as u64);
            bar.set_style(ProgressStyle::with_template(
                "{bar:30} {bytes} of {total_bytes}  {eta} left",
            )?);
            let (mut bytes, mut documents) = (0, 0);
            let mut seen = HashSet::new();
            let mut repeats = 0;
            while bytes < wanted {
                let text = grammar.document(&mut random)?;
                writeln!(file, "{text}\n")?;
                bytes += text.len() + 2;
                documents += 1;
                repeats += usize::from(!seen.insert(fingerprint(&text)));
                bar.set_position(bytes as u64);
            }
            bar.finish();
            json!({"bytes": bytes, "documents": documents, "repeated_documents": repeats})
        }
    };
    file.flush()?;
    eprintln!("wrote {}: {line}", args.output.display());
    if args.json {
        println!("{line}");
    }
    Ok(())
}

/// A text with choices and slots.
type Text = Vec<Piece>;

#[derive(Debug)]
enum Piece {
    Plain(String),
    OneOf(Vec<Text>),
    Slot { path: Path, capital: bool },
    Bind { name: String, path: Path },
}

/// `name` or `name.column`.
#[derive(Debug)]
struct Path {
    name: String,
    column: Option<String>,
}

/// A row of a table by column; the first column is also under the empty name.
type Row = HashMap<String, Text>;

/// The value of a name in a document.
#[derive(Clone)]
enum Value {
    Row(usize),
    Text(String),
}

#[derive(Default)]
struct Grammar {
    rows: Vec<Row>,
    /// The first cells of the rows, as written.
    names: Vec<String>,
    /// The rows of a table.
    tables: HashMap<String, Vec<usize>>,
    rules: HashMap<String, Vec<Text>>,
    /// Documents with their weights, and kinds of questions with their numbers.
    documents: Vec<(String, u64)>,
    questions: Vec<(String, usize)>,
}

/// The state of a document during generation.
struct Scene<'a> {
    random: &'a mut Random,
    bound: BTreeMap<String, Value>,
    /// The last text used of each rule, so that it is not used twice in a row.
    last: HashMap<String, usize>,
    /// The first cells of the rows used so far, in all tables.
    used: HashSet<&'a str>,
    depth: usize,
}

impl Grammar {
    fn read(&mut self, text: &str) -> Result<()> {
        let sections = text.split("\n== ").skip(1);
        for section in sections {
            let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
            self.section(heading, body)
                .with_context(|| format!("in section `{heading}`"))?;
        }
        Ok(())
    }

    fn section(&mut self, heading: &str, body: &str) -> Result<()> {
        let (kind, heading) = heading.split_once(' ').context("a heading has a name")?;
        let (name, rest) = heading
            .split_once([':', ' '])
            .map_or((heading, ""), |(name, rest)| (name, rest.trim()));
        let lines = || {
            body.lines()
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
        };
        match kind {
            "table" => {
                let mut parts = rest.split(';').map(str::trim);
                let columns: Vec<&str> = parts.next().unwrap_or("").split(" | ").collect();
                let same: Vec<(&str, &str)> =
                    parts.filter_map(|part| part.split_once('=')).collect();
                for line in lines() {
                    let cells: Vec<&str> = line.split(" | ").collect();
                    ensure!(
                        cells.len() == columns.len(),
                        "{line:?} has {} cells",
                        cells.len()
                    );
                    let mut row = Row::new();
                    row.insert(String::new(), parse(cells[0])?);
                    for (column, cell) in columns.iter().zip(&cells) {
                        row.insert(column.to_string(), parse_cell(cell)?);
                    }
                    for (column, cell) in &same {
                        row.insert(column.to_string(), parse(cell)?);
                    }
                    self.add_row(name, cells[0], row);
                }
            }
            "list" => {
                for item in lines().flat_map(|line| line.split(", ")) {
                    self.add_row(name, item, Row::from([(String::new(), parse(item)?)]));
                }
            }
            "union" => {
                for part in rest.split(", ") {
                    let rows = self.tables.get(part).context("a union of unknown tables")?;
                    let rows = rows.clone();
                    self.tables
                        .entry(name.to_string())
                        .or_default()
                        .extend(rows);
                }
            }
            "rule" | "doc" | "ask" => {
                let mut texts: Vec<String> = Vec::new();
                for line in lines() {
                    match texts.last_mut().filter(|_| line.starts_with(' ')) {
                        Some(text) => {
                            text.push_str(if kind == "doc" { "\\n" } else { " " });
                            text.push_str(line.trim_start());
                        }
                        None => texts.push(line.to_string()),
                    }
                }
                let texts: Result<_> = texts.iter().map(|text| parse(text)).collect();
                self.rules.insert(name.to_string(), texts?);
                match kind {
                    "doc" => self.documents.push((name.to_string(), rest.parse()?)),
                    "ask" => self.questions.push((name.to_string(), rest.parse()?)),
                    _ => {}
                }
            }
            _ => bail!("there are no sections called {kind:?}"),
        }
        Ok(())
    }

    fn add_row(&mut self, table: &str, name: &str, row: Row) {
        let rows = self.tables.entry(table.to_string()).or_default();
        rows.push(self.rows.len());
        self.rows.push(row);
        self.names.push(name.to_string());
    }

    /// The tables `sum` (up to ten plus ten) and `count` (things in the plural, up to twelve).
    fn add_sums(&mut self) {
        let names = "zero one two three four five six seven eight nine ten eleven twelve thirteen \
            fourteen fifteen sixteen seventeen eighteen nineteen twenty";
        let names: Vec<&str> = names.split(' ').collect();
        for a in 0..=10 {
            for b in 0..=10 {
                let row = || {
                    let cells = [("", a), ("a", a), ("b", b), ("total", a + b)];
                    let cell = |n: usize| vec![Piece::Plain(names[n].to_string())];
                    Row::from(cells.map(|(column, n)| (column.to_string(), cell(n))))
                };
                self.add_row("sum", &format!("{a}+{b}"), row());
                if a >= 2 && b >= 2 && a + b <= 12 {
                    self.add_row("count", &format!("{a}+{b}"), row());
                }
            }
        }
    }

    fn document(&self, random: &mut Random) -> Result<String> {
        let total: u64 = self.documents.iter().map(|(_, weight)| weight).sum();
        let mut at = random.below(total as usize) as u64;
        for (name, weight) in &self.documents {
            if at < *weight {
                return self.text_of(name, random);
            }
            at -= weight;
        }
        bail!("there are no documents")
    }

    /// Questions of every kind, in proportion to their numbers, in random order.
    fn instructions(&self, count: usize, random: &mut Random) -> Result<Vec<(String, String)>> {
        let total: usize = self.questions.iter().map(|(_, count)| count).sum();
        let mut answers = HashSet::new();
        let mut rows = Vec::new();
        for (kind, share) in &self.questions {
            let wanted = share * count / total;
            let (mut found, mut tries) = (0, 0);
            // Facts are finite: a kind may have fewer different answers than requested.
            while found < wanted && tries < 50 * wanted {
                tries += 1;
                let text = self.text_of(kind, random)?;
                let (question, answer) = text.split_once(" => ").context("needs ` => `")?;
                if answers.insert(answer.to_string()) {
                    rows.push((question.to_string(), answer.to_string()));
                    found += 1;
                }
            }
        }
        for i in (1..rows.len()).rev() {
            rows.swap(i, random.below(i + 1));
        }
        Ok(rows)
    }

    fn text_of(&self, rule: &str, random: &mut Random) -> Result<String> {
        let mut scene = Scene {
            random,
            bound: BTreeMap::new(),
            last: HashMap::new(),
            used: HashSet::new(),
            depth: 0,
        };
        let mut out = String::new();
        self.any_text(rule, &mut scene, &mut out)?;
        Ok(polish(&out))
    }

    /// One text of a rule, which differs from the last one.
    fn any_text<'a>(&'a self, rule: &str, scene: &mut Scene<'a>, out: &mut String) -> Result<()> {
        let texts = &self.rules[rule];
        ensure!(scene.depth < 20, "{rule} contains itself");
        let mut pick = scene.random.below(texts.len());
        if scene.last.get(rule) == Some(&pick) {
            pick = scene.random.below(texts.len());
        }
        scene.last.insert(rule.to_string(), pick);
        scene.depth += 1;
        self.expand(&texts[pick], scene, out)
            .with_context(|| format!("in {rule}, text {}", pick + 1))?;
        scene.depth -= 1;
        Ok(())
    }

    fn expand<'a>(&'a self, text: &Text, scene: &mut Scene<'a>, out: &mut String) -> Result<()> {
        for piece in text {
            match piece {
                Piece::Plain(plain) => out.push_str(plain),
                Piece::OneOf(texts) => {
                    let pick = scene.random.below(texts.len());
                    self.expand(&texts[pick], scene, out)?;
                }
                Piece::Slot { path, capital } => {
                    let start = out.len();
                    self.fill(path, scene, out)?;
                    if *capital && let Some(first) = out[start..].chars().next() {
                        let upper: String = first.to_uppercase().collect();
                        out.replace_range(start..start + first.len_utf8(), &upper);
                    }
                }
                Piece::Bind { name, path } => {
                    let value = match (scene.bound.get(&path.name), &path.column) {
                        (_, None) if self.tables.contains_key(&path.name) => {
                            Value::Row(self.any_row(&path.name, scene))
                        }
                        (Some(value), None) => value.clone(),
                        _ => {
                            let mut text = String::new();
                            self.fill(path, scene, &mut text)?;
                            Value::Text(text)
                        }
                    };
                    scene.bound.insert(name.clone(), value);
                }
            }
        }
        Ok(())
    }

    /// The value of a slot: a bound name, or else a table, or else a rule.
    fn fill<'a>(&'a self, path: &Path, scene: &mut Scene<'a>, out: &mut String) -> Result<()> {
        let row = match scene.bound.get(&path.name) {
            Some(Value::Row(row)) => *row,
            Some(Value::Text(text)) => {
                out.push_str(text);
                return Ok(());
            }
            None if self.tables.contains_key(&path.name) => self.any_row(&path.name, scene),
            None if self.rules.contains_key(&path.name) => {
                return self.any_text(&path.name, scene, out);
            }
            None => bail!("nothing is called {:?}", path.name),
        };
        let column = path.column.as_deref().unwrap_or("");
        let cell = self.rows[row]
            .get(column)
            .with_context(|| format!("{:?} has no column {column:?}", path.name))?;
        self.expand(cell, scene, out)
    }

    /// A row of a table that the document has not used, if one is found in a few attempts.
    fn any_row<'a>(&'a self, table: &str, scene: &mut Scene<'a>) -> usize {
        let rows = &self.tables[table];
        let mut row = rows[scene.random.below(rows.len())];
        for _ in 0..20 {
            if !scene.used.contains(self.names[row].as_str()) {
                break;
            }
            row = rows[scene.random.below(rows.len())];
        }
        scene.used.insert(&self.names[row]);
        row
    }
}

/// A cell of a table: a text, or several with ` / ` between.
fn parse_cell(cell: &str) -> Result<Text> {
    let texts: Result<Vec<Text>> = cell.split(" / ").map(parse).collect();
    Ok(vec![Piece::OneOf(texts?)])
}

fn parse(text: &str) -> Result<Text> {
    let mut rest = text;
    let parsed = parse_until(&mut rest, false).with_context(|| format!("in {text:?}"))?;
    ensure!(rest.is_empty(), "{text:?} has a ] or | too many");
    Ok(parsed)
}

/// Parses up to the end, or within brackets up to `|` or `]`.
fn parse_until(rest: &mut &str, in_brackets: bool) -> Result<Text> {
    let mut text = Text::new();
    loop {
        let special = rest.find(['{', '[', '|', ']', '\\']).unwrap_or(rest.len());
        if special > 0 {
            text.push(Piece::Plain(rest[..special].to_string()));
        }
        *rest = &rest[special..];
        match rest.chars().next() {
            None => {
                ensure!(!in_brackets, "a ] is missing");
                return Ok(text);
            }
            Some('{') => {
                let end = rest.find('}').context("a } is missing")?;
                text.push(slot(&rest[1..end]));
                *rest = &rest[end + 1..];
            }
            Some('[') => {
                let mut texts = Vec::new();
                while !rest.starts_with(']') {
                    *rest = &rest[1..];
                    texts.push(parse_until(rest, true)?);
                }
                *rest = &rest[1..];
                text.push(Piece::OneOf(texts));
            }
            Some('\\') => {
                ensure!(
                    rest.starts_with("\\n"),
                    "only \\n is known after a backslash"
                );
                text.push(Piece::Plain("\n".to_string()));
                *rest = &rest[2..];
            }
            Some(_) => return Ok(text),
        }
    }
}

fn slot(text: &str) -> Piece {
    let lower = |name: &str| {
        let mut chars = name.chars();
        chars.next().map_or(String::new(), |first| {
            first.to_lowercase().chain(chars).collect()
        })
    };
    let path = |text: &str| {
        let (name, column) = text
            .split_once('.')
            .map_or((text, None), |(n, c)| (n, Some(c)));
        Path {
            name: lower(name),
            column: column.map(str::to_string),
        }
    };
    match text.split_once('=') {
        Some((name, source)) => Piece::Bind {
            name: lower(name),
            path: path(source),
        },
        None => Piece::Slot {
            path: path(text),
            capital: text.starts_with(char::is_uppercase),
        },
    }
}

/// Corrects the text after random expansion: `a` before a vowel, lower-case letters at the start of a sentence, double
/// spaces.
fn polish(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut words = text.split(' ').filter(|word| !word.is_empty()).peekable();
    let mut starts = true;
    while let Some(word) = words.next() {
        let mut at = 0;
        for (i, letter) in word.char_indices() {
            let quote = letter == '"' && i == at;
            let upper = starts || (i > 0 && i == at && word[..i].ends_with('"'));
            if quote {
                at = i + 1;
            } else if letter == '\n' {
                starts = true;
                at = i + 1;
                out.push(letter);
                continue;
            } else if upper && letter.is_lowercase() {
                starts = false;
                out.extend(letter.to_uppercase());
                continue;
            } else {
                starts = false;
            }
            out.push(letter);
        }
        let bare = word.rsplit(['\n', '"']).next().unwrap_or(word);
        if let Some(next) = words.peek() {
            let next = next.trim_start_matches('"');
            let vowel = next.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']);
            let like_you = ["uni", "use", "one", "eu"]
                .iter()
                .any(|start| next.starts_with(start));
            let silent = ["honest", "hour"]
                .iter()
                .any(|start| next.starts_with(start));
            if (bare == "a" || bare == "A") && (vowel && !like_you || silent) {
                out.push('n');
            }
            starts = starts || word.ends_with(['.', '!', '?']);
            if !word.ends_with('\n') {
                out.push(' ');
            }
        }
    }
    out
}

fn fingerprint(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// SplitMix64 (Steele, Lea and Flood, 2014): short and stable.
struct Random(u64);

impl Random {
    /// A number from 0 to below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}
