//! An adapter beside every checkpoint.

use std::path::Path;

use ft::core::{AutoCausalLm, StageManifest};
use ft::train::{BoxError, Callback, ModelView};

/// Saves the adapter in every checkpoint, and what it was trained from.
pub(crate) struct SaveAdapter(pub(crate) StageManifest);

impl Callback<AutoCausalLm> for SaveAdapter {
    fn on_checkpoint(
        &mut self,
        model: &ModelView<'_, AutoCausalLm>,
        folder: &Path,
    ) -> Result<(), BoxError> {
        let folder = folder.join("adapter");
        ft::peft::save_adapter(&**model, "default", &folder)?;
        Ok(self.0.save_adapter(&folder)?)
    }
}
