//! Products with packed weights whose inputs are not rounded.

use std::cell::Cell;

thread_local! {
    static EXACT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `compute` with exact inputs of products with packed weights.
///
/// On the CPU the inputs of such products are rounded to 8 bits where nothing can need a gradient, and are exact on a
/// device with autodiff. Log-probabilities of the two differ by about a hundredth a token. So what is compared with numbers of a training
/// step, such as those of a reference, must be exact too. It applies to operations of this thread.
///
/// Inputs of products with [`PackedFormat::INT8`](crate::PackedFormat::INT8) are rounded in both cases, in the same way.
pub fn exact<T>(compute: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            EXACT.set(self.0);
        }
    }
    let _restore = Restore(EXACT.replace(true));
    compute()
}

/// Whether inputs must not be rounded.
#[cfg(feature = "cpu")]
pub(crate) fn is_exact() -> bool {
    EXACT.get()
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_the_computation_also_if_that_panics() {
        assert!(!is_exact());
        assert!(exact(|| exact(is_exact) && is_exact()));
        assert!(!is_exact());
        assert!(std::panic::catch_unwind(|| exact(|| panic!("stop"))).is_err());
        assert!(!is_exact());
    }
}
