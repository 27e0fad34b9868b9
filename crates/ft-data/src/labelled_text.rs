//! Texts, or pairs of texts, with labels: classes, several classes at once, or a number.

use std::collections::BTreeSet;
use std::path::Path;

use ft_core::{ProblemType, Truncation};
use serde_json::Value;

use crate::columns::Row;
use crate::in_parallel::in_parallel;
use crate::split::split_by;
use crate::{Error, Result, TextColumns, TextInput, TextTokens, read_rows};

/// From so many rows on, labels of which most occur once are an error.
const MANY: usize = 20;

/// A text with what is to be predicted of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledText {
    /// The text, or the first of a pair.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The label.
    pub label: Label,
}

/// What is to be predicted of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Label {
    /// One class.
    Class(String),
    /// Any number of classes.
    Classes(Vec<String>),
    /// A number.
    Number(f64),
}

/// Texts with labels of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledTexts {
    /// The texts, in the order of the file.
    pub rows: Vec<LabelledText>,
    /// The kind of the labels.
    pub problem: ProblemType,
    /// The columns that were read; none if the rows are not those of a file.
    pub columns: Option<TextColumns>,
}

/// A text as token ids, with its label as numbers: the class, a 1 for each class that holds and a 0 for all others, or the
/// number.
#[derive(Clone, Debug, PartialEq)]
pub struct TextExample {
    /// The token ids.
    pub tokens: TextTokens,
    /// The numbers.
    pub labels: Vec<f32>,
}

impl LabelledTexts {
    /// Reads a file ([`read_rows`]) of rows with a text (`text`, `sentence`, `review`, ...) or a pair of texts (`sentence1` and
    /// `sentence2`, `premise` and `hypothesis`, `question` and `answer`, ...) and a label (`label`, `labels`; or one of `class`,
    /// `category`, `score`, `stars`). The first row decides which columns are read: [`columns`](Self::columns).
    ///
    /// Lists are several classes at once. Texts, integers and booleans are classes. Numbers are a regression if one of them is
    /// not whole, or if `problem` is that. In CSV, where all values are text, texts are numbers if all of them are and one has a
    /// fraction, and lists if all of them are lists in JSON. If `problem` is several classes, a text is a list of names, divided
    /// by commas.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, a row lacks a column, labels are of different kinds, or most classes occur only once and
    /// there is no `problem`.
    pub fn load(path: impl AsRef<Path>, problem: Option<ProblemType>) -> Result<Self> {
        Self::load_columns(path, problem, None)
    }

    /// [`load`](Self::load) with the names of the columns.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_columns(
        path: impl AsRef<Path>,
        problem: Option<ProblemType>,
        columns: Option<&TextColumns>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let rows = read_rows(path)?;
        Self::from_rows(&rows, problem, columns).map_err(|error| error.in_file(path))
    }

    fn from_rows(
        rows: &[Value],
        problem: Option<ProblemType>,
        columns: Option<&TextColumns>,
    ) -> Result<Self> {
        let columns = match (columns, rows.first()) {
            (Some(columns), _) => columns.clone(),
            (None, Some(row)) => TextColumns::usual(row)?,
            (None, None) => return Err(Error::Dataset("there are no rows".into())),
        };
        let mut values = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let row = Row::new(row, index + 1, None)?;
            let text = row.text(&columns.text)?.to_string();
            let pair = match &columns.pair {
                Some(name) => Some(row.text(name)?.to_string()),
                None => None,
            };
            values.push((text, pair, row.value(&columns.label)?.clone()));
        }
        let texts = || values.iter().map(|(_, _, label)| label.as_str());
        if let Some(read) = read_texts(texts, problem) {
            values
                .iter_mut()
                .zip(read)
                .for_each(|(row, label)| row.2 = label);
        }
        let fraction = |value: &Value| value.as_f64().is_some_and(|x| x.fract() != 0.0);
        let kind = problem.unwrap_or_else(|| {
            if values.iter().any(|(_, _, label)| label.is_array()) {
                ProblemType::MultiLabelClassification
            } else if values.iter().any(|(_, _, label)| fraction(label)) {
                ProblemType::Regression
            } else {
                ProblemType::SingleLabelClassification
            }
        });
        let rows = values.into_iter().enumerate();
        let rows = rows.map(|(index, (text, pair, label))| {
            let label = label_of(&label, kind).ok_or_else(|| Error::Row {
                row: index + 1,
                reason: format!("the label {label} does not fit {}", fitting(kind)),
            })?;
            Ok(LabelledText { text, pair, label })
        });
        let mut all = Self::new(rows.collect::<Result<_>>()?)?;
        let (count, classes) = (all.rows.len(), all.classes().len());
        let guessed = problem.is_none() && kind == ProblemType::SingleLabelClassification;
        if guessed && count >= MANY && classes * 2 > count {
            return Err(Error::Dataset(format!(
                "the {count} rows have {classes} different labels in `{}`: name the columns if it is not the label, or the \
                 problem type if it is",
                columns.label
            )));
        }
        all.columns = Some(columns);
        Ok(all)
    }

    /// These rows.
    ///
    /// # Errors
    ///
    /// If there are no rows, or their labels are of different kinds.
    pub fn new(rows: Vec<LabelledText>) -> Result<Self> {
        let kind = |row: &LabelledText| match row.label {
            Label::Class(_) => ProblemType::SingleLabelClassification,
            Label::Classes(_) => ProblemType::MultiLabelClassification,
            Label::Number(_) => ProblemType::Regression,
        };
        let Some(problem) = rows.first().map(kind) else {
            return Err(Error::Dataset("there are no rows".into()));
        };
        if let Some(row) = rows.iter().position(|row| kind(row) != problem) {
            return Err(Error::Row {
                row: row + 1,
                reason: format!("the label does not fit {}", fitting(problem)),
            });
        }
        Ok(Self {
            rows,
            problem,
            columns: None,
        })
    }

    /// The names of the classes in order, those that are numbers by their value; of a regression `LABEL_0`.
    pub fn classes(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        for row in &self.rows {
            match &row.label {
                Label::Class(name) => {
                    names.insert(name);
                }
                Label::Classes(several) => names.extend(several),
                Label::Number(_) => return vec!["LABEL_0".into()],
            }
        }
        let mut names: Vec<String> = names.into_iter().cloned().collect();
        if names.iter().all(|name| name.parse::<i64>().is_ok()) {
            names.sort_by_key(|name| name.parse::<i64>().unwrap_or(0));
        }
        names
    }

    /// Two parts by chance, the second with about `fraction` of the rows. Rows with the same texts are in the same part, so
    /// that nothing that is held out was trained on.
    ///
    /// # Errors
    ///
    /// If the fraction is not between 0 and 1, or all rows have the same texts.
    pub fn split(self, fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let (problem, columns) = (self.problem, self.columns);
        let key = |row: &LabelledText| (row.text.clone(), row.pair.clone());
        let (train, held) = split_by(self.rows, key, fraction, seed)?;
        let part = |rows| Self {
            rows,
            problem,
            columns: columns.clone(),
        };
        Ok((part(train), part(held)))
    }

    /// The rows as examples of a model with these classes; the longer text of a pair that is too long is cut.
    ///
    /// # Errors
    ///
    /// If a label is not among the classes, or a text cannot be tokenized.
    pub fn tokenize(&self, input: &TextInput, classes: &[String]) -> Result<Vec<TextExample>> {
        let place = |name: &String| {
            let found = classes.iter().position(|class| class == name);
            found.ok_or_else(|| {
                Error::Sample(format!(
                    "the label {name:?} is not among the model's: {}",
                    classes.join(", ")
                ))
            })
        };
        in_parallel(&self.rows, |row| {
            let encoded = input.encode(&row.text, row.pair.as_deref(), Truncation::LongestFirst)?;
            let labels = match &row.label {
                Label::Class(name) => vec![place(name)? as f32],
                Label::Number(number) => vec![*number as f32],
                Label::Classes(names) => {
                    let mut held = vec![0.0; classes.len()];
                    for name in names {
                        held[place(name)?] = 1.0;
                    }
                    held
                }
            };
            Ok(TextExample {
                tokens: input.tokens(&encoded),
                labels,
            })
        })
    }
}

fn fitting(problem: ProblemType) -> &'static str {
    match problem {
        ProblemType::Regression => "a regression, whose labels are numbers",
        ProblemType::SingleLabelClassification => {
            "a choice of one class, whose labels are names or whole numbers"
        }
        ProblemType::MultiLabelClassification => {
            "a choice of several classes, whose labels are lists of names"
        }
    }
}

/// What labels that are all texts stand for: numbers, or lists of names. None if they are names.
fn read_texts<'a, I: Iterator<Item = Option<&'a str>>>(
    texts: impl Fn() -> I,
    problem: Option<ProblemType>,
) -> Option<Vec<Value>> {
    let lists = || -> Option<Vec<Value>> {
        let list = |text: &str| {
            let value: Option<Value> = serde_json::from_str(text).ok();
            value.filter(Value::is_array)
        };
        texts().map(|text| list(text?)).collect()
    };
    let numbers = || -> Option<Vec<f64>> {
        let number = |text: &str| text.trim().parse().ok().filter(|x: &f64| x.is_finite());
        texts().map(|text| number(text?)).collect()
    };
    let names = |text: &str| -> Value {
        let names = text.split(',').map(str::trim);
        names
            .filter(|name| !name.is_empty())
            .map(Value::from)
            .collect()
    };
    let wanted = |numbers: &Vec<f64>| {
        problem == Some(ProblemType::Regression) || numbers.iter().any(|x| x.fract() != 0.0)
    };
    match problem {
        Some(ProblemType::SingleLabelClassification) => None,
        Some(ProblemType::MultiLabelClassification) => lists().or_else(|| {
            let all = texts().map(|text| text.map(names));
            all.collect()
        }),
        _ => {
            let numbers = numbers().filter(wanted);
            let numbers = numbers.map(|all| all.into_iter().map(Value::from).collect());
            numbers.or_else(lists)
        }
    }
}

fn label_of(label: &Value, problem: ProblemType) -> Option<Label> {
    match problem {
        ProblemType::Regression => label.as_f64().filter(|x| x.is_finite()).map(Label::Number),
        ProblemType::SingleLabelClassification => class_of(label).map(Label::Class),
        ProblemType::MultiLabelClassification => {
            let names = label.as_array()?.iter().map(class_of);
            names.collect::<Option<_>>().map(Label::Classes)
        }
    }
}

fn class_of(label: &Value) -> Option<String> {
    match label {
        Value::String(name) => Some(name.clone()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Number(number) => {
            let whole = number.as_f64().filter(|x| x.fract() == 0.0)?;
            Some(format!("{whole:.0}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(rows: Value) -> Result<LabelledTexts> {
        let rows = rows.as_array().cloned().unwrap_or_default();
        LabelledTexts::from_rows(&rows, None, None)
    }

    #[test]
    fn the_kind_of_the_labels_is_found() {
        let classes = read(json!([{"text": "a", "label": 10}, {"text": "b", "label": 9}]));
        let classes = classes.expect("classes");
        assert_eq!(classes.problem, ProblemType::SingleLabelClassification);
        assert_eq!(classes.classes(), ["9", "10"]);
        let numbers = read(json!([
            {"sentence1": "a", "sentence2": "b", "score": 1},
            {"sentence1": "c", "sentence2": "d", "score": 2.5}
        ]));
        let numbers = numbers.expect("numbers");
        assert_eq!(numbers.problem, ProblemType::Regression);
        assert_eq!(numbers.rows[0].pair.as_deref(), Some("b"));
        let several =
            read(json!([{"text": "a", "labels": []}, {"text": "b", "labels": ["x", "w"]}]));
        let several = several.expect("several");
        assert_eq!(several.problem, ProblemType::MultiLabelClassification);
        assert_eq!(several.classes(), ["w", "x"]);
    }

    #[test]
    fn labels_of_csv_are_numbers_lists_or_names() {
        let folder = tempfile::TempDir::new().expect("folder");
        let path = folder.path().join("rows.csv");
        let load = |lines: &str, problem| {
            std::fs::write(&path, lines).expect("writes");
            LabelledTexts::load(&path, problem)
        };
        let scores = load("text,score\nfine,3.5\nbad,1.2\nso so,2\n", None).expect("numbers");
        assert_eq!(scores.problem, ProblemType::Regression);
        assert_eq!(scores.rows[2].label, Label::Number(2.0));
        let whole = "text,score\nfine,3\nbad,1\n";
        assert_eq!(load(whole, None).expect("classes").classes(), ["1", "3"]);
        let numbers = load(whole, Some(ProblemType::Regression)).expect("numbers");
        assert_eq!(numbers.rows[0].label, Label::Number(3.0));
        let lists = load("text,labels\na,\"[\"\"x\"\", \"\"y\"\"]\"\nb,[]\n", None);
        assert_eq!(lists.expect("lists").classes(), ["x", "y"]);
        let several = Some(ProblemType::MultiLabelClassification);
        let names = load("text,labels\na,\"x, z\"\nb,\n", several).expect("names");
        assert_eq!(names.classes(), ["x", "z"]);
        assert_eq!(names.rows[1].label, Label::Classes(Vec::new()));
    }

    #[test]
    fn a_class_for_each_row_is_an_error() {
        let rows = |repeats: usize| -> Value {
            let row = |i: usize| json!({"text": format!("text {i}"), "category": format!("c{}", i / repeats)});
            (0..40).map(row).collect()
        };
        let error = read(rows(1)).expect_err("no classes").to_string();
        assert!(
            error.contains("40 different labels in `category`"),
            "{error}"
        );
        assert!(read(rows(2)).is_ok());
    }

    #[test]
    fn labels_of_another_kind_are_an_error_with_the_row() {
        let error = read(json!([{"text": "a", "label": 0.5}, {"text": "b", "label": "x"}]));
        let error = error.expect_err("two kinds").to_string();
        assert!(
            error.contains("row 2") && error.contains("regression"),
            "{error}"
        );
        let error = read(json!([{"text": "a"}]))
            .expect_err("no label")
            .to_string();
        assert!(error.contains("`label`"), "{error}");
    }

    #[test]
    fn equal_texts_are_not_divided() {
        let row = |i: usize| LabelledText {
            text: format!("text {}", i / 4),
            pair: None,
            label: Label::Number(i as f64),
        };
        let all = LabelledTexts::new((0..40).map(row).collect()).expect("rows");
        let (train, held) = all.split(0.2, 3).expect("splits");
        assert_eq!((train.rows.len(), held.rows.len()), (32, 8));
        let texts = |part: &LabelledTexts| -> BTreeSet<String> {
            part.rows.iter().map(|row| row.text.clone()).collect()
        };
        assert!(texts(&train).is_disjoint(&texts(&held)));
    }
}
