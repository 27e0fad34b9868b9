//! TensorBoard's event files: records of `length, crc(length), event, crc(event)`, each event a protocol buffer.
//!
//! A process writes a file of its own. It begins with a session start, at which TensorBoard drops what earlier files have of the same
//! and later steps: those that a resumed run takes again, or all of a run that begins again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Tracker;
use super::crc32c::masked;
use super::protobuf::{bytes, double, float, number};
use crate::BoxError;

/// Writes event files that `tensorboard --logdir FOLDER` shows.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    file: Option<File>,
}

impl TensorBoard {
    /// Event files in this folder, which is made when the run begins.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self {
            folder: folder.as_ref().to_path_buf(),
            file: None,
        }
    }

    fn write(&mut self, event: &[u8]) -> Result<(), BoxError> {
        let folder = &self.folder;
        let file = self
            .file
            .as_mut()
            .ok_or("TensorBoard::begin was not called")?;
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length).to_le_bytes());
        record.extend(event);
        record.extend(masked(event).to_le_bytes());
        let written = file.write_all(&record);
        written.map_err(|error| format!("cannot write events to {}: {error}", folder.display()))?;
        Ok(())
    }
}

impl Tracker for TensorBoard {
    fn begin(&mut self, after: usize) -> Result<(), BoxError> {
        let folder = &self.folder;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let failed = |error| format!("cannot write to {}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(failed)?;
        let mut options = File::options();
        options.write(true).create_new(true);
        // A run that is resumed within a second gets the next number.
        let mut next = 0;
        self.file = loop {
            let name = format!("events.out.tfevents.{now}.ft.{}.{next}", std::process::id());
            match options.open(folder.join(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => next += 1,
                opened => break Some(opened.map_err(failed)?),
            }
        };
        self.write(&event(0, 3, b"brain.Event:2"))?;
        // The first step that follows; a run from the beginning may log an evaluation of step 0.
        let first = if after == 0 { 0 } else { after + 1 };
        // SessionLog { status: START }
        self.write(&event(first, 7, &[0x08, 1]))
    }

    fn log(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<(), BoxError> {
        let mut summary = Vec::new();
        for (name, value) in scalars {
            // Value { tag, simple_value }
            let mut one = Vec::new();
            bytes(1, name.as_bytes(), &mut one);
            float(2, *value as f32, &mut one);
            bytes(1, &one, &mut summary);
        }
        self.write(&event(step, 5, &summary))
    }

    fn finish(&mut self) -> Result<(), BoxError> {
        match &self.file {
            Some(file) => Ok(file.sync_all()?),
            None => Ok(()),
        }
    }
}

/// Event { wall_time: 1, step: 2, one field of bytes }
fn event(step: usize, field: u64, payload: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut event = Vec::new();
    double(1, now.map_or(0.0, |now| now.as_secs_f64()), &mut event);
    number(2, step as u64, &mut event);
    bytes(field, payload, &mut event);
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that `tensorboard.summary.writer` has for `Event(step=300, summary={value: {tag: "a", simple_value: 0.5}})` behind
    /// the time.
    #[test]
    fn an_event_has_the_bytes_of_its_protocol_buffer() {
        let mut summary = Vec::new();
        bytes(1, b"\x0a\x01a\x15\x00\x00\x00\x3f", &mut summary);
        let event = event(300, 5, &summary);
        assert_eq!(event[0], 0x09);
        assert_eq!(
            event[9..],
            *b"\x10\xac\x02\x2a\x0a\x0a\x08\x0a\x01a\x15\x00\x00\x00\x3f"
        );
    }

    #[test]
    fn records_are_whole_and_their_checksums_fit() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for after in [0, 2] {
            let mut tracker = TensorBoard::new(folder.path());
            tracker.begin(after).expect("begins");
            tracker
                .log(
                    after + 1,
                    &[("train/loss".into(), 1.5), ("x".into(), f64::NAN)],
                )
                .expect("logs");
            tracker.finish().expect("ends");
        }
        let mut starts = Vec::new();
        let mut files: Vec<_> = fs::read_dir(folder.path())
            .expect("reads")
            .flatten()
            .map(|e| e.path())
            .collect();
        files.sort();
        for path in files {
            let bytes = fs::read(path).expect("reads");
            let (mut rest, mut events) = (&bytes[..], Vec::new());
            while !rest.is_empty() {
                let (length, after) = rest.split_at(8);
                let size = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
                assert_eq!(after[..4], masked(length).to_le_bytes());
                let event = &after[4..4 + size];
                assert_eq!(after[4 + size..8 + size], masked(event).to_le_bytes());
                rest = &after[8 + size..];
                // Without the time.
                events.push(event[9..].to_vec());
            }
            assert_eq!(events.len(), 3);
            starts.push(events[1].clone());
        }
        // The step, and the session that starts.
        assert_eq!(
            starts,
            [b"\x10\x00\x3a\x02\x08\x01", b"\x10\x03\x3a\x02\x08\x01"]
        );
    }
}
