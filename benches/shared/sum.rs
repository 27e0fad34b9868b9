//! A sum that is as fast as memory is read.

/// The sum, in lanes that the compiler adds at once.
pub(crate) fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 32];
    for chunk in values.chunks_exact(32) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    lanes.iter().sum()
}
