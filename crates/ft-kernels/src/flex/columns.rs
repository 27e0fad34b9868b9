//! A matrix that several threads write to, each to columns of its own.

/// A matrix whose columns are written by several threads.
pub(super) struct Columns<'a> {
    numbers: *mut f32,
    len: usize,
    cols: usize,
    borrowed: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: it is only written to, each number by one thread, which `Columns::write` requires.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    pub(super) fn new(numbers: &'a mut [f32], cols: usize) -> Self {
        Self {
            numbers: numbers.as_mut_ptr(),
            len: numbers.len(),
            cols,
            borrowed: std::marker::PhantomData,
        }
    }

    /// # Safety
    ///
    /// No other thread writes to these places.
    pub(super) unsafe fn write(&self, row: usize, col: usize, numbers: &[f32]) {
        let start = row * self.cols + col;
        assert!(col + numbers.len() <= self.cols && start + numbers.len() <= self.len);
        // SAFETY: the place is in the slice that is borrowed, as was just checked, and the caller's alone.
        unsafe {
            let to = self.numbers.add(start);
            to.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len());
        }
    }
}
