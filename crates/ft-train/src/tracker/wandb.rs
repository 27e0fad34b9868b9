//! Runs of Weights & Biases as `wandb` writes them offline; `wandb sync FOLDER/offline-run-*` sends them.
//!
//! ```text
//! FOLDER/offline-run-20261130_063000-k3f9x2ab/run-k3f9x2ab.wandb
//! ```
//!
//! The file begins with `:W&B`, a magic number and a version. Then come blocks of 32 KiB as LevelDB's log has them, of records of
//! `crc, length, type, data` (wandb's `datastore.py`; the checksum is that of zlib over type and data). A record that does not fit is divided.
//! The data are protocol buffers (`wandb_internal.proto`): the run, its settings, a record of its history for each step, a summary of the
//! last values, and the end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ft_core::mix_seed;
use ft_core::safetensors_folder::write_file;
use serde_json::Value;

use super::Tracker;
use super::protobuf::{Field, bytes, next_field, number};
use crate::BoxError;

const BLOCK: usize = 1 << 15;
/// Bytes before the data of a record, and at the beginning of the file.
const HEADER: usize = 7;
/// `:W&B`, 0xBEE1, and the version, which readers compare: wandb 0.19 to 0.31 write 0.
const BEGIN: [u8; HEADER] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];

/// Fields of `Record`.
const HISTORY: u64 = 2;
const SUMMARY: u64 = 3;
const CONFIG: u64 = 5;
const RUN: u64 = 17;
const EXIT: u64 = 18;

/// Writes a folder that `wandb sync` sends to a server of Weights & Biases.
///
/// A run that is resumed goes on in the same folder, without what an earlier process logged of later steps.
///
/// ```
/// use ft_train::{Tracker, WandbTracker};
///
/// let folder = std::env::temp_dir().join("wandb-offline");
/// let mut tracker = WandbTracker::new(&folder, "my project").with_setting("learning_rate", 2e-4);
/// tracker.begin(0)?;
/// tracker.log(1, &[("train/loss".into(), 2.5)])?;
/// tracker.finish()?;
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Debug)]
pub struct WandbTracker {
    folder: PathBuf,
    project: String,
    settings: BTreeMap<String, Value>,
    path: PathBuf,
    file: Option<File>,
    /// Bytes of the file, and how many records it has.
    length: usize,
    records: u64,
    /// The last value of each number.
    last: BTreeMap<String, Value>,
    began: f64,
    /// The numbers of a step until the next step, since a step is one record.
    open: Option<(usize, BTreeMap<String, Value>)>,
}

impl WandbTracker {
    /// Runs of `project` in a folder, which is made when the run begins.
    pub fn new(folder: impl AsRef<Path>, project: &str) -> Self {
        Self {
            folder: folder.as_ref().to_path_buf(),
            project: project.to_string(),
            settings: BTreeMap::new(),
            path: PathBuf::new(),
            file: None,
            length: 0,
            records: 0,
            last: BTreeMap::new(),
            began: 0.0,
            open: None,
        }
    }

    /// A setting of the run.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(name.to_string(), value.into());
        self
    }

    /// The newest run of the folder.
    fn earlier(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.folder).ok()?.flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with("offline-run-"))
            .collect();
        names.sort();
        let name = names.pop()?;
        let id = name.rsplit('-').next()?;
        let path = self.folder.join(&name).join(format!("run-{id}.wandb"));
        path.is_file().then_some(path)
    }

    fn create(&mut self) -> Result<(), BoxError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let seed = mix_seed(since.as_nanos() as u64, u64::from(std::process::id()));
        let id: String = (0..8)
            .map(|place| {
                let digits = b"abcdefghijklmnopqrstuvwxyz0123456789";
                char::from(digits[mix_seed(seed, place) as usize % digits.len()])
            })
            .collect();
        let name = format!("offline-run-{}-{id}", stamp(since.as_secs()));
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)
            .map_err(|error| format!("cannot write to {}: {error}", folder.display()))?;
        self.path = folder.join(format!("run-{id}.wandb"));
        self.began = since.as_secs_f64();
        self.begin_file(&[])?;

        let mut time = Vec::new();
        number(1, since.as_secs(), &mut time);
        number(2, u64::from(since.subsec_nanos()), &mut time);
        let mut run = Vec::new();
        bytes(1, id.as_bytes(), &mut run);
        bytes(3, self.project.as_bytes(), &mut run);
        bytes(17, &time, &mut run);
        self.record(RUN, &run)?;
        if !self.settings.is_empty() {
            let mut config = Vec::new();
            for (name, value) in &self.settings {
                bytes(1, &item(name, value), &mut config);
            }
            self.record(CONFIG, &config)?;
        }
        Ok(())
    }

    /// Goes on after the steps up to `after`.
    fn resume(&mut self, path: PathBuf, after: usize) -> Result<(), BoxError> {
        let written = fs::read(&path)?;
        let kept: Vec<Vec<u8>> = records(&written)
            .into_iter()
            .filter(|record| match kind_and_step(record) {
                Some((HISTORY, step)) => step.is_some_and(|step| step <= after as u64),
                Some((kind, _)) => ![SUMMARY, EXIT].contains(&kind),
                None => false,
            })
            .collect();
        self.path = path;
        self.began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        self.begin_file(&kept)
    }

    /// Writes the file with these records.
    fn begin_file(&mut self, kept: &[Vec<u8>]) -> Result<(), BoxError> {
        let mut begin = BEGIN.to_vec();
        for record in kept {
            append(record, &mut begin);
        }
        write_file(&self.path, &begin)?;
        self.length = begin.len();
        self.records = kept.len() as u64;
        self.file = Some(File::options().append(true).open(&self.path)?);
        Ok(())
    }

    /// Appends `Record { num, one field }`.
    fn record(&mut self, field: u64, payload: &[u8]) -> Result<(), BoxError> {
        self.records += 1;
        let mut record = Vec::new();
        number(1, self.records, &mut record);
        bytes(field, payload, &mut record);
        // Only the place in the block counts.
        let at = self.length % BLOCK;
        let mut out = vec![0; at];
        append(&record, &mut out);
        let path = &self.path;
        let file = self
            .file
            .as_mut()
            .ok_or("WandbTracker::begin was not called")?;
        let written = file.write_all(&out[at..]);
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        self.length += out.len() - at;
        Ok(())
    }

    /// Writes the step whose numbers were collected.
    fn flush(&mut self) -> Result<(), BoxError> {
        let Some((step, mut numbers)) = self.open.take() else {
            return Ok(());
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        numbers.insert("_timestamp".into(), now.into());
        numbers.insert("_runtime".into(), (now - self.began).into());
        // Readers take the step from the numbers or from the field behind them.
        numbers.insert("_step".into(), step.into());
        let mut history = Vec::new();
        for (name, value) in &numbers {
            bytes(1, &item(name, value), &mut history);
        }
        let mut of_step = Vec::new();
        number(1, step as u64, &mut of_step);
        bytes(2, &of_step, &mut history);
        self.last.extend(numbers);
        self.record(HISTORY, &history)
    }
}

impl Tracker for WandbTracker {
    fn begin(&mut self, after: usize) -> Result<(), BoxError> {
        match self.earlier().filter(|_| after > 0) {
            Some(path) => self.resume(path, after),
            None => self.create(),
        }
    }

    fn log(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<(), BoxError> {
        if self.open.as_ref().is_some_and(|(open, _)| *open != step) {
            self.flush()?;
        }
        let (_, numbers) = self.open.get_or_insert_with(|| (step, BTreeMap::new()));
        for (name, value) in scalars {
            let value = match value.is_finite() {
                true => Value::from(*value),
                false if value.is_nan() => "NaN".into(),
                false if *value > 0.0 => "Infinity".into(),
                false => "-Infinity".into(),
            };
            numbers.insert(name.clone(), value);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        self.flush()?;
        let mut summary = Vec::new();
        for (name, value) in &self.last {
            bytes(1, &item(name, value), &mut summary);
        }
        self.record(SUMMARY, &summary)?;
        // RunExitRecord { exit_code: 0 }
        self.record(EXIT, &[])?;
        match &self.file {
            Some(file) => Ok(file.sync_all()?),
            None => Ok(()),
        }
    }
}

impl Drop for WandbTracker {
    /// The last step of a run that an error ended.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// `{ key, value_json }` of settings, histories and summaries.
fn item(name: &str, value: &Value) -> Vec<u8> {
    let mut item = Vec::new();
    bytes(1, name.as_bytes(), &mut item);
    // What is not finite stands without quotation marks, as Python reads it.
    let text = match value.as_str() {
        Some(text @ ("NaN" | "Infinity" | "-Infinity")) => text.to_string(),
        _ => value.to_string(),
    };
    bytes(16, text.as_bytes(), &mut item);
    item
}

/// Appends a record to a file that `out` is the beginning of.
fn append(record: &[u8], out: &mut Vec<u8>) {
    let mut rest = record;
    let mut first = true;
    loop {
        let left = BLOCK - out.len() % BLOCK;
        if left < HEADER {
            out.extend(std::iter::repeat_n(0, left));
            continue;
        }
        let size = rest.len().min(left - HEADER);
        let (part, after) = rest.split_at(size);
        let kind = match (first, after.is_empty()) {
            (true, true) => 1,
            (true, false) => 2,
            (false, false) => 3,
            (false, true) => 4,
        };
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&[kind]);
        checksum.update(part);
        out.extend(checksum.finalize().to_le_bytes());
        out.extend((size as u16).to_le_bytes());
        out.push(kind);
        out.extend(part);
        if after.is_empty() {
            return;
        }
        (rest, first) = (after, false);
    }
}

/// The records of a file, up to the first that is torn.
fn records(file: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    let mut at = HEADER;
    while at < file.len() {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += left;
            continue;
        }
        let Some(header) = file.get(at..at + HEADER) else {
            break;
        };
        let size = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let Some(part) = file.get(at + HEADER..at + HEADER + size) else {
            break;
        };
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&header[6..]);
        checksum.update(part);
        if checksum.finalize().to_le_bytes() != header[..4] {
            break;
        }
        at += HEADER + size;
        let mut record = open.take().unwrap_or_default();
        record.extend(part);
        match header[6] {
            1 | 4 => found.push(record),
            _ => open = Some(record),
        }
    }
    found
}

/// The field of a record, and of a history its step.
fn kind_and_step(record: &[u8]) -> Option<(u64, Option<u64>)> {
    let mut rest = record;
    while let Some((field, value)) = next_field(&mut rest) {
        let Field::Bytes(payload) = value else {
            continue;
        };
        let mut rest = payload;
        let mut step = None;
        while field == HISTORY
            && let Some((field, value)) = next_field(&mut rest)
        {
            if let (2, Field::Bytes(mut inner)) = (field, value)
                && let Some((1, Field::Number(number))) = next_field(&mut inner)
            {
                step = Some(number);
            }
        }
        return Some((field, step));
    }
    None
}

/// `20261130_063000` in UTC (Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn stamp(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(stamp(0), "19700101_000000");
        assert_eq!(stamp(951_782_400), "20000229_000000");
        assert_eq!(stamp(1_796_020_200), "20261130_063000");
    }

    #[test]
    fn records_of_any_length_are_read_as_they_were_written() {
        let lengths = [
            0,
            1,
            100,
            BLOCK - HEADER,
            BLOCK,
            3 * BLOCK + 5,
            32_700,
            60,
            7,
        ];
        let all: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
        let mut file = BEGIN.to_vec();
        all.iter().for_each(|record| append(record, &mut file));
        assert_eq!(records(&file), all);
        // A torn record and what follows is left out.
        assert_eq!(records(&file[..file.len() - 1]), all[..all.len() - 1]);
    }

    #[test]
    fn a_resumed_run_has_each_step_once() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let new = || WandbTracker::new(folder.path(), "p").with_setting("lr", 0.1);
        let log = |tracker: &mut WandbTracker, step: usize| {
            let numbers = [("train/loss".to_string(), 1.0 / step as f64)];
            tracker.log(step, &numbers).expect("logs");
            tracker
                .log(step, &[("eval/loss".into(), f64::NAN)])
                .expect("logs");
        };
        let mut tracker = new();
        tracker.begin(0).expect("begins");
        (1..=4).for_each(|step| log(&mut tracker, step));
        drop(tracker);
        let mut tracker = new();
        tracker.begin(2).expect("begins");
        (3..=5).for_each(|step| log(&mut tracker, step));
        tracker.finish().expect("ends");
        let path = tracker.path.clone();
        drop(tracker);

        assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 1);
        let file = fs::read(path).expect("reads");
        // `wandb` compares the version, and reads the step among the numbers, too.
        assert_eq!(file[..HEADER], *b":W&B\xe1\xbe\x00");
        let histories = records(&file).into_iter();
        let histories =
            histories.filter(|record| matches!(kind_and_step(record), Some((HISTORY, Some(_)))));
        for (step, history) in (1..=5).zip(histories) {
            let expected = item("_step", &Value::from(step));
            assert!(history.windows(expected.len()).any(|part| part == expected));
        }
        let found: Vec<_> = records(&file)
            .iter()
            .filter_map(|record| kind_and_step(record))
            .collect();
        let steps = (1..=5).map(|step| (HISTORY, Some(step)));
        let expected: Vec<_> = [(RUN, None), (CONFIG, None)]
            .into_iter()
            .chain(steps)
            .chain([(SUMMARY, None), (EXIT, None)])
            .collect();
        assert_eq!(found, expected);
    }
}
