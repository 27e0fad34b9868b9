//! The values of a file's keys.

use super::cursor::Cursor;

/// The types of values: their numbers, how they are read and written.
macro_rules! values {
    ($($id:literal: $name:ident($type:ty), $least:literal;)*) => {
        /// A value of a key.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Value {
            $(#[doc = concat!("A `", stringify!($type), "`.")] $name($type),)*
            /// Several values of one type.
            Array(Array),
        }

        /// Several values of one type.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Array {
            $(#[doc = concat!("Each a `", stringify!($type), "`.")] $name(Vec<$type>),)*
        }

        $(
            impl From<$type> for Value {
                fn from(value: $type) -> Self {
                    Self::$name(value)
                }
            }

            impl From<Vec<$type>> for Value {
                fn from(values: Vec<$type>) -> Self {
                    Self::Array(Array::$name(values))
                }
            }
        )*

        impl Value {
            /// Reads a type and a value of it.
            pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, String> {
                match cursor.u32()? {
                    $($id => <$type as Stored>::read(cursor).map(Self::$name),)*
                    ARRAY => Array::read(cursor).map(Self::Array),
                    other => Err(unknown(other)),
                }
            }

            /// Writes the type and the value.
            pub(super) fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name(value) => {
                        out.extend(u32::to_le_bytes($id));
                        value.write(out);
                    })*
                    Self::Array(array) => {
                        out.extend(ARRAY.to_le_bytes());
                        array.write(out);
                    }
                }
            }
        }

        impl Array {
            fn read(cursor: &mut Cursor<'_>) -> Result<Self, String> {
                match cursor.u32()? {
                    $($id => {
                        let count = cursor.count($least)?;
                        let mut values = Vec::with_capacity(count);
                        for i in 0..count {
                            let value = <$type as Stored>::read(cursor);
                            values.push(value.map_err(|error| format!("element {i}: {error}"))?);
                        }
                        Ok(Self::$name(values))
                    })*
                    ARRAY => Err("an array of arrays, which no key of a model is".into()),
                    other => Err(unknown(other)),
                }
            }

            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name(values) => {
                        out.extend(u32::to_le_bytes($id));
                        out.extend((values.len() as u64).to_le_bytes());
                        values.iter().for_each(|value| value.write(out));
                    })*
                }
            }

            /// How many values there are.
            pub fn len(&self) -> usize {
                match self { $(Self::$name(values) => values.len(),)* }
            }

            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    };
}

values! {
    0: U8(u8), 1;
    1: I8(i8), 1;
    2: U16(u16), 2;
    3: I16(i16), 2;
    4: U32(u32), 4;
    5: I32(i32), 4;
    6: F32(f32), 4;
    7: Bool(bool), 1;
    8: String(String), 8;
    10: U64(u64), 8;
    11: I64(i64), 8;
    12: F64(f64), 8;
}

const ARRAY: u32 = 9;

fn unknown(id: u32) -> String {
    format!(
        "type {id} of a value, and the types are 0 to 12: the file is damaged, or of a version that is not known here"
    )
}

/// How a value lies in a file.
trait Stored: Sized {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, String>;
    fn write(&self, out: &mut Vec<u8>);
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Stored for $type {
            fn read(cursor: &mut Cursor<'_>) -> Result<Self, String> {
                cursor.array().map(<$type>::from_le_bytes)
            }
            fn write(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
        }
    )*};
}

number!(u8, i8, u16, i16, u32, i32, f32, u64, i64, f64);

impl Stored for bool {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, String> {
        match cursor.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(format!("a bool of {other}, which is neither 0 nor 1")),
        }
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Stored for String {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, String> {
        cursor.string()
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.extend((self.len() as u64).to_le_bytes());
        out.extend(self.as_bytes());
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_string())
    }
}

impl Value {
    /// An integer of any type that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => Some(value),
            Self::I8(value) => value.try_into().ok(),
            Self::I16(value) => value.try_into().ok(),
            Self::I32(value) => value.try_into().ok(),
            Self::I64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// A float of any type.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            // The shortest decimal that is this number, as the configuration of the model had it: 1e-5, not 9.9999997e-6.
            Self::F32(value) => value.to_string().parse().ok(),
            Self::F64(value) => Some(value),
            _ => None,
        }
    }

    /// A string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(value) => Some(value),
            _ => None,
        }
    }

    /// A bool.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// An array of strings.
    pub fn as_strings(&self) -> Option<&[String]> {
        match self {
            Self::Array(Array::String(values)) => Some(values),
            _ => None,
        }
    }

    /// An array of integers of any type.
    pub fn as_integers(&self) -> Option<Vec<i64>> {
        fn wide<T: Copy + TryInto<i64>>(values: &[T]) -> Option<Vec<i64>> {
            values
                .iter()
                .map(|value| (*value).try_into().ok())
                .collect()
        }
        match self {
            Self::Array(Array::U8(values)) => wide(values),
            Self::Array(Array::I8(values)) => wide(values),
            Self::Array(Array::U16(values)) => wide(values),
            Self::Array(Array::I16(values)) => wide(values),
            Self::Array(Array::U32(values)) => wide(values),
            Self::Array(Array::I32(values)) => wide(values),
            Self::Array(Array::U64(values)) => wide(values),
            Self::Array(Array::I64(values)) => wide(values),
            _ => None,
        }
    }

    /// An array of `f32`.
    pub fn as_floats(&self) -> Option<&[f32]> {
        match self {
            Self::Array(Array::F32(values)) => Some(values),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let all = [
            Value::from(7u8),
            (-7i8).into(),
            700u16.into(),
            (-700i16).into(),
            70_000u32.into(),
            (-70_000i32).into(),
            1e-5f32.into(),
            true.into(),
            "text".into(),
            (1u64 << 40).into(),
            (-(1i64 << 40)).into(),
            0.1f64.into(),
            vec![1u32, 2].into(),
            vec!["a".to_string(), String::new()].into(),
            vec![false, true].into(),
        ];
        let mut bytes = Vec::new();
        all.iter().for_each(|value| value.write(&mut bytes));
        let mut cursor = Cursor::new(&bytes);
        for value in &all {
            assert_eq!(Value::read(&mut cursor).as_ref(), Ok(value));
        }
        assert_eq!(cursor.left(), 0);
        assert_eq!(all[6].as_f64(), Some(1e-5));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let refused = |bytes: &[u8]| Value::read(&mut Cursor::new(bytes)).expect_err("refused");
        assert!(refused(&[13, 0, 0, 0]).contains("type 13"));
        assert!(refused(&[7, 0, 0, 0, 2]).contains("neither 0 nor 1"));
        assert!(refused(&[9, 0, 0, 0, 9, 0, 0, 0]).contains("array of arrays"));
        let mut strings = vec![9, 0, 0, 0, 8, 0, 0, 0];
        strings.extend(1000u64.to_le_bytes());
        strings.extend([0; 80]);
        assert!(refused(&strings).contains("room for 10"));
    }
}
