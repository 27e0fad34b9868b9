//! A hash of data, by which a resumed run checks that its data has not changed.

use ft_core::fnv1a;

/// The 64-bit FNV-1a hash of the numbers, in hexadecimal.
///
/// It is the same on every machine and in every version, which the standard library's hasher does not
/// guarantee. It detects accidental changes. It is not a cryptographic hash.
///
/// ```
/// assert_eq!(ft_data::fingerprint([]), "cbf29ce484222325");
/// assert_ne!(ft_data::fingerprint([1, 2]), ft_data::fingerprint([2, 1]));
/// ```
pub fn fingerprint(numbers: impl IntoIterator<Item = i64>) -> String {
    fnv1a(numbers.into_iter().flat_map(i64::to_le_bytes))
}
