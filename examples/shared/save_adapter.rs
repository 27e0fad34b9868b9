//! An adapter with what it was trained from, also beside every checkpoint.

use std::path::Path;

use anyhow::Result;
use ft::burn::module::Module;
use ft::core::{Parts, StageManifest, Tokenizer};
use ft::peft::ModelCard;
use ft::train::{BoxError, Callback, ModelView};
use serde_json::Value;

/// Saves the adapter of a model with its model card, what it was trained from, and the tokenizer if the model's own has not its
/// chat template. `results` are named numbers for the card.
pub(crate) fn save_adapter<M: Module + Parts>(
    model: &M,
    folder: &Path,
    stage: &StageManifest,
    tokenizer: Option<&Tokenizer>,
    results: &[(&str, Value)],
) -> Result<()> {
    let mut training = stage.settings.clone();
    // The adapter's settings have a list of their own in the card.
    training.shift_remove("trains");
    training.insert("stage".into(), stage.names().into());
    let data = training.shift_remove("data");
    let card = ModelCard {
        datasets: data
            .iter()
            .filter_map(Value::as_str)
            .map(String::from)
            .collect(),
        training,
        results: (results.iter())
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect(),
        ..ModelCard::default()
    };
    ft::peft::save_adapter_with_card(model, "default", folder, &card)?;
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
