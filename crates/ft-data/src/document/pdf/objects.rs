//! The objects of a PDF file, found where they are written.
//!
//! The file's own table of objects is not read: it can be made so that reading it fills the memory, and so can the streams that hold
//! several objects if they are decompressed without a bound. Programs that repair damaged files look for `12 0 obj` in the same way.
//! If an object is there more than once, the last one counts, since new versions of a document are appended to its file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use pdf_extract::xref::XrefEntry;
use pdf_extract::{Dictionary, Document, Object, ObjectId, Reader, Stream};

use super::content::content;

/// The most bytes of all streams of objects together. An object takes a few dozen times its bytes.
const MAX_OBJECTS: usize = 1 << 25;
/// The most objects that cannot be read. The text of one that does not end may be the rest of the file.
const MAX_DAMAGED: usize = 100;

/// The document, decrypted if it needs no password.
pub(super) fn document(bytes: &[u8]) -> Result<Document, String> {
    let mut document = Document::new();
    let mut places: HashMap<ObjectId, usize> = HashMap::new();
    let mut trailer = trailer(bytes);
    let mut reader = reader(bytes);
    let (mut at, mut damaged) = (0, 0);
    let ends = Instant::now() + Duration::from_secs(10 + (bytes.len() >> 20) as u64);
    while let Some(header) = next_header(bytes, at) {
        at = header.end;
        let Some(mut object) = read(&mut reader, &header) else {
            damaged += 1;
            if damaged > MAX_DAMAGED {
                return Err(format!(
                    "more than {MAX_DAMAGED} of its objects are damaged"
                ));
            }
            continue;
        };
        if let Object::Stream(stream) = &mut object {
            at = end_of_stream(bytes, header.end, stream);
            let is_table = stream.dict.has_type(b"XRef") && stream.dict.has(b"Root");
            if is_table
                && trailer
                    .as_ref()
                    .is_none_or(|(place, _)| *place < header.start)
            {
                trailer = Some((header.start, stream.dict.clone()));
            }
        }
        places.insert(header.id, header.start);
        document.objects.insert(header.id, object);
        if Instant::now() > ends {
            return Err(
                "its objects contradict each other, so that reading it takes too long".into(),
            );
        }
    }
    let (_, trailer) = trailer.ok_or("it has no trailer with a document catalog")?;
    document.trailer = trailer;
    let packed = decrypted(&mut document)?;
    unpack(&mut document, packed, &places)?;
    Ok(document)
}

/// Where `12 0 obj` begins and ends.
struct Header {
    start: usize,
    end: usize,
    id: ObjectId,
}

fn next_header(bytes: &[u8], from: usize) -> Option<Header> {
    let mut at = from;
    loop {
        let place = at + find(&bytes[at..], b"obj")?;
        at = place + 3;
        if let Some((start, id)) = numbers_before(&bytes[from..place]) {
            let (start, end) = (from + start, at);
            return Some(Header { start, end, id });
        }
    }
}

/// The two numbers that end `bytes`, and where they begin.
fn numbers_before(bytes: &[u8]) -> Option<(usize, ObjectId)> {
    let last = |bytes: &[u8]| -> Option<(usize, u32)> {
        let text = bytes.trim_ascii_end();
        let digits = text
            .iter()
            .rev()
            .take(10)
            .take_while(|byte| byte.is_ascii_digit());
        let start = text.len() - digits.count();
        let number = std::str::from_utf8(&text[start..]).ok()?.parse().ok()?;
        Some((start, number))
    };
    let (middle, generation) = last(bytes)?;
    let (start, number) = last(&bytes[..middle])?;
    Some((start, (number, u16::try_from(generation).ok()?)))
}

fn reader(bytes: &[u8]) -> Reader<'_> {
    Reader {
        buffer: bytes,
        document: Document::new(),
        encryption_state: None,
        raw_objects: BTreeMap::new(),
        password: None,
        strict: false,
    }
}

fn read(reader: &mut Reader<'_>, header: &Header) -> Option<Object> {
    let entry = XrefEntry::Normal {
        offset: u32::try_from(header.start).ok()?,
        generation: header.id.1,
    };
    let (number, _) = header.id;
    reader.document.reference_table.insert(number, entry);
    let object = reader.get_object(header.id, &mut HashSet::new()).ok();
    // While an object is read, others may only name numbers: the lengths of streams.
    if !matches!(object, Some(Object::Integer(_))) {
        reader.document.reference_table.entries.remove(&number);
    }
    object
}

/// The object that `bytes` begin with.
fn object(bytes: &[u8]) -> Option<Object> {
    let bytes = [b"1 0 obj ", bytes].concat();
    let header = next_header(&bytes, 0)?;
    read(&mut reader(&bytes), &header)
}

/// Where the content of a stream ends. Content whose length is not known yet is filled in.
fn end_of_stream(bytes: &[u8], header: usize, stream: &mut Stream) -> usize {
    let Some(start) = stream.start_position.filter(|start| *start <= bytes.len()) else {
        let start = header + find(&bytes[header..], b"stream").unwrap_or(0);
        return (start + stream.content.len()).min(bytes.len());
    };
    let length = find(&bytes[start..], b"endstream").unwrap_or(bytes.len() - start);
    let content = &bytes[start..start + length];
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    stream.content = content.strip_suffix(b"\r").unwrap_or(content).to_vec();
    stream.start_position = None;
    start + length
}

/// The last dictionary behind `trailer` that names a catalog, and its place.
fn trailer(bytes: &[u8]) -> Option<(usize, Dictionary)> {
    const LONGEST: usize = 1 << 14;
    let mut end = bytes.len();
    for _ in 0..MAX_DAMAGED {
        let place = bytes[..end]
            .windows(7)
            .rposition(|word| word == b"trailer")?;
        let text = &bytes[place + 7..];
        match object(&text[..text.len().min(LONGEST)]) {
            Some(Object::Dictionary(dictionary)) if dictionary.has(b"Root") => {
                return Some((place, dictionary));
            }
            _ => end = place,
        }
    }
    None
}

/// Decrypts what a password of nothing opens. Takes out the streams of objects.
fn decrypted(document: &mut Document) -> Result<Vec<(ObjectId, Stream)>, String> {
    // `decrypt` would decompress those that have this type.
    const HELD: &[u8] = b"ObjectsThatAreHeld";
    let is_packed = |object: &Object, name: &[u8]| match object {
        Object::Stream(stream) => stream.dict.has_type(name),
        _ => false,
    };
    let all = document.objects.iter_mut();
    let mut ids = Vec::new();
    for (id, object) in all.filter(|(_, object)| is_packed(object, b"ObjStm")) {
        let stream = object.as_stream_mut().map_err(|error| error.to_string())?;
        stream.dict.set("Type", Object::Name(HELD.to_vec()));
        ids.push(*id);
    }
    if document.is_encrypted() {
        document
            .decrypt("")
            .map_err(|error| format!("it is encrypted: {error}"))?;
    }
    let packed = ids
        .into_iter()
        .filter_map(|id| match document.objects.remove(&id) {
            Some(Object::Stream(stream)) => Some((id, stream)),
            _ => None,
        });
    Ok(packed.collect())
}

/// Adds the objects in streams, unless there is a later version of them.
fn unpack(
    document: &mut Document,
    mut packed: Vec<(ObjectId, Stream)>,
    places: &HashMap<ObjectId, usize>,
) -> Result<(), String> {
    let place_of = |id: &ObjectId| places.get(id).copied().unwrap_or(0);
    packed.sort_by_key(|(id, _)| place_of(id));
    let mut left = MAX_OBJECTS;
    for (id, stream) in packed {
        let text = content(&stream, left)?;
        left -= text.len();
        let first = stream.dict.get(b"First").and_then(Object::as_i64);
        let split =
            (first.ok()).and_then(|first| text.split_at_checked(usize::try_from(first).ok()?));
        let Some((index, objects)) = split else {
            continue;
        };
        let numbers = index
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        let numbers = numbers.map(|word| std::str::from_utf8(word).ok()?.parse::<u32>().ok());
        let numbers: Vec<u32> = numbers.map_while(|number| number).collect();
        let mut starts: Vec<(usize, u32)> = numbers
            .chunks_exact(2)
            .map(|pair| (pair[1] as usize, pair[0]))
            .collect();
        starts.sort_unstable();
        for (place, &(start, number)) in starts.iter().enumerate() {
            let end = starts.get(place + 1).map_or(objects.len(), |next| next.0);
            let later = places
                .get(&(number, 0))
                .is_some_and(|own| *own > place_of(&id));
            if !later && let Some(object) = objects.get(start..end).and_then(object) {
                document.objects.insert((number, 0), object);
            }
        }
    }
    Ok(())
}

fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).position(|window| window == word)
}
