//! A hash of data, by which a resumed run checks that its data has not changed.

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
    let bytes = numbers.into_iter().flat_map(i64::to_le_bytes);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
