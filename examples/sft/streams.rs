//! Rows that are read while the run goes.

use std::path::Path;

use anyhow::Result;
use ft::core::{fnv1a, mix_seed};
use ft::data::{RowStream, StoppingStrategy, data_files};

use crate::Args;

/// A hash of the names and the sizes of the files of streams, whose rows are not read before the training.
pub(crate) fn stream_print(args: &Args) -> Result<String> {
    let mut bytes = Vec::new();
    for path in [Some(&args.data), args.mix.as_ref()].into_iter().flatten() {
        for (name, file) in data_files(path)? {
            bytes.extend(name.bytes());
            bytes.extend(std::fs::metadata(&file)?.len().to_le_bytes());
        }
    }
    Ok(fnv1a(bytes))
}

/// The rows to learn from, without an end: shuffled in a buffer, and mixed.
pub(crate) fn stream(args: &Args) -> Result<RowStream> {
    let open = |path: &Path, source: u64| -> Result<RowStream> {
        let rows = RowStream::open(path)?;
        Ok(rows.shuffle(10_000, mix_seed(args.seed, source)).repeat())
    };
    let data = open(&args.data, 0)?;
    let Some(mix) = &args.mix else {
        return Ok(data);
    };
    let shares = [1.0 - args.mix_share, args.mix_share];
    let sources = [data, open(mix, 1)?];
    let stopping = StoppingStrategy::FirstExhausted;
    Ok(RowStream::interleave(
        sources,
        Some(&shares),
        args.seed,
        stopping,
    )?)
}
