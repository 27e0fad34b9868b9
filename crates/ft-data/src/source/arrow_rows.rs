//! Arrow files, as `datasets` saves and caches them: streams of messages, and files, which are a stream between a mark and a list of its
//! messages. Columns are converted to JSON, a batch at a time.
//!
//! Spec: <https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc>.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrowPrimitiveType, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, DataType, TimeUnit};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use super::{Fault, MAX_ROW, ReadRows};
use crate::{Error, Result};

/// What a file, unlike a stream, begins with: a mark of 6 bytes, and 2 more that align what follows.
const MARK: &[u8] = b"ARROW1\0\0";

pub(super) struct ArrowRows {
    batches: StreamReader<BufReader<File>>,
    batch: Option<RecordBatch>,
    /// The next row of the batch.
    next: usize,
    ended: bool,
}

impl ArrowRows {
    pub(super) fn open(file: File, path: &Path) -> Result<Self> {
        let wrong = |reason: String| {
            Error::Dataset(format!("this is not a valid Arrow file: {reason}")).in_file(path)
        };
        let mut input = BufReader::new(file);
        let begins = input.fill_buf().map_err(|source| Error::Read {
            path: path.to_path_buf(),
            source,
        })?;
        if begins.starts_with(MARK) {
            input.consume(MARK.len());
        }
        // The reader panics on some damaged files.
        let batches = catch_unwind(AssertUnwindSafe(|| StreamReader::try_new(input, None)));
        let batches = batches.map_err(|_| wrong("it is damaged".into()))?;
        let batches = batches.map_err(|error| wrong(error.to_string()))?;
        let schema = batches.schema();
        if let Some(field) = schema
            .fields()
            .iter()
            .find(|field| !is_known(field.data_type()))
        {
            return Err(Error::Dataset(format!(
                "the column `{}` has the type {}, which cannot be read: cast it to text or numbers, or remove it",
                field.name(),
                field.data_type()
            ))
            .in_file(path));
        }
        Ok(Self {
            batches,
            batch: None,
            next: 0,
            ended: false,
        })
    }

    /// The batch of the next row, and its place in the batch.
    fn next_place(&mut self) -> Option<Result<(&RecordBatch, usize), Fault>> {
        while !self.ended
            && self
                .batch
                .as_ref()
                .is_none_or(|batch| self.next >= batch.num_rows())
        {
            let next = catch_unwind(AssertUnwindSafe(|| self.batches.next()))
                .unwrap_or_else(|_| Some(Err(ArrowError::IpcError("the file is damaged".into()))));
            let wrong = match next {
                Some(Ok(batch)) if has_more_rows_than_bits(&batch) => {
                    "a batch has more rows than data".to_string()
                }
                Some(Ok(batch)) => {
                    (self.batch, self.next) = (Some(batch), 0);
                    continue;
                }
                Some(Err(error)) => error.to_string(),
                None => {
                    self.ended = true;
                    break;
                }
            };
            self.ended = true;
            return Some(Err(Fault::Io(std::io::Error::other(wrong))));
        }
        let batch = self.batch.as_ref().filter(|_| !self.ended)?;
        self.next += 1;
        Some(Ok((batch, self.next - 1)))
    }
}

impl ReadRows for ArrowRows {
    fn next_row(&mut self) -> Option<Result<Value, Fault>> {
        let found = self.next_place()?;
        Some(found.and_then(|(batch, row)| {
            let schema = batch.schema_ref();
            let columns = schema.fields().iter().zip(batch.columns());
            let mut left = MAX_ROW;
            let object: Result<Map<String, Value>, String> = columns
                .map(|(field, column)| {
                    let value = value(column, row, &mut left);
                    let value =
                        value.map_err(|reason| format!("column `{}`: {reason}", field.name()))?;
                    Ok((field.name().clone(), value))
                })
                .collect();
            object
                .map(Value::Object)
                .map_err(|reason| Fault::Row(None, reason))
        }))
    }

    fn skip_row(&mut self) -> Option<Result<(), Fault>> {
        Some(self.next_place()?.map(|_| ()))
    }
}

/// A batch of nothing but nulls can have any number of rows.
fn has_more_rows_than_bits(batch: &RecordBatch) -> bool {
    batch.num_rows() > 1024 + 8 * batch.get_array_memory_size()
}

fn is_known(kind: &DataType) -> bool {
    use DataType::*;
    match kind {
        Null | Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => true,
        Float16 | Float32 | Float64 | Utf8 | LargeUtf8 | Utf8View => true,
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => true,
        Date32 | Date64 | Timestamp(..) | Decimal128(..) | Decimal256(..) => true,
        List(field) | LargeList(field) | FixedSizeList(field, _) | Map(field, _) => {
            is_known(field.data_type())
        }
        Struct(fields) => fields.iter().all(|field| is_known(field.data_type())),
        Dictionary(_, values) => is_known(values),
        _ => false,
    }
}

/// A value of a column as JSON. Bytes become base64, dates and decimal numbers text, as from Parquet.
///
/// `left` is how many more bytes and values the row may have.
fn value(column: &dyn Array, row: usize, left: &mut usize) -> Result<Value, String> {
    use DataType::*;
    take(left, 1)?;
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        Null => Value::Null,
        Boolean => column.as_boolean().value(row).into(),
        Int8 => native::<Int8Type>(column, row).into(),
        Int16 => native::<Int16Type>(column, row).into(),
        Int32 => native::<Int32Type>(column, row).into(),
        Int64 => native::<Int64Type>(column, row).into(),
        UInt8 => native::<UInt8Type>(column, row).into(),
        UInt16 => native::<UInt16Type>(column, row).into(),
        UInt32 => native::<UInt32Type>(column, row).into(),
        UInt64 => native::<UInt64Type>(column, row).into(),
        Float16 => native::<Float16Type>(column, row).to_f64().into(),
        Float32 => f64::from(native::<Float32Type>(column, row)).into(),
        Float64 => native::<Float64Type>(column, row).into(),
        Utf8 => text(column.as_string::<i32>().value(row), left)?,
        LargeUtf8 => text(column.as_string::<i64>().value(row), left)?,
        Utf8View => text(column.as_string_view().value(row), left)?,
        Binary => bytes(column.as_binary::<i32>().value(row), left)?,
        LargeBinary => bytes(column.as_binary::<i64>().value(row), left)?,
        BinaryView => bytes(column.as_binary_view().value(row), left)?,
        FixedSizeBinary(_) => bytes(column.as_fixed_size_binary().value(row), left)?,
        Date32 => date::<Date32Type>(column, row)?,
        Date64 => date::<Date64Type>(column, row)?,
        Timestamp(TimeUnit::Second, _) => {
            time::<TimestampSecondType>(column, row, "%Y-%m-%d %H:%M:%S +00:00")?
        }
        Timestamp(TimeUnit::Millisecond, _) => {
            time::<TimestampMillisecondType>(column, row, "%Y-%m-%d %H:%M:%S%.3f +00:00")?
        }
        Timestamp(TimeUnit::Microsecond, _) => {
            time::<TimestampMicrosecondType>(column, row, "%Y-%m-%d %H:%M:%S%.6f +00:00")?
        }
        Timestamp(TimeUnit::Nanosecond, _) => {
            time::<TimestampNanosecondType>(column, row, "%Y-%m-%d %H:%M:%S%.9f +00:00")?
        }
        Decimal128(..) => column
            .as_primitive::<Decimal128Type>()
            .value_as_string(row)
            .into(),
        Decimal256(..) => column
            .as_primitive::<Decimal256Type>()
            .value_as_string(row)
            .into(),
        List(_) => list(&column.as_list::<i32>().value(row), left)?,
        LargeList(_) => list(&column.as_list::<i64>().value(row), left)?,
        FixedSizeList(..) => list(&column.as_fixed_size_list().value(row), left)?,
        Struct(fields) => {
            let columns = fields.iter().zip(column.as_struct().columns());
            let values = columns
                .map(|(field, column)| Ok((field.name().clone(), value(column, row, left)?)));
            Value::Object(values.collect::<Result<_, String>>()?)
        }
        Map(..) => {
            let entries = column.as_map().value(row);
            let entry = |row| {
                let key = match value(entries.column(0), row, left)? {
                    Value::String(key) => key,
                    key => key.to_string(),
                };
                Ok((key, value(entries.column(1), row, left)?))
            };
            Value::Object(
                (0..entries.len())
                    .map(entry)
                    .collect::<Result<_, String>>()?,
            )
        }
        Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let key = value(dictionary.keys(), row, left)?.as_u64();
            let key = key.and_then(|key| usize::try_from(key).ok());
            let values = dictionary.values();
            match key.filter(|key| *key < values.len()) {
                Some(key) => value(values, key, left)?,
                None => return Err("a key that its dictionary does not have".into()),
            }
        }
        other => return Err(format!("the type {other} cannot be read")),
    })
}

fn take(left: &mut usize, count: usize) -> Result<(), String> {
    let more = left.checked_sub(count);
    *left = more.ok_or_else(|| format!("a row of more than {MAX_ROW} bytes or values"))?;
    Ok(())
}

fn native<T: ArrowPrimitiveType>(column: &dyn Array, row: usize) -> T::Native {
    column.as_primitive::<T>().value(row)
}

fn text(text: &str, left: &mut usize) -> Result<Value, String> {
    take(left, text.len())?;
    Ok(text.into())
}

fn bytes(bytes: &[u8], left: &mut usize) -> Result<Value, String> {
    take(left, bytes.len())?;
    Ok(BASE64_STANDARD.encode(bytes).into())
}

fn list(values: &dyn Array, left: &mut usize) -> Result<Value, String> {
    (0..values.len())
        .map(|row| value(values, row, left))
        .collect()
}

fn date<T: ArrowTemporalType>(column: &dyn Array, row: usize) -> Result<Value, String>
where
    i64: From<T::Native>,
{
    let date = column.as_primitive::<T>().value_as_date(row);
    let date = date.ok_or("a date beyond the calendar")?;
    Ok(date.to_string().into())
}

/// In UTC.
fn time<T: ArrowTemporalType>(column: &dyn Array, row: usize, format: &str) -> Result<Value, String>
where
    i64: From<T::Native>,
{
    let time = column.as_primitive::<T>().value_as_datetime(row);
    let time = time.ok_or("a time beyond the calendar")?;
    Ok(time.format(format).to_string().into())
}
