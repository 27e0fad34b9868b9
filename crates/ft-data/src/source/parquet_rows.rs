//! Parquet files, as those of datasets on the hub. Columns are converted to JSON.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use serde_json::Value;

use super::{Fault, ReadRows};
use crate::{Error, Result};

pub(super) struct ParquetRows {
    rows: RowIter<'static>,
    ended: bool,
}

impl ParquetRows {
    pub(super) fn open(file: File, path: &Path) -> Result<Self> {
        let wrong = |error: ParquetError| {
            Error::Dataset(format!("this is not a valid Parquet file: {error}")).in_file(path)
        };
        let reader = SerializedFileReader::new(file).map_err(wrong)?;
        if reader
            .metadata()
            .row_groups()
            .iter()
            .any(|group| group.num_rows() < 0)
        {
            return Err(wrong(ParquetError::General(
                "a negative number of rows".into(),
            )));
        }
        Ok(Self {
            rows: RowIter::from_file_into(Box::new(reader)),
            ended: false,
        })
    }
}

impl ReadRows for ParquetRows {
    fn next_row(&mut self) -> Option<Result<Value, Fault>> {
        if self.ended {
            return None;
        }
        // The reader panics on some damaged files, and may not be used after that.
        let next = catch_unwind(AssertUnwindSafe(|| self.rows.next()));
        let wrong = match next {
            Ok(Some(Ok(row))) => {
                let mut columns = row.get_column_iter();
                let wrong = columns.find_map(|(name, field)| {
                    Some(format!("column `{name}`: {}", unprintable(field)?))
                });
                return Some(match wrong {
                    None => Ok(row.to_json_value()),
                    Some(reason) => Err(Fault::Row(None, reason)),
                });
            }
            Ok(None) => return None,
            Ok(Some(Err(error))) => error.to_string(),
            Err(_) => "the Parquet file is damaged".to_string(),
        };
        self.ended = true;
        Some(Err(Fault::Io(std::io::Error::other(wrong))))
    }
}

/// What is wrong with a value that has no text: dates beyond the calendar, and decimal numbers that contradict their type.
fn unprintable(field: &Field) -> Option<String> {
    const DAYS: i64 = 95_000_000;
    const DAY: i64 = 86_400_000;
    let date = |value: i64, most: i64| {
        let fits = (-most..=most).contains(&value);
        (!fits).then(|| format!("the date {value} is beyond the calendar"))
    };
    let time = |value: i64, day: i64| {
        let fits = (0..day).contains(&value);
        (!fits).then(|| format!("the time {value} is not within a day"))
    };
    match field {
        Field::Date(days) => date(i64::from(*days), DAYS),
        Field::TimestampMillis(time) => date(*time, DAYS * DAY),
        Field::TimestampMicros(time) => date(*time, DAYS * DAY * 1000),
        Field::TimeMillis(value) => time(i64::from(*value), DAY),
        Field::TimeMicros(value) => time(*value, DAY * 1000),
        Field::Decimal(number) => {
            let (precision, scale) = (number.precision(), number.scale());
            let fits = (0..=1000).contains(&scale) && precision >= scale;
            (!fits).then(|| {
                format!("a decimal number of {precision} digits, {scale} of them behind the point")
            })
        }
        Field::Group(row) => row
            .get_column_iter()
            .find_map(|(_, field)| unprintable(field)),
        Field::ListInternal(list) => list.elements().iter().find_map(unprintable),
        Field::MapInternal(map) => {
            let mut entries = map.entries().iter();
            entries.find_map(|(key, value)| unprintable(key).or_else(|| unprintable(value)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use parquet::data_type::{ByteArray, Decimal};

    use super::*;

    #[test]
    fn every_value_is_converted_or_refused_without_a_panic() {
        for (field, fits) in [
            (Field::Date(0), true),
            (Field::Date(95_000_000), true),
            (Field::Date(-95_000_000), true),
            (Field::Date(i32::MAX), false),
            (Field::Date(i32::MIN), false),
            (Field::TimestampMillis(95_000_000 * 86_400_000), true),
            (Field::TimestampMillis(i64::MAX), false),
            (Field::TimestampMicros(-95_000_000 * 86_400_000_000), true),
            (Field::TimestampMicros(i64::MIN), false),
            (Field::TimeMillis(86_399_999), true),
            (Field::TimeMillis(-1), false),
            (Field::TimeMicros(i64::MAX), false),
            (
                Field::Decimal(Decimal::from_bytes(ByteArray::from(vec![1]), 2, 3)),
                false,
            ),
            (Field::Decimal(Decimal::from_i32(4, 8, 2)), true),
        ] {
            assert_eq!(unprintable(&field).is_none(), fits, "{field:?}");
            if fits {
                assert!(field.to_json_value().is_string());
            }
        }
    }
}
