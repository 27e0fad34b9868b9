//! The content of a stream of a PDF file, decompressed within a bound.

use std::io::{Read, Write};

use flate2::read::{DeflateDecoder, ZlibDecoder};
use pdf_extract::{Object, Stream};
use weezl::BitOrder;
use weezl::decode::Decoder;

/// The content as the parser reads it: through its filters, or as it is if one of them is not known.
///
/// # Errors
///
/// If there are more than `most` bytes behind one of the filters.
pub(super) fn content(stream: &Stream, most: usize) -> Result<Vec<u8>, String> {
    let too_long = || format!("a stream of it has more than {most} bytes when decompressed");
    let mut content = stream.content.clone();
    let params = stream.dict.get(b"DecodeParms").ok();
    for filter in stream.filters().unwrap_or_default() {
        let size = match filter {
            b"FlateDecode" => inflated(&content, most),
            b"LZWDecode" => unpacked(&content, params, most),
            // Four bytes from one at most.
            b"ASCII85Decode" => content.len().saturating_mul(4),
            _ => return Ok(stream.content.clone()),
        };
        if size > most || row_bytes(params).is_none_or(|row| row > most) {
            return Err(too_long());
        }
        let mut one = Stream::new(Default::default(), content);
        one.dict.set("Filter", Object::Name(filter.to_vec()));
        if let Some(params) = params {
            one.dict.set("DecodeParms", params.clone());
        }
        content = match one.decompressed_content() {
            Ok(content) => content,
            Err(_) => return Ok(stream.content.clone()),
        };
    }
    match content.len() > most {
        true => Err(too_long()),
        false => Ok(content),
    }
}

/// How many bytes zlib gives, or deflate behind two bytes, which the parser tries next. It stops above `most`.
fn inflated(bytes: &[u8], most: usize) -> usize {
    match count(ZlibDecoder::new(bytes), most) {
        0 => count(
            DeflateDecoder::new(bytes.get(2..).unwrap_or_default()),
            most,
        ),
        size => size,
    }
}

fn count(mut reader: impl Read, most: usize) -> usize {
    let mut buffer = [0; 1 << 13];
    let mut size = 0;
    while size <= most {
        match reader.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(more) => size += more,
        }
    }
    size
}

/// The same for LZW.
fn unpacked(bytes: &[u8], params: Option<&Object>, most: usize) -> usize {
    struct Counter {
        size: usize,
        most: usize,
    }
    impl Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.size += bytes.len();
            match self.size > self.most {
                true => Err(std::io::Error::other("more than the bound")),
                false => Ok(bytes.len()),
            }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut decoder = match number(params, b"EarlyChange") {
        Some(0) => Decoder::new(BitOrder::Msb, 8),
        _ => Decoder::with_tiff_size_switch(BitOrder::Msb, 8),
    };
    let mut counter = Counter { size: 0, most };
    // A damaged stream is read as far as it goes.
    let _ = decoder.into_stream(&mut counter).decode_all(bytes);
    counter.size
}

/// The bytes of a row that a predictor holds. None if there are more than can be counted.
fn row_bytes(params: Option<&Object>) -> Option<usize> {
    let count =
        |key: &[u8], least: i64| usize::try_from(number(params, key).unwrap_or(1).max(least)).ok();
    let bits = count(b"Colors", 1)?.checked_mul(count(b"BitsPerComponent", 8)?)?;
    (bits / 8).checked_mul(count(b"Columns", 1)?)
}

fn number(params: Option<&Object>, key: &[u8]) -> Option<i64> {
    params?.as_dict().ok()?.get(key).ok()?.as_i64().ok()
}
