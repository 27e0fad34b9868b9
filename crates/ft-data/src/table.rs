//! Rows in memory, with the operations of Hugging Face's `Dataset`.
//!
//! Orders depend on a seed only. All operations take the table and give a new one, so that they can be chained.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::Path;

use ft_core::safetensors_folder::write_file;
use serde_json::Value;

use crate::in_parallel::in_parallel;
use crate::shuffle::shuffled;
use crate::split::split;
use crate::stream::{source, sums};
use crate::{Error, Result, StoppingStrategy, read_rows};

/// Rows in memory.
///
/// ```
/// use ft_data::Table;
/// use serde_json::json;
///
/// let rows = [3, 1, 2, 3].map(|n| json!({"n": n}));
/// let table = Table::from_rows(rows.to_vec()).unique("n")?.sort("n")?;
/// assert_eq!(table.column("n")?, [1, 2, 3]);
/// let (train, test) = table.shuffle(42).train_test_split(0.34, 42)?;
/// assert_eq!((train.len(), test.len()), (2, 1));
/// # Ok::<(), ft_data::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    rows: Vec<Value>,
}

impl Table {
    /// The rows of files; see [`read_rows`].
    ///
    /// # Errors
    ///
    /// As [`read_rows`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::from_rows(read_rows(path)?))
    }

    /// These rows.
    pub fn from_rows(rows: Vec<Value>) -> Self {
        Self { rows }
    }

    /// All rows of the tables, in order.
    pub fn concatenate(tables: impl IntoIterator<Item = Self>) -> Self {
        let rows = tables.into_iter().flat_map(|table| table.rows);
        Self::from_rows(rows.collect())
    }

    /// A mixture: each row comes from one of the tables, drawn with these probabilities, or from each in turn without them. Rows of
    /// a table keep their order. The draws are those of [`RowStream::interleave`](crate::RowStream::interleave).
    ///
    /// # Errors
    ///
    /// If a table is empty, there are none, or the probabilities are not as many positive numbers.
    pub fn interleave(
        tables: &[Self],
        probabilities: Option<&[f64]>,
        seed: u64,
        stopping: StoppingStrategy,
    ) -> Result<Self> {
        if tables.is_empty() || tables.iter().any(Self::is_empty) {
            return Err(Error::Settings(
                "a mixture needs one table or more, and rows in each".to_string(),
            ));
        }
        let sums = sums(probabilities, tables.len())?;
        // As a stream of epoch 0.
        let seed = ft_core::mix_seed(seed, 0);
        let mut taken = vec![0_usize; tables.len()];
        let mut ended = vec![false; tables.len()];
        let mut rows = Vec::new();
        loop {
            let at = source(&sums, tables.len(), seed, rows.len() as u64);
            let len = tables[at].len();
            // A table has ended once a row is drawn from it and none is left.
            if taken[at] > 0 && taken[at].is_multiple_of(len) {
                ended[at] = true;
                if stopping == StoppingStrategy::FirstExhausted || ended.iter().all(|ended| *ended)
                {
                    break;
                }
            }
            rows.push(tables[at].rows[taken[at] % len].clone());
            taken[at] += 1;
        }
        Ok(Self { rows })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows.
    pub fn rows(&self) -> &[Value] {
        &self.rows
    }

    /// The rows.
    pub fn into_rows(self) -> Vec<Value> {
        self.rows
    }

    /// The values of a column.
    ///
    /// # Errors
    ///
    /// If a row lacks the column.
    pub fn column(&self, name: &str) -> Result<Vec<&Value>> {
        let values = self.rows.iter().enumerate();
        values
            .map(|(index, row)| row.get(name).ok_or_else(|| lacks(index, name)))
            .collect()
    }

    /// Changes every row, on all cores.
    ///
    /// # Errors
    ///
    /// That of the first row of which `change` returns one, with the row's number.
    pub fn map(self, change: impl Fn(&Value) -> Result<Value, String> + Sync) -> Result<Self> {
        let rows = in_parallel(&self.rows, |row| change(row).map_err(Error::Sample))?;
        Ok(Self { rows })
    }

    /// Keeps the rows of which `keep` is true; it runs on all cores.
    #[must_use]
    pub fn filter(self, keep: impl Fn(&Value) -> bool + Sync) -> Self {
        // It has no errors.
        let kept = in_parallel(&self.rows, |row| Ok(keep(row))).unwrap_or_default();
        let rows = self.rows.into_iter().zip(kept);
        Self::from_rows(rows.filter_map(|(row, keep)| keep.then_some(row)).collect())
    }

    /// The rows of these numbers, counted from 0, in this order.
    ///
    /// # Errors
    ///
    /// If there is no such row.
    pub fn select(&self, indices: impl IntoIterator<Item = usize>) -> Result<Self> {
        let rows = indices.into_iter().map(|index| {
            self.rows.get(index).cloned().ok_or_else(|| {
                Error::Settings(format!("row {index} was selected of {} rows", self.len()))
            })
        });
        Ok(Self::from_rows(rows.collect::<Result<_>>()?))
    }

    /// The rows in an order that depends on the seed.
    #[must_use]
    pub fn shuffle(mut self, seed: u64) -> Self {
        let order = shuffled(self.len(), seed, 0);
        let rows = order.into_iter().map(|index| self.rows[index].take());
        Self::from_rows(rows.collect())
    }

    /// Sorts by a column of numbers or of texts. Equal rows keep their order.
    ///
    /// # Errors
    ///
    /// If a row lacks the column, or its values are neither all numbers nor all texts.
    pub fn sort(mut self, column: &str) -> Result<Self> {
        let values = self.column(column)?;
        let numbers = values.iter().all(|value| value.is_number());
        if !numbers && !values.iter().all(|value| value.is_string()) {
            return Err(Error::Settings(format!(
                "`{column}` has values that are neither all numbers nor all texts, which have no order"
            )));
        }
        self.rows.sort_by(|a, b| order(&a[column], &b[column]));
        Ok(self)
    }

    /// The first row of each value of a column.
    ///
    /// # Errors
    ///
    /// If a row lacks the column.
    pub fn unique(self, column: &str) -> Result<Self> {
        let values = self.column(column)?;
        let mut seen = HashSet::new();
        let first: Vec<bool> = values
            .iter()
            .map(|value| seen.insert(value.to_string()))
            .collect();
        let rows = self.rows.into_iter().zip(first);
        Ok(Self::from_rows(
            rows.filter_map(|(row, first)| first.then_some(row))
                .collect(),
        ))
    }

    /// Splits the rows at random into those to train on and a share to test on, one at least unless the share is 0. Both keep their
    /// order.
    ///
    /// # Errors
    ///
    /// If the share is not in `[0, 1)`, or nothing would be left to train on.
    pub fn train_test_split(self, test_size: f64, seed: u64) -> Result<(Self, Self)> {
        let (train, test) = split(self.rows, test_size, seed)?;
        Ok((Self::from_rows(train), Self::from_rows(test)))
    }

    /// Every `count`-th row, from row `index`, counted from 0.
    ///
    /// # Errors
    ///
    /// If `index` is not below `count`.
    pub fn shard(self, count: usize, index: usize) -> Result<Self> {
        if index >= count {
            return Err(Error::Settings(format!(
                "shard {index} of {count} does not exist: shards are counted from 0"
            )));
        }
        Ok(Self::from_rows(
            self.rows.into_iter().skip(index).step_by(count).collect(),
        ))
    }

    /// Writes JSONL, whole or not at all.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn to_jsonl(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut text = String::new();
        for row in &self.rows {
            text.push_str(&row.to_string());
            text.push('\n');
        }
        Ok(write_file(path.as_ref(), text.as_bytes())?)
    }
}

fn lacks(index: usize, name: &str) -> Error {
    Error::Row {
        row: index + 1,
        reason: format!("there is no column `{name}`"),
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a.as_str(), b.as_str(), a.as_i64(), b.as_i64()) {
        (Some(a), Some(b), ..) => a.cmp(b),
        (_, _, Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let [a, b] = [a, b].map(|value| value.as_f64().unwrap_or(f64::NAN));
            a.total_cmp(&b)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(numbers: impl IntoIterator<Item = i64>) -> Table {
        Table::from_rows(numbers.into_iter().map(|n| json!({"n": n})).collect())
    }

    fn numbers(table: &Table) -> Vec<i64> {
        let column = table.column("n").expect("has the column");
        column.iter().filter_map(|n| n.as_i64()).collect()
    }

    #[test]
    fn tables_take_turns_until_the_first_or_the_last_ends() {
        let tables = [table(0..3), table(10..12)];
        let mixed = |stopping| {
            let mixed = Table::interleave(&tables, None, 0, stopping).expect("mixes");
            numbers(&mixed)
        };
        assert_eq!(mixed(StoppingStrategy::FirstExhausted), [0, 10, 1, 11, 2]);
        assert_eq!(mixed(StoppingStrategy::AllExhausted), [0, 10, 1, 11, 2, 10]);
    }

    /// 10,000 draws of a probability of 0.9 are 9,000 with a standard deviation of 30.
    #[test]
    fn a_mixture_has_the_shares_that_were_asked_for() {
        let tables = [table(0..20_000), table(100_000..120_000)];
        let mixed = Table::interleave(&tables, Some(&[9.0, 1.0]), 7, StoppingStrategy::default());
        let mixed = numbers(&mixed.expect("mixes"));
        let first = mixed[..10_000].iter().filter(|n| **n < 100_000).count();
        assert!((first as i64 - 9_000).abs() < 120, "{first}");
        assert!(Table::interleave(&tables, Some(&[1.0]), 7, StoppingStrategy::default()).is_err());
    }

    #[test]
    fn shards_are_a_partition_and_sorting_keeps_equal_rows_in_order() {
        let shards = [0, 1, 2].map(|i| numbers(&table(0..8).shard(3, i).expect("exists")));
        assert_eq!(shards, [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]);
        assert!(table(0..8).shard(3, 3).is_err());
        let rows = vec![
            json!({"n": 2, "t": "a"}),
            json!({"n": 1.5, "t": "b"}),
            json!({"n": 2, "t": "c"}),
        ];
        let sorted = Table::from_rows(rows).sort("n").expect("are numbers");
        assert_eq!(sorted.column("t").expect("is there"), ["b", "a", "c"]);
        assert!(
            Table::from_rows(vec![json!({"n": 1}), json!({"n": "a"})])
                .sort("n")
                .is_err()
        );
    }

    #[test]
    fn mapping_keeps_the_order_and_names_the_row_of_an_error() {
        let doubled = table(0..100).map(|row| Ok(json!({"n": row["n"].as_i64().map(|n| 2 * n)})));
        assert_eq!(numbers(&doubled.expect("maps"))[99], 198);
        let failed = table(0..100).map(|row| match row["n"].as_i64() {
            Some(41) => Err("no".to_string()),
            _ => Ok(row.clone()),
        });
        assert_eq!(failed.expect_err("fails").to_string(), "row 42: no");
        let even = table(0..10).filter(|row| row["n"].as_i64().is_some_and(|n| n % 2 == 0));
        assert_eq!(numbers(&even), [0, 2, 4, 6, 8]);
    }
}
