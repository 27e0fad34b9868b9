//! The model under training as others may use it: without a graph, without dropout.

use std::cell::OnceCell;
use std::ops::Deref;

use burn::module::Module;

/// The model under training, to look at and to generate from.
///
/// It reads like the model itself, without a graph and with dropout off; a function that takes any model is given
/// `&**view`. The model is made when it is first looked at, so that a callback that does not look costs nothing.
pub struct ModelView<'a, M> {
    model: &'a M,
    valid: OnceCell<M>,
}

impl<'a, M> ModelView<'a, M> {
    /// A view of `model`.
    pub fn new(model: &'a M) -> Self {
        Self {
            model,
            valid: OnceCell::new(),
        }
    }
}

impl<M: Module> Deref for ModelView<'_, M> {
    type Target = M;

    fn deref(&self) -> &M {
        self.valid.get_or_init(|| self.model.valid())
    }
}

impl<M> std::fmt::Debug for ModelView<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelView").finish_non_exhaustive()
    }
}
