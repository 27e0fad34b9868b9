//! Fields of protocol buffers, as bytes (the documentation of protocol buffers, "Encoding").

/// A field of bytes: a text, or a message.
pub(super) fn bytes(field: u64, payload: &[u8], out: &mut Vec<u8>) {
    varint(field << 3 | 2, out);
    varint(payload.len() as u64, out);
    out.extend(payload);
}

/// A field of a whole number.
pub(super) fn number(field: u64, value: u64, out: &mut Vec<u8>) {
    varint(field << 3, out);
    varint(value, out);
}

/// A field of a `float`.
pub(super) fn float(field: u64, value: f32, out: &mut Vec<u8>) {
    varint(field << 3 | 5, out);
    out.extend(value.to_le_bytes());
}

/// A field of a `double`.
pub(super) fn double(field: u64, value: f64, out: &mut Vec<u8>) {
    varint(field << 3 | 1, out);
    out.extend(value.to_le_bytes());
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What a field holds.
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Takes the next field of numbers or bytes; none at the end, or if there is another kind of field.
pub(super) fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = take_varint(rest)?;
    let value = take_varint(rest)?;
    match tag & 7 {
        0 => Some((tag >> 3, Field::Number(value))),
        2 => {
            let (payload, after) = rest.split_at_checked(usize::try_from(value).ok()?)?;
            *rest = after;
            Some((tag >> 3, Field::Bytes(payload)))
        }
        _ => None,
    }
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the documentation: 150 as field 1, "testing" as field 2.
    #[test]
    fn fields_have_the_bytes_of_the_documentation() {
        let mut out = Vec::new();
        number(1, 150, &mut out);
        bytes(2, b"testing", &mut out);
        assert_eq!(out, b"\x08\x96\x01\x12\x07testing");
        let mut rest = &out[..];
        let Some((1, Field::Number(150))) = next_field(&mut rest) else {
            panic!("the number is read");
        };
        let Some((2, Field::Bytes(b"testing"))) = next_field(&mut rest) else {
            panic!("the text is read");
        };
        assert!(next_field(&mut rest).is_none());
        let mut large = Vec::new();
        bytes(17, b"", &mut large);
        assert_eq!(large, [0x8a, 0x01, 0x00]);
    }
}
