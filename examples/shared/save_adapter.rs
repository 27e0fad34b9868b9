//! An adapter with what it was trained from, also beside every checkpoint.

use std::path::Path;

use anyhow::Result;
use ft::burn::module::Module;
use ft::core::{Parts, StageManifest, Tokenizer};
use ft::train::{BoxError, Callback, ModelView};

/// Saves the adapter of a model, what it was trained from, and the tokenizer if the model's own has not its chat template.
pub(crate) fn save_adapter<M: Module + Parts>(
    model: &M,
    folder: &Path,
    stage: &StageManifest,
    tokenizer: Option<&Tokenizer>,
) -> Result<()> {
    ft::peft::save_adapter(model, "default", folder)?;
    if let Some(tokenizer) = tokenizer {
        tokenizer.save_pretrained(folder)?;
    }
    Ok(stage.save_adapter(folder)?)
}

/// Calls a function with the model and a folder in every checkpoint.
pub(crate) struct InCheckpoints<F>(pub(crate) F);

impl<M: Module, F: FnMut(&M, &Path) -> Result<()>> Callback<M> for InCheckpoints<F> {
    fn on_checkpoint(&mut self, model: &ModelView<'_, M>, folder: &Path) -> Result<(), BoxError> {
        Ok((self.0)(&**model, &folder.join("adapter"))?)
    }
}
