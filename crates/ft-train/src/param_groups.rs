//! Groups of parameters with settings of their own: learning rate, weight decay, optimizer.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::Module;
use ft_core::Parts;
use serde::{Deserialize, Serialize};

use crate::param_kind::{ParamKind, Parameter, parameters};
use crate::{Error, Optim, Result, Selection};

/// Parameters with settings of their own. What is not set is as in the run's settings.
///
/// A parameter belongs to the first group that selects it. Parameters of rank 1 (norms, biases) are spared weight
/// decay in every group.
///
/// ```
/// use ft_train::{ParamGroup, Selection};
///
/// let head = ParamGroup { learning_rate: Some(1e-3), ..ParamGroup::new([Selection::Head]) };
/// let from_settings: ParamGroup =
///     serde_json::from_str(r#"{"select": ["head"], "learning_rate": 1e-3}"#)?;
/// assert_eq!(head, from_settings);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamGroup {
    /// The group has what one of these rules selects.
    pub select: Vec<Selection>,
    /// Peak learning rate; the schedule is that of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// AdamW's decoupled weight decay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// The optimizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optim: Option<Optim>,
}

impl ParamGroup {
    /// A group without settings of its own yet.
    pub fn new(select: impl Into<Vec<Selection>>) -> Self {
        Self {
            select: select.into(),
            learning_rate: None,
            weight_decay: None,
            optim: None,
        }
    }

    /// What is wrong with the settings of the group of this number.
    pub(crate) fn mistakes(&self, number: usize) -> Vec<String> {
        let mut mistakes = Vec::new();
        let name = |field: &str| format!("group {number}: {field}");
        if let Some(rate) = self.learning_rate
            && !(rate.is_finite() && rate > 0.0)
        {
            let name = name("learning_rate");
            mistakes.push(format!(
                "{name} is {rate}: it must be above 0; to freeze use train_only"
            ));
        }
        if let Some(decay) = self.weight_decay
            && !(decay.is_finite() && decay >= 0.0)
        {
            mistakes.push(format!(
                "{} is {decay}: it must be 0 or above",
                name("weight_decay")
            ));
        }
        if self.select.is_empty() {
            mistakes.push(format!(
                "{} is empty: name what belongs to it",
                name("select")
            ));
        }
        mistakes
    }
}

/// The number of the group of each parameter that trains and belongs to one.
///
/// # Errors
///
/// [`Error::MatchesNothing`] if a rule selects nothing that trains, or a group is left with nothing.
pub(crate) fn assign(
    model: &(impl Module + Parts),
    groups: &[ParamGroup],
) -> Result<BTreeMap<String, usize>> {
    let all = parameters(model);
    let mut group_of = BTreeMap::new();
    for (number, group) in groups.iter().enumerate() {
        let mut any = false;
        for rule in &group.select {
            for place in rule.training(&all)? {
                let path = &all[place].path;
                any |= *group_of.entry(path.clone()).or_insert(number) == number;
            }
        }
        if !any {
            let rules: Vec<_> = group.select.iter().map(Selection::to_string).collect();
            return Err(Error::EmptyGroup {
                number,
                rules: rules.join(", "),
            });
        }
    }
    Ok(group_of)
}

/// What of a model trains: tensors and numbers by kind, and the group they belong to.
///
/// ```no_run
/// # fn demo(model: ft_core::AutoCausalLm) -> ft_train::Result<()> {
/// println!("{}", ft_train::ParamTable::new(&model, &[])?);
/// # Ok(())
/// # }
/// ```
///
/// ```text
/// kind       tensors      numbers  trains
/// embedding        1    3,145,728  no
/// linear          35    1,638,400  no
/// norm            11        2,816  no
/// adapter         70      291,840  yes
/// total          117    5,078,784  of which 291,840 train (5.75%)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamTable {
    /// Its rows, by kind.
    pub rows: Vec<ParamRow>,
}

/// A row of a [`ParamTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamRow {
    /// What the parameters are.
    pub kind: ParamKind,
    /// Whether they train.
    pub trains: bool,
    /// Their group, if they train and belong to one, counted from 0.
    pub group: Option<usize>,
    /// How many parameters.
    pub tensors: usize,
    /// How many numbers they have together.
    pub numbers: usize,
}

impl ParamTable {
    /// The table of a model whose optimizer has these groups.
    ///
    /// # Errors
    ///
    /// If a rule of a group selects nothing that trains.
    pub fn new(model: &(impl Module + Parts), groups: &[ParamGroup]) -> Result<Self> {
        let group_of = assign(model, groups)?;
        let mut rows = BTreeMap::<_, (usize, usize)>::new();
        for Parameter {
            path,
            kind,
            numbers,
            trains,
            ..
        } in parameters(model)
        {
            let group = group_of.get(&path).copied();
            let row = rows.entry((kind, trains, group)).or_default();
            row.0 += 1;
            row.1 += numbers;
        }
        let rows = rows.into_iter();
        let rows = rows.map(|((kind, trains, group), (tensors, numbers))| ParamRow {
            kind,
            trains,
            group,
            tensors,
            numbers,
        });
        Ok(Self {
            rows: rows.collect(),
        })
    }

    /// Numbers that train, and all numbers.
    pub fn numbers(&self) -> (usize, usize) {
        let all = self.rows.iter().map(|row| row.numbers).sum();
        let trains = self.rows.iter().filter(|row| row.trains);
        (trains.map(|row| row.numbers).sum(), all)
    }
}

impl fmt::Display for ParamTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:>7} {:>15}  trains",
            "kind", "tensors", "numbers"
        )?;
        for row in &self.rows {
            let ParamRow { kind, tensors, .. } = row;
            let trains = match (row.trains, row.group) {
                (false, _) => "no".to_string(),
                (true, None) => "yes".to_string(),
                (true, Some(group)) => format!("yes, group {group}"),
            };
            writeln!(
                f,
                "{kind:<10} {tensors:>7} {:>15}  {trains}",
                grouped(row.numbers)
            )?;
        }
        let tensors: usize = self.rows.iter().map(|row| row.tensors).sum();
        let (trains, all) = self.numbers();
        let percent = 100.0 * trains as f64 / all.max(1) as f64;
        write!(
            f,
            "{:<10} {tensors:>7} {:>15}  of which {} train ({percent:.2}%)",
            "total",
            grouped(all),
            grouped(trains)
        )
    }
}

/// Digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
