//! Files that are compressed as a whole, recognised by their first bytes.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use crate::{Error, Result};

/// The contents of a file, decompressed if it is gzip or zstd.
pub(super) fn decompressed(mut file: File, path: &Path) -> Result<Box<dyn Read + Send>> {
    let mut magic = Vec::new();
    let begins = (&mut file).take(4).read_to_end(&mut magic);
    (begins.and_then(|_| file.rewind())).map_err(|source| Error::Read {
        path: path.to_path_buf(),
        source,
    })?;
    match magic[..] {
        [0x1f, 0x8b, ..] => gzip(file, path),
        [0x28, 0xb5, 0x2f, 0xfd] => zstd(file, path),
        _ => Ok(Box::new(file)),
    }
}

#[cfg(feature = "gzip")]
fn gzip(file: File, _: &Path) -> Result<Box<dyn Read + Send>> {
    let buffered = std::io::BufReader::new(file);
    Ok(Box::new(flate2::bufread::MultiGzDecoder::new(buffered)))
}

#[cfg(feature = "zstd")]
fn zstd(file: File, path: &Path) -> Result<Box<dyn Read + Send>> {
    let decoder = zstd::Decoder::new(file).map_err(|source| Error::Read {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(Box::new(decoder))
}

#[cfg(not(feature = "gzip"))]
fn gzip(_: File, path: &Path) -> Result<Box<dyn Read + Send>> {
    Err(without("gzip", path))
}

#[cfg(not(feature = "zstd"))]
fn zstd(_: File, path: &Path) -> Result<Box<dyn Read + Send>> {
    Err(without("zstd", path))
}

#[cfg(not(all(feature = "gzip", feature = "zstd")))]
fn without(feature: &str, path: &Path) -> Error {
    Error::Settings(format!(
        "the file is compressed, and this program was built without the feature `{feature}`: decompress it, or build \
         with --features {feature}"
    ))
    .in_file(path)
}
