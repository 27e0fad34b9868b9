//! The precision of matrix products on the CPU.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// In which precision factors of matrix products are multiplied. Tensors, sums and results are `f32` in both cases, and so are all other
/// operations, weights that train and states of an optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to `bf16`, which has 8 significant bits, where the processor has instructions for it (AVX-512 BF16): they multiply twice as
    /// many numbers in a cycle. This is what PyTorch calls `set_float32_matmul_precision("medium")`.
    ///
    /// It applies to the products of this crate's operations on the CPU: of linear layers, their adapters, heads and attention,
    /// forward and backward. Small products (fewer than 16 rows, columns or terms; a layer with four rows or fewer) stay in `f32`, and
    /// so do products of Burn itself. So a sequence alone and the same in a batch differ by the rounding. Numbers below 1.2e-38 count
    /// as 0, and those above 3.38e38 become infinite.
    Bf16,
}

impl Precision {
    /// Whether [`set_precision`] has an effect here: the processor has the instructions, and the kernels for it are used.
    pub fn is_supported(self) -> bool {
        #[cfg(all(feature = "cpu", target_arch = "x86_64"))]
        return self == Self::F32 || crate::flex::bf16_product::supported();
        #[cfg(not(all(feature = "cpu", target_arch = "x86_64")))]
        return self == Self::F32;
    }
}

static PRECISION: AtomicU8 = AtomicU8::new(0);

thread_local! {
    static IN_F32: Cell<bool> = const { Cell::new(false) };
}

/// Sets the precision of this crate's products in this process from now on. A program calls it once, before any computation.
///
/// Returns false, and leaves it as it is, if the processor has no instructions for it.
pub fn set_precision(precision: Precision) -> bool {
    let possible = precision.is_supported();
    if possible {
        PRECISION.store(precision as u8, Ordering::Relaxed);
    }
    possible
}

/// Runs `compute` with products in `f32`, whatever was set: for numbers that are measured, such as similarities. It applies to
/// linear layers and heads that this thread computes; parts of attention belong to other threads and are not affected.
pub fn in_f32<T>(compute: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IN_F32.set(self.0);
        }
    }
    let _restore = Restore(IN_F32.replace(true));
    compute()
}

/// Whether products of this thread are in `f32`, see [`in_f32`].
#[cfg(all(feature = "cpu", target_arch = "x86_64"))]
pub(crate) fn is_in_f32() -> bool {
    IN_F32.get()
}

/// The precision that was set.
pub fn precision() -> Precision {
    match PRECISION.load(Ordering::Relaxed) {
        0 => Precision::F32,
        _ => Precision::Bf16,
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("{name:?} is not a precision: f32 or bf16")),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_in_f32_for_the_computation() {
        assert!(!IN_F32.get());
        assert!(in_f32(|| in_f32(|| IN_F32.get()) && IN_F32.get()));
        assert!(!IN_F32.get());
    }

    #[test]
    fn names_are_read_and_written() {
        for precision in [Precision::F32, Precision::Bf16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!(
            "fp8"
                .parse::<Precision>()
                .unwrap_err()
                .contains("f32 or bf16")
        );
    }
}
